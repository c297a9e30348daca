"""Where in η-space an estimator is tested: what hides a mistake at one point shows at another.

The slip σ² for σ is exactly unbiased for reparameterization at σ = 1/√2, and for the score function at
σ = 1; a wrong KL is invisible where its gradient is zero; what is right at small gradients may overflow
at large ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ...estimators.base import Target
from ...estimators.pieces.objective import unsupported_kl
from ...estimators.pieces.variables import not_discrete, variables_of
from ...estimators.plugins.registry import create
from ..gradients import seeded
from ..problems.as_trained import eta_of
from ..problems.parts import eta_parts
from ..problems.protocol import Problem

_ASCENT_STEPS = {"middle": 8, "near-optimal": 60}
_ASCENT_RATE = 0.1
_ASCENT_SAMPLES = 64
_SCALES = {"scales": (0.3, 2.0), "extreme scales": (0.15, 3.0)}
_STRETCH = 2.5
_SURE = 40.0


def points_of(problem: Problem, x: Tensor, seed: int) -> dict[str, Tensor]:
    """Name -> eta (B, P): where the encoder is, on the way to the optimum, near it, and far off.

    With a prior η ascends the objective from where the encoder puts it. With `eta_parts` that name a scale,
    scales alternate between 0.3 and 2 (0.15 and 3) over data and coordinates; without, η is stretched, and
    where it is made of logits so far that q is certain of z. All are numbers that float32 has too.

    Args:
        problem: eta_parts may have "log_scale" or "scale".
        x: (B, ...).
        seed: of the ascent.
    """
    return {name: eta.float().to(eta) for name, eta in _points(problem, x, seed).items()}


def _points(problem: Problem, x: Tensor, seed: int) -> dict[str, Tensor]:
    eta = eta_of(problem, x)
    points = {"initial": eta}
    target = problem.target(x)
    if target.prior is not None:
        with seeded(seed, eta.device):
            points |= _ascent(problem, target, eta)
    parts = eta_parts(problem, eta.shape[1])
    name = next((n for n in ("log_scale", "scale") if n in parts), None)
    if name is None:
        return points | {"stretched": _STRETCH * eta} | _certain(problem, eta, parts)
    for point, pair in _SCALES.items():
        values = [math.log(v) for v in pair] if name == "log_scale" else list(pair)
        points[point] = _alternating(eta, parts[name], values)
    return points


def _certain(problem: Problem, eta: Tensor, parts: Mapping[str, slice]) -> dict[str, Tensor]:
    """Logits of ±40: 40 at the likeliest state of every variable; nothing where η is more than logits."""
    q = problem.posterior(eta)
    if tuple(parts) != ("logits",) or not_discrete(q) is not None or q.event_shape.numel() != eta.shape[1]:
        return {}
    variables = variables_of(q)
    table = eta.unflatten(-1, (-1, variables.states)) if variables.kind == "one-hot" else None
    likeliest = eta > 0 if table is None else (table == table.amax(-1, keepdim=True)).flatten(-2)
    return {"certain": torch.where(likeliest, _SURE, -_SURE).to(eta)}


def _alternating(eta: Tensor, part: slice, values: list[float]) -> Tensor:
    moved = eta.clone()
    block = moved[:, part]
    place = torch.arange(len(block)).unsqueeze(1) + torch.arange(block.shape[1])
    moved[:, part] = torch.tensor(values, dtype=eta.dtype)[place % 2].to(eta)
    return moved


def _ascent(problem: Problem, target: Target, start: Tensor) -> dict[str, Tensor]:
    """η after some steps of Adam; any η is a fair place to test, so a noisy gradient will do."""
    free_bits = unsupported_kl(problem.posterior(start), target, "sampled")
    estimator = create("leave-one-out", kl="analytic" if free_bits else "sampled")
    eta = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([eta], lr=_ASCENT_RATE, maximize=True)
    found: dict[str, Tensor] = {}
    for step in range(1, max(_ASCENT_STEPS.values()) + 1):
        surrogate = estimator(problem.posterior(eta), target, _ASCENT_SAMPLES).surrogate
        (eta.grad,) = torch.autograd.grad(surrogate.sum(), eta)
        optimizer.step()
        found |= {name: eta.detach().clone() for name, at in _ASCENT_STEPS.items() if at == step}
    return found

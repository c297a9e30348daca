"""What all contenders of a case share: weights, batch, a baseline's state, and a reference gradient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ....estimators.base import Estimator
from ....estimators.pieces.objective import analytic_kl
from ....estimators.plugins.registry import create
from ...gradients import frozen, prepare, seeded
from ...problems.placement import first_batch
from ...problems.protocol import Problem
from ...problems.registry import load_problem
from ...training.checkpoints import Checkpoints
from ...variance.measure import measure_variance
from ...variance.result import VarianceResult
from .cases import Case

BATCH_SIZE = 64
_REFERENCE_SEED = 271_828  # apart from every seed that is measured under


@dataclass(frozen=True)
class Shared:
    """One case, as its contenders read it from disk; θ is frozen.

    Attributes:
        problem: with the shared weights.
        x: (B, 64).
        estimator: the suite's, its own state warmed up.
        num_samples: S.
        reference: the gradient of the batch-mean ELBO with respect to φ, flat, (P,), float64.
        stderr: its standard error, (P,); zero where it is exact.
        directions: unit vectors on which means are compared too, (K, P): the gradient, and its
            reconstruction and KL parts, so that a wrong factor on either is one large deviation.
        direction_stderr: of the reference along each, (K,).
    """

    problem: Problem
    x: Tensor
    estimator: Estimator
    num_samples: int
    reference: Tensor
    stderr: Tensor
    directions: Tensor
    direction_stderr: Tensor

    @property
    def phi(self) -> list[Tensor]:
        """The encoder's parameters, in the order that "flat" means."""
        return list(self.problem.encoder.parameters())

    def posterior(self) -> Distribution:
        """q(z|x), attached to φ."""
        return self.problem.posterior(self.problem.encoder(self.x))


def flatten(tensors: Any) -> Tensor:
    """One vector of the parameters' gradients, in float64."""
    return torch.cat([t.detach().reshape(-1) for t in tensors]).double()


def write_point(problem: str, steps: int, seed: int, replicates: int, file: Path) -> None:
    """Save the weights of ``problem`` after ``steps`` training steps, a batch and the reference gradient.

    The reference is exact where latents can be enumerated, else the mean of ``replicates`` estimates.
    """
    trained = Checkpoints().problem_at(problem, steps, seed)
    x = first_batch(trained, BATCH_SIZE, seed)
    reference, directions = _reference(trained, x, replicates)
    names = [name for name, _ in trained.encoder.named_parameters()]
    torch.save(
        {
            "encoder": trained.encoder.state_dict(),
            "decoder": trained.decoder.state_dict(),
            "x": x,
            "reference": flatten(reference.mean[name] for name in names),
            "stderr": _stderr(reference, names),
            "directions": directions,
            "direction_stderr": along(reference, trained, x, directions),
        },
        file,
    )


def write_state(case: Case, point: Path, seed: int, file: Path) -> None:
    """Save the state of a case's estimator, warmed up once for all who can take it."""
    shared = load(case.problem, case.estimator, case.num_samples, point, None)
    with torch.enable_grad(), seeded(seed, shared.x.device):
        prepare(shared.problem, shared.estimator, shared.x, case.num_samples, None)
    torch.save(shared.estimator.state_dict(), file)


def load(problem: str, estimator: str, num_samples: int, point: Path, state: Path | None) -> Shared:
    """Read what `write_point` and `write_state` have saved."""
    saved = torch.load(point, weights_only=True)
    loaded, created = load_problem(problem), create(estimator)
    loaded.encoder.load_state_dict(saved["encoder"])
    loaded.decoder.load_state_dict(saved["decoder"])
    loaded.decoder.requires_grad_(False)
    x = saved["x"]
    if state is not None:
        with torch.no_grad():  # allocates what the saved state then fills
            created.init(loaded.posterior(loaded.encoder(x)), loaded.target(x))
        created.load_state_dict(torch.load(state, weights_only=True))
        created.eval().requires_grad_(False)
    rest = {name: saved[name] for name in ("reference", "stderr", "directions", "direction_stderr")}
    return Shared(loaded, x, created, num_samples, **rest)


def along(result: VarianceResult, problem: Problem, x: Tensor, directions: Tensor) -> Tensor:
    """Standard error of the mean gradient along unit vectors u (K, P).

    uᵀ Cov(ĝ) u = (1/B²) Σ_i (J_i u)ᵀ C_i (J_i u), by one Jacobian-vector product of the encoder each.
    """
    if result.eta_covariance is None or result.total == 0:
        return torch.zeros(len(directions), dtype=torch.float64)
    phi = dict(problem.encoder.named_parameters())
    sizes = [p.numel() for p in phi.values()]
    variances = []
    for direction in directions:
        parts = direction.to(x.dtype).split(sizes)
        tangents = {n: part.view_as(p) for (n, p), part in zip(phi.items(), parts, strict=True)}
        pushed = torch.func.jvp(
            lambda weights: torch.func.functional_call(problem.encoder, weights, (x,)),
            ({n: p.detach() for n, p in phi.items()},),
            (tangents,),
        )[1].double()
        covariance = result.eta_covariance.double()
        variances.append(torch.einsum("bp,bpq,bq->", pushed, covariance, pushed))
    return (torch.stack(variances) / len(x) ** 2 / result.replicates).sqrt()


def _reference(problem: Problem, x: Tensor, replicates: int) -> tuple[VarianceResult, Tensor]:
    """The gradient and the directions."""
    with torch.no_grad():
        q = problem.posterior(problem.encoder(x))
    name = "reparameterization" if q.has_rsample else "exact"
    result = measure_variance(problem, name, x, replicates=replicates, seed=_REFERENCE_SEED)
    names = [n for n, _ in problem.encoder.named_parameters()]
    total = flatten(result.mean[n] for n in names)
    kl = _kl_gradient(problem, x)
    vectors = torch.stack((total, total + kl, kl))
    return result, vectors / vectors.norm(dim=1, keepdim=True)


def _kl_gradient(problem: Problem, x: Tensor) -> Tensor:
    """∇_φ of the batch-mean KL, in closed form."""
    with frozen(problem.decoder):
        kl = analytic_kl(problem.posterior(problem.encoder(x)), problem.target(x))
        assert isinstance(kl, Tensor)
        return flatten(torch.autograd.grad(kl.mean(), list(problem.encoder.parameters())))


def _stderr(result: VarianceResult, names: list[str]) -> Tensor:
    return (flatten(result.per_parameter[n] for n in names).clamp_min(0) / result.replicates).sqrt()

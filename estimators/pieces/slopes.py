"""f between the states of discrete variables, and its slope."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import Node
from torch.distributions import Distribution

from ..base import Target
from ..errors import UsageError
from ..posteriors.distributions import check_events
from .objective import has_kl, integrand, one_weight
from .variables import Variables, relaxed_log_prob

_FLAT = frozenset(f"{name}Backward" for name in ("Round", "Floor", "Ceil", "Trunc", "Sign", "Sgn"))


def relaxed_integrand(
    q: Distribution, target: Target, kl: str, variables: Variables, codes: Float[Tensor, "S *batch D K"]
) -> Float[Tensor, "S *batch"]:
    """f, (S, *batch), at states in one-hot code or at what lies between them, attached to ``codes`` and θ.

    With ``kl="sampled"`` the weighted log p(z) − log q(z) is linear between the states, and φ is cut out of
    log q.

    Raises:
        UsageError: there is no derivative in z, and ``codes`` have one.
    """
    z = variables.z(codes)
    f = integrand(q, replace(target, prior=None), z, kl)
    _require_path("log_likelihood", f, z)
    if kl == "sampled" and target.prior is not None and has_kl(target):
        check_events(q, target.prior)
        log_p = _log_prior(target.prior, z)
        _require_path("the prior's log_prob", log_p, z)
        log_q = variables._replace(logits=variables.logits.detach()).log_prob(codes)
        f = f + one_weight(target) * (log_p - log_q)
    return f


def with_slope(
    q: Distribution,
    target: Target,
    kl: str,
    variables: Variables,
    codes: Float[Tensor, "S *batch D K"],
    attached: bool = False,
) -> tuple[Float[Tensor, "S *batch"], Float[Tensor, "S *batch D K"]]:
    """f as of `relaxed_integrand`, and ∂f/∂codes, by one pass; of a Bernoulli variable state 1 has ∂f/∂z.

    With ``attached`` the slope can be differentiated again, in what ``codes`` depend on.
    """
    with torch.enable_grad():
        point = codes if codes.requires_grad else codes.detach().requires_grad_()
        f = relaxed_integrand(q, target, kl, variables, point)
        (slope,) = torch.autograd.grad(f.sum(), point, retain_graph=True, create_graph=attached)
    return f, slope


def _log_prior(prior: Distribution, z: Float[Tensor, "S *batch_event"]) -> Float[Tensor, "S *batch"]:
    """log p(z), (S, *batch), off the support too."""
    try:
        return relaxed_log_prob(prior, z)
    except ValueError:  # torch's, which prints z
        why = "the prior refuses z between the states: build all of it with validate_args=False"
        raise UsageError(why) from None


def _require_path(what: str, f: Tensor, z: Tensor) -> None:
    """UsageError where f has no derivative in z: no path, or one through a step function alone."""
    if torch.compiler.is_compiling() or z.grad_fn is None or _reaches(f, z):
        return
    raise UsageError(
        f"{what} cannot be differentiated in z (constant, or detach, comparison or rounding inside it?): "
        "leave-one-out needs no derivative"
    )


def _is_flat(node: Node) -> bool:
    """Whether an operation has the derivative zero: rounding, or a division that rounds."""
    name = node.name().rstrip("0123456789")
    return name in _FLAT or (name == "DivBackward" and bool(getattr(node, "_saved_rounding_mode", None)))


def _reaches(f: Tensor, z: Tensor) -> bool:
    """Whether some path of the graph leads from f to z, not through what is flat almost everywhere."""
    goal, waiting, seen = z.grad_fn, [f.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is goal:
            return True
        if node is None or node in seen or _is_flat(node):
            continue
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
    return False

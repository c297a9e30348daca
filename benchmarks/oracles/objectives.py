"""Exact values and gradients of objectives, in float64: by algebra, enumeration or quadrature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent

from ...estimators.base import Target
from ...estimators.errors import UsageError
from ...estimators.kl_weight import FreeBits, parameters_of_weight, split_objective
from ...estimators.methods.thermodynamic import Thermodynamic
from ...estimators.pieces.objective import unsupported_kl, whole_kl
from ...estimators.plugins.specification import parse
from ...estimators.posteriors.distributions import describe
from ...estimators.posteriors.families import family_of
from ...estimators.posteriors.outcomes import outcomes
from ...estimators.posteriors.shared import of_one
from .integrals import bound, by_enumeration, closed_form, left_riemann_sum, relaxed, wake
from .rules import LEAST, SETTLED, TOLERANCE, change, rules_of, settled

_NEEDS_PRIOR = {
    "iwae": "the importance-weighted bound",
    "inclusive-kl": "the inclusive KL divergence",
    "thermodynamic": "the thermodynamic objective",
}
_NOT_FINITE = "the exact answer is not finite"
_RELAXED_NODES = {1: (128, 192), 2: (96, 128), 3: (56, 72)}  # ever finer, by the number of bits
_OF_SEVERAL_SAMPLES = ("iwae", "inclusive-kl")

Integral = Callable[[Distribution, Target], Tensor]
Answer = tuple[Tensor, Tensor, Tensor]  # value, gradient in eta, gradient in theta


class ExactGradients(NamedTuple):
    """Exact answers for a batch, float64.

    Attributes:
        value: (B,), of the objective.
        eta_grad: (B, P), of each datum's objective.
        theta_grad: (T,), of the mean over the batch, the parameters flattened.
        method: "closed-form", "enumeration" or "quadrature".
    """

    value: Tensor
    eta_grad: Tensor
    theta_grad: Tensor
    method: str


class _Integrals(NamedTuple):
    """Ways to integrate, ever finer, of which an exact method needs one alone."""

    method: str
    each: list[Integral]


def exact_objective(
    q: Distribution, target: Target, objective: str = "elbo", num_samples: int = 1
) -> Float[Tensor, "*batch"] | str:
    """The objective's exact value, (*batch), attached to q's parameters and θ; or why there is none.

    Args:
        q: in float64.
        target: likewise; its closed-form expectation is used where it has one, and its weight of the KL.
        objective: "elbo", to which the target's weight may be added, "elbo[kl_weight=0.5]"; "iwae" for
            L_K = E log (1/K) Σ p(x, z_k)/q(z_k); "inclusive-kl" for the value and the θ-gradient of L_K with
            the η-gradient of −KL(p(z|x) ‖ q), which reweighted wake-sleep climbs side by side;
            "thermodynamic[partitions=P,smallest=β_1]" for the left Riemann sum of the estimator of this name;
            "relaxed[temperature=τ]" for E f(softmax((φ + G)/τ)) − KL.
        num_samples: K.
    """
    found = exact_with_method(q, target, objective, num_samples)
    return found if isinstance(found, str) else found[0]


def exact_with_method(
    q: Distribution, target: Target, objective: str = "elbo", num_samples: int = 1
) -> tuple[Float[Tensor, "*batch"], str] | str:
    """What `exact_objective` says, and how it was found: "closed-form", "enumeration" or "quadrature"."""
    integrals = _integrals(q, target, objective, num_samples)
    if isinstance(integrals, str):
        return integrals
    *coarse, finest = integrals.each[-2:]
    value = finest(q, target)
    with torch.no_grad():
        moved = max((change(integral(q, target), value) for integral in coarse), default=0.0)
    return (value, integrals.method) if moved <= TOLERANCE else _not_converged(moved)


def exact_gradients(
    q_of: Callable[[Tensor], Distribution],
    eta: Float[Tensor, "B P"],
    target_of: Callable[[Tensor], Target],
    x: Shaped[Tensor, "B ..."],
    theta: Sequence[Tensor],
    objective: str = "elbo",
    num_samples: int = 1,
    *,
    climb: bool = False,
    tell: Callable[[float], None] | None = None,
) -> ExactGradients | str:
    """Exact value and gradients, datum by datum, or why there are none in one line.

    A quadrature counts as exact when the next finer rule changes value and gradients by 1e-6 at most,
    relatively.

    Args:
        q_of: eta -> posterior.
        eta: (B, P), float64.
        target_of: x -> target.
        x: (B, ...).
        theta: parameters of the target.
        objective: see `exact_objective`.
        num_samples: K.
        climb: stop at the first rule that counts as exact, which over many data spares most of the work; else
            go on to the first that changes value and gradients by 1e-10 at most, or to the finest.
        tell: told the share of the data that are done, where they are done one by one.
    """
    together = _all_at_once(q_of, eta, target_of, x, theta, objective)
    if together is not None:
        return together
    found, methods = [], []
    q_of = of_one(q_of)
    for one, datum in zip(eta.split(1), x.split(1), strict=True):
        with torch.no_grad():
            q = q_of(one)
            if q.batch_shape != one.shape[:1]:
                return f"the posterior of one datum alone has batch shape {tuple(q.batch_shape)}"
            integrals = _integrals(q, target_of(datum), objective, num_samples)
        if isinstance(integrals, str):
            return integrals
        ways = [partial(_differentiate, i, q_of, one, target_of, datum, theta) for i in integrals.each]
        answer = _converged(ways, TOLERANCE if climb else SETTLED)
        if isinstance(answer, str):
            return answer
        found.append(answer)
        methods.append(integrals.method)
        if tell is not None:
            tell(len(found) / len(eta))
    values, gradients, thetas = zip(*found, strict=True)
    return ExactGradients(torch.cat(values), torch.cat(gradients), torch.stack(thetas).mean(0), methods[0])


def _all_at_once(
    q_of: Callable[[Tensor], Distribution],
    eta: Tensor,
    target_of: Callable[[Tensor], Target],
    x: Tensor,
    theta: Sequence[Tensor],
    objective: str,
) -> ExactGradients | str | None:
    """An ELBO by enumeration of all data together, which can share the decoder; None for other answers."""
    with torch.no_grad():
        q, target = q_of(eta), target_of(x)
        if outcomes(q) is None or q.batch_shape != eta.shape[:1]:
            return None
        integrals = _integrals(q, target, objective, 1)
    if isinstance(integrals, str) or integrals.each != [by_enumeration]:
        return None
    value, eta_grad, summed = _differentiate(by_enumeration, q_of, eta, target_of, x, theta)
    if not all(part.isfinite().all() for part in (value, eta_grad, summed)):
        return _NOT_FINITE
    return ExactGradients(value, eta_grad, summed / len(eta), integrals.method)


def _converged(ways: Sequence[Callable[[], Answer]], enough: float) -> Answer | str:
    """The best answer, or the first that the one before is within ``enough`` of; or why there is none."""
    answer, moved = settled(ways, _largest_change, enough)
    if not moved <= TOLERANCE:
        return _not_converged(moved)
    return answer if all(part.isfinite().all() for part in answer) else _NOT_FINITE


def _largest_change(coarse: Answer, fine: Answer) -> float:
    """Of value and gradients, relative; NaN where one is."""
    return float(torch.tensor([change(*pair) for pair in zip(coarse, fine, strict=True)]).max())


def _differentiate(
    integral: Integral,
    q_of: Callable[[Tensor], Distribution],
    eta: Tensor,
    target_of: Callable[[Tensor], Target],
    x: Tensor,
    theta: Sequence[Tensor],
) -> Answer:
    """Value (B,), gradient in eta (B, P) and in theta (T,) by one way to integrate."""
    leaf = eta.detach().clone().requires_grad_()
    value = integral(q_of(leaf), target_of(x))
    eta_grad, *parts = torch.autograd.grad(value.sum(), [leaf, *theta], materialize_grads=True)
    flat = torch.cat([eta_grad.flatten()[:0], *(part.flatten() for part in parts)])
    return value.detach(), eta_grad, flat


def _integrals(q: Distribution, target: Target, objective: str, num_samples: int) -> _Integrals | str:
    """Ways to integrate, or why there are none in one line."""
    objective, named = split_objective(objective)
    weight = parameters_of_weight(target.kl_weight) if target.prior is not None else ""
    if named and named != weight:
        return f"the target's objective has {weight or 'kl_weight=1'}, not {named}"
    name = objective.partition("[")[0]
    if isinstance(target.kl_weight, FreeBits) and unsupported_kl(q, target, "analytic"):
        return unsupported_kl(q, target, "analytic") or ""
    if name == "relaxed":
        return _relaxed(q, objective)
    betas = _betas(objective) if name == "thermodynamic" else None
    if name not in ("elbo", *_NEEDS_PRIOR) or (name == "thermodynamic" and betas is None):
        return f"no exact value of the objective {objective!r} is known"
    if objective == "elbo" and target.expectation is not None and _has_closed_kl(q, target):
        return _Integrals("closed-form", [closed_form])
    if name != "elbo" and target.prior is None:
        return f"{_NEEDS_PRIOR[name]} needs a prior"
    if name != "elbo" and weight:
        return f"{_NEEDS_PRIOR[name]} has the prior whole, and this target has {weight}"
    samples = num_samples if name in _OF_SEVERAL_SAMPLES else 1
    # Others have p(z)/q(z) itself under the integral, which grows nearly as fast as the weights fall.
    found = rules_of(q, samples, LEAST if name in ("elbo", "iwae") else 0.0)
    if isinstance(found, str):
        return found
    method, rules = found
    if objective == "elbo" and method == "enumeration":
        return _Integrals(method, [by_enumeration])
    if name == "inclusive-kl":
        return _Integrals(method, [partial(wake, rule=rule, samples=samples) for rule in rules])
    if betas is not None:
        return _Integrals(method, [partial(left_riemann_sum, rule=rule, betas=betas) for rule in rules])
    return _Integrals(method, [partial(bound, rule=rule, samples=samples) for rule in rules])


def _relaxed(q: Distribution, objective: str) -> _Integrals | str:
    """Of a few Bernoulli variables at a temperature that the objective names."""
    temperature = _number(objective, "temperature")
    if temperature is None:
        return f"no exact value of the objective {objective!r} is known"
    bits = isinstance(q, Independent) and [family_of(q), family_of(q.base_dist)] == [Independent, Bernoulli]
    nodes = _RELAXED_NODES.get(q.event_shape.numel()) if bits else None
    if nodes is None:
        return f"no quadrature for the relaxation of a {describe(q)} of event shape {tuple(q.event_shape)}"
    each: list[Integral] = [partial(relaxed, nodes=n, temperature=temperature) for n in nodes]
    return _Integrals("quadrature", each)


def _number(objective: str, parameter: str) -> float | None:
    """The one parameter that an objective names, or None where it names others."""
    try:
        parameters = parse(objective).parameters
    except UsageError:
        return None
    value = parameters.get(parameter)
    return float(value) if parameters.keys() == {parameter} and isinstance(value, int | float) else None


def _has_closed_kl(q: Distribution, target: Target) -> bool:
    return whole_kl(q, target) is not None


def _betas(objective: str) -> Sequence[float] | None:
    """The partition that the objective names, or None where it names none."""
    try:
        parameters = parse(objective).parameters
        if parameters.keys() != {"partitions", "smallest"}:
            return None
        return Thermodynamic(**parameters).betas  # type: ignore[arg-type]
    except UsageError:
        return None


def _not_converged(moved: float) -> str:
    return f"the quadrature has not converged (relative change {moved:.1g})"

"""Exact values and gradients of objectives: by algebra, enumeration or quadrature, in float64.

No estimator is used, and no reparameterization of torch's: under a Gaussian z = μ + σ ε is written out, and
under a flow its transforms are applied to that; elsewhere the nodes stay put and their weights carry q's
density, so that the gradient is the density's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.errors import UsageError
from ...estimators.methods.thermodynamic import Thermodynamic
from ...estimators.plugins.specification import parse
from ...estimators.posteriors import gaussians
from ...estimators.posteriors.distributions import closed_form_kl, cut, describe
from ...estimators.posteriors.quadrature import enumerate_outcomes, gauss_hermite, outcomes
from .gamma_nodes import gamma_dimension, gamma_nodes
from .nodes import beta_nodes, von_mises_nodes

OBJECTIVES = ("elbo", "iwae", "inclusive-kl", "thermodynamic")
_IN_WORDS = {
    "iwae": "the importance-weighted bound",
    "inclusive-kl": "the inclusive KL divergence",
    "thermodynamic": "the thermodynamic objective",
}
_NODES = {1: (128, 200), 2: (160, 200), 3: (24, 32)}  # a dimension, coarse and fine
_GAMMA_NODES = {1: {1: (300, 400), 2: (300, 400)}, 2: {1: (160, 200)}}  # by D and number of samples
_BETA_NODES = {1: {1: (200, 300), 2: (200, 300)}, 2: {1: (120, 160)}}
_VON_MISES_NODES = {1: {1: (128, 192), 2: (128, 192)}, 2: {1: (96, 128)}}
_MAX_POINTS = 2**15  # of a sum over all samples of a multi-sample bound
TOLERANCE = 1e-6  # relative change from the coarse to the fine rule

_Table = dict[int, dict[int, tuple[int, int]]]
Rule = Callable[[Distribution], tuple[Tensor, Tensor]]


class ExactGradients(NamedTuple):
    """Exact answers for a batch, float64.

    Attributes:
        value: (B,), of the objective.
        eta_grad: (B, P), of each datum's objective.
        theta_grad: (T,), of the mean over the batch, the parameters flattened.
    """

    value: Tensor
    eta_grad: Tensor
    theta_grad: Tensor


def exact_objective(
    q: Distribution, target: Target, objective: str = "elbo", num_samples: int = 1
) -> Tensor | str:
    """The objective's exact value, (*batch), attached to q's parameters and θ; or why there is none.

    Args:
        q: in float64.
        target: likewise; its closed-form expectation is used where it has one.
        objective: "elbo"; "iwae" for L_K = E log (1/K) Σ p(x, z_k)/q(z_k); "inclusive-kl" for the value and
            the θ-gradient of L_K with the η-gradient of −KL(p(z|x) ‖ q), which reweighted wake-sleep climbs
            side by side; "thermodynamic[partitions=P,smallest=β_1]" for the left Riemann sum of the estimator
            of this name.
        num_samples: K.
    """
    rules = _rules(q, target, objective, num_samples)
    if isinstance(rules, str):
        return rules
    value = rules[-1](q, target)
    with torch.no_grad():
        moved = change(rules[0](q, target), value) if len(rules) > 1 else 0.0
    return value if moved <= TOLERANCE else _not_converged(moved)


def exact_gradients(
    q_of: Callable[[Tensor], Distribution],
    eta: Tensor,
    target_of: Callable[[Tensor], Target],
    x: Tensor,
    theta: Sequence[Tensor],
    objective: str = "elbo",
    num_samples: int = 1,
) -> ExactGradients | str:
    """Exact value and gradients, datum by datum, or why there are none in one line.

    A quadrature counts as exact when a finer rule changes value and gradients by 1e-6 at most, relatively.

    Args:
        q_of: eta -> posterior.
        eta: (B, P), float64.
        target_of: x -> target.
        x: (B, ...).
        theta: parameters of the target.
        objective: see `exact_objective`.
        num_samples: K.
    """
    found = []
    for one, datum in zip(eta.split(1), x.split(1), strict=True):
        answers = []
        with torch.no_grad():
            rules = _rules(q_of(one), target_of(datum), objective, num_samples)
        if isinstance(rules, str):
            return rules
        for rule in rules:
            leaf = one.detach().clone().requires_grad_()
            value = rule(q_of(leaf), target_of(datum))
            eta_grad, *parts = torch.autograd.grad(value.sum(), [leaf, *theta], materialize_grads=True)
            flat = torch.cat([eta_grad.flatten()[:0], *(part.flatten() for part in parts)])
            answers.append(ExactGradients(value.detach(), eta_grad, flat))
        moved = max(change(*pair) for pair in zip(answers[0], answers[-1], strict=True))
        if not moved <= TOLERANCE:
            return _not_converged(moved)
        found.append(answers[-1])
    values, gradients, thetas = zip(*found, strict=True)
    return ExactGradients(torch.cat(values), torch.cat(gradients), torch.stack(thetas).mean(0))


def rules_of(q: Distribution) -> list[Rule] | str:
    """What gives points z (N, *batch, *event) and weights (N, *batch), the best one last; or why not.

    φ is attached to one of the two. Where there are two rules, trust them when they agree.
    """
    return _node_rules(q, 1)


def _rules(
    q: Distribution, target: Target, objective: str, num_samples: int
) -> list[Callable[[Distribution, Target], Tensor]] | str:
    """Ways to integrate, the best one last: two, to be compared, where they are not exact."""
    name = objective.partition("[")[0]
    if name not in OBJECTIVES:
        return f"no exact value of the objective {objective!r} is known"
    if objective == "elbo" and target.expectation is not None and _has_closed_kl(q, target):
        return [_closed_form]
    if name != "elbo" and target.prior is None:
        return f"{_IN_WORDS[name]} needs a prior"
    copies = num_samples if name in ("iwae", "inclusive-kl") else 1
    rules = _node_rules(q, copies)
    if isinstance(rules, str):
        return rules
    if name == "inclusive-kl":
        return [partial(_wake, rule=rule, copies=copies) for rule in rules]
    if name == "thermodynamic":
        betas = _betas(objective)
        if betas is None:
            return f"no exact value of the objective {objective!r} is known"
        return [partial(_left_riemann_sum, rule=rule, betas=betas) for rule in rules]
    return [partial(_integrate, rule=rule, copies=copies) for rule in rules]


def _node_rules(q: Distribution, copies: int) -> list[Rule] | str:
    count = outcomes(q)
    if count is not None:
        if count**copies > _MAX_POINTS:
            return f"{count}^{copies} outcomes are too many to enumerate"
        return [_enumeration]
    dimension = q.event_shape[0] if len(q.event_shape) == 1 else 0
    base = q.base_dist if type(q) is td.TransformedDistribution else q
    if gaussians.is_diagonal_gaussian(base) or type(base) is td.MultivariateNormal:
        pair, largest = _NODES.get(dimension * copies), max(_NODES)
        rule: Callable[[int], Rule] = _gaussian_rule
    elif (family := _fixed_nodes(q)) is not None:
        table, rule = family
        pair, largest = table.get(dimension, {}).get(copies), max(table)
    else:
        return f"no quadrature for a {describe(q)} of event shape {tuple(q.event_shape)}"
    if pair is None:
        of_copies = f" of {copies} samples" if copies > 1 else ""
        return f"latent dimension {dimension}{of_copies} is too large for quadrature (at most {largest})"
    return [rule(nodes) for nodes in pair]


def _fixed_nodes(q: Distribution) -> tuple[_Table, Callable[[int], Rule]] | None:
    """How many nodes, by D and number of samples, and the rule, where the weights carry the density."""
    if gamma_dimension(q) is not None:
        return _GAMMA_NODES, _gamma_rule
    family = type(q.base_dist) if type(q) is td.Independent and len(q.event_shape) == 1 else None
    if family is td.Beta:
        return _BETA_NODES, lambda nodes: lambda q: beta_nodes(q, nodes)
    if family is td.VonMises:
        return _VON_MISES_NODES, lambda nodes: lambda q: von_mises_nodes(q, nodes)
    return None


def _enumeration(q: Distribution) -> tuple[Tensor, Tensor]:
    z = enumerate_outcomes(q)
    return z, q.log_prob(z).exp()


def _gaussian_rule(nodes: int) -> Rule:
    def rule(q: Distribution) -> tuple[Tensor, Tensor]:
        flow = type(q) is td.TransformedDistribution
        z, weights = gauss_hermite(q.base_dist if flow else q, nodes)  # type: ignore[attr-defined]
        for transform in q.transforms if flow else ():  # type: ignore[attr-defined]
            z = transform(z)
        return z, weights.reshape(-1, *(1,) * len(q.batch_shape)).expand(-1, *q.batch_shape)

    return rule


def _gamma_rule(nodes: int) -> Rule:
    return lambda q: gamma_nodes(q, nodes)


def _closed_form(q: Distribution, target: Target) -> Tensor:
    assert target.expectation is not None
    value = target.expectation(q)
    if target.prior is None:
        return value
    divergence = closed_form_kl(q, target.prior)
    assert divergence is not None
    return value - divergence


def _has_closed_kl(q: Distribution, target: Target) -> bool:
    prior = target.prior
    return prior is None or (gaussians.is_diagonal_gaussian(q) and gaussians.is_diagonal_gaussian(prior))


def _integrate(q: Distribution, target: Target, rule: Rule, copies: int) -> Tensor:
    """Σ of weight × log of the mean weight of K samples, over all K-tuples of nodes."""
    z, weights = rule(q)
    log_w = _log_weights(q, target, z, weights)
    if copies == 1:
        return (weights * log_w).sum(0)
    tuples = torch.cartesian_prod(*[torch.arange(len(z))] * copies)
    bound = log_w[tuples].logsumexp(1) - torch.tensor(float(copies), dtype=log_w.dtype).log()
    return (weights[tuples].prod(1) * bound).sum(0)


def _wake(q: Distribution, target: Target, rule: Rule, copies: int) -> Tensor:
    """L_K attached to θ alone, and a zero whose gradient in φ is that of E_{p(z|x)}[log q(z)]."""
    fixed = cut(q)
    z, weights = rule(fixed)
    posterior = _tempered(_log_weights(fixed, target, z, weights), weights, 1.0).detach()
    fit = (posterior * q.log_prob(z)).sum(0)
    return _integrate(fixed, target, rule, copies) + fit - fit.detach()


def _betas(objective: str) -> Sequence[float] | None:
    """The partition that the objective names, or None where it names none."""
    try:
        parameters = parse(objective).parameters
        if parameters.keys() != {"partitions", "smallest"}:
            return None
        return Thermodynamic(**parameters).betas  # type: ignore[arg-type]
    except UsageError:
        return None


def _left_riemann_sum(q: Distribution, target: Target, rule: Rule, betas: Sequence[float]) -> Tensor:
    """Σ_p (β_{p+1} − β_p) E_{π_β}[log w] at β = β_p."""
    z, weights = rule(q)
    log_w = _log_weights(q, target, z, weights)
    value = torch.zeros_like(log_w[0])
    for beta, following in pairwise(betas):
        value = value + (following - beta) * (_tempered(log_w, weights, beta) * log_w).sum(0)
    return value


def _tempered(log_w: Tensor, weights: Tensor, beta: float) -> Tensor:
    """Weights of the nodes under π_β ∝ q w^β, which sum to 1."""
    log_ratio = beta * log_w
    largest = log_ratio.detach().masked_fill(weights <= 0, -math.inf).max(0).values
    mass = weights * (log_ratio - largest).exp()
    return mass / mass.sum(0)


def _log_weights(q: Distribution, target: Target, z: Tensor, weights: Tensor) -> Tensor:
    """log p(x, z)/q(z) at nodes; log p(x|z) where there is no prior."""
    log_w = target.log_likelihood(z)
    if target.prior is not None:
        log_w = log_w + target.prior.log_prob(z) - q.log_prob(z)
    # What no sample reaches may be −∞ there, and must not turn 0 × ∞ into NaN.
    return torch.where(weights.detach() > 0, log_w, torch.zeros_like(log_w))


def change(coarse: Tensor, fine: Tensor) -> float:
    """Relative change from a coarse answer to a fine one."""
    if not fine.numel():
        return 0.0
    return float((fine - coarse).norm() / fine.norm().clamp_min(1e-6))


def _not_converged(moved: float) -> str:
    return f"the quadrature has not converged (relative change {moved:.1g})"

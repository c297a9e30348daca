"""Features at the z that q itself draws from an estimate's noise: most estimators are a sum of these.

The integrand, the integrand times the score, its gradient along the path, and products of one sample's
integrand and another's score; of the whole integrand log p(x, z) − log q(z) and of log p(x|z) alone. Their
means are the exact value, gradient, gradient again and zero. It is the harness that evaluates them: where an
estimator makes something else of its noise, they explain less of it, and nothing is hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import chain
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.kl_weight import FreeBits
from ...estimators.pieces.objective import conditional_kls, has_kl, log_ratio, unsupported_kl
from ...estimators.posteriors import draws as drawing
from ...estimators.posteriors.distributions import no_score, reparameterizable
from ...estimators.posteriors.families import family_of, innermost
from ...estimators.posteriors.gaussians import is_diagonal_gaussian
from ...estimators.posteriors.layered import Layered, total
from ...estimators.posteriors.outcomes import enumerate_outcomes, outcomes
from ...estimators.posteriors.quadrature import gauss_hermite
from ...estimators.posteriors.shared import of_one, shares_draws
from ..oracles.rules import TOLERANCE, Rule, change, rules_of
from ..problems.protocol import Problem
from .features import Features, no_features
from .noise import Noise, replayed

_EXPLICIT = (td.Normal, td.MultivariateNormal, td.Laplace)
# A dimension: exact for polynomials of degree 7, and the log ratio of two Gaussians is one of degree 2.
_NODES = 4
_MOST_NODES = 2**15


class Ratio(NamedTuple):
    """E_q[w (log p(z) − log q(z))], (B,), its gradient in η, (B, P), and that of its mean in θ, (T,)."""

    value: Tensor
    eta_grad: Tensor
    theta_grad: Tensor

    def of(self, rows: Tensor) -> Ratio:
        """Of these data; the gradient in θ stays that of all."""
        return Ratio(self.value[rows], self.eta_grad[rows], self.theta_grad)


@dataclass(frozen=True)
class Known:
    """What is known exactly at a point, and how z is drawn there; all in float64.

    Attributes:
        problem: where.
        target: of its data.
        eta: (B, P).
        num_samples: S.
        draws: how an estimator says that it draws, see `Estimator`.
        objective: "elbo", or "iwae" at S; of others there are no features.
        value, eta_grad: (B,) and (B, P), exact.
        ratio: the same of the weighted log p(z) − log q(z) alone, where that is a small sum.
        conditional: the same of minus the closed-form KLs of latents given those in z, where there are such.
        theta_grad: (T,), of the mean over the data, exact, in the decoder's parameters.
    """

    problem: Problem
    target: Target
    eta: Tensor
    num_samples: int
    draws: str
    objective: str
    value: Tensor
    eta_grad: Tensor
    ratio: Ratio | None = None
    conditional: Ratio | None = None
    theta_grad: Tensor | None = None


def exact_ratio(problem: Problem, target: Target, eta: Tensor) -> Ratio | None:
    """E_q[w (log p(z) − log q(z))] and its gradients, by summing it; None where that is too much.

    Not by a closed form, which estimators have too: an error that both make would be hidden. Where it is a
    quadrature that is not exact by itself, the next coarser one must say the same.
    """

    def ratio(q: Distribution, z: Tensor) -> Tensor:
        return log_ratio(q, target, z, q.log_prob(z))

    return _expected(ratio, problem, target, eta)


def exact_conditional(problem: Problem, target: Target, eta: Tensor) -> Ratio | None:
    """The same of minus the weighted closed-form KLs of latents given others; None where there are none."""
    q = of_one(problem.posterior)(eta)
    if not isinstance(q, Layered) or not has_kl(target) or unsupported_kl(q, target, "analytic"):
        return None

    def minus_kls(q: Distribution, z: Tensor) -> Tensor:
        return -total(conditional_kls(q, target, z))

    return _expected(minus_kls, problem, target, eta)


def _expected(
    integrand: Callable[[Distribution, Tensor], Tensor], problem: Problem, target: Target, eta: Tensor
) -> Ratio | None:
    if not has_kl(target) or isinstance(target.kl_weight, FreeBits):
        return None
    rules = _rules(of_one(problem.posterior)(eta), target)
    found = [_by_rule(integrand, problem, eta, rule) for rule in rules]
    if not found or not all(part.isfinite().all() for part in found[-1]):
        return None
    moved = max(change(*pair) for pair in zip(found[0], found[-1], strict=True))
    return found[-1] if moved <= TOLERANCE else None


def _by_rule(
    integrand: Callable[[Distribution, Tensor], Tensor], problem: Problem, eta: Tensor, rule: Rule
) -> Ratio:
    leaf, theta = eta.detach().clone().requires_grad_(), theta_of(problem)
    with torch.enable_grad():
        q = of_one(problem.posterior)(leaf)
        z, weights = rule(q)
        f = integrand(q, z)
        value = (weights * torch.where(weights > 0, f, torch.zeros_like(f))).sum(0)
        # The target is asked again: its prior may have a graph of its own.
        gradient, *of_theta = torch.autograd.grad(
            value.sum(), [leaf, *theta], retain_graph=True, materialize_grads=True
        )
    flat = torch.cat([gradient.flatten()[:0], *(part.flatten() for part in of_theta)]) / len(eta)
    return Ratio(value.detach(), gradient, flat)


def theta_of(problem: Problem) -> list[Tensor]:
    """θ: the decoder's parameters that are learned."""
    return [p for p in problem.decoder.parameters() if p.requires_grad]


def _rules(q: Distribution, target: Target) -> list[Rule]:
    """One that is exact, or two to be compared; none where they take too many points."""
    assert target.prior is not None
    count = outcomes(q)
    if count is not None:
        return [_every_outcome] if count <= _MOST_NODES else []
    if _is_gaussian(q) and _is_gaussian(target.prior) and _NODES ** q.event_shape.numel() <= _MOST_NODES:
        return [_few_nodes]
    rules = rules_of(q)
    return [] if isinstance(rules, str) else rules.rules[-2:]


def _every_outcome(q: Distribution) -> tuple[Tensor, Tensor]:
    z = enumerate_outcomes(q)
    return z, q.log_prob(z).exp()


def _few_nodes(q: Distribution) -> tuple[Tensor, Tensor]:
    z, weights = gauss_hermite(q, _NODES)
    return z, weights.reshape(-1, *(1,) * len(q.batch_shape))


def _is_gaussian(q: Distribution) -> bool:
    return len(q.event_shape) == 1 and (is_diagonal_gaussian(q) or family_of(q) is td.MultivariateNormal)


def integrand_features(
    noise: Sequence[Noise],
    known: Known | None,
    replicates: int,
    like: Tensor,
    needed: Bool[Tensor, "F"] | None = None,
) -> Features:
    """Of R estimates that were made of this noise; none where q would not draw from it.

    Args:
        noise: of all operations that are understood.
        known: at the B data; None where nothing is.
        replicates: R.
        like: what says how many data there are, and of which type.
        needed: what of them is looked at, as of earlier draws; the others are zeros. None for all.
    """
    none = no_features(replicates, like)
    if known is None or not noise or isinstance(known.target.kl_weight, FreeBits):
        return none
    leaf = known.eta.expand(replicates, *known.eta.shape).clone().requires_grad_()
    with torch.enable_grad():
        q = known.problem.posterior(leaf)
        if shares_draws(q) and len(known.eta) > 1:
            return none
        if drawing.unsupported_draws(q, known.draws) or no_score(q):
            return none
        z = replayed(partial(_draw, q, known), noise, replicates, len(known.eta))
        if z is None:
            return none
        columns = _Columns(q, leaf, z, known)
        if known.objective == "elbo":
            columns.of_one_sample()
        else:
            columns.of_all_samples()
        return columns.features(needed)


def theta_controls(
    noise: Sequence[Noise], known: Known | None, replicates: int, only: int | None = None
) -> list[Tensor]:
    """Gradients in θ of a mean at the z that q draws, less the exact ones, (T,) each: all have mean zero.

    Of the whole integrand; of log p(x|z) alone; of log p(x|z) less closed-form KLs of latents given those in
    z. None where q would not draw so, or for objectives that are no mean over samples.

    Args:
        noise: of all operations that are understood.
        known: at the B data; None where nothing is.
        replicates: R.
        only: which of them to compute; None for all.
    """
    if known is None or known.objective != "elbo" or known.theta_grad is None or not noise:
        return []
    if isinstance(known.target.kl_weight, FreeBits) or not known.theta_grad.numel():
        return []
    eta = known.eta.expand(replicates, *known.eta.shape)
    q, theta = known.problem.posterior(eta), theta_of(known.problem)
    if shares_draws(q) or drawing.unsupported_draws(q, known.draws):
        return []
    z = replayed(partial(_draw, q, known), noise, replicates, len(known.eta))
    if z is None:
        return []
    with torch.enable_grad():
        means = _means_in_theta(q, known, z.detach())
        wanted = means if only is None else means[only : only + 1]
        return [_in_theta(mean(), theta) - exact for mean, exact in wanted]


def _means_in_theta(q: Distribution, known: Known, z: Tensor) -> list[tuple[Callable[[], Tensor], Tensor]]:
    """Values (S, R, B) that depend on θ, each with the exact gradient of their mean."""
    target, exact, ratio, conditional = known.target, known.theta_grad, known.ratio, known.conditional
    assert exact is not None

    def likelihood() -> Tensor:
        return target.log_likelihood(z)

    if not has_kl(target):
        return [(likelihood, exact)]
    found = [(lambda: likelihood() + log_ratio(q, target, z, q.log_prob(z)), exact)]
    if ratio is not None:
        found.append((likelihood, exact - ratio.theta_grad))
        if conditional is not None:
            inside = exact - ratio.theta_grad + conditional.theta_grad
            found.append((lambda: likelihood() - total(conditional_kls(q, target, z)), inside))
    return found


def _in_theta(f: Float[Tensor, "S R B"], theta: list[Tensor]) -> Float[Tensor, "T"]:
    parts = torch.autograd.grad(f.mean(), theta, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def explicit(q: Distribution) -> bool:
    """Whether z is a formula of the noise; the derivative of a Gamma or Beta draw is good to 1e-4 alone."""
    if isinstance(q, Layered):
        return all(map(explicit, q.examples.values()))
    return family_of(innermost(q)) in _EXPLICIT


def _draw(q: Distribution, known: Known) -> Tensor:
    if reparameterizable(q):
        return drawing.rsample(q, known.num_samples, known.draws)
    return drawing.draw(q, known.num_samples, known.draws)


@dataclass(frozen=True)
class _Part:
    """Features that are made together.

    Attributes:
        values: makes them, (R, B) or (R, B, P).
        means: (B,) or (B, P).
        by_path: whether this takes the integrand's gradient in z.
    """

    values: Callable[[], Tensor]
    means: Tensor
    by_path: bool

    @property
    def width(self) -> int:
        return 1 if self.means.dim() == 1 else self.means.shape[-1]


class _Integrand:
    """The parts of an integrand at the z of an estimate, each computed where something is made of it.

    Args:
        q: over the leaf.
        z: (S, R, B, *event), along a path where that is explicit.
        known: at the B data.
        by_path: whether gradients in z are wanted.
    """

    def __init__(self, q: Distribution, z: Tensor, known: Known, by_path: bool) -> None:
        self._q, self._target, self._by_path = q, known.target, by_path
        self.z = z if by_path else z.detach()

    @cached_property
    def log_q(self) -> Float[Tensor, "S R B"]:
        """log q(z) at a fixed z."""
        return self._q.log_prob(self.z.detach())

    @cached_property
    def likelihood(self) -> Float[Tensor, "S R B"]:
        """log p(x|z)."""
        with torch.set_grad_enabled(self._by_path):
            return self._target.log_likelihood(self.z)

    @cached_property
    def ratio(self) -> Float[Tensor, "S R B"]:
        """w (log p(z) − log q(z))."""
        log_q = self._q.log_prob(self.z) if self._by_path else self.log_q
        return log_ratio(self._q, self._target, self.z, log_q)

    @cached_property
    def whole(self) -> Float[Tensor, "S R B"]:
        """log p(x|z) + w (log p(z) − log q(z))."""
        return self.likelihood + self.ratio if has_kl(self._target) else self.likelihood

    def inside(self, z: Tensor) -> Float[Tensor, "S R B"]:
        """Minus the closed-form KLs of latents given others at z, which depend on η at a fixed z too."""
        return -total(conditional_kls(self._q, self._target, z))

    @cached_property
    def conditional(self) -> Float[Tensor, "S R B"]:
        """log p(x|z) less those KLs."""
        return self.likelihood + self.inside(self.z)


class _Columns:
    """Features one after the other; gradients in η are summed over the samples by one backward pass each.

    What they are is said first, and those that are wanted are computed then.
    """

    def __init__(self, q: Distribution, leaf: Tensor, z: Tensor, known: Known) -> None:
        self._q, self._leaf, self._z, self._known = q, leaf, z, known
        self._samples, self._path = known.num_samples, z.requires_grad and explicit(q)
        self._zero = torch.zeros_like(known.eta_grad)
        self._parts: list[_Part] = []
        self._sets: list[list[int]] = []
        self._scalars: list[list[int]] = []
        self._add(lambda: self._score / self._samples, self._zero)

    def features(self, needed: Bool[Tensor, "F"] | None = None) -> Features:
        """All that were said; the score belongs to every set, and the last set has all."""
        sets, scalars = ([*found[::-1], [*chain(*found)]] for found in (self._sets, self._scalars))
        widths = [part.width for part in self._parts]
        wanted = [True] * len(widths) if needed is None else [bool(p.any()) for p in needed.split(widths)]
        by_path = any(part.by_path for part, wants in zip(self._parts, wanted, strict=True) if wants)
        self._integrand = _Integrand(self._q, self._z, self._known, by_path)
        columns = []
        for part, wants in zip(self._parts, wanted, strict=True):
            shape = (len(self._leaf), len(self._known.eta), part.width)
            columns.append(part.values().detach().reshape(shape) if wants else self._zero.new_zeros(shape))
        means = [part.means.unsqueeze(-1) if part.means.dim() == 1 else part.means for part in self._parts]
        return Features(
            torch.cat(columns, -1),
            torch.cat(means, -1),
            tuple((0, *places) for places in sets),
            tuple(map(tuple, scalars)),
        )

    def _add(self, values: Callable[[], Tensor], means: Tensor, by_path: bool = False) -> None:
        place = sum(part.width for part in self._parts)
        self._parts.append(_Part(values, means, by_path))
        if self._sets:
            (self._scalars if means.dim() == 1 else self._sets)[-1].append(place)

    def _begin(self) -> None:
        """A set of features that may be all that an estimate is made of."""
        self._sets.append([])
        self._scalars.append([])

    def _gradient(self, outputs: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(outputs.sum(), self._leaf, retain_graph=True)
        return gradient

    @cached_property
    def _score(self) -> Tensor:
        return self._gradient(self._integrand.log_q)

    def of_one_sample(self) -> None:
        """Of an objective that is the mean of a function of z."""
        known = self._known
        self._of_integrand(lambda: self._integrand.whole, known.value, known.eta_grad)
        if known.ratio is None or not has_kl(known.target):
            return
        value, gradient = known.value - known.ratio.value, known.eta_grad - known.ratio.eta_grad
        self._of_integrand(lambda: self._integrand.likelihood, value, gradient)
        if known.conditional is not None:
            self._of_integrand(
                lambda: self._integrand.conditional,
                value + known.conditional.value,
                gradient + known.conditional.eta_grad,
                lambda: self._integrand.inside(self._integrand.z.detach()),
            )

    def _of_integrand(
        self,
        integrand: Callable[[], Tensor],
        value: Tensor,
        gradient: Tensor,
        fixed: Callable[[], Tensor] | None = None,
    ) -> None:
        """``fixed`` is the part of the integrand that depends on η at a fixed z, other than through log q."""
        self._begin()

        def flat() -> Tensor:  # not about its mean, so that an estimator is the same sum of these everywhere
            return integrand().detach()

        @cache
        def weighted() -> Tensor:
            return self._gradient(flat() * self._integrand.log_q)

        def times_score() -> Tensor:
            beside = 0.0 if fixed is None else self._gradient(fixed())
            return (weighted() + beside) / self._samples

        def crossed() -> Tensor:
            others = flat().sum(0).unsqueeze(-1) * self._score - weighted()
            return others / (self._samples * (self._samples - 1))

        self._add(lambda: flat().mean(0), value)
        self._add(times_score, gradient)
        if self._samples > 1 and self._known.draws == "iid":
            self._add(crossed, self._zero)
        if self._path:
            self._add(lambda: self._gradient(integrand()) / self._samples, gradient, by_path=True)

    def of_all_samples(self) -> None:
        """Of log (1/S) Σ_s w_s, whose gradient is E[log w̄ Σ_s ∇ log q_s − Σ_s (w_s/Σ w) ∇ log q_s]."""

        def flat() -> Tensor:
            return self._integrand.whole.detach()

        def naive() -> Tensor:
            log_q = self._integrand.log_q
            at_z = flat() + log_q.detach() - log_q  # attached through log q at a fixed z alone
            return self._gradient((_bound(flat()) * log_q.sum(0)).sum() + _bound(at_z).sum())

        def others() -> Tensor:
            return self._gradient(_bounds_of_others(flat()) * self._integrand.log_q)

        known = self._known
        self._begin()
        self._add(lambda: _bound(flat()), known.value)
        self._add(naive, known.eta_grad)
        if self._samples > 1:
            self._add(others, self._zero)
        if self._path:
            self._add(lambda: self._gradient(_bound(self._integrand.whole)), known.eta_grad, by_path=True)


def _bound(log_w: Float[Tensor, "S R B"]) -> Float[Tensor, "R B"]:
    return log_w.logsumexp(0) - math.log(len(log_w))


def _bounds_of_others(log_w: Float[Tensor, "S R B"]) -> Float[Tensor, "S R B"]:
    """log of the mean weight of the other samples."""
    others = [torch.cat((log_w[:s], log_w[s + 1 :])).logsumexp(0) for s in range(len(log_w))]
    return torch.stack(others) - math.log(len(log_w) - 1)

"""Exact variances of single estimates, where algebra gives them and quadrature or enumeration the moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Estimator, Target
from ...estimators.methods.constant_baseline import ConstantBaseline
from ...estimators.methods.exact import Exact
from ...estimators.methods.leave_one_out import LeaveOneOut
from ...estimators.methods.moving_average_baseline import MovingAverageBaseline
from ...estimators.methods.reparameterization import Reparameterization
from ...estimators.methods.score_function import ScoreFunction
from ...estimators.methods.sticking_the_landing import StickingTheLanding
from ...estimators.pieces.enumeration import expected, integrand_of_outcomes, outcomes_at_a_time
from ...estimators.pieces.objective import has_kl, log_ratio
from ...estimators.posteriors.distributions import cut
from ...estimators.posteriors.families import family_of
from ...estimators.posteriors.gaussians import is_diagonal_gaussian
from ...estimators.posteriors.layered import Layered
from ...estimators.posteriors.outcomes import Outcomes
from ...estimators.posteriors.quadrature import gauss_hermite
from ...estimators.posteriors.shared import of_one
from .discrete_moments import discrete_moments
from .layered_variances import layered_variance
from .rules import GAUSSIAN_NODES, LEAST, TOLERANCE, Rule, change, rules_of, settled

_FIXED_BASELINE = (ScoreFunction, ConstantBaseline, MovingAverageBaseline)
_PATHWISE = (Reparameterization, StickingTheLanding)

Posterior = Callable[[Tensor], Distribution]
Way = Callable[[], Tensor]  # to a variance (B, P)


def exact_variance(
    estimator: Estimator, q_of: Posterior, eta: Float[Tensor, "B P"], target: Target, num_samples: int
) -> Float[Tensor, "B P"] | None:
    """Variance of every coordinate of one estimate in η-space, (B, P); None where it is not known.

    Known for the estimators of the suite whose samples are independent terms, or antithetic pairs under a
    Gaussian, and for leave-one-out, where a finer rule changes it by 1e-6 at most (its integrand is a square,
    and converges later than the mean's); and for those of discrete latents that `discrete_moments` knows.

    Args:
        estimator: of exactly one of these classes: a derived one may do anything.
        q_of: eta -> posterior.
        eta: (B, P), float64.
        target: for the B data.
        num_samples: S.
    """
    kind, q_of = type(estimator), of_one(q_of)
    if kind is Exact:
        return torch.zeros_like(eta)
    if isinstance(q_of(eta), Layered):
        terms = kind in (*_PATHWISE, *_FIXED_BASELINE) and estimator.draws == "iid"
        return layered_variance(estimator, q_of, eta, target, num_samples) if terms else None
    if estimator.draws == "sobol" or (estimator.draws == "antithetic" and not _is_gaussian(q_of(eta))):
        return None
    moments = discrete_moments(estimator, q_of, eta, target, num_samples)
    if moments is not None:
        return moments.variance
    if kind in _PATHWISE:
        ways = _pathwise(estimator, q_of, eta, target, num_samples)
    elif kind in (*_FIXED_BASELINE, LeaveOneOut):
        ways = _score(estimator, q_of, eta, target, num_samples)
    else:
        return None
    if not ways:
        return None
    variance, moved = settled(ways, change)
    return variance if moved <= TOLERANCE else None


def _score(estimator: Estimator, q_of: Posterior, eta: Tensor, target: Target, num_samples: int) -> list[Way]:
    """By the rules for q, ever finer; none where there is no rule."""
    found = rules_of(q_of(eta), least=LEAST)
    if isinstance(found, str):
        return []
    if found.method == "enumeration":
        return [partial(_by_enumeration, estimator, q_of, eta, target, num_samples)]
    return [partial(_score_by, rule, estimator, q_of, eta, target, num_samples) for rule in found.rules]


def _score_by(
    rule: Rule, estimator: Estimator, q_of: Posterior, eta: Tensor, target: Target, num_samples: int
) -> Tensor:
    f, score, weights = _score_moments(estimator, q_of, eta, target, rule)
    if isinstance(estimator, LeaveOneOut):
        centred = f - (weights.squeeze(-1) * f).sum(0)
        return _sample_covariance_variance(_comoments(centred, score, weights), num_samples)
    assert isinstance(estimator, ScoreFunction)
    term = (f - estimator.baseline(f, target)).unsqueeze(-1) * score
    return _variance_of_mean(term, weights, num_samples, estimator.draws).detach()


def _score_moments(
    estimator: Estimator, q_of: Posterior, eta: Tensor, target: Target, rule: Rule
) -> tuple[Tensor, Tensor, Tensor]:
    """f (N, B), score (N, B, P) and weights (N, B, 1) at the nodes of q."""
    z, weights = (part.detach() for part in rule(q_of(eta)))
    leaf = eta.detach().expand(len(z), *eta.shape).clone().requires_grad_()
    log_q = q_of(leaf).log_prob(z)
    (score,) = torch.autograd.grad(log_q.sum(), leaf)
    with torch.no_grad():
        f = target.log_likelihood(z)
        if getattr(estimator, "kl", "") == "sampled" and has_kl(target):
            f = f + log_ratio(q_of(eta), target, z, log_q)
    return f.detach(), score, weights.unsqueeze(-1)


def _by_enumeration(
    estimator: Estimator, q_of: Posterior, eta: Tensor, target: Target, num_samples: int
) -> Tensor:
    """Over all outcomes, a bounded number of them at a time."""
    leaf, kl = eta.detach().clone().requires_grad_(), getattr(estimator, "kl", "analytic")
    value = expected(q_of(leaf), target, kl)
    (mean,) = torch.autograd.grad(value.sum(), leaf)
    comoments, spread = torch.zeros(4, *eta.shape).to(eta), torch.zeros_like(eta)
    for f, score, weights in _outcomes_and_scores(q_of, eta, target, kl):
        if isinstance(estimator, LeaveOneOut):
            comoments += _comoments(f - value.detach(), score, weights)
        else:
            assert isinstance(estimator, ScoreFunction)
            term = (f - estimator.baseline(f, target)).unsqueeze(-1) * score
            spread += (weights * (term - mean).square()).sum(0).detach()
    if isinstance(estimator, LeaveOneOut):
        return _sample_covariance_variance(comoments, num_samples)
    return spread / num_samples


def _outcomes_and_scores(
    q_of: Posterior, eta: Tensor, target: Target, kl: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """f (n, B), score (n, B, P) and weights (n, B, 1) of all outcomes, n at a time."""
    q = q_of(eta)
    every, rows = Outcomes(q), outcomes_at_a_time(q)
    f, _ = integrand_of_outcomes(q, every, target, kl)
    for start in range(0, len(every), rows):
        z = every.between(start, min(start + rows, len(every)))
        leaf = eta.detach().expand(len(z), *eta.shape).clone().requires_grad_()
        log_q = q_of(leaf).log_prob(z.expand(-1, *q.batch_shape, *q.event_shape))
        (score,) = torch.autograd.grad(log_q.sum(), leaf)
        weights = log_q.detach().exp()
        with torch.no_grad():
            values = f(z, log_q.detach()).expand_as(weights)
        possible = torch.where(weights > 0, values, torch.zeros_like(values))
        yield possible, score, weights.unsqueeze(-1)


def _comoments(
    centred: Float[Tensor, "N B"], score: Float[Tensor, "N B P"], weights: Float[Tensor, "N #B 1"]
) -> Float[Tensor, "4 B P"]:
    """E of f·s, f², s² and f²s², for f less its mean, each (B, P)."""
    f = centred.unsqueeze(-1).expand_as(score)
    parts = (f * score, f.square(), score.square(), (f * score).square())
    return torch.stack([(weights * part).sum(0) for part in parts])


def _sample_covariance_variance(comoments: Float[Tensor, "4 B P"], s: int) -> Float[Tensor, "B P"]:
    """Leave-one-out is the sample covariance of f and the score, whose own mean is zero.

    References:
        Kendall & Stuart, The Advanced Theory of Statistics, volume 1 (sampling cumulants, κ(11 11)).
    """
    mu11, mu20, mu02, mu22 = comoments
    return mu22 / s - (s - 2) / (s * (s - 1)) * mu11**2 + mu20 * mu02 / (s * (s - 1))


def _pathwise(
    estimator: Estimator, q_of: Posterior, eta: Tensor, target: Target, num_samples: int
) -> list[Way]:
    """By Gauss-Hermite rules, ever finer; none for what is no small diagonal Gaussian."""
    q = q_of(eta)
    if not is_diagonal_gaussian(q) or len(q.event_shape) > 1:
        return []
    counts = GAUSSIAN_NODES.get(q.event_shape[0], ())
    return [partial(_pathwise_by, nodes, estimator, q_of, eta, target, num_samples) for nodes in counts]


def _pathwise_by(
    nodes: int, estimator: Estimator, q_of: Posterior, eta: Tensor, target: Target, num_samples: int
) -> Tensor:
    """Variance of the mean of ∇_η f(μ + σ ε), by Gauss-Hermite nodes ε."""
    q = q_of(eta)
    unit, weights = gauss_hermite(q, nodes, LEAST)
    leaf = eta.detach().expand(len(unit), *eta.shape).clone().requires_grad_()
    moved = q_of(leaf)
    noise = ((unit - q.mean) / q.stddev).detach()
    z = moved.mean + moved.stddev * noise
    f = target.log_likelihood(z)
    if getattr(estimator, "kl", "") == "sampled" and has_kl(target):
        density = cut(moved) if type(estimator) is StickingTheLanding else moved
        f = f + log_ratio(moved, target, z, density.log_prob(z))
    (gradient,) = torch.autograd.grad(f.sum(), leaf)
    return _variance_of_mean(gradient, weights.reshape(-1, 1, 1), num_samples, estimator.draws)


def _variance_of_mean(term: Tensor, weights: Tensor, num_samples: int, draws: str) -> Tensor:
    """Of S independent terms (N, B, P) at nodes, or of ⌊S/2⌋ mirrored pairs and a single one."""
    if draws == "iid":
        return _spread(term, weights) / num_samples
    pairs, single = divmod(num_samples, 2)
    mirrored = term.flip(0)  # the nodes lie symmetrically about the mean
    return (pairs * _spread(term + mirrored, weights) + single * _spread(term, weights)) / num_samples**2


def _is_gaussian(q: Distribution) -> bool:
    return is_diagonal_gaussian(q) or family_of(q) is td.MultivariateNormal


def _spread(term: Tensor, weights: Tensor) -> Tensor:
    mean = (weights * term).sum(0)
    return (weights * (term - mean).square()).sum(0)

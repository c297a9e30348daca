"""The ratio of two estimators' variances, from common random numbers where they can share draws."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float64
from torch import Tensor

from ...estimators.base import Estimator
from ..gradients import frozen, prepare, reseed, seeded
from ..problems.arguments import check_choice, checked_seed, counts, optional_counts
from ..problems.as_trained import as_trained
from ..problems.model_checks import check_model
from ..problems.point import placed, resolve_estimator
from ..problems.protocol import Problem
from ..seeds import derived, hashed
from ..statistics.moments import Moments
from ..statistics.ratios import FEWEST, JointMoments, Ratio, independent_ratio, paired_ratio
from .arguments import ROUTES
from .measure import measure_variance
from .moments import bessel, central_moments
from .result import VarianceResult
from .route import Route, choose_route


@as_trained()
def measure_ratio(
    problem: Problem | str,
    estimator: Estimator | str,
    relative_to: Estimator | str,
    x: Tensor | None = None,
    *,
    num_samples: int = 1,
    replicates: int = 10_000,
    warmup: int | None = None,
    route: str = "factorized",
    seed: int = 0,
    batch_size: int | None = None,
) -> Ratio:
    """Measure tr Cov(ĝ) of one estimator over that of another, at the same S.

    Both are measured on the same draws where they draw alike, chunk by chunk: what makes both large at
    once then falls out of the ratio. Two that draw differently are as good as independent; so are
    estimators that couple the batch, which are measured apart.

    Args:
        problem: a Problem, or its specification.
        estimator: of the numerator.
        relative_to: of the denominator.
        x: data (B, ...); None for the first training batch under ``seed``.
        num_samples: S, of both.
        replicates: independent estimates of each.
        warmup: see `measure_variance`.
        route: see `measure_variance`.
        seed: of the data batch and the draws.
        batch_size: B when x is None.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: an estimator broke the protocol while it ran.
    """
    seed = checked_seed(seed)
    problem, x = placed(problem, x, batch_size=batch_size, seed=seed)
    first, second = resolve_estimator(estimator, seed), resolve_estimator(relative_to, seed)
    num_samples, replicates = counts(num_samples=num_samples, replicates=replicates)
    (warmup,) = optional_counts(warmup=warmup)
    check_choice(ROUTES, route=route)
    with seeded(seed, x.device):
        check_model(problem, x, route)
    share = route == "factorized" and not any(e.couples_batch or e.deterministic for e in (first, second))
    if share:
        joint = _drawn_alike(problem, (first, second), x, num_samples, replicates, warmup, seed)
        if joint is not None:
            return paired_ratio(joint)
    a, b = (
        _total(
            measure_variance(
                problem,
                e,
                x,
                num_samples=num_samples,
                replicates=replicates,
                warmup=warmup,
                route=route,
                seed=s,
                details=False,
            ),
            replicates,
        )
        for e, s in ((first, seed), (second, hashed(seed, 1)))
    )
    return independent_ratio(a, b)


def _total(result: VarianceResult, replicates: int) -> Moments:
    """Of a deterministic estimator, two replicates tell as much as any number asked for."""
    total = result.moments[""]
    return replace(total, n=max(replicates, FEWEST)) if result.deterministic else total


def _drawn_alike(
    problem: Problem,
    estimators: tuple[Estimator, Estimator],
    x: Tensor,
    num_samples: int,
    replicates: int,
    warmup: int | None,
    seed: int,
) -> JointMoments | None:
    """Of both estimators, their k-th chunks drawn from one seed; None where they can share none."""
    with torch.enable_grad(), seeded(seed, x.device):
        for estimator in estimators:
            reseed(seed, x.device)
            prepare(problem, estimator, x, num_samples, warmup)
        with frozen(problem.decoder):
            routes = _of_one_chunk(problem, *estimators, x, num_samples)
            for route in routes:
                _draw(route, replicates, seed)
            return _joint(*routes) if routes else None


def _of_one_chunk(problem: Problem, a: Estimator, b: Estimator, x: Tensor, num_samples: int) -> list[Route]:
    """Routes that draw as many replicates at once; nothing where one of them draws each alone."""
    first = choose_route(problem, a, x, num_samples)
    second = choose_route(problem, b, x, num_samples, like=first)
    if first.chunk is None or second.chunk is None:
        return []
    chunk = min(first.chunk, second.chunk)
    return [
        route
        if route.chunk == chunk
        else choose_route(problem, estimator, x, num_samples, chunk=chunk, like=route)
        for route, estimator in ((first, a), (second, b))
    ]


def _draw(route: Route, replicates: int, seed: int) -> None:
    """Draw chunk by chunk, about a centre that is not counted: the first chunk is drawn like the others."""
    reseed(derived(seed, "draws"), route.x.device)
    route.join(0)
    assert route.chunk is not None
    for k, start in enumerate(range(0, replicates, route.chunk)):
        reseed(hashed(seed, k), route.x.device)
        route.add(min(route.chunk, replicates - start))


def _joint(a: Route, b: Route) -> JointMoments:
    u, v = a.contributions_kept(), b.contributions_kept()
    assert u is not None and v is not None
    return joint_moments(a.total(), b.total(), u, v)


def joint_moments(
    of_a: Moments, of_b: Moments, u: Float64[Tensor, "B K"], v: Float64[Tensor, "B L"]
) -> JointMoments:
    """Joint moments of two totals from the same draws; correlations from the replicates kept of both.

    Args:
        of_a: moments of V̂_A, from n replicates.
        of_b: of V̂_B, from as many.
        u: contributions to V̂_A of its first replicates, K ≤ n.
        v: likewise to V̂_B; where one has more, the first of them count.
    """
    kept = min(u.shape[1], v.shape[1])
    u, v = u[:, :kept], v[:, :kept]
    du, dv = u - u.mean(-1, keepdim=True), v - v.mean(-1, keepdim=True)
    (s_u, _, _), (s_v, _, _) = central_moments(u), central_moments(v)
    spread_a, spread_b = (float(s.sum()) ** 0.5 for s in (s_u, s_v))
    if not (spread_a > 0 and spread_b > 0):
        return JointMoments(of_a, of_b)
    n = of_a.n**0.5
    covariance, aab, abb = (
        float(product.mean(-1).sum()) for product in (du * dv, du.square() * dv, du * dv.square())
    )
    error_a, error_b = of_a.stderr, of_b.stderr
    return JointMoments(
        of_a,
        of_b,
        bessel(kept) * covariance / (spread_a * spread_b) * error_a * error_b,
        aab / (spread_a**2 * spread_b) / n * error_a**2 * error_b,
        abb / (spread_a * spread_b**2) / n * error_a * error_b**2,
    )

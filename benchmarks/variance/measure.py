"""Gradient variance: how noisy an estimator is at one point of one problem."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ..gradients import frozen, prepare, reseed, seeded
from ..problems.arguments import check_between, check_choice, check_counts, shown
from ..problems.model_checks import check_model
from ..problems.placement import dtype_of
from ..problems.point import placed, resolve_estimator
from ..problems.protocol import Problem
from ..rows.schema import row
from ..statistics.intervals import Moments, signal_to_noise
from . import breakdown
from .factorized import DirectPathError, FactorizedRoute
from .full import FullRoute
from .moments import Sums
from .precision import run_to_precision
from .signal import Signal, measure_signal

ROUTES = ("factorized", "full")
WRT = ("phi", "theta")


@dataclass(frozen=True)
class VarianceResult:
    """The variance of the batch-mean gradient ĝ, and what came with it.

    What is marked (*) is left empty by ``details=False``.

    Attributes:
        total: tr Cov(ĝ), (nats per unit of φ)².
        ci_low: lower end of its 95% interval.
        ci_high: upper end.
        mean: parameter name -> E ĝ, of the parameter's shape.
        per_parameter: (*) parameter name -> Var ĝ, of the parameter's shape.
        replicates: independent estimates spent.
        moments: (*) parameter name -> its share of the total with interval; "" is the total, always there.
        by_layer: (*) layer -> share of the total of the parameters it holds itself.
        by_datum: (*) share of the total of each datum; empty on the full route.
        by_eta: (*) part of eta -> variance of one datum's gradient in it, averaged over the batch; for
            problems that name the parts (``eta_parts``), on the factorized route.
        minibatch: (*) variance of the exact batch-mean gradient over the choice of the batch, which adds
            to ``total`` in training; None for B = 1, on the full route, or where it is lost in the noise.
        signal: (*) norm of E ĝ, signal-to-noise ratio, cosine of one estimate, with intervals.
        kurtosis: of the replicates' contributions to the total; 3 for a Gaussian.
        snr: ‖E ĝ‖ / √total, debiased.
        gradient_norm: ‖E ĝ‖, debiased.
        evaluations: of log p(x|z) a datum and estimate.
        route: "factorized" or "full", whichever was taken.
        eta_mean: E h, (B, P); None on the full route.
        eta_covariance: Cov(h_i), (B, P, P); None on the full route.
        sums: what `measure_variance` takes as ``merge``; None on the full route.
        deterministic: whether the estimator says that it draws nothing, nor does the model on the full route;
            two replicates are then enough.
        case: the settings, as columns of `rows`.
    """

    total: float
    ci_low: float
    ci_high: float
    mean: dict[str, Tensor]
    per_parameter: dict[str, Tensor]
    replicates: int
    moments: dict[str, Moments]
    by_layer: dict[str, Moments]
    by_datum: list[Moments]
    by_eta: dict[str, Moments]
    minibatch: Moments | None
    signal: Signal | None
    kurtosis: float
    snr: float
    gradient_norm: float
    evaluations: int
    route: str
    eta_mean: Tensor | None
    eta_covariance: Tensor | None
    sums: Sums | None
    deterministic: bool
    case: dict[str, Any]

    @property
    def warning(self) -> str:
        """Why the interval is not to be trusted, or nothing."""
        return self._warning(self.moments[""])

    def _warning(self, moments: Moments) -> str:
        if self.deterministic or not moments.needed:
            return ""
        return f"not enough replicates (at least {moments.needed})"

    def rows(self) -> list[dict[str, Any]]:
        """Long rows, as in `elbograd.benchmarks.rows.schema`, the total first; see results/README.md."""
        common = {**self.case, "n": self.replicates}

        def of(metric: str, moments: Moments, parameter: str = "") -> dict[str, Any]:
            low, high = moments.interval()
            return row(
                **common,
                metric=metric,
                parameter=parameter,
                value=moments.mean,
                stderr=moments.stderr,
                ci_low=low,
                ci_high=high,
                reason=self._warning(moments),
            )

        rows = [of("variance", m, name) for name, m in reversed(self.moments.items())]
        rows += [of("variance_by_layer", m, name or "encoder") for name, m in self.by_layer.items()]
        rows += [of("variance_by_datum", m, str(i)) for i, m in enumerate(self.by_datum)]
        rows += [of("eta_variance", m, name) for name, m in self.by_eta.items()]
        if self.minibatch is not None:
            few = self.minibatch.needed
            note = f"not enough data in the batch (at least {few})" if few else ""
            rows.append({**of("minibatch_variance", self.minibatch), "n": self.minibatch.n, "reason": note})
        if self.signal is None:
            rows += [
                row(**common, metric=metric, value=value, reason=self.warning)
                for metric, value in (("snr", self.snr), ("gradient_norm", self.gradient_norm))
            ]
        else:
            rows += [
                row(**common, metric=m, value=q.value, ci_low=q.low, ci_high=q.high, reason=self.warning)
                for m, q in self.signal.named()
            ]
        if math.isfinite(self.kurtosis):
            rows.append(row(**common, metric="kurtosis", value=self.kurtosis))
        rows.append(row(**common, metric="evaluations", value=float(self.evaluations)))
        return rows


@torch.inference_mode(False)  # which is where some are called from; gradients are taken here
def measure_variance(
    problem: Problem | str,
    estimator: Estimator | str,
    x: Tensor | None = None,
    *,
    num_samples: int = 1,
    replicates: int = 10_000,
    precision: float | None = None,
    warmup: int | None = None,
    wrt: str = "phi",
    route: str = "factorized",
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    batch_size: int | None = None,
    chunk: int | None = None,
    details: bool = True,
    stream: int | None = None,
    merge: Sequence[Sums] = (),
) -> VarianceResult:
    """Measure the variance of the batch-mean gradient of the objective.

    Neither the problem nor the estimator is changed: θ is frozen while φ is measured and restored
    after, the estimator's state is that of a copy. Two estimators under one seed share their draws
    where they draw alike.

    Args:
        problem: a Problem, or its specification.
        estimator: an Estimator, or its specification.
        x: data (B, ...); None for the first training batch under ``seed``.
        num_samples: S.
        replicates: independent estimates, R.
        precision: relative half-width of the 95% interval to reach, in place of a fixed R.
        warmup: updates of the estimator's own state before measuring; None for 500 where it has any.
        wrt: "phi" (the gradient of ``surrogate``) or "theta" (of ``value``, by the full route).
        route: "factorized", or "full" for one φ-gradient a replicate; an estimator that couples the
            batch, and a posterior that holds φ itself, take the full route in any case.
        seed: of the data batch and the draws.
        device: where to measure; None for where the problem is.
        dtype: floating-point type; None for the problem's.
        batch_size: B when x is None; None for the problem's default.
        chunk: replicates at a time on the factorized route; None to choose from the sizes.
        details: False for the total and the mean alone, which spares what is marked (*) in the result.
        stream: a number for one of several measurements whose replicates are independent and can be
            merged, made by other processes or machines with all other arguments the same.
        merge: ``sums`` of other streams; the result is that of all their replicates and the new ones.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator broke the protocol while it ran.
    """
    problem, x = placed(problem, x, batch_size=batch_size, seed=seed, device=device, dtype=dtype)
    estimator = resolve_estimator(estimator)
    check_counts(num_samples=num_samples, replicates=replicates, warmup=warmup, chunk=chunk)
    _check_choices(precision, wrt, route)
    if merge and stream is None:
        raise UsageError("merge needs stream, a number that none of the merged sums was made with")
    with seeded(seed, x.device):
        check_model(problem, x, route)
    with torch.enable_grad(), seeded(seed, x.device):
        prepare(problem, estimator, x, num_samples, warmup)
    with torch.enable_grad(), seeded(seed + 1, x.device):
        chosen = choose_route(problem, estimator, x, num_samples, wrt, route, chunk)
        # A probe of the sizes has drawn numbers; start afresh, so that estimators share theirs.
        reseed(seed + 1, x.device)
        with frozen(problem.decoder if wrt == "phi" else torch.nn.Module()):
            if stream is not None:
                _join(chosen, stream, seed, merge)
            constant = _draw(chosen, estimator, replicates, precision)
            return result_of(chosen, problem, estimator, x, num_samples, seed, details, constant)


def _join(route: FactorizedRoute | FullRoute, stream: int, seed: int, merge: Sequence[Sums]) -> None:
    if not isinstance(route, FactorizedRoute):
        raise UsageError("stream needs the factorized route")
    route.choose_centre()
    assert route.sums is not None
    route.sums.streams.add(stream)
    for sums in merge:
        if not isinstance(sums, Sums):
            raise UsageError(f"merge must be the sums of other results, not {shown(sums)}")
        route.sums.merge(sums)
    reseed(derived_seed(seed, stream), route.x.device)


def derived_seed(seed: int, stream: int) -> int:
    """A seed of its own for each stream, apart from the small numbers that users give."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{stream}".encode()).digest()[:7])


def _draw(
    route: FactorizedRoute | FullRoute, estimator: Estimator, replicates: int, precision: float | None
) -> bool:
    """Draw, and say whether it was the same each time by construction.

    A model that draws itself (dropout, on the full route) makes a deterministic estimator's gradient random.
    """
    constant = estimator.deterministic and route.repeats()
    if constant:
        route.add(2)  # more of the same would tell nothing
    elif precision is not None:
        run_to_precision(route, precision)
    else:
        route.add(replicates)
    return constant


def _check_choices(precision: float | None, wrt: str, route: str) -> None:
    if precision is not None:
        check_between(0, 1, precision=precision)
    check_choice(WRT, wrt=wrt)
    check_choice(ROUTES, route=route)


def choose_route(
    problem: Problem,
    estimator: Estimator,
    x: Tensor,
    num_samples: int,
    wrt: str = "phi",
    route: str = "factorized",
    chunk: int | None = None,
    like: FactorizedRoute | None = None,
) -> FactorizedRoute | FullRoute:
    """What draws replicates: the route asked for, or the full one where that is needed.

    Args:
        problem: as for `measure_variance`; these and those that follow.
        estimator: prepared.
        x: (B, ...).
        num_samples: S.
        wrt: "phi" or "theta".
        route: "factorized" or "full".
        chunk: see `measure_variance`.
        like: another route on this problem and x, whose Jacobian is used again.

    Raises:
        UsageError: there is nothing to differentiate with respect to.
    """
    side = "encoder" if wrt == "phi" else "decoder"
    if not any(p.requires_grad for p in getattr(problem, side).parameters()):
        raise UsageError(f"the problem has no trainable parameters in its {side}")
    if wrt == "phi" and route == "factorized" and not estimator.couples_batch:
        try:
            with frozen(problem.decoder):
                return FactorizedRoute(problem, estimator, x, num_samples, chunk, like)
        except DirectPathError:
            pass  # the general route is right for such a posterior
    return FullRoute(problem, estimator, x, num_samples, wrt)


def result_of(
    route: FactorizedRoute | FullRoute,
    problem: Problem,
    estimator: Estimator,
    x: Tensor,
    num_samples: int,
    seed: int,
    details: bool,
    constant: bool,
) -> VarianceResult:
    """What a route has drawn so far; ``constant`` where it draws the same each time by construction."""
    total = route.total()
    mean = {name: g.detach().clone() for name, g in route.mean().items()}
    squared_norm = sum(float(g.double().square().sum()) for g in mean.values())
    low, high = total.interval()
    return VarianceResult(
        total=total.mean,
        ci_low=low,
        ci_high=high,
        mean=mean,
        replicates=route.n,
        snr=signal_to_noise(squared_norm, total.mean, route.n),
        gradient_norm=max(squared_norm - total.mean / route.n, 0.0) ** 0.5,
        evaluations=route.evaluations,
        route=route.name,
        eta_mean=route.eta_mean() if isinstance(route, FactorizedRoute) else None,
        eta_covariance=route.eta_covariance() if isinstance(route, FactorizedRoute) else None,
        sums=route.sums if isinstance(route, FactorizedRoute) else None,
        kurtosis=route.kurtosis(),
        deterministic=constant,
        case={
            "benchmark": "variance",
            "problem": getattr(problem, "label", type(problem).__name__),
            "estimator": estimator.label,
            "objective": estimator.objective,
            "num_samples": num_samples,
            "batch_size": len(x),
            "latent_dim": getattr(problem, "latent_dim", None),
            "seed": seed,
            "device": str(x.device),
            "dtype": str(dtype_of(problem)).removeprefix("torch."),
        },
        **(_details(route, total) if details else {**_NO_DETAILS, "moments": {"": total}}),
    )


_NO_DETAILS: dict[str, Any] = {
    "per_parameter": {},
    "by_layer": {},
    "by_datum": [],
    "by_eta": {},
    "minibatch": None,
    "signal": None,
}


def _details(route: FactorizedRoute | FullRoute, total: Moments) -> dict[str, Any]:
    found = {**_NO_DETAILS, "per_parameter": route.per_parameter(), "signal": measure_signal(route, total)}
    if isinstance(route, FullRoute):
        return {
            **found,
            "moments": {**route.by_parameter(), "": total},
            "by_layer": route.by_layer(),
        }
    return {
        **found,
        "moments": {**breakdown.by_parameter(route), "": total},
        "by_layer": breakdown.by_layer(route),
        "by_datum": breakdown.by_datum(route),
        "by_eta": breakdown.by_eta(route),
        "minibatch": breakdown.minibatch_variance(route),
    }

"""What a measurement of gradient variance found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.support import objective_of
from ..jacobians.products import flat
from ..problems.point import columns
from ..problems.protocol import Problem
from ..rows.schema import row
from ..statistics.moments import Moments
from ..statistics.signal_to_noise import signal_to_noise
from .breakdown import Breakdown
from .moments import Sums
from .route import Route
from .signal import Signal, measure_signal


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
        minibatch: (*) variance of the exact batch-mean gradient over the choice of the batch, without
            replacement from the training data where x is some of them, which adds to ``total`` in training;
            None for B = 1, on the full route, or where it is lost in the noise.
        signal: (*) norm of E ĝ, signal-to-noise ratio, cosine of one estimate, with intervals.
        kurtosis: of the replicates' contributions to the total; 3 for a Gaussian.
        snr: ‖E ĝ‖ / √total, debiased.
        gradient_norm: ‖E ĝ‖, debiased.
        evaluations: of log p(x|z) a datum and estimate.
        route: "factorized" or "full", whichever was taken.
        eta_mean: E h; None on the full route.
        eta_covariance: Cov(h_i); None on the full route.
        sums: what `measure_variance` takes as ``merge``; None on the full route.
        deterministic: whether the estimator says that it draws nothing, nor does the model on the full route;
            two replicates are then enough.
        case: the settings, as columns of `rows`.
        notes: what else has to be known to read the numbers, each in a few words.
        state_updates: of the estimator's own state before it was measured; 0 where it has none.
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
    eta_mean: Float64[Tensor, "B P"] | None
    eta_covariance: Float64[Tensor, "B P P"] | None
    sums: Sums | None
    deterministic: bool
    case: dict[str, Any]
    notes: tuple[str, ...] = ()
    state_updates: int = 0

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
        rows = [self._share("variance", m, name) for name, m in reversed(self.moments.items())]
        rows += [self._share("variance_by_layer", m, name or "encoder") for name, m in self.by_layer.items()]
        rows += [self._share("variance_by_datum", m, str(i)) for i, m in enumerate(self.by_datum)]
        rows += [self._share("eta_variance", m, name) for name, m in self.by_eta.items()]
        if self.minibatch is not None:
            few = (
                self.minibatch.needed if self.minibatch.mean > 0 else None
            )  # of all the data it is exactly 0
            note = f"not enough data in the batch (at least {few})" if few else ""
            found = self._share("minibatch_variance", self.minibatch)
            rows.append({**found, "n": self.minibatch.n, "reason": note})
        rows += self._signal_rows()
        if math.isfinite(self.kurtosis):
            rows.append(self._row("kurtosis", self.kurtosis))
        notes = list(self.notes)
        if self.state_updates:
            rows.append(self._row("state_updates", float(self.state_updates)))
            notes.append(f"state after {self.state_updates:,} updates")
        rows += [self._row("note", math.nan, reason=note) for note in notes]
        return [*rows, self._row("evaluations", float(self.evaluations))]

    def _row(self, metric: str, value: float, **more: Any) -> dict[str, Any]:
        return row(**self.case, n=self.replicates, metric=metric, value=value, **more)

    def _share(self, metric: str, moments: Moments, parameter: str = "") -> dict[str, Any]:
        low, high = moments.interval()
        return self._row(
            metric,
            moments.mean,
            parameter=parameter,
            stderr=moments.stderr,
            ci_low=low,
            ci_high=high,
            reason=self._warning(moments),
        )

    def _signal_rows(self) -> list[dict[str, Any]]:
        if self.signal is None:
            found = (("snr", self.snr), ("gradient_norm", self.gradient_norm))
            return [self._row(metric, value, reason=self.warning) for metric, value in found]
        return [
            self._row(metric, of.value, ci_low=of.low, ci_high=of.high, reason=self.warning)
            for metric, of in self.signal.named()
        ]


def case_of(problem: Problem, estimator: Estimator, x: Tensor, num_samples: int, seed: int) -> dict[str, Any]:
    """The settings, as columns of rows."""
    return {
        "benchmark": "variance",
        "estimator": estimator.label,
        "objective": objective_of(estimator, problem.target(x)),
        "num_samples": num_samples,
        "seed": seed,
        **columns(problem, x),
    }


def result_of(
    route: Route,
    case: dict[str, Any],
    constant: bool,
    details: bool,
    notes: tuple[str, ...] = (),
    state_updates: int = 0,
) -> VarianceResult:
    """What a route has drawn so far.

    Args:
        route: with at least two replicates.
        case: from `case_of`.
        constant: whether it draws the same each time by construction.
        details: False to leave out what is marked (*) in the result.
        notes: of the result.
        state_updates: likewise.
    """
    total = route.total()
    mean = {name: g.detach().clone() for name, g in route.mean().items()}
    squared_norm = sum(float(g.double().square().sum()) for g in mean.values())
    low, high = total.interval()
    parts = route.breakdown() if details else Breakdown()
    return VarianceResult(
        total=total.mean,
        ci_low=low,
        ci_high=high,
        mean=mean,
        per_parameter=route.per_parameter() if details else {},
        replicates=route.n,
        moments={**parts.by_parameter, "": total},
        by_layer=parts.by_layer,
        by_datum=parts.by_datum,
        by_eta=parts.by_eta,
        minibatch=parts.minibatch,
        signal=measure_signal(flat(mean), route.sample(), total) if details else None,
        kurtosis=route.kurtosis(),
        snr=signal_to_noise(squared_norm, total.mean, route.n),
        gradient_norm=max(squared_norm - total.mean / route.n, 0.0) ** 0.5,
        evaluations=route.evaluations,
        route=route.name,
        eta_mean=route.eta_mean(),
        eta_covariance=route.eta_covariance(),
        sums=route.sums,
        deterministic=constant,
        case=case,
        notes=notes,
        state_updates=state_updates,
    )

"""Gradient variance: how noisy an estimator is at one point of one problem."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..estimators.base import Estimator
from ..estimators.errors import UsageError
from ..estimators.registry import create
from .evaluation import frozen, prepare, seeded
from .factorized import DirectPathError, FactorizedRoute
from .full_route import FullRoute
from .modes import check_modes
from .placement import check_dtype, default_batch_size, dtype_of, first_batch, place, to_encoder
from .precision import run_to_precision
from .problems.protocol import Problem
from .problems.registry import load_problem
from .schema import row
from .statistics import Moments, signal_to_noise

ROUTES = ("factorized", "full")
WRT = ("phi", "theta")


@dataclass(frozen=True)
class VarianceResult:
    """The variance of the batch-mean gradient ĝ, and what came with it.

    Attributes:
        total: tr Cov(ĝ), (nats per unit of φ)².
        ci_low: lower end of its 95% interval.
        ci_high: upper end.
        mean: parameter name -> E ĝ, of the parameter's shape.
        per_parameter: parameter name -> Var ĝ, of the parameter's shape.
        replicates: independent estimates spent.
        moments: parameter name -> its share of the total with interval; "" is the total.
        snr: ‖E ĝ‖ / √total, debiased.
        gradient_norm: ‖E ĝ‖, debiased.
        evaluations: of log p(x|z) a datum and estimate.
        route: "factorized" or "full", whichever was taken.
        eta_mean: E h, (B, P); None on the full route.
        eta_covariance: Cov(h_i), (B, P, P); None on the full route.
        case: the settings, as columns of `rows`.
    """

    total: float
    ci_low: float
    ci_high: float
    mean: dict[str, Tensor]
    per_parameter: dict[str, Tensor]
    replicates: int
    moments: dict[str, Moments]
    snr: float
    gradient_norm: float
    evaluations: int
    route: str
    eta_mean: Tensor | None
    eta_covariance: Tensor | None
    case: dict[str, Any]

    @property
    def warning(self) -> str:
        """Why the interval is not to be trusted, or nothing."""
        needed = self.moments[""].needed
        return f"not enough replicates (at least {needed})" if needed else ""

    def rows(self) -> list[dict[str, Any]]:
        """Long rows, as in `elbograd.benchmarks.schema`: variance in total and by parameter, SNR, norm."""
        common = {**self.case, "n": self.replicates}
        rows = [
            row(
                **common,
                metric="variance",
                parameter=name,
                value=m.mean,
                stderr=m.stderr,
                ci_low=m.interval()[0],
                ci_high=m.interval()[1],
                reason=self.warning,
            )
            for name, m in reversed(self.moments.items())
        ]
        rows.append(row(**common, metric="snr", value=self.snr, reason=self.warning))
        rows.append(row(**common, metric="gradient_norm", value=self.gradient_norm))
        rows.append(row(**common, metric="evaluations", value=float(self.evaluations)))
        return rows


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

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator broke the protocol while it ran.
    """
    problem, estimator = _resolve(problem, estimator)
    if x is not None and not (isinstance(x, Tensor) and x.dim() > 0 and len(x) > 0):
        raise UsageError("x must be a tensor (B, ...) of at least one datum")
    _check_arguments(num_samples, replicates, precision, wrt, route, warmup, chunk)
    problem = place(problem, device=device, dtype=check_dtype(dtype) if isinstance(dtype, str) else dtype)
    if x is None:
        x = first_batch(problem, batch_size or default_batch_size(problem), seed)
    x = to_encoder(problem, x)
    check_modes(problem)
    with torch.enable_grad(), seeded(seed, x.device):
        prepare(problem, estimator, x, num_samples, warmup)
    with torch.enable_grad(), seeded(seed + 1, x.device):
        chosen = _choose_route(problem, estimator, x, num_samples, wrt, route, chunk)
        # A probe of the sizes has drawn numbers; start afresh, so that estimators share theirs.
        torch.manual_seed(seed + 1)
        with frozen(problem.decoder if wrt == "phi" else torch.nn.Module()):
            if estimator.deterministic:
                chosen.add(2)  # more of the same would tell nothing
            elif precision is not None:
                run_to_precision(chosen, precision)
            else:
                chosen.add(replicates)
            return _result(chosen, problem, estimator, x, num_samples, seed)


def _resolve(problem: Problem | str, estimator: Estimator | str) -> tuple[Problem, Estimator]:
    if isinstance(problem, str):
        problem = load_problem(problem)
    if isinstance(estimator, str):
        return problem, create(estimator)
    if not isinstance(estimator, Estimator):
        raise UsageError(f"{estimator!r} is not an Estimator: give an instance or its specification")
    return problem, copy.deepcopy(estimator)


def _check_arguments(
    num_samples: int,
    replicates: int,
    precision: float | None,
    wrt: str,
    route: str,
    warmup: int | None,
    chunk: int | None,
) -> None:
    for name, value, least in (
        ("num_samples", num_samples, 1),
        ("replicates", replicates, 2),
        ("warmup", warmup, 0),
        ("chunk", chunk, 1),
    ):
        if value is not None and (not isinstance(value, int) or value < least):
            raise UsageError(f"{name} must be an integer of at least {least}, not {value!r}")
    if precision is not None and (not isinstance(precision, float) or not 0 < precision < 1):
        raise UsageError(f"precision must be between 0 and 1, not {precision!r}")
    if wrt not in WRT:
        raise UsageError(f"wrt={wrt!r} is not one of {', '.join(WRT)}")
    if route not in ROUTES:
        raise UsageError(f"route={route!r} is not one of {', '.join(ROUTES)}")


def _choose_route(
    problem: Problem,
    estimator: Estimator,
    x: Tensor,
    num_samples: int,
    wrt: str,
    route: str,
    chunk: int | None,
) -> FactorizedRoute | FullRoute:
    side = "encoder" if wrt == "phi" else "decoder"
    if not any(p.requires_grad for p in getattr(problem, side).parameters()):
        raise UsageError(f"the problem has no trainable parameters in its {side}")
    if wrt == "phi" and route == "factorized" and not estimator.couples_batch:
        try:
            with frozen(problem.decoder):
                return FactorizedRoute(problem, estimator, x, num_samples, chunk)
        except DirectPathError:
            pass  # the general route is right for such a posterior
    return FullRoute(problem, estimator, x, num_samples, wrt)


def _result(
    route: FactorizedRoute | FullRoute,
    problem: Problem,
    estimator: Estimator,
    x: Tensor,
    num_samples: int,
    seed: int,
) -> VarianceResult:
    moments = route.moments()
    total = moments[""]
    mean = {name: g.detach().clone() for name, g in route.mean().items()}
    squared_norm = sum(float(g.double().square().sum()) for g in mean.values())
    low, high = total.interval()
    return VarianceResult(
        total=total.mean,
        ci_low=low,
        ci_high=high,
        mean=mean,
        per_parameter=route.per_parameter(),
        replicates=route.n,
        moments=moments,
        snr=signal_to_noise(squared_norm, total.mean, route.n),
        gradient_norm=max(squared_norm - total.mean / route.n, 0.0) ** 0.5,
        evaluations=route.evaluations,
        route=route.name,
        eta_mean=route.eta_mean() if isinstance(route, FactorizedRoute) else None,
        eta_covariance=route.eta_covariance() if isinstance(route, FactorizedRoute) else None,
        case={
            "benchmark": "variance",
            "problem": getattr(problem, "label", type(problem).__name__),
            "estimator": estimator.label,
            "num_samples": num_samples,
            "batch_size": len(x),
            "latent_dim": getattr(problem, "latent_dim", None),
            "seed": seed,
            "device": str(x.device),
            "dtype": str(dtype_of(problem)).removeprefix("torch."),
        },
    )

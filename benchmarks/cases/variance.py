"""The variance benchmark: how noisy gradients are, at points of a training trajectory that all share."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...estimators.errors import UsageError
from ...estimators.isolation import contained
from ...estimators.kl_weight import parameters_of_weight, weight_or_free_bits, weighted_objective
from ...estimators.plugins.registry import create, create_under
from ...estimators.plugins.specification import parse
from ..problems.specifications import label_of_text, specifications, with_latent_dim
from ..rows.schema import row
from . import options as common
from .base import Benchmark, Case, Row, Settings, size_of, untimed
from .bias import BIAS_SECONDS, PlannedReference, planned_references, rows_on_bias
from .options import at_least, option
from .session import Point, Session

if TYPE_CHECKING:
    from torch import Tensor

    from ..problems.protocol import Problem
    from ..variance.result import VarianceResult
    from .support import Support

_TIMED = ("seconds", "work_normalized_variance")
_FEW = 8  # replicates of a pilot
_LONG_ENOUGH = 0.3  # seconds, for a pilot to tell what a replicate takes
_COST = 0.55  # seconds that timing a gradient takes, warm-up included
_Z = 1.96


@dataclass(frozen=True)
class VarianceSettings(Settings):
    """How a variance is measured, and where.

    Attributes:
        replicates: independent estimates.
        precision: relative half-width to reach instead; None for ``replicates``.
        route: "factorized" or "full".
        step: training steps of the checkpoint.
        trajectory: folder of one that the user saved; None for the run's own.
        steps: all steps of the run's own trajectory, which is as long as the last of them; None for its
            beginning alone.
        chunk: replicates at a time; None to choose from the sizes.
        relative_to: estimator to divide the variance by; None for no ratio.
        bias: False for none; None for it.
        bias_seconds: that the reference for it may take; None for `BIAS_SECONDS`.
    """

    replicates: int
    precision: float | None
    route: str
    step: int
    trajectory: str | None = None
    steps: tuple[int, ...] | None = None
    chunk: int | None = None
    relative_to: str | None = None
    bias: bool | None = None
    bias_seconds: float | None = None


_Case = Case[VarianceSettings]


@dataclass(frozen=True)
class Variance(Benchmark[VarianceSettings]):
    """Measure gradient variance, signal-to-noise, bias and cost.

    Attributes:
        step: training steps of the checkpoints; () for all of ``trajectory``, or 0 where that is None.
        trajectory: folder of one that the user saved; None to train one.
        relative_to: estimator whose variance the others' are divided by; None for no ratios.
        no_bias: leave the bias out.
        bias_seconds: that a reference for it may take.
        chunk: replicates at a time on the factorized route, ratios apart; None to choose from the sizes.
    """

    name: ClassVar[str] = "variance"
    settings: ClassVar[type[Settings]] = VarianceSettings
    headline: ClassVar[str] = "variance"
    position: ClassVar[int] = 1

    num_samples: tuple[int, ...] = common.NUM_SAMPLES.default((1, 4, 16))
    batch_size: tuple[int, ...] = common.BATCH_SIZE.default((64, 4, 16))
    replicates: int = option(4000, "--replicates", "-r", help="Independent estimates behind a variance.")
    precision: float | None = option(
        None, "--precision", help="Relative half-width to reach, e.g. 0.01, in place of --replicates."
    )
    route: str = common.ROUTE.default("factorized")
    step: tuple[int, ...] = option(
        (0, 100, 500, 2000, 10_000),
        "--step",
        metavar="N[,N]",
        help="Training steps of the checkpoints measured at; 0 is the start. Those between the first and the "
        "last are measured at one S.",
    )
    latent_dim: tuple[int, ...] = option(
        (2, 32),
        "--latent-dim",
        metavar="N[,N]",
        help="Other latent dimensions to measure at the last step and one S, e.g. 2,32.",
    )
    trajectory: str | None = option(
        None,
        "--trajectory",
        metavar="FOLDER",
        help="Checkpoints STEP.pt of your own, in place of training the problem.",
    )
    relative_to: str | None = option(
        None, "--relative-to", metavar="NAME", help="Estimator to print ratios of variances to."
    )
    no_bias: bool = option(False, "--no-bias", help="Hold no mean against a reference.")
    bias_seconds: float = option(
        BIAS_SECONDS,
        "--bias-seconds",
        help="That a reference for the bias may take; the bias is not known where it takes longer.",
    )
    chunk: int | None = option(
        None,
        "--chunk",
        help="Replicates drawn at a time; the default follows from the sizes. For the factorized route: "
        "estimators that couple the batch draw one at a time, and ratios of --relative-to ignore it.",
    )

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> Self:
        """What was given, over the default sweeps; those of the default problem are its own."""
        if "trajectory" in given:
            return cls(**{"step": (), "latent_dim": (), **given})
        if "problem" in given:
            return cls(**{"step": (0,), "latent_dim": (), "batch_size": (), **given})
        return cls(**given)

    def quick(self) -> Self:
        return replace(
            self,
            replicates=min(self.replicates, 500),
            step=self.step[:1],
            batch_size=self.batch_size[:1],
            latent_dim=(),
        )

    def grid(self) -> list[_Case]:
        """Every problem; one setting is swept at a time, so that sweeps add up and do not multiply.

        The first and the last step get every S, those in between one S; at that S the last step gets every
        other D and every other B.
        """
        self.check()
        steps = self._steps()
        trained = self.trajectory is None and max(steps) > 0
        settings = VarianceSettings(
            self.replicates,
            self.precision,
            self.route,
            step=0,
            trajectory=self.trajectory,
            steps=tuple(sorted(set(steps))) if trained else None,
            chunk=self.chunk,
            relative_to=None if self.relative_to is None else _one_estimator(self.relative_to),
            bias=False if self.no_bias else None,
            bias_seconds=None if self.bias_seconds == BIAS_SECONDS else self.bias_seconds,
        )
        base, *other_batches = self.batch_sizes
        cases = []
        for problem in specifications(self.problem, "problem"):
            swept = [with_latent_dim(problem, d) for d in self.latent_dim]
            for step in steps:
                here = replace(settings, step=step)
                end = step in (min(steps), max(steps))
                for s in self.num_samples if end else (self.sweep_samples,):
                    cases += self.cases(problem, s, base, here)
                for other in swept if step == max(steps) else ():
                    cases += self.cases(other, self.sweep_samples, base, here)
                for batch in other_batches if step == max(steps) else ():
                    cases += self.cases(problem, self.sweep_samples, batch, here)
        return cases

    def check(self) -> None:
        super().check()
        at_least("--replicates", 2, self.replicates)
        at_least("--step", 0, *self.step)
        at_least("--chunk", 1, self.chunk)
        at_least("--latent-dim", 1, *self.latent_dim)
        if self.precision is not None and not 0 < self.precision < 1:
            raise UsageError(f"--precision must be between 0 and 1, not {self.precision}")
        if not 0 < self.bias_seconds < math.inf:
            raise UsageError(f"--bias-seconds must be a positive number of seconds, not {self.bias_seconds}")
        if self.route not in ("factorized", "full"):
            raise UsageError(f"--route {self.route!r} is not one of factorized, full")
        if self.chunk is not None and self.route == "full":
            raise UsageError(
                "--chunk cannot be combined with --route full, which draws one replicate at a time"
            )
        if self.trajectory is not None and self.latent_dim:
            raise UsageError("--latent-dim cannot be combined with --trajectory, which is of one model")

    @property
    def sweep_samples(self) -> int:
        """S where another setting is swept: the smallest above 1 that is measured anyway."""
        return min((s for s in self.num_samples if s > 1), default=self.num_samples[0])

    def _steps(self) -> tuple[int, ...]:
        if self.trajectory is None:
            return tuple(dict.fromkeys(self.step or (0,)))
        from ..training.checkpoints import steps_in

        there = steps_in(Path(self.trajectory))
        for step in self.step:
            if step not in there:
                known = ", ".join(map(str, there))
                raise UsageError(
                    f"--step {step}: no such checkpoint in {self.trajectory}: choose from {known}"
                )
        return tuple(dict.fromkeys(self.step or there))

    @classmethod
    def why_not(cls, case: _Case, support: Support) -> str | None:
        settings = case.settings
        if settings.trajectory is None:  # whose weights are not those that the code draws
            sizes = case.batch_size, case.seed, case.device, case.dtype
            support.check_model(case.problem, *sizes, settings.route)
        return super().why_not(case, support)

    @classmethod
    def objective(cls, case: _Case) -> str:
        try:
            return weighted_objective(create(case.estimator).objective, _weight_in(case.problem))
        except Exception:  # a plugin may raise anything
            return ""

    @classmethod
    def execute(cls, case: _Case, session: Session) -> list[Row]:
        point = _point(case)
        problem, x = session.problem_and_data(point)
        result = _measure(case, problem, x, session)
        rows = result.rows()
        if session.timings:
            rows += _cost(case, problem, x, result)
        else:
            rows += [untimed(row(**_of(result), metric=metric, unit="s")) for metric in _TIMED]
        if case.settings.relative_to not in (None, case.estimator):
            rows.append(_ratio(case, problem, x, result, session))
        rows += _distance(session.heldout_gap(point), result)
        rows += rows_on_bias(
            case, point, problem, x, result, session, partial(_measure, case, problem, x, session)
        )
        return case.complete({**r, "step": case.step} for r in rows)

    @classmethod
    def pilot(cls, case: _Case) -> VariancePilot:
        return _pilot(case)

    @classmethod
    def shared_work(cls, cases: Sequence[_Case]) -> Sequence[PlannedReference]:
        return planned_references(cases, _point)


def _weight_in(problem: str) -> str:
    """What the specification of a problem says of the weight of its KL, as it is added to the objective."""
    given = parse(problem).parameters
    try:
        return parameters_of_weight(weight_or_free_bits(given.get("kl_weight", 1), given.get("free_bits")))
    except UsageError:  # a problem of the user's, whose parameters mean something else
        return ""


def _one_estimator(text: str) -> str:
    found = specifications([text], "estimator")
    if len(found) > 1:
        raise UsageError(f"--relative-to {text}: expected one estimator, not {len(found)}")
    return found[0]


def _point(case: _Case) -> Point:
    settings = case.settings
    where = settings.step, settings.steps or (), settings.trajectory
    return Point(case.problem, case.batch_size, case.seed, case.device, case.dtype, *where)


def _of(result: VarianceResult) -> dict[str, Any]:
    """The columns that all rows of a case share."""
    return {**result.case, "n": result.replicates}


def _measure(
    case: _Case,
    problem: Problem,
    x: Tensor,
    session: Session,
    seed: int | None = None,
    replicates: int | None = None,
) -> VarianceResult:
    """As the case asks; or so many replicates under another seed."""
    from ..gradients import note_on_data
    from ..variance.measure import measure_variance

    with contained():  # what follows, references that other cases use too, is none of the estimator's
        estimator, updates = session.estimator_at(_point(case), case.estimator, case.num_samples)
        result = measure_variance(
            problem,
            estimator,
            x,
            num_samples=case.num_samples,
            replicates=case.settings.replicates if replicates is None else replicates,
            precision=case.settings.precision if replicates is None else None,
            route=case.settings.route,
            chunk=case.settings.chunk,
            seed=case.seed if seed is None else seed,
            warmup=None if updates is None else 0,
        )
        if updates is None:
            return result
        note = note_on_data(problem, estimator, x)
    return replace(result, state_updates=updates, notes=(*result.notes, *filter(None, (note,))))


@contained()
def _cost(case: _Case, problem: Problem, x: Tensor, result: VarianceResult) -> list[Row]:
    """Seconds of one gradient, and variance × seconds."""
    from ..gradients import prepare, seeded
    from ..statistics.intervals import product_interval
    from ..throughput.cost import seconds_per_gradient

    estimator = create_under(case.seed, case.estimator)
    with seeded(case.seed, x.device):
        prepare(problem, estimator, x, case.num_samples, warmup=0)
        estimator.train()
        seconds, low, high, n = seconds_per_gradient(problem, estimator, x, case.num_samples)
    common = {**_of(result), "n": n}
    timed = row(**common, metric="seconds", value=seconds, ci_low=low, ci_high=high, unit="s")
    variance = (result.total, result.ci_low, result.ci_high)
    value, low, high = product_interval(variance, (seconds, low, high))
    product = row(
        **_of(result),
        metric="work_normalized_variance",
        value=value,
        ci_low=low,
        ci_high=high,
        unit="s",
        reason=result.warning,
    )
    return [timed, product]


@contained()
def _ratio(case: _Case, problem: Problem, x: Tensor, result: VarianceResult, session: Session) -> Row:
    """The variance over that of the estimator asked for; a skipped row where that one cannot be used here."""
    from ..variance.ratio import measure_ratio

    other = case.settings.relative_to
    assert other is not None
    described = {**_of(result), "metric": "variance_ratio", "parameter": label_of_text(other)}
    try:
        both = [session.estimator_at(_point(case), e, case.num_samples) for e in (case.estimator, other)]
        trained = any(updates is not None for _, updates in both)
        ratio = measure_ratio(
            problem,
            both[0][0],
            both[1][0],
            x,
            num_samples=case.num_samples,
            replicates=max(result.replicates, case.settings.replicates),
            route=case.settings.route,
            seed=case.seed,
            warmup=0 if trained else None,
        )
    except UsageError as error:
        return row(**described, status="skipped", reason=str(error))
    few = "" if ratio.needed is None else f"not enough replicates (at least {ratio.needed})"
    return row(**described, value=ratio.value, ci_low=ratio.ci_low, ci_high=ratio.ci_high, reason=few)


def _distance(known: tuple[float, float] | None, result: VarianceResult) -> Iterator[Row]:
    """How good the checkpoint is: its held-out objective, and the gap to the best of the trajectory."""
    if known is not None:
        objective, gap = known
        yield row(**result.case, metric="heldout_objective", value=objective, unit="nat")
        yield row(**result.case, metric="heldout_gap", value=gap, unit="nat")


@dataclass(frozen=True)
class VariancePilot:
    """What a few replicates of a case tell of the time of others.

    Attributes:
        case: which one.
        fixed: seconds that do not depend on the number of replicates.
        unit: seconds a replicate.
        relative_variance: of the replicates' contributions to the variance, (SE √R / V̂)².
    """

    case: _Case
    fixed: float
    unit: float
    relative_variance: float

    def seconds(self, case: _Case) -> float:
        """Of another case, S and B taken to cost in proportion."""
        unit = self.unit * size_of(case) / size_of(self.case)
        replicates: float = case.settings.replicates
        if case.settings.precision is not None:
            replicates = max(2, self.relative_variance * (_Z / case.settings.precision) ** 2)
        return self.fixed + unit * replicates + _COST


def _pilot(case: _Case) -> VariancePilot:
    from ..problems.point import placed
    from ..variance.measure import measure_variance

    problem, x = placed(
        case.problem, batch_size=case.batch_size, seed=case.seed, device=case.device, dtype=case.dtype
    )

    def run(replicates: int) -> tuple[float, VarianceResult]:
        began = time.perf_counter()
        result = measure_variance(
            problem,
            case.estimator,
            x,
            num_samples=case.num_samples,
            replicates=replicates,
            route=case.settings.route,
            chunk=case.settings.chunk,
            seed=case.seed,
        )
        return time.perf_counter() - began, result

    run(2)  # warms up
    few, result = run(_FEW)
    more, replicates = few, _FEW
    while more - few < _LONG_ENOUGH and replicates < case.settings.replicates:
        replicates *= 8
        more, result = run(replicates)
    unit = max(0.0, (more - few) / (replicates - _FEW)) if replicates > _FEW else few / _FEW
    moments = result.moments[""]
    relative = moments.stderr / moments.mean if moments.mean > 0 else 0.0
    return VariancePilot(case, max(0.0, few - unit * _FEW), unit, relative**2 * result.replicates)

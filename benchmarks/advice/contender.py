"""One estimator at one S, at one point: what draws its gradients, and what times them."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, replace

from torch import Tensor

from ...estimators.base import Estimator
from ..gradients import frozen, has_moving_state, prepare, reseed, warm_up
from ..problems.copying import deep_copy
from ..problems.protocol import Problem
from ..seeds import hashed
from ..statistics.moments import Moments
from ..statistics.replicates import MIN_REPLICATES
from ..variance.chunks import split
from ..variance.result import VarianceResult, case_of, result_of
from ..variance.route import Route, choose_route
from .candidates import Candidate
from .measured import BiasVerdict, Measured
from .timer import Timer, control

_WARMUP = 500
_WARMUP_AGAIN = 100  # steps from the state of the same estimator at another S
_WARMUP_PROBE = 10


@dataclass(frozen=True)
class Point:
    """Where estimators are compared.

    Attributes:
        problem: a copy whose gradients may be used.
        x: (B, ...).
        step: of training.
        seed: of all draws.
        route: "factorized" or "full", see `measure_variance`.
    """

    problem: Problem
    x: Tensor
    step: int
    seed: int
    route: str = "factorized"


class Contender:
    """An estimator at one S, ready to be drawn from and timed.

    Args:
        point: where.
        candidate: which estimator.
        num_samples: S.
        earlier: another contender at this point; its Jacobian is used again, and, where it is the same
            estimator, its state.
        warm_seconds: at most, for bringing the estimator's own state to where training would have it.

    Attributes:
        constant: whether it is deterministic, and no model draws for it.
        blocks: seconds of one training-step gradient, one entry a turn.
        draw_seconds: spent in drawing.
        seconds_per_replicate: of the last draw.
        stream: of draws that are shared; None: with nobody.
        compared: the objective that it is ranked under where that is another than its own.
        squared_bias: at first look, of what is biased by its own word; None where it is not known.

    Raises:
        UsageError: the estimator cannot be used here.
        EstimatorError: it broke the protocol.
    """

    def __init__(
        self,
        point: Point,
        candidate: Candidate,
        num_samples: int,
        earlier: Contender | None,
        warm_seconds: float,
    ) -> None:
        self.point, self.candidate, self.num_samples = point, candidate, num_samples
        same = earlier is not None and earlier.candidate is candidate
        self.estimator: Estimator = (
            deep_copy(earlier.estimator) if earlier is not None and same else candidate.build()
        )
        reseed(point.seed, point.x.device)
        self._prepare(_WARMUP_AGAIN if same else _WARMUP, warm_seconds)
        self.route = self._new_route(earlier)
        self.stream: Hashable = None
        self.compared = ""
        self.squared_bias: float | None = 0.0
        self.constant = self.estimator.deterministic and self.route.repeats()
        self._timer = Timer(point.problem, self.estimator, point.x, num_samples)
        self._turns: list[tuple[float, float]] = []
        self._chunks = 0
        self.blocks: list[float] = []
        self.draw_seconds = 0.0
        self.seconds_per_replicate = 0.0

    @property
    def replicates(self) -> int:
        """Drawn so far."""
        return self.route.n

    @property
    def work(self) -> float:
        """Mean squared error × seconds, by what is there."""
        error = float(self.route.total().mean) + (self.squared_bias or 0.0)
        return error * sorted(self.blocks)[len(self.blocks) // 2]

    @property
    def group(self) -> str:
        """The objective that it is ranked under."""
        return self.compared or self.candidate.objective

    def start_afresh(self) -> None:
        """Forget what was drawn and timed, keep the estimator's state."""
        self.route = self._new_route(self)
        self.blocks, self.draw_seconds, self._chunks = [], 0.0, 0
        self._turns = []

    def draw(self, replicates: int, chunk: int | None = None) -> None:
        """Draw more; in chunks of ``chunk``, the k-th from a seed that all of one stream have in common."""
        if self.constant and self.replicates:
            return
        begun = time.perf_counter()
        with frozen(self.point.problem.decoder):
            if self.constant:
                self.route.add(2)  # more of the same would tell nothing
            else:
                for size in split(replicates, chunk or replicates):
                    reseed(self._next_seed(), self.point.x.device)
                    self.route.add(size)
        seconds = time.perf_counter() - begun
        self.draw_seconds += seconds
        self.seconds_per_replicate = seconds / (2 if self.constant else replicates)

    def time_one_block(self) -> float:
        """Seconds of a training-step gradient, over a block of at least 2 ms by each of two instances."""
        both = self._timer.turn()
        self._turns.append(both)
        return sum(both) / 2

    @property
    def control(self) -> float | None:
        """What the two instances differ by, as the logarithm of a ratio."""
        return control(self._turns)

    def result(self) -> VarianceResult:
        """What was drawn so far."""
        point = self.point
        with frozen(point.problem.decoder):
            case = case_of(point.problem, self.estimator, point.x, self.num_samples, point.seed)
            return result_of(self.route, case, self.constant, details=False)

    def measured(self, bias: BiasVerdict | str = "") -> Measured:
        """What was measured so far; ``bias`` is why that is not known, where it is not."""
        contributions = None if self.stream is None else self.route.contributions_kept()
        return Measured(
            self.candidate.label,
            self.candidate.objective,
            self.num_samples,
            self.point.step,
            self._total(),
            tuple(self.blocks),
            self.route.evaluations,
            self.estimator.unbiased,
            self.constant,
            None if isinstance(bias, str) else bias,
            bias if isinstance(bias, str) else "",
            self.compared,
            None if contributions is None else contributions.cpu(),
            self.stream,
        )

    def _total(self) -> Moments:
        total = self.route.total()
        return replace(total, n=max(total.n, MIN_REPLICATES)) if self.constant else total

    def _next_seed(self) -> int:
        whose = self.candidate.label if self.stream is None else self.stream
        self._chunks += 1
        return hashed(self.point.seed, self.point.step, self.num_samples, whose, self._chunks - 1)

    def _prepare(self, steps: int, seconds: float) -> None:
        point = self.point
        prepare(point.problem, self.estimator, point.x, self.num_samples, 0)
        if not has_moving_state(self.estimator):
            return
        begun = time.perf_counter()
        warm_up(point.problem, self.estimator, point.x, self.num_samples, _WARMUP_PROBE)
        each = (time.perf_counter() - begun) / _WARMUP_PROBE
        fit = int(seconds / each)
        more = max(0, min(steps, fit) - _WARMUP_PROBE)
        warm_up(point.problem, self.estimator, point.x, self.num_samples, more)
        self.estimator.eval()

    def _new_route(self, earlier: Contender | None) -> Route:
        like = None if earlier is None else earlier.route
        point = self.point
        return choose_route(
            point.problem, self.estimator, point.x, self.num_samples, route=point.route, like=like
        )

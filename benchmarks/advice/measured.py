"""What is known of one estimator at one S, and how two of them compare."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from ..statistics.intervals import product_interval
from ..statistics.moments import Moments
from ..statistics.ratios import JointMoments, paired_ratio
from ..statistics.timings import timing_interval
from ..variance.ratio import joint_moments
from .floor import NO_FLOOR, Floor, floor_of

#: A bound on the relative bias above this says nothing of the direction of the gradient: bias not shown.
_BOUNDED = 0.5


class Interval(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BiasVerdict:
    """How far the mean is from a reference.

    Attributes:
        relative: ‖E ĝ − ∇φ‖/‖∇φ‖, debiased.
        bound: its upper bound at 99% confidence.
        shown: whether noise does not explain it.
        reference: what the mean was held against.
    """

    relative: float
    bound: float
    shown: bool
    reference: str


@dataclass(frozen=True)
class Measured:
    """One estimator at one S and one point.

    Attributes:
        estimator: its label.
        objective: whose gradient it estimates.
        num_samples: S.
        step: of training, of the point.
        total: tr Cov(ĝ).
        seconds: of one training-step gradient, a turn at a time; in the k-th all were timed.
        evaluations: of log p(x|z), a datum and estimate.
        claims_unbiased: what the estimator says of itself.
        deterministic: draws nothing, so that ``total`` is 0.
        bias: None where there is no reference.
        contributions: (B, R'), of the first replicates to the total, for common random numbers.
        stream: those of equal streams share their draws; None: with nobody.
        floor: what two instances of one estimator differ by in this run.
    """

    estimator: str
    objective: str
    num_samples: int
    step: int
    total: Moments
    seconds: tuple[float, ...]
    evaluations: int = 0
    claims_unbiased: bool = True
    deterministic: bool = False
    bias: BiasVerdict | None = None
    contributions: Tensor | None = None
    stream: Hashable = None
    floor: Floor = NO_FLOOR

    @property
    def few(self) -> int | None:
        """Replicates that would be enough, or None where these are."""
        return None if self.deterministic else self.total.needed

    @property
    def biased(self) -> bool:
        """By its own word, or because noise does not explain its distance from the reference."""
        return not self.claims_unbiased or (self.bias is not None and self.bias.shown)

    @property
    def checked(self) -> bool:
        """Whether its bias was measured and bounded: the gradient is right for the most part."""
        return not self.biased and self.bias is not None and self.bias.bound <= _BOUNDED

    def cost(self, confidence: float = 0.95) -> Interval:
        """Median seconds of a training-step gradient; the interval holds what instances differ by."""
        return _widened(timing_interval(self.seconds, confidence), self.floor.reach(confidence))

    def work(self, confidence: float = 0.95) -> Interval:
        """Work-normalized variance, tr Cov(ĝ) × seconds."""
        variance = (self.total.mean, *self.total.interval(confidence))
        return Interval(*product_interval(variance, self.cost(confidence)))


def fewest_rounds(confidence: float) -> int:
    """Blocks whose range holds their median with that confidence: 2·2⁻ⁿ ≤ 1 − confidence."""
    return math.ceil(math.log2(2 / (1 - confidence)))


def compare(a: Measured, b: Measured, confidence: float) -> Interval:
    """Ratio of work-normalized variances, a over b.

    Variances: by common random numbers where the two share draws, else as independent. Seconds: the median of
    the ratios of blocks timed in one turn, whose interval knows that turns are like those before, and holds
    what two instances of one estimator differ by; the ends are 0 and ∞ where there are too few turns for the
    confidence. Half-widths add in quadrature on the log scale, for
    noise of draws and noise of clocks are independent.
    """
    seconds = cost_ratio(a, b, confidence)
    if _is_zero(a) or _is_zero(b):
        return _with_zero(a, b)
    if a.stream is not None and a.stream == b.stream and a.contributions is not None:
        assert b.contributions is not None
        joint = joint_moments(a.total, b.total, a.contributions, b.contributions)
    else:
        joint = JointMoments(a.total, b.total)
    ratio = paired_ratio(joint, confidence)
    return _product(Interval(ratio.value, ratio.ci_low, ratio.ci_high), seconds)


def cost_ratio(a: Measured, b: Measured, confidence: float) -> Interval:
    """Ratio of seconds: the median over turns; from 0 to ∞ where these are too few for the confidence."""
    ratios = [s / t for s, t in zip(a.seconds, b.seconds, strict=False)]
    interval = timing_interval(ratios, confidence)
    if len(ratios) < fewest_rounds(confidence):
        return Interval(interval[0], 0.0, math.inf)
    return _widened(interval, max(a.floor.reach(confidence), b.floor.reach(confidence)))


def _widened(interval: tuple[float, float, float], reach: float) -> Interval:
    """With a further independent half-width on the log scale."""
    return _product(Interval(*interval), Interval(1.0, math.exp(-reach), math.exp(reach)))


def _is_zero(measured: Measured) -> bool:
    """Whether the variance is 0, and known to be."""
    return measured.total.mean == 0 and measured.total.stderr == 0


def _with_zero(a: Measured, b: Measured) -> Interval:
    if _is_zero(a) and _is_zero(b):
        return Interval(1.0, 0.0, math.inf)  # 0/0: a tie
    return Interval(0.0, 0.0, 0.0) if _is_zero(a) else Interval(math.inf, math.inf, math.inf)


def _product(first: Interval, second: Interval) -> Interval:
    """Of two independent positive quantities; an end of one that is 0 or ∞ makes that of the product so."""
    value = first.value * second.value
    if not 0 < value < math.inf:
        return Interval(value, 0.0, math.inf)
    low, high = 0.0, math.inf
    if first.low > 0 and second.low > 0:
        width = math.hypot(math.log(first.value / first.low), math.log(second.value / second.low))
        low = value * math.exp(-width)
    if first.high < math.inf and second.high < math.inf:
        width = math.hypot(math.log(first.high / first.value), math.log(second.high / second.value))
        high = value * math.exp(width)
    return Interval(value, low, high)


def with_floor(measured: Sequence[Measured], controls: Sequence[float | None]) -> list[Measured]:
    """The measurements of one point, with the floor that their controls show."""
    floor = floor_of([c for c in controls if c is not None])
    return [replace(one, floor=floor) for one in measured]

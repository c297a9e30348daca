"""What is known of one estimator at one S, and how two of them compare."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from ..statistics.bias import SquaredNorm
from ..statistics.intervals import product_interval, sum_interval
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
        squared: ‖E ĝ − ∇φ‖², in the units of the variance.
    """

    relative: float
    bound: float
    shown: bool
    reference: str
    squared: SquaredNorm


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
        why_no_bias: why there is none, in a line.
        compared: the objective whose gradient it was held against where that is another than its own.
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
    why_no_bias: str = ""
    compared: str = ""
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
        other = bool(self.compared)
        return other or not self.claims_unbiased or (self.bias is not None and self.bias.shown)

    @property
    def rankable(self) -> bool:
        """Whether its mean squared error is known: of a biased one that takes its bias."""
        return not self.biased or self.bias is not None

    @property
    def group(self) -> str:
        """The objective that it is ranked under."""
        return self.compared or self.objective

    @property
    def checked(self) -> bool:
        """Whether its bias was measured and bounded: the gradient is right for the most part."""
        return not self.biased and self.bias is not None and self.bias.bound <= _BOUNDED

    def cost(self, confidence: float = 0.95) -> Interval:
        """Median seconds of a training-step gradient; the interval holds what instances differ by."""
        return _widened(timing_interval(self.seconds, confidence), self.floor.reach(confidence))

    def variance(self, confidence: float = 0.95) -> Interval:
        """tr Cov(ĝ)."""
        return Interval(self.total.mean, *self.total.interval(confidence))

    def squared_bias(self, confidence: float = 0.95) -> Interval:
        """‖E ĝ − ∇φ‖² of a biased one whose bias is known; else 0."""
        if self.bias is None or not self.biased:
            return Interval(0.0, 0.0, 0.0)
        return Interval(self.bias.squared.value, *self.bias.squared.interval(confidence))

    def error(self, confidence: float = 0.95) -> Interval:
        """Mean squared error, E‖ĝ − ∇φ‖²: the variance, and the squared bias as far as there is one known."""
        return Interval(*sum_interval(self.variance(confidence), self.squared_bias(confidence)))

    def work(self, confidence: float = 0.95) -> Interval:
        """Mean squared error × seconds; of an unbiased one work-normalized variance."""
        return Interval(*product_interval(self.error(confidence), self.cost(confidence)))


def fewest_rounds(confidence: float) -> int:
    """Blocks whose range holds their median with that confidence: 2·2⁻ⁿ ≤ 1 − confidence."""
    return math.ceil(math.log2(2 / (1 - confidence)))


def compare(a: Measured, b: Measured, confidence: float) -> Interval:
    """Ratio of the mean squared errors × seconds, a over b; of unbiased ones of work-normalized variances.

    Variances: by common random numbers where the two share draws, else as independent, and so where one has
    a bias that adds to it. Seconds: the median of
    the ratios of blocks timed in one turn, whose interval knows that turns are like those before, and holds
    what two instances of one estimator differ by; the ends are 0 and ∞ where there are too few turns for the
    confidence. Half-widths add in quadrature on the log scale, for
    noise of draws and noise of clocks are independent.
    """
    seconds = cost_ratio(a, b, confidence)
    if _is_zero(a) or _is_zero(b):
        return _with_zero(a, b)
    if a.squared_bias().high > 0 or b.squared_bias().high > 0:
        return _product(_product(a.error(confidence), _inverse(b.error(confidence))), seconds)
    if a.stream is not None and a.stream == b.stream and a.contributions is not None:
        assert b.contributions is not None
        joint = joint_moments(a.total, b.total, a.contributions, b.contributions)
    else:
        joint = JointMoments(a.total, b.total)
    ratio = paired_ratio(joint, confidence)
    return _product(Interval(ratio.value, ratio.ci_low, ratio.ci_high), seconds)


def pays_until(biased: Measured, sound: Measured, confidence: float = 0.95) -> Interval:
    """How many estimates of a biased one, averaged, have a lower error than a sound one in the same seconds.

    n of them cost n c and have β² + V/n; as long take n c/c' of the sound one, with variance V'c'/(n c).
    Both are equal at n = (V'c'/c − V)/β²; beyond, the bias stays and the noise of the other does not. It is
    0 where the biased one never pays, ∞ where no bias is found. The ends put those of the parts together,
    and are conservative.
    """
    other = _product(sound.variance(confidence), cost_ratio(sound, biased, confidence))
    own = biased.variance(confidence)
    gain = sum_interval(other, (-own.value, -own.high, -own.low))
    value, low, high = (max(end, 0.0) for end in gain)
    squared = biased.squared_bias(confidence)
    return Interval(_over(value, squared.value), _over(low, squared.high), _over(high, squared.low))


def _over(gain: float, squared: float) -> float:
    if gain == 0:
        return 0.0
    return gain / squared if squared > 0 else math.inf


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


def _inverse(positive: Interval) -> Interval:
    value, low, high = (1 / end if end > 0 else math.inf for end in positive)
    return Interval(value, high, low)


def _is_zero(measured: Measured) -> bool:
    """Whether the error is 0, and known to be."""
    return measured.total.mean == 0 and measured.total.stderr == 0 and not measured.squared_bias().high > 0


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

"""How a certificate speaks of a bias."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .certificate_checks import BiasBound

_NOTHING = 1e-6  # a relative bias below it is said to be that


def percent(share: float) -> str:
    """A share in percent, with two significant digits.

    >>> percent(0.00314), percent(0.5), percent(2e-9), percent(0.998)
    ('0.31%', '50%', '2e-07%', '100%')
    """
    value = 100 * share
    return f"{value:.2g}%" if value < 99 else f"{value:.0f}%"


def at_most(share: float) -> str:
    """An upper bound in percent, with two significant digits: rounded up, so that it stays one.

    >>> at_most(0.00311), at_most(0.003), at_most(2e-9), at_most(1.061), at_most(math.inf)
    ('0.32%', '0.3%', '1e-4%', '107%', '∞')
    """
    if not math.isfinite(share):
        return "∞"
    if share <= _NOTHING:
        return "1e-4%"
    value = 100 * share
    unit = _unit(value)
    return percent(unit * math.ceil(value / unit - 1e-6) / 100)


def at_least(share: float) -> str:
    """A lower bound in percent, with two significant digits: rounded down.

    >>> at_least(0.00319), at_least(0.003), at_least(1.068)
    ('0.31%', '0.3%', '106%')
    """
    value = 100 * share
    if not math.isfinite(value) or share <= _NOTHING:
        return "0%"
    unit = _unit(value)
    return percent(unit * math.floor(value / unit + 1e-6) / 100)


def _unit(value: float) -> float:
    """Of the second significant digit, as `percent` prints them."""
    return 10.0 ** (math.floor(math.log10(value)) - 1) if value < 99 else 1.0


def span(biases: Sequence[BiasBound]) -> str:
    """From the least to the largest of the estimates, over the points where they were found.

    >>> span([BiasBound(0.12, 0.11, 0.13, 1.0), BiasBound(0.031, 0.02, 0.04, 1.0)])
    '3.1% … 12%'
    """
    ends = [percent(pick(b.estimate for b in biases)) for pick in (min, max)]
    return " … ".join(dict.fromkeys(ends))


def with_interval(bias: BiasBound) -> str:
    """The estimate of a bias with its interval, whose upper end is the bound.

    >>> with_interval(BiasBound(0.00052, 0.0, 0.00281, 1.0)), with_interval(BiasBound(0.12, 0.12, 0.12, 1.0))
    ('0.052% [0%, 0.29%]', '12% (exact)')
    """
    if not (math.isfinite(bias.low) and math.isfinite(bias.estimate)):
        return "not finite"
    estimate = "0%" if bias.estimate < _NOTHING else percent(bias.estimate)
    return f"{estimate} (exact)" if bias.exact else f"{estimate} [{at_least(bias.low)}, {at_most(bias.high)}]"

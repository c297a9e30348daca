"""Words and numbers as figures and tables print them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from ...estimators.kl_weight import split_objective
from ...estimators.text import clean as clean


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters; the middle of a longer text becomes an ellipsis.

    >>> shorten("a-very-long-estimator.py:Name", 15)
    'a-very-…py:Name'
    """
    text = clean(text)
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}"


def short_names(labels: Iterable[str], width: int) -> dict[str, str]:
    """label -> a name of at most ``width`` characters, distinct for distinct labels."""
    names: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        name, taken, count = shorten(label, width), set(names.values()), 1
        while name in taken:
            count += 1
            name = f"{shorten(label, width - len(str(count)) - 3)} ({count})"
        names[label] = name
    return names


def number(value: float, digits: int = 3) -> str:
    """``value`` to a number of significant digits, without needless exponents; "" for NaN.

    >>> [number(v) for v in (12.345, 0.00123, 1234.5, 1.2e-7, 0.0)]
    ['12.3', '0.00123', '1230', '1.20e-7', '0']
    """
    if math.isnan(value):
        return ""
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")
    size = math.floor(math.log10(abs(rounded)))
    if -4 < size < 5:
        return f"{rounded:.{max(digits - 1 - size, 0)}f}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def interval(value: float, low: float, high: float) -> str:
    """``value [low, high]`` with the digits that the width of the interval warrants.

    >>> interval(12.3456, 11.91, 12.84)
    '12.3 [11.9, 12.8]'
    """
    if math.isnan(value) or not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return number(value)
    largest = max(abs(value), abs(low), abs(high))
    size = math.floor(math.log10(largest))
    half = (high - low) / 2
    # A half-width of 1 or 2 units in its first digit deserves a second one.
    first = math.floor(math.log10(half / 3)) if half < math.inf else size
    digits = min(max(size - first + 1, 2), 6)
    if not -4 < size < 5:
        return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"
    # The same decimals throughout, so that the three numbers line up.
    decimals = max(digits - 1 - size, 0)
    return f"{value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def percent(value: float) -> str:
    """A share or a relative error in percent, two significant digits; "" for NaN."""
    if 0 < abs(value) < 1e-6:
        return "<1e-4%"
    return f"{number(100 * value, 2)}%" if not math.isnan(value) else ""


def say(column: str, value: Any) -> str:
    """One setting of a case in words, such as "S = 4"; "" where it does not apply or goes without saying.

    >>> [say("num_samples", 4.0), say("step", 0), say("step", 500)]
    ['S = 4', 'initialization', 'after 500 steps']
    """
    if pd.isna(value) or value in ("", "eager"):
        return ""
    if column == "objective":
        name, weight = split_objective(str(value))
        if name == "elbo":
            return f"ELBO with {shorten(weight, 40)}" if weight else "ELBO"
        return f"objective {shorten(str(value), 40)}"
    if column == "step":
        return "initialization" if value == 0 else f"after {int(value)} steps"
    symbol = {"num_samples": "S", "batch_size": "B", "latent_dim": "D"}.get(column)
    return shorten(str(value), 60) if symbol is None else f"{symbol} = {int(value)}"


def describe(settings: dict[str, Any]) -> str:
    """Several settings in words, joined by middle dots."""
    said = [say(c, settings[c]) for c in sorted(settings, key=_order)]
    return " · ".join(word for word in said if word)


def describe_shared(settings: dict[str, Any]) -> str:
    """The settings that all cases share, in words; that it is about the ELBO goes without saying."""
    return describe({c: value for c, value in settings.items() if (c, value) != ("objective", "elbo")})


def _order(column: str) -> int:
    order = ("problem", "latent_dim", "batch_size", "num_samples", "step")
    return order.index(column) if column in order else len(order)


def constants(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, Any]:
    """The columns that have one value throughout, and that value."""
    return {c: frame[c].iloc[0] for c in columns if frame[c].nunique(dropna=False) == 1}


def _first(text: str, width: int) -> str:
    """The first clause, cut at its end."""
    text = clean(text).partition(";")[0]
    return text if len(text) <= width else f"{text[: width - 1]}…"


def listed(reasons: dict[str, str], width: int = 32) -> str:
    """estimator -> reason, as one sentence's worth of text."""
    return "; ".join(f"{shorten(name, width)} ({_first(why, 80)})" for name, why in reasons.items())

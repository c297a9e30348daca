"""Which estimators of a run differ from the gradient that they claim to estimate.

Every case that was held against a reference has a p-value in the rows. Holm's procedure over all of a run's,
whatever their S, step or batch, keeps the probability of marking any right one of them at `FALSE_ALARMS`.

Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .text import percent, shorten
from .wide import KEYS, pivot, select

#: Of a whole run: the probability that any right estimator in it is marked.
FALSE_ALARMS = 0.01

#: What is known of a case: its mean differs though it claims not to; it declares a bias; it was held against
#: a reference and does not differ; it was not.
WRONG, DECLARED, RIGHT, UNCHECKED = "wrong", "declared", "no difference", "not checked"
_METRICS = ("bias", "bias_bound", "bias_p_value", "unbiased")


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a case of the variance benchmark: `KEYS` and ``bias_verdict``, one of the four above.

    Of rows that were written without p-values none is wrong, and what has a bias counts as checked.
    """
    cases = pivot(select(rows, "variance"), _METRICS)
    verdict = np.where(cases["bias"].notna() | cases["bias_bound"].notna(), RIGHT, UNCHECKED).astype(object)
    claims = ~(cases["unbiased"] == 0)
    verdict[~claims] = DECLARED
    verdict[claims & rejected(cases["bias_p_value"].where(claims))] = WRONG
    return cases[KEYS].assign(bias_verdict=verdict)


def rejected(p_values: pd.Series, level: float = FALSE_ALARMS) -> pd.Series:
    """Which hypotheses Holm's procedure rejects; NaN stands for a test that was not made.

    >>> rejected(pd.Series([0.004, 0.03, float("nan"), 0.005])).tolist()
    [False, False, False, False]
    >>> rejected(pd.Series([0.003, 0.03, float("nan"), 0.005])).tolist()
    [True, False, False, True]
    """
    ordered = p_values.dropna().sort_values(kind="stable")
    left = np.arange(len(ordered), 0, -1)
    held = ~np.logical_and.accumulate(ordered.to_numpy() * left <= level)
    return p_values.index.isin(ordered.index[~held]) & pd.Series(True, index=p_values.index)


def with_verdicts(cases: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Cases, one a line with `KEYS`, and their ``bias_verdict``."""
    return cases.merge(judged(rows), on=KEYS, how="left")


def without_wrong(cases: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The cases that a ranking may hold: not those that are wrong."""
    verdict = with_verdicts(cases[KEYS], rows)["bias_verdict"].to_numpy()
    return cases[verdict != WRONG].reset_index(drop=True)


def interval_text(case: Mapping[str, Any]) -> str:
    """An estimated relative bias with its interval, in percent; "" where there is none.

    >>> interval_text({"bias": 0.3812, "bias_low": 0.35, "bias_high": 0.413})
    '38% [35, 41]'
    """
    value, low, high = (float(case.get(f"bias{end}", np.nan)) for end in ("", "_low", "_high"))
    if np.isnan(value):
        return ""
    if np.isnan(low):
        return percent(value)
    ends = (percent(end).removesuffix("%") for end in (low, high))
    return f"{percent(value)} [{', '.join(ends)}]"


def note_on(case: Mapping[str, Any]) -> str:
    """What is to be said beside a case whose mean differs."""
    if case["bias_verdict"] == WRONG:
        return f"wrong: its mean differs from the true gradient, bias {interval_text(case)}; not ranked"
    if case["bias_verdict"] == DECLARED and case.get("bias_low", np.nan) > 0:
        return f"biased, as it declares: {interval_text(case)}"
    return ""


def counted(rows: pd.DataFrame) -> tuple[int, int, list[str]]:
    """How many estimators were held against a reference, how many of them are wrong, and these."""
    cases = judged(rows)
    checked = cases[cases["bias_verdict"].isin([WRONG, RIGHT])]
    wrong = list(dict.fromkeys(map(str, checked.loc[checked["bias_verdict"] == WRONG, "estimator"])))
    return checked["estimator"].nunique(), len(wrong), wrong


def summary_of_bias(rows: pd.DataFrame) -> list[str]:
    """A line about the wrong estimators of a run, and one about those that were not checked."""
    of, count, wrong = counted(rows)
    lines = []
    if count:
        names = ", ".join(shorten(name, 60) for name in wrong)
        differ = "differs" if count == 1 else "differ"
        noun = "estimator" if of == 1 else "estimators"
        lines.append(
            f"{count} of {of} {noun} {differ} from the true gradient and {'is' if count == 1 else 'are'} not "
            f"ranked: {names} (a right one is marked in {FALSE_ALARMS:.0%} of runs at most)"
        )
    return lines

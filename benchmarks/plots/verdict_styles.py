"""What verdicts and the corners of a certificate look like: told apart by marker as well as by colour."""

from __future__ import annotations

from ..rows.certificate import Certificate
from .style import Style

HOLDS, DECLARED, FAILS, NOT_SHOWN = "holds", "holds, biased as declared", "fails", "not shown"
#: Verdict -> style, in the order of the legend.
VERDICTS = {
    HOLDS: Style("#009E73", "o", "-"),
    DECLARED: Style("#0072B2", "D", "-"),
    NOT_SHOWN: Style("#767676", "s", "-"),
    FAILS: Style("#D55E00", "X", "-"),
}


def verdict_of(c: Certificate) -> str:
    """The verdict, those on declared biases apart: they hold whatever the bias is."""
    if c.holds is None:
        return NOT_SHOWN
    if not c.holds:
        return FAILS
    return HOLDS if c.unbiased else DECLARED

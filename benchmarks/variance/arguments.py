"""What may be asked of a measured variance, besides what every measurement is asked."""

from __future__ import annotations

from ...estimators.errors import UsageError
from ..problems.arguments import check_choice, shown

ROUTES = ("factorized", "full")
WRT = ("phi", "theta")


def check_choices(precision: float | None, wrt: str, route: str) -> None:
    """Raise UsageError for a precision that none can reach, an unknown side or an unknown route."""
    if precision is not None and (not isinstance(precision, float) or not 0 < precision < 1):
        raise UsageError(f"precision must be between 0 and 1, not {shown(precision)}")
    check_choice(WRT, wrt=wrt)
    check_choice(ROUTES, route=route)

"""What may be asked of a measured variance, besides what every measurement is asked."""

from __future__ import annotations

from ..problems.arguments import check_between, check_choice

ROUTES = ("factorized", "full")
WRT = ("phi", "theta")


def check_choices(precision: float | None, wrt: str, route: str) -> None:
    """Raise UsageError for a precision that none can reach, an unknown side or an unknown route."""
    if precision is not None:
        check_between(0, 1, precision=precision)
    check_choice(WRT, wrt=wrt)
    check_choice(ROUTES, route=route)

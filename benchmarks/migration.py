"""Rows of older versions of the schema, brought up to the present one. Imports neither torch nor pandas."""

from __future__ import annotations

import re
from typing import Any

from .schema import SCHEMA_VERSION

_OTHER_OBJECTIVE = re.compile(r"of the objective ([\w-]+), not to be compared with the ELBO's(; )?")


def migrate(row: dict[str, Any]) -> dict[str, Any]:
    """A row of this or an older version, as one of this version; others are returned as they are.

    Version 1 had no column ``objective``: of a variance, the reason said so where it was not the ELBO.
    """
    if row.get("schema_version") != 1:
        return row
    reason = str(row.get("reason") or "")
    other = _OTHER_OBJECTIVE.match(reason)
    of_variance = row.get("benchmark") == "variance"
    return {
        **row,
        "schema_version": SCHEMA_VERSION,
        "objective": (other.group(1) if other else "elbo") if of_variance else "",
        "reason": reason[other.end() :] if other else reason,
    }

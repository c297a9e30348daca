"""Rows of older versions of the schema, with today's columns. Imports neither torch nor pandas."""

from __future__ import annotations

import re
from typing import Any

#: The columns that version 4 added.
FINGERPRINTS = ("weights", "batch")
_OTHER_OBJECTIVE = re.compile(r"of the objective ([\w-]+), not to be compared with the ELBO's(; )?")


def migrate(row: dict[str, Any]) -> dict[str, Any]:
    """A row of an older version, with the columns of this one; others are returned as they are.

    Version 1 had no column ``objective``: of a variance, the reason said so where it was not the ELBO.
    Version 2 has the columns of version 3, which changed the file around the rows. Version 4 has fingerprints
    of weights and batch, which are not known of earlier rows.
    """
    version = row.get("schema_version")
    row = _with_objective(row)
    if type(version) is not int or not 1 <= version < 4:
        return row
    return {**dict.fromkeys(FINGERPRINTS, ""), **row}


def _with_objective(row: dict[str, Any]) -> dict[str, Any]:
    if row.get("schema_version") != 1 or "objective" in row:
        return row
    reason = row.get("reason")
    other = _OTHER_OBJECTIVE.match(reason) if isinstance(reason, str) else None
    of_variance = row.get("benchmark") == "variance"
    migrated = {**row, "objective": (other.group(1) if other else "elbo") if of_variance else ""}
    return {**migrated, "reason": reason[other.end() :]} if other and isinstance(reason, str) else migrated

"""The long rows that results are made of: one measured value a row. Imports neither torch nor pandas."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

#: 1: no column ``objective``. 2: with it. 3: lines of rows.jsonl have a place in their case, and a checksum.
#: 4: ``weights`` and ``batch``.
SCHEMA_VERSION = 4

STATUSES = ("done", "skipped", "diverged", "failed")
#: The reason of seconds that are missing because others may have been computing on the same machine.
NOT_TIMED = "no timings: shared machines"

#: column -> (type, default, meaning). ``None`` is "does not apply".
COLUMNS: dict[str, tuple[type, Any, str]] = {
    "schema_version": (int, SCHEMA_VERSION, "version of this table"),
    "run": (str, "", "name of the run folder"),
    "case": (str, "", "stable identifier of the case within any run"),
    "benchmark": (str, "", "variance, convergence, throughput, certify or reproduce"),
    "problem": (str, "", "problem specification"),
    "estimator": (str, "", "estimator specification"),
    "objective": (
        str,
        "",
        "what a variance is of the gradient of: elbo, iwae, ...; of training a weighted ELBO",
    ),
    "parameters": (str, "{}", "the case's other settings, as JSON"),
    "num_samples": (int, None, "S, samples an estimate"),
    "batch_size": (int, None, "B, data a batch"),
    "latent_dim": (int, None, "D, size of the latent variable"),
    "seed": (int, None, "seed of this repetition"),
    "step": (int, None, "training step at which it was measured; 0 is the initialization"),
    "device": (str, "cpu", "device"),
    "dtype": (str, "float32", "floating-point type"),
    "mode": (str, "eager", "eager, compiled or cuda-graph"),
    "weights": (str, "", "fingerprint of the model's weights, of a training run the initial ones"),
    "batch": (str, "", "fingerprint of the batch x, the first of a training run; empty: not known"),
    "parameter": (str, "", "the part: an encoder parameter, layer, datum, ...; empty for the whole of phi"),
    "metric": (str, "", "what was measured"),
    "value": (float, None, "the measured value"),
    "stderr": (float, None, "its standard error"),
    "ci_low": (float, None, "lower end of its interval (95% unless the metric says otherwise)"),
    "ci_high": (float, None, "upper end of its interval"),
    "n": (int, None, "independent repetitions behind the value"),
    "unit": (str, "", "unit of the value"),
    "status": (str, "done", "done, skipped, diverged, failed"),
    "reason": (str, "", "why it was skipped or failed; a warning when done"),
}


def row(**values: Any) -> dict[str, Any]:
    """A complete row: ``values`` over the defaults.

    Raises:
        KeyError: a column that is not in the schema.
    """
    unknown = values.keys() - COLUMNS.keys()
    if unknown:
        raise KeyError(f"not a column of the results: {', '.join(sorted(unknown))}")
    return {name: values.get(name, default) for name, (_, default, _) in COLUMNS.items()}


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row of this version from one of this version or an earlier one: all columns, each of its type.

    NaN becomes None. Rows of earlier versions lack columns, which `migration.migrate` adds first.

    Raises:
        ValueError: it is not a row; says why in a few words.
    """
    if values.keys() != COLUMNS.keys():
        different = sorted(map(str, values.keys() ^ COLUMNS.keys()))
        raise ValueError(f"its columns are not those of a row ({different[0][:40]!r})")
    plain = {name: _plain(name, values[name]) for name in COLUMNS}
    if not plain["case"] or plain["status"] not in STATUSES or not _is_object(plain["parameters"]):
        raise ValueError("it has no case, an unknown status, or parameters that are not JSON")
    if not 1 <= plain["schema_version"] <= SCHEMA_VERSION:
        raise ValueError("it is of no known schema version")
    return {**plain, "schema_version": SCHEMA_VERSION}


def _plain(name: str, value: Any) -> Any:
    """The value as the column's type.

    Raises:
        ValueError: it is of another type, or beyond 64 bits.
    """
    kind, default, _ = COLUMNS[name]
    if value is None and default is None:
        return None
    if kind is str and isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()  # a lone surrogate fits into no file
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return int(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return None if math.isnan(value) else float(value)
        except OverflowError:
            pass
    raise ValueError(f"its {name} is not {'a text' if kind is str else 'a number of 64 bits'}")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False

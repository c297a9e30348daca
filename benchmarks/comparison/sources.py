"""One side of a comparison: a run folder, a file of rows, or the JSON file of a throughput run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...estimators.errors import UsageError
from ...estimators.text import one_line
from ..rows.text import clean, shorten
from ..rows.wide import normalized
from ..store import ENVIRONMENT, load_results
from ..throughput.rows import read_json, rows_from_json

if TYPE_CHECKING:
    import pandas as pd

#: What makes times of two runs incomparable where it differs.
MACHINE = ("cpu", "cpu_count", "gpu", "threads")
#: Settings by which cases are matched, and those of a case's parts.
_MATCHED = ("step", "steps", "reference", "comparisons", "confidence")


@dataclass(frozen=True)
class Source:
    """Rows, and where they were measured ({} where that is not known)."""

    name: str
    rows: pd.DataFrame
    environment: dict[str, Any] = field(default_factory=dict)


def read_source(path: Path) -> Source:
    """Read one side of a comparison.

    Raises:
        UsageError: there are no results there, or it cannot be read.
    """
    try:
        of_throughput = path.suffix == ".json" and path.is_file()
        rows, environment = _of_throughput(path) if of_throughput else _of_rows(path)
        rows = normalized(rows)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:  # of the wrong types inside
        raise UsageError(f"cannot read {path}: {type(error).__name__}: {one_line(error)}") from error
    if rows.empty:
        raise UsageError(f"no rows in {path}")
    return Source(str(path), rows, environment)


def _of_throughput(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    content = read_json(path)
    machine = content.get("machine_info") or {}
    cpu = machine.get("cpu") or {}
    known = {
        "cpu": cpu.get("brand_raw"),
        "cpu_count": cpu.get("count"),
        "python": machine.get("python_version"),
        "commit": (content.get("commit_info") or {}).get("id"),
    }
    known = {key: value for key, value in known.items() if value and value != "unversioned"}
    return pd.DataFrame(rows_from_json(path)), {**known, **_environment(path.parent)}


def _of_rows(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    return load_results(path), _environment(path if path.is_dir() else path.parent)


def differences(a: Source, b: Source) -> dict[str, tuple[str, str]]:
    """What of the environments differs, among what is known of both: name -> (of a, of b)."""
    ours, theirs = _flat(a.environment), _flat(b.environment)
    return {
        clean(name): (shorten(str(ours[name]), 60), shorten(str(theirs[name]), 60))
        for name in ours
        if name in theirs and name != "command" and ours[name] != theirs[name]
    }


def settings_that_differ(a: Source, b: Source, benchmark: str) -> dict[str, tuple[str, str]]:
    """What of a benchmark's other settings differs, such as the optimizer: name -> (of a, of b)."""
    ours, theirs = _settings(a.rows, benchmark), _settings(b.rows, benchmark)
    return {
        clean(name): (
            shorten(" or ".join(sorted(ours[name])), 60),
            shorten(" or ".join(sorted(theirs[name])), 60),
        )
        for name in ours
        if name in theirs and name not in _MATCHED and ours[name] != theirs[name]
    }


def _settings(rows: pd.DataFrame, benchmark: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for text in set(rows.loc[rows["benchmark"] == benchmark, "parameters"]):
        try:
            settings = json.loads(text)
        except ValueError:
            continue
        for name, value in settings.items() if isinstance(settings, dict) else ():
            found.setdefault(name, set()).add(json.dumps(value))
    return found


def _environment(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _flat(environment: dict[str, Any]) -> dict[str, Any]:
    nested = {
        name: value for name in ("packages", "files") if isinstance(value := environment.get(name), dict)
    }
    rest = {name: value for name, value in environment.items() if name not in nested}
    return {**rest, **nested.get("packages", {}), **nested.get("files", {})}

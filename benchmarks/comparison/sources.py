"""One side of a comparison: a run folder, a file of rows, or the JSON file of a throughput run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...estimators.errors import UsageError
from ..store import ENVIRONMENT, load_results
from ..throughput_rows import read_json, rows_from_json

if TYPE_CHECKING:
    import pandas as pd

#: What makes times of two runs incomparable where it differs.
MACHINE = ("cpu", "cpu_count", "gpu", "threads")


@dataclass(frozen=True)
class Source:
    """Rows, and where they were measured ({} where that is not known)."""

    name: str
    rows: pd.DataFrame
    environment: dict[str, Any] = field(default_factory=dict)


def read_source(path: Path) -> Source:
    """Read one side of a comparison.

    Raises:
        UsageError: there are no results there.
    """
    import pandas as pd

    if path.suffix == ".json" and path.is_file():
        content = read_json(path)
        machine = content.get("machine_info") or {}
        cpu = machine.get("cpu") or {}
        known = {
            "cpu": cpu.get("brand_raw"),
            "cpu_count": cpu.get("count"),
            "python": machine.get("python_version"),
            "commit": (content.get("commit_info") or {}).get("id"),
        }
        return Source(str(path), pd.DataFrame(rows_from_json(path)), {k: v for k, v in known.items() if v})
    rows = load_results(path)
    if rows.empty:
        raise UsageError(f"no rows in {path}")
    return Source(str(path), rows, _environment(path if path.is_dir() else path.parent))


def differences(a: Source, b: Source) -> dict[str, tuple[str, str]]:
    """What of the environments differs, among what is known of both: name -> (of a, of b)."""
    ours, theirs = _flat(a.environment), _flat(b.environment)
    return {
        name: (str(ours[name]), str(theirs[name]))
        for name in ours
        if name in theirs and name != "command" and ours[name] != theirs[name]
    }


def _environment(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _flat(environment: dict[str, Any]) -> dict[str, Any]:
    packages = environment.get("packages")
    rest = {name: value for name, value in environment.items() if name != "packages"}
    return {**rest, **(packages if isinstance(packages, dict) else {})}

"""What a certification leaves for the certified estimators' own repositories: JSON, and a badge for each."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rows.certificates import certificates
from ..store.atomic import write_atomically
from ..store.folder import CERTIFICATES, CONFIG, ENVIRONMENT

if TYPE_CHECKING:
    import pandas as pd

#: Of certificates.json: raised when a key changes its meaning or goes.
SCHEMA_VERSION = 1
BADGES = "badges"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.=,-]+")
_LONGEST = 80


def write_certificates(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``certificates.json``, and into ``badges/`` a picture and shields.io's JSON for each estimator.

    Args:
        rows: of the run.
        folder: of the run.

    Returns:
        the files written, the JSON first; none where nothing was certified.

    Raises:
        OSError: they cannot be written.
    """
    found = certificates(rows)
    if not found:
        return []
    names = file_names(c.estimator for c in found)
    badges = folder / BADGES
    badges.mkdir(parents=True, exist_ok=True)
    files = {folder / CERTIFICATES: _json(_record(folder) | {"certificates": [
        c.as_json() | {"badge": f"{BADGES}/{names[c.estimator]}.svg"} for c in found
    ]})}  # fmt: skip
    for c in found:
        stem = badges / names[c.estimator]
        files[stem.with_name(f"{stem.name}.svg")] = c.badge.svg(f"elbograd: {c.estimator}: {c.verdict}")
        files[stem.with_name(f"{stem.name}.json")] = _json(c.badge.endpoint())
    for path, text in files.items():
        write_atomically(path, text)
    return list(files)


def file_names(labels: Iterable[str]) -> dict[str, str]:
    """Label -> a name for its files: of a file's estimator without folders and ".py"; all different.

    >>> list(file_names(["arm", "src/idea.py", "idea.py:Mine[kl=sampled]", "other/idea.py"]).values())
    ['arm', 'idea', 'idea-Mine-kl=sampled', 'idea-2']
    """
    names: dict[str, str] = {}
    for label in labels:
        name, bracket, parameters = label.partition("[")
        own = re.split(r"[/\\]", name)[-1].replace(".py", "") + bracket + parameters
        stem = _NOT_IN_A_NAME.sub("-", own)[:_LONGEST].strip("-.") or "estimator"
        taken, number, name = {n.lower() for n in names.values()}, 1, stem
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        names[label] = name
    return names


def _record(folder: Path) -> dict[str, Any]:
    """How the certificates were made, as far as the run's folder says."""
    environment = _content(folder / ENVIRONMENT, json.loads)
    packages = _table(environment.get("packages"))
    asked = _table(_content(folder / CONFIG, tomllib.loads).get("certify"))
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": {name: packages.get(name) for name in ("elbograd", "torch")},
        "command": environment.get("command"),
        "seed": asked.get("seed"),
    }


def _content(file: Path, read: Callable[[str], Any]) -> dict[str, Any]:
    try:
        return _table(read(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):  # rows without their folder have certificates all the same
        return {}


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

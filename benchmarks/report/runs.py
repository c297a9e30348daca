"""Run folders as the report reads them: rows, environment, settings. Nothing read is trusted or executed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ...estimators.errors import UsageError
from ..store import CONFIG, ENVIRONMENT, ROWS, load_results
from ..store.log import read_log


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: of its folder, distinct from that of every other run of the report.
        folder: where it lies.
        rows: long rows, the columns of ``schema.COLUMNS``.
        environment: of environment.json; empty where there is none.
        config: of config.toml, benchmark -> settings; empty where there is none.
        remarks: what could not be read, a sentence each.
    """

    name: str
    folder: Path
    rows: pd.DataFrame
    environment: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders, each once.

    Raises:
        UsageError: one that is no run folder, is empty, or whose rows are damaged.
    """
    distinct = list({folder.resolve(): folder for folder in folders}.values())
    return [_load(folder, name) for folder, name in zip(distinct, _names(distinct), strict=True)]


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of their parents' as tells them apart."""
    paths = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, paths), default=1) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _load(folder: Path, name: str) -> Run:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a run folder")
    rows = load_results(folder)
    if rows.empty:
        raise UsageError(f"no rows in {folder}")
    remarks: list[str] = []
    environment = _read(folder / ENVIRONMENT, json.loads, remarks)
    config = _read(folder / CONFIG, tomllib.loads, remarks)
    if read_log(folder / ROWS).torn:
        remarks.append("The run was stopped in the middle of a case, which is left out.")
    return Run(name, folder, rows.assign(run=name), environment, config, tuple(remarks))


def _read(file: Path, parse: Any, remarks: list[str]) -> dict[str, Any]:
    if not file.is_file():
        remarks.append(f"The folder has no {file.name}.")
        return {}
    try:
        found = parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        remarks.append(f"{file.name} could not be read.")
        return {}
    if not isinstance(found, dict):
        remarks.append(f"{file.name} holds no table.")
        return {}
    return found

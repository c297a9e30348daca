"""A run's folder on disk: configuration, environment, rows. Reading it executes nothing."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from ..estimators.errors import UsageError
from .migration import migrate
from .schema import COLUMNS, SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

ROWS, TABLE, CONFIG, ENVIRONMENT = "rows.jsonl", "rows.parquet", "config.toml", "environment.json"


def default_folder(name: str) -> Path:
    """A dated folder under results/runs/, with a number added where that is taken."""
    stem = Path("results/runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{name}"
    candidates = [stem, *(stem.with_name(f"{stem.name}-{k}") for k in range(2, 100))]
    return next(folder for folder in candidates if not folder.exists())


class RunFolder:
    """Where one run's results go; a run that was stopped goes on in its folder.

    Args:
        path: created when it is not there.
        config: benchmark -> its settings; a folder that holds the same benchmark with other settings
            is refused.
        environment: versions, machine, command.
        force: begin anew, deleting the rows that are there.

    Raises:
        UsageError: the folder cannot be written, or holds other results.
    """

    def __init__(
        self,
        path: Path,
        config: dict[str, dict[str, Any]],
        environment: dict[str, Any],
        force: bool = False,
    ) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if force:
                self._clear()
            self._merge_config(config)
            (path / ENVIRONMENT).write_text(json.dumps(environment, indent=2) + "\n")
            self.torn = repair(path / ROWS)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"cannot use folder {path}: {_reason(error)}") from error

    def finished(self) -> set[str]:
        """Cases that need not be run again: all of whose rows are there, none of them failed."""
        rows = read_rows(self.path / ROWS)
        failed = {r["case"] for r in rows if r["status"] == "failed"}
        return {r["case"] for r in rows} - failed

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write all rows of a case at once, and see them on disk."""
        complete = [{**r, "run": self.path.name} for r in rows]
        text = "".join(json.dumps(r) + "\n" for r in complete)
        with (self.path / ROWS).open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def forget(self, cases: set[str]) -> None:
        """Drop the rows of cases that are about to be run again."""
        rows = read_rows(self.path / ROWS)
        kept = [r for r in rows if r["case"] not in cases]
        if len(kept) < len(rows):
            temporary = self.path / (ROWS + ".new")
            temporary.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
            temporary.replace(self.path / ROWS)

    def finish(self) -> pd.DataFrame:
        """Write rows.parquet, and return the rows."""
        frame = load_results(self.path)
        frame.to_parquet(self.path / TABLE, index=False)
        return frame

    def _clear(self) -> None:
        """Delete an earlier run; whatever else the folder holds is the user's."""
        if not (self.path / CONFIG).is_file() or not (self.path / ENVIRONMENT).is_file():
            return
        for name in (ROWS, TABLE, CONFIG):
            (self.path / name).unlink(missing_ok=True)
        for name in ("figures", "tables", "checkpoints"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _merge_config(self, config: dict[str, dict[str, Any]]) -> None:
        file = self.path / CONFIG
        there = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        wanted = {name: _without_none(settings) for name, settings in config.items()}
        for name, settings in wanted.items():
            if name in there and there[name] != settings:
                changed = sorted(k for k in there[name] | settings if there[name].get(k) != settings.get(k))
                raise UsageError(
                    f"{self.path} holds a {name} run with other settings ({', '.join(changed)}): "
                    f"choose another folder, or --force to begin anew"
                )
        file.write_text(tomli_w.dumps({**there, **wanted}), encoding="utf-8")


def load_results(path: Path | str) -> pd.DataFrame:
    """Read the rows of a run folder, or of a rows.jsonl or .parquet file, with their types.

    Raises:
        UsageError: there are no rows there, or they are of another schema version.
    """
    import pandas as pd

    path = Path(path)
    file = path / ROWS if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"no results in {path}: expected a run folder with a {ROWS}")
    try:
        given = pd.read_parquet(file).to_dict("records") if file.suffix == ".parquet" else read_rows(file)
        rows = pd.DataFrame([migrate(r) for r in given])
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {file}: {_reason(error)}") from error
    frame = rows.reindex(columns=list(COLUMNS))
    versions = set(frame["schema_version"].dropna()) - {SCHEMA_VERSION}
    if versions:
        raise UsageError(f"{file} has schema version {versions.pop()}, this elbograd reads {SCHEMA_VERSION}")
    types = {int: "Int64", float: "float64", str: "object"}
    return frame.astype({name: types[kind] for name, (kind, _, _) in COLUMNS.items()})


def read_rows(file: Path) -> list[dict[str, Any]]:
    """All whole rows of a rows.jsonl; none where there is no file."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict) and "case" in value and "status" in value:
            rows.append(value)
    return rows


def repair(file: Path) -> bool:
    """Cut off a last line that was not written whole; whether there was one."""
    if not file.exists():
        return False
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole == data:
        return False
    with file.open("r+b") as handle:
        handle.truncate(len(whole))
    return True


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]

"""The run folder that a run writes, and goes on in after it was stopped."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from ...estimators.errors import UsageError
from .atomic import remove_unfinished, to_disk, write_atomically
from .lines import sealed
from .loading import ROWS, TABLE, as_frame, reason
from .lock import hold
from .log import content_of, read_log, read_rows, repair
from .partial import PARTIAL, remove_partial

if TYPE_CHECKING:
    import pandas as pd

CONFIG, ENVIRONMENT, CERTIFICATES = "config.toml", "environment.json", "certificates.json"
#: In the order in which they go: what is left of a run is one for the next --force, until all else is gone.
_OURS = ("throughput.json", "report.html", "advice.txt", CERTIFICATES, TABLE, ROWS, CONFIG)
_OUR_FOLDERS = ("figures", "tables", "badges", "checkpoints", "trained", PARTIAL)
_ROWS_OF = {"advise": "variance"}  # commands whose rows are another benchmark's

_Config = dict[str, dict[str, Any]]


def default_folder(name: str) -> Path:
    """A new dated folder under results/runs/, with a number added where that is taken.

    Raises:
        UsageError: it cannot be made.
    """
    stem = Path("results/runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{name}"
    for folder in (stem, *(stem.with_name(f"{stem.name}-{k}") for k in range(2, 100))):
        try:
            folder.mkdir(parents=True)  # taken in one step: another process may look for one at this moment
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"cannot use folder {folder}: {reason(error)}") from error
        return folder
    raise UsageError(f"{stem} and 98 more like it are taken: choose a folder with -o")


class RunFolder:
    """Where one run's results go; a run that was stopped goes on in its folder.

    No other process can use the folder while this object lives (`lock.hold`).

    Args:
        path: created when it is not there.
        config: benchmark -> its settings; a folder that holds the same benchmark with other settings
            is refused.
        environment: versions, machine, command.
        force: begin anew, deleting the rows that are there.

    Attributes:
        path: as given.
        torn: the beginning of a case was there, as a kill leaves it, and has been dropped.
        damaged: lines that could not be believed, and have been moved to rows.damaged.jsonl.
        changed: what of the environment is not what it was when earlier rows were measured.

    Raises:
        UsageError: the folder cannot be written, holds other results, or another process uses it.
    """

    def __init__(
        self,
        path: Path,
        config: _Config,
        environment: dict[str, Any],
        force: bool = False,
    ) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = hold(path)
            if force:
                self._clear()
            remove_unfinished(path, below=_OUR_FOLDERS)
            merged = self._merged(config)
            found = repair(path / ROWS)
            self.torn, self.damaged = found.torn, len(found.damaged)
            write_atomically(path / CONFIG, tomli_w.dumps(merged))
            if self._environment_was_another(environment):
                remove_partial(path)  # parts of a case are of one version of all that they depend on
            earlier = self._earlier_environments()
            self.changed = _differences(earlier, environment)
            others = [e for e in earlier if _differences([e], environment)]
            described = {**environment, "earlier": others} if others else environment
            write_atomically(path / ENVIRONMENT, json.dumps(described, indent=2) + "\n")
        except OSError as error:
            what = "" if error.filename in (None, str(path)) else f"{Path(error.filename).name}: "
            raise UsageError(f"cannot use folder {path}: {what}{reason(error)}") from error

    def finished(self) -> set[str]:
        """Cases that need not be run again: all of whose rows are there, none of them failed."""
        return finished_cases(self.path)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write all rows of one case or several, each case as one unit, and see them on disk.

        Raises:
            OSError: they cannot be written; nothing is then added.
            ValueError: what is not a row.
        """
        name = self.path.resolve().name
        cases: dict[str, list[dict[str, Any]]] = {}
        for r in rows:
            cases.setdefault(r["case"], []).append({**r, "run": name})
        text = b"".join(sealed(of_case) for of_case in cases.values())
        if text:
            _append(self.path / ROWS, text)

    def forget(self, cases: set[str]) -> None:
        """Drop the rows of cases that are about to be run again."""
        log = read_log(self.path / ROWS)
        if cases & log.cases.keys():
            write_atomically(self.path / ROWS, log.written(case for case in log.cases if case not in cases))

    def finish(self, order: Sequence[str] = ()) -> pd.DataFrame:
        """Write rows.parquet, and return the rows.

        Args:
            order: cases in the order that their rows are to have, whichever ended first; others come before.
        """
        from .table import write_table

        log = read_log(self.path / ROWS)
        place = {case: k for k, case in enumerate(order)}
        cases = sorted(log.cases, key=lambda case: place.get(case, -1))
        if cases != list(log.cases):
            write_atomically(self.path / ROWS, log.written(cases))
        rows = [r for case in cases for r in log.cases[case]]
        write_table(rows, self.path / TABLE)
        remove_partial(self.path)
        return as_frame(rows)

    def _clear(self) -> None:
        """Delete an earlier run; whatever else the folder holds is the user's."""
        if not self._is_run():
            return
        for name in _OUR_FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in _OURS:
            (self.path / name).unlink(missing_ok=True)

    def _is_run(self) -> bool:
        """Whether it is a run's folder beyond doubt: a config.toml alone may be anyone's."""
        return sum((self.path / name).is_file() for name in (CONFIG, ENVIRONMENT, ROWS)) > 1

    def _merged(self, config: _Config) -> _Config:
        """The settings of all benchmarks in the folder, these included."""
        there = self._settings_there()
        wanted = {name: _without_none(settings) for name, settings in config.items()}
        for name, settings in wanted.items():
            if name in there and there[name] != settings:
                changed = sorted(k for k in there[name] | settings if there[name].get(k) != settings.get(k))
                raise UsageError(
                    f"{self.path} holds a {name} run with other settings ({', '.join(changed)}): "
                    f"choose another folder, or --force to begin anew"
                )
        return {**there, **wanted}

    def _settings_there(self) -> _Config:
        try:
            there = tomllib.loads((content_of(self.path / CONFIG) or b"").decode())
        except (UsageError, OSError):
            raise
        except (ValueError, RecursionError) as error:
            raise self._unusable(f"{CONFIG} is damaged ({reason(error)})") from error
        if strange := [name for name, settings in there.items() if not isinstance(settings, dict)]:
            raise self._unusable(f"{CONFIG} is not a run's ({strange[0]})")
        known = {_ROWS_OF.get(name, name) for name in there} | {""}
        if unknown := {r["benchmark"] for r in read_rows(self.path / ROWS)} - known:
            raise self._unusable(f"{CONFIG} does not say how its {min(unknown)} rows were made")
        return there

    def _earlier_environments(self) -> list[dict[str, Any]]:
        """Those that rows in this folder were measured in, as far as they are known."""
        try:
            there = json.loads(content_of(self.path / ENVIRONMENT) or b"{}")
        except (ValueError, RecursionError):  # a lost description spoils no row
            return []
        if not isinstance(there, dict) or not read_rows(self.path / ROWS):
            return []
        before = there.pop("earlier", [])
        known = [*(before if isinstance(before, list) else []), there]
        return [environment for environment in known if isinstance(environment, dict) and environment]

    def _environment_was_another(self, environment: dict[str, Any]) -> bool:
        """Whether the folder was last used in another one, or it is not known in which."""
        try:
            there = json.loads(content_of(self.path / ENVIRONMENT) or b"{}")
        except (ValueError, RecursionError):
            return True
        if not isinstance(there, dict):
            return True
        return bool(_differences([{k: v for k, v in there.items() if k != "earlier"}], environment))

    def _unusable(self, why: str) -> UsageError:
        choices = "choose another folder" + (", or --force to begin anew" if self._is_run() else "")
        return UsageError(f"cannot use folder {self.path}: {why}: {choices}")


def finished_cases(folder: Path) -> set[str]:
    """Cases of a run folder, damaged or not, all of whose rows are there, none of them failed.

    Raises:
        OSError, UsageError: as `read_log`.
    """
    cases = read_log(folder / ROWS).cases
    return {case for case, rows in cases.items() if all(r["status"] != "failed" for r in rows)}


def _differences(earlier: list[dict[str, Any]], now: dict[str, Any]) -> list[str]:
    """What has changed; how a command was typed makes no difference."""
    changed = {key for then in earlier for key in then | now if then.get(key) != now.get(key)}
    return sorted(changed - {"command"})


def _append(file: Path, text: bytes) -> None:
    """Add bytes to a file and see them on disk; where that fails, take them off again."""
    try:
        new = not file.exists()
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            before = os.fstat(handle).st_size
            try:
                rest = memoryview(text)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            except BaseException:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)
        if new:
            to_disk(file.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}

"""Going on in a run folder: the model must be the one whose rows are there."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...estimators.errors import UsageError
from ...estimators.plugins.specification import parse, split_place
from ..cases.base import AnyCase, Row
from ..problems.specifications import label_of_text
from ..rows.identity import SAME
from ..rows.text import describe
from ..store import ENVIRONMENT, ROWS
from ..store.log import content_of, read_log

_REMEDY = "choose another folder with -o, or --force to begin anew"


def file_hashes(sources: Mapping[str, str]) -> dict[str, str]:
    """File name -> what tells its code, comments and layout aside, from another version's."""
    return {place: _hash(text) for place, text in sources.items()}


def check_unchanged(folder: Path, cases: Iterable[AnyCase], files: Mapping[str, str]) -> None:
    """Refuse to go on with rows of models that have changed since.

    Told by the code of the file that a problem is in, and by fingerprints of the initial weights and of the
    batch, which are made anew here. What is trained from them is compared case by case (`Seen`).

    Args:
        folder: of the run; may not exist yet.
        cases: of the run.
        files: of `file_hashes`, of the files as they are now.

    Raises:
        UsageError: one has.
    """
    there = read_log(folder / ROWS).cases if (folder / ROWS).is_file() else {}
    done = {id: rows for id, rows in there.items() if any(r["status"] == "done" for r in rows)}
    measured = [case for case in cases if case.id in done and case.problem]
    earlier = _earlier_files(folder) if measured else []
    asked: set[tuple[Any, ...]] = set()
    for case in measured:
        place, _ = split_place(parse(case.problem).name)
        if any(known.get(place, files.get(place)) != files.get(place) for known in earlier):
            label = label_of_text(case.problem)
            raise UsageError(f"{label} has changed since rows in {folder} were measured: {_REMEDY}")
        for r in done[case.id]:
            _check_initial(case, r, folder, asked)


def _check_initial(case: AnyCase, r: Row, folder: Path, asked: set[tuple[Any, ...]]) -> None:
    from ..problems.point import columns, placed

    training = case.kind.name == "convergence"  # whose rows have the weights that it began with at each step
    if not r["weights"] or not (training or not r["step"]) or getattr(case.settings, "trajectory", None):
        return
    key = case.kind, case.problem, r["batch_size"], r["seed"], r["dtype"], r["weights"], r["batch"]
    if key in asked:
        return
    asked.add(key)
    problem = case.kind.model(case.problem, r["seed"])
    now = columns(*placed(problem, batch_size=r["batch_size"], seed=r["seed"], dtype=r["dtype"]))
    for column, what in (("weights", "initial weights"), ("batch", "data")):
        if now[column] != r[column]:
            raise UsageError(
                f"{r['problem']} has other {what} than when rows in {folder} were measured "
                f"({now[column]}, not {r[column]}): {_REMEDY}"
            )


class Seen:
    """The fingerprints at each point so far.

    Args:
        rows: of the run folder.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._known: dict[tuple[Any, ...], str] = {}
        for r in rows:
            self._different(r)

    def check(self, rows: Iterable[Row]) -> None:
        """Take in more rows.

        Raises:
            UsageError: they are of another model or batch than earlier ones at the same point.
        """
        for r in rows:
            different = self._different(r)
            if different is not None:
                column, before = different
                where = describe({n: r[n] for n in SAME[column] if n != "benchmark" and r[n] is not None})
                what = "weights" if column == "weights" else "data"
                raise UsageError(
                    f"{where}: {r['estimator']} met other {what} than those before it ({r[column]}, not "
                    f"{before}): the model has changed, or does not make the same under one seed; give "
                    f"random generators of its own a fixed seed, and begin anew with --force"
                )

    def _different(self, r: Row) -> tuple[str, str] | None:
        for column, settings in SAME.items():
            if r[column]:
                key = column, *(r[name] for name in settings)
                before = self._known.setdefault(key, r[column])
                if before != r[column]:
                    return column, before
        return None


def _hash(text: str) -> str:
    with suppress(SyntaxError, ValueError, RecursionError):  # told when it is executed
        text = ast.unparse(ast.parse(text))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]


def _earlier_files(folder: Path) -> list[dict[str, str]]:
    """Of every session that has rows in the folder, as far as it is known."""
    try:
        there = json.loads(content_of(folder / ENVIRONMENT) or b"{}")
        sessions = [there, *there.get("earlier", [])]
        return [dict(session["files"]) for session in sessions if "files" in session]
    except (ValueError, TypeError, AttributeError, RecursionError, OSError):
        return []  # a lost description spoils no row

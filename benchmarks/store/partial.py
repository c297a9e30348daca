"""Parts of a case that have ended: what is computed for long is not computed again after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .atomic import write_atomically

PARTIAL = "partial"
_Part = list[dict[str, Any]]


class Partial:
    """The parts of one case.

    Args:
        folder: where they are kept; None to keep nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def keep(self, name: str, compute: Callable[[], _Part]) -> _Part:
        """The part of this name: as it was kept, or computed now and kept.

        Args:
            name: fit for a file.
            compute: what gives JSON-ready values.
        """
        if self._folder is None:
            return compute()
        file = self._folder / f"{name}.json"
        kept = _read(file)
        if kept is None:
            kept = compute()
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(kept))
        return kept


def remove_partial(folder: Path) -> None:
    """Remove the parts of all cases of a run folder, which has their rows."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def _read(file: Path) -> _Part | None:
    """None where there is none, or it is damaged: the same is then computed again."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    good = isinstance(found, list) and all(isinstance(each, dict) for each in found)
    return found if good else None

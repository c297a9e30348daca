"""Copying what is published of a run: its rows, how they were asked for, and where they were made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ...estimators.errors import UsageError

ROWS = "rows.parquet"
_ENVIRONMENT = "environment.json"
_SETTINGS = "config.toml"
_FOLDER = re.compile(r" (?:-o|--output)(?: |=)(?:'[^']*'|\S+)")  # of that machine alone


def copy_run(run: Path, published: Path, figures: Iterable[str] = ()) -> None:
    """The rows, the settings, the environment less the folder of its command, and these figures, where there.

    Args:
        run: folder of a finished run.
        published: where it goes; made where it is not there.
        figures: file names.

    Raises:
        UsageError: the run is not finished.
        OSError: a file cannot be read or written.
    """
    if not (run / ROWS).exists():
        raise UsageError(f"{run} is not finished: it has no {ROWS}")
    published.mkdir(parents=True, exist_ok=True)
    for name in (ROWS, _SETTINGS, *(f"figures/{figure}" for figure in figures)):
        if (run / name).exists():
            (published / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(run / name, published / name)
    if (run / _ENVIRONMENT).exists():
        made_in = json.loads((run / _ENVIRONMENT).read_text(encoding="utf-8"))
        made_in["command"] = _FOLDER.sub("", made_in["command"])
        text = json.dumps(made_in, indent=2) + "\n"
        (published / _ENVIRONMENT).write_text(text, encoding="utf-8")

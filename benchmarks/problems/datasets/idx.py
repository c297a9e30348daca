"""Images in the IDX format of MNIST, compressed or not.

Source: the file format at the end of LeCun, Cortes & Burges, The MNIST database of handwritten digits.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....estimators.errors import UsageError
from ....estimators.text import one_line

_HEADER = struct.Struct(">HBBIII")
_UNSIGNED_BYTES, _DIMENSIONS = 8, 3
_GZIP = b"\x1f\x8b"
_MOST = 1 << 30  # bytes: a small file may decompress to any number of them


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The images of an IDX file, (N, rows, columns).

    Raises:
        UsageError: it is no such file, is damaged, or has more or fewer bytes than it says.
        OSError: it cannot be read.
    """
    content = _content(path)
    if len(content) < _HEADER.size:
        raise UsageError(f"{path} is no IDX file of images: it has {len(content)} bytes")
    zero, kind, dimensions, *shape = _HEADER.unpack_from(content)
    if (zero, kind, dimensions) != (0, _UNSIGNED_BYTES, _DIMENSIONS):
        raise UsageError(
            f"{path} is no IDX file of images: it begins with 0x{content[:4].hex()}, expected 0x00000803"
        )
    expected, there = int(np.prod(shape, dtype=object)), len(content) - _HEADER.size
    if there != expected:
        what = "truncated" if there < expected else "too long"
        raise UsageError(f"{path} is {what}: it has {there:,} bytes of images, says {expected:,}")
    return np.frombuffer(content, np.uint8, offset=_HEADER.size).reshape(shape)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP
    if not compressed:
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read(_MOST)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is damaged, it does not decompress ({one_line(error)})") from error

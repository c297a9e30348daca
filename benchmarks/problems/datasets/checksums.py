"""Checksums of files and of images."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 20


def checksum_of(path: Path, kind: str) -> str:
    """The checksum of a file with its kind in front, as "sha256:440f…" or "git-blob:016a…"."""
    if kind == "git-blob":
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        digest = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def is_the_file(path: Path, checksum: str) -> bool:
    """Whether a file has a checksum."""
    return checksum_of(path, checksum.partition(":")[0]) == checksum


def sha256_as_idx(images: NDArray[np.uint8], side: int) -> str:
    """SHA-256 of the IDX file of images (N, side²), however they were stored here."""
    digest = hashlib.sha256(struct.pack(">HBBIII", 0, 8, 3, len(images), side, side))
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()

"""Small data sets of the same form as the real ones, under their names: files, checksums and all."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import replace

import numpy as np
from elbograd.benchmarks.problems.datasets.catalogue import DATA_SETS
from scipy.io import savemat

SIZES = {"train": 12, "test": 5}
STEMS = {"train": "train", "test": "t10k"}


def images_like(name, split):
    """(N, 28, 28) uint8, the same in every test."""
    seed = list(SIZES).index(split) + 10 * list(DATA_SETS).index(name)
    return np.random.RandomState(seed).randint(0, 256, (SIZES[split], 28, 28)).astype(np.uint8)


def as_idx(images):
    return struct.pack(">HBBIII", 0, 8, 3, *images.shape) + images.tobytes()


def git_blob(content):
    return f"git-blob:{hashlib.sha1(b'blob %d' % len(content) + bytes(1) + content).hexdigest()}"


def shrink(monkeypatch, name, downloads=()):
    """Let a data set of files be one of 12 and 5 images, 3 of them to validate, with checksums of its own."""
    contents = {split: hashlib.sha256(as_idx(images_like(name, split))).hexdigest() for split in SIZES}
    small = replace(
        DATA_SETS[name],
        sizes=SIZES,
        validation=3,
        contents=contents if DATA_SETS[name].contents else {},
        downloads=tuple(downloads),
    )
    monkeypatch.setitem(DATA_SETS, name, small)
    return small


def write_idx(folder, name, compress=True):
    """The two files of an MNIST in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, stem in STEMS.items():
        content = as_idx(images_like(name, split))
        file = folder / f"{stem}-images-idx3-ubyte{'.gz' if compress else ''}"
        file.write_bytes(gzip.compress(content, mtime=0) if compress else content)


def omniglot_images(split):
    """(N, 28, 28) float64 in [0, 1]."""
    return images_like("omniglot", split) / 255


def write_mat(folder):
    """chardata.mat: an image a column, its pixels column by column."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        variable: omniglot_images(split).transpose(0, 2, 1).reshape(-1, 784).T
        for split, variable in (("train", "data"), ("test", "testdata"))
    }
    savemat(folder / "chardata.mat", columns)

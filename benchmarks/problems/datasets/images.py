"""Images of a data set in batches, binarized or not: what the VAEs of the suite are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ....estimators.errors import UsageError
from ....estimators.pieces.arguments import one_of
from ..arguments import is_integer, shown
from ..data import digits
from .catalogue import DataSet, data_set
from .folder import data_folder
from .reading import check_there, read

SPLITS = ("train", "validation", "test")
BINARIZATIONS = ("dynamic", "fixed", "none")
_SEED = 20131221  # of fixed binarizations; only has to stay the same
_BLOCK = 1000  # images that uniform numbers are drawn for at once
_KEPT = 4  # data sets in memory


class Images:
    """A data set's images, read when they are first asked for.

    Args:
        name: of the data set.
        binarization: "dynamic" draws training pixels anew each time they are served, each 1 with its
            intensity as probability; "fixed" draws them once; "none", or None, leaves the intensities, in
            [0, 1]. Images that are held out, for validation or testing, always have the same one draw, on
            every machine, so that numbers compare.
        validation: how many training images, the last of them, are held out as split "validation" and not
            trained on; None for what is usual of the data set: 10,000 of (Fashion-)MNIST's 60,000, 1,345 of
            Omniglot's 24,345, 500 of mnist-5k's 4,500, none of the digits.

    Raises:
        UsageError: an unknown data set or binarization, a number of images that is not below that of the
            training images; files that are not there, or when they are read, are damaged or others.
    """

    def __init__(
        self, name: str = "digits", binarization: str | None = "dynamic", validation: int | None = None
    ) -> None:
        self.data_set = data_set(name)
        chosen = "none" if binarization is None else binarization
        self.binarization = one_of("binarization", chosen, BINARIZATIONS)
        self.validation = _held_out(self.data_set, validation)
        check_there(self.data_set)

    @property
    def pixels(self) -> int:
        """Of an image."""
        return self.data_set.pixels

    def size(self, split: str) -> int:
        """How many images a split has."""
        _, rows = self._where(split)
        return rows.stop - rows.start

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over a split, x (B, pixels) float32; in order, and never drawn anew, without a generator.

        Raises:
            UsageError: an unknown split, a batch size that is not positive, or what `Images` raises.
        """
        for x, _ in self.indexed_batches(split, batch_size, generator):
            yield x

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What `batches` serves, with which images of the split they are, (B,)."""
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is not a positive integer")
        count = self.size(split)
        pixels = self._pixels(split, generator)
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        for index in order.split(batch_size):
            yield pixels(index), index

    def _pixels(self, split: str, generator: torch.Generator | None) -> Callable[[Tensor], Tensor]:
        """From indices (B,) into a split to x (B, pixels), for one pass."""
        part, rows = self._where(split)
        if self.binarization != "none" and (
            generator is None or split != "train" or self.binarization == "fixed"
        ):
            bits = fixed_binarization(self.data_set.name, part)[rows]
            return lambda index: bits[index].to(torch.float32)
        images = images_of(self.data_set.name)[part][rows]
        if self.binarization == "none":
            return lambda index: intensities(images[index])
        if self.data_set.whole_passes:
            drawn = torch.bernoulli(intensities(images), generator=generator)
            return lambda index: drawn[index]
        assert generator is not None
        # A generator of the pass: how far it is gone through moves nothing that the caller draws next.
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return lambda index: torch.bernoulli(intensities(images[index]), generator=own)

    def _where(self, split: str) -> tuple[str, slice]:
        """The part of the data set that a split is in, and its rows there."""
        there = SPLITS if self.validation else ("train", "test")
        if split not in there:
            held_out = "; give validation=N to hold out N training images" if split == "validation" else ""
            raise UsageError(f"split {shown(split)} is not one of {', '.join(there)}{held_out}")
        sizes = self.data_set.sizes
        kept = sizes["train"] - self.validation
        if split == "validation":
            return "train", slice(kept, sizes["train"])
        return split, slice(0, kept if split == "train" else sizes["test"])


def images_of(name: str) -> dict[str, Tensor]:
    """{"train": (N, pixels), "test": ...}, uint8 from 0 to 255 or float32 from 0 to 1.

    Those to validate with are in "train". They are read once a process, and shared: not to be written to.

    Raises:
        UsageError: as `Images`.
    """
    return _images(data_set(name), str(data_folder()))


def fixed_binarization(name: str, part: str) -> Tensor:
    """The one draw of each image of a part, (N, pixels) of zeros and ones, uint8; shared as `images_of`."""
    return _binarized(data_set(name), str(data_folder()), part)


def intensities(images: Tensor) -> Tensor:
    """Images as probabilities, float32 in [0, 1]."""
    return images / 255 if images.dtype == torch.uint8 else images


# The data set itself is part of the key, and the folder: the same name may stand for other files elsewhere.
@lru_cache(maxsize=_KEPT)
def _images(data: DataSet, folder: str) -> dict[str, Tensor]:
    if data.name == "digits":
        return digits()
    return {split: torch.from_numpy(images.copy()) for split, images in read(data).items()}


@lru_cache(maxsize=2 * _KEPT)
def _binarized(data: DataSet, folder: str, part: str) -> Tensor:
    parts = _images(data, folder)
    if data.name == "digits":  # one part after the other, as they have been since the first results
        generator = torch.Generator().manual_seed(_SEED)
        drawn = {name: torch.bernoulli(images, generator=generator) for name, images in parts.items()}
        return drawn[part].to(torch.uint8)
    return _draw(parts[part], _SEED + list(parts).index(part))


def _draw(images: Tensor, seed: int) -> Tensor:
    """One draw, by the numbers of NumPy's RandomState, of which NumPy promises that they never change."""
    uniform = np.random.RandomState(seed)
    return torch.cat(
        [
            torch.from_numpy(uniform.random_sample(block.shape)).lt(intensities(block)).to(torch.uint8)
            for block in images.split(_BLOCK)
        ]
    )


def _held_out(data: DataSet, validation: object) -> int:
    if validation is None:
        return data.validation
    if not is_integer(validation) or not 0 <= validation < data.sizes["train"]:
        raise UsageError(
            f"validation={shown(validation)} is not an integer from 0 to {data.sizes['train'] - 1}: "
            f"{data.name} has {data.sizes['train']:,} images to train and validate with"
        )
    return int(validation)

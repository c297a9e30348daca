"""Real data: scikit-learn's handwritten digits, split and binarized."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from ...estimators.errors import UsageError
from ...estimators.pieces.arguments import one_of

SPLITS = ("train", "test")
BINARIZATIONS = ("dynamic", "fixed")
_SEED = 20131220  # the date of arXiv:1312.6114; only has to stay the same


@lru_cache(maxsize=1)
def digits() -> dict[str, Tensor]:
    """Pixel intensities in [0, 1], (N, 64) float32: 1,500 training and 297 held-out 8×8 images.

    Source: the test set of UCI's Optical Recognition of Handwritten Digits, as shipped by scikit-learn.
    The order is shuffled once, with a seed that never changes.
    """
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().data).to(torch.float32) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SEED))
    images = images[order]
    return {"train": images[:1500], "test": images[1500:]}


@lru_cache(maxsize=1)
def labelled_digits() -> dict[str, Tensor]:
    """The same images with their digit as a last column, (N, 65) float32."""
    from sklearn.datasets import load_digits

    digit = torch.from_numpy(load_digits().target).to(torch.float32)
    order = torch.randperm(len(digit), generator=torch.Generator().manual_seed(_SEED))
    splits = dict(zip(SPLITS, digit[order].split([1500, len(digit) - 1500]), strict=True))
    return {split: torch.cat((digits()[split], splits[split].unsqueeze(1)), 1) for split in SPLITS}


class BinarizedDigits:
    """Digits as binary pixels, each 1 with its intensity as probability.

    Args:
        binarization: "dynamic" draws training pixels anew each time they are served; "fixed" draws
            them once. Held-out images are always the same one draw, so that numbers compare.

    Raises:
        UsageError: an unknown binarization, or an unknown split in `batches`.
    """

    def __init__(self, binarization: str = "dynamic") -> None:
        self.binarization = one_of("binarization", binarization, BINARIZATIONS)
        generator = torch.Generator().manual_seed(_SEED + 1)
        self.fixed = {split: torch.bernoulli(digits()[split], generator=generator) for split in SPLITS}

    def batches(self, split: str, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        """One pass over a split, x (B, 64) in {0, 1}; in order and fixed when there is no generator."""
        return serve(self._source(split, generator), batch_size, generator)

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What `batches` serves, with which images they are, (B,)."""
        source = self._source(split, generator)
        images = torch.arange(len(source))
        state = None if generator is None else generator.get_state()
        batches = list(serve(source, batch_size, generator))
        if generator is not None and state is not None:
            generator.set_state(state)
        yield from zip(batches, serve(images, batch_size, generator), strict=True)

    def _source(self, split: str, generator: torch.Generator | None) -> Tensor:
        check_split(split)
        if generator is None or split == "test" or self.binarization == "fixed":
            return self.fixed[split]
        return torch.bernoulli(digits()[split], generator=generator)


def check_split(split: str) -> None:
    """Raise UsageError unless ``split`` is one there is."""
    if split not in SPLITS:
        raise UsageError(f"split {split!r} is not one of {', '.join(SPLITS)}")


def serve(data: Tensor, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Batches of ``data`` along its first dimension, shuffled by ``generator`` where there is one."""
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size} is not a positive integer")
    if generator is not None:
        data = data[torch.randperm(len(data), generator=generator)]
    yield from data.split(batch_size)

"""Real data: scikit-learn's handwritten digits, split; and how any data are served."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from ...estimators.errors import UsageError

SPLITS = ("train", "test")
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

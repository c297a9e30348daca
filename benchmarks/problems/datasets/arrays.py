"""Arrays of images, of any shape and type that files have, brought into one of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....estimators.errors import UsageError

Array = NDArray[Any]


def as_images(array: Array, side: int, path: Path) -> Array:
    """Images (N, side²), uint8 from 0 to 255 or float32 from 0 to 1.

    Args:
        array: (N, side²) or (N, side, side), bytes or floating-point numbers.
        side: pixels of a side.
        path: whence.

    Raises:
        UsageError: another shape or type, or an intensity outside [0, 1].
    """
    if array.shape[1:] not in ((side**2,), (side, side)):
        raise UsageError(f"{path} has shape {array.shape}, expected (N, {side}, {side}) or (N, {side**2})")
    images = array.reshape(len(array), side**2)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if not np.issubdtype(images.dtype, np.floating):
        raise UsageError(f"{path} has numbers of type {images.dtype}, expected uint8 or floating-point")
    if not (images.min(initial=0) >= 0 and images.max(initial=0) <= 1):  # NaN is neither
        raise UsageError(f"{path} has intensities outside of [0, 1]: give those, or uint8 from 0 to 255")
    return np.ascontiguousarray(images, dtype=np.float32)

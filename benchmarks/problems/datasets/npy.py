"""Images in a file of NumPy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ....estimators.errors import UsageError
from ....estimators.text import one_line
from .arrays import Array


def read_npy(path: Path) -> Array:
    """The array of a .npy file, as it is; objects are not unpickled.

    Raises:
        UsageError: it is no such file, or damaged.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        raise UsageError(f"{path} is no .npy file, or damaged ({one_line(error)})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise UsageError(f"{path} is an archive of several arrays: save one, by numpy.save")
    return array

"""Omniglot at 28×28, as chardata.mat has it."""

from __future__ import annotations

from pathlib import Path

from ....estimators.errors import UsageError
from ....estimators.text import one_line
from .arrays import Array

_VARIABLES = {"train": "data", "test": "testdata"}


def read_mat(path: Path, split: str) -> Array:
    """The images of a split, (N, 28²), rows of pixels after each other.

    The file has an image in a column, its pixels column by column.

    Raises:
        UsageError: it is no MATLAB file of version 5 that holds data and testdata of 784 rows, or is damaged.
    """
    from scipy.io import loadmat

    name = _VARIABLES[split]
    try:
        variables = loadmat(path, variable_names=[name])
    except Exception as error:  # of a damaged file it raises anything, an OSError without a number too
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UsageError(f"{path} is no MATLAB file, or damaged ({one_line(error)})") from error
    columns = variables.get(name)
    if columns is None or columns.ndim != 2 or len(columns) != 28**2:
        shape = "" if columns is None else f" of shape {columns.shape}"
        what = f"has {name}{shape}" if shape else f"has no {name}"
        raise UsageError(f"{path} {what}, expected {name} of 784 rows, an image a column")
    images: Array = columns.T.reshape(-1, 28, 28).transpose(0, 2, 1).reshape(-1, 28**2)
    return images

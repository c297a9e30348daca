"""Shapes of tensors checked while the tests run: jaxtyping's annotations, by its import hook and beartype."""

from __future__ import annotations

from functools import wraps
from inspect import isclass
from typing import get_args

from beartype import beartype
from jaxtyping import AbstractArray, Float, Shaped, install_import_hook
from torch.compiler import is_compiling

CHECKED = (
    "elbograd.estimators.base",
    "elbograd.estimators.methods",
    "elbograd.estimators.pieces",
    "elbograd.estimators.posteriors",
    "elbograd.benchmarks.jacobians",
    "elbograd.benchmarks.linalg",
    "elbograd.benchmarks.oracles",
    # Not variance.measure and variance.ratio: what users misuse has to be told by the suite itself.
    *(
        f"elbograd.benchmarks.variance.{name}"
        for name in (
            "breakdown",
            "factorized",
            "full",
            "minibatch",
            "moments",
            "precision",
            "result",
            "route",
            "signal",
        )
    ),
)


def check_shapes():
    """From here on, what is imported of `CHECKED` raises where an annotated shape does not hold."""
    install_import_hook(CHECKED, f"{__name__}.typechecked")


def typechecked(function):
    """The function with its shapes checked, and those of an `Estimate` that it returns.

    Other types are not: what a user gets wrong is for the function itself to tell, and for mypy.
    """
    hints = {name: hint for name, hint in function.__annotations__.items() if _is_shaped(hint)}
    function.__annotations__ = hints
    checked = beartype(function) if hints else function

    @wraps(function)
    def call(*args, **kwargs):
        if is_compiling():  # what checks cannot be traced
            return function(*args, **kwargs)
        result = checked(*args, **kwargs)
        if type(result).__name__ == "Estimate":
            _check_estimate(result, next(q for q in args if hasattr(q, "batch_shape")))
        return result

    return call


def _is_shaped(hint):
    if isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(map(_is_shaped, hint if isinstance(hint, list) else get_args(hint)))


def _check_estimate(estimate, q):
    """Every part has the batch shape of the posterior, which no annotation can name."""
    from torch import Tensor, empty

    assert isinstance(empty(q.batch_shape), Shaped[Tensor, "*batch"])
    for name in ("surrogate", "value", "aux_loss"):
        part = getattr(estimate, name)
        if part is not None and not isinstance(part, Float[Tensor, "*batch"]):
            raise TypeError(
                f"{name} is {part.dtype} {tuple(part.shape)}, the posterior {tuple(q.batch_shape)}"
            )

"""Shapes of tensors checked while the tests run: jaxtyping's annotations, by an import hook and beartype."""

from __future__ import annotations

from functools import wraps

from beartype import beartype
from jaxtyping import Float, Shaped, install_import_hook

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
        for name in ("breakdown", "factorized", "full", "moments", "precision", "result", "route", "signal")
    ),
)


def check_shapes():
    """From here on, what is imported of `CHECKED` raises where an annotated shape does not hold."""
    install_import_hook(CHECKED, f"{__name__}.typechecked")


def typechecked(function):
    """The function with beartype's checks, and those of an `Estimate`, whose fields beartype does not see.

    The fields have the batch shape of the posterior, which no annotation can name.
    """
    checked = beartype(function)

    @wraps(function)
    def call(*args, **kwargs):
        result = checked(*args, **kwargs)
        if type(result).__name__ == "Estimate":
            _check_estimate(result, next(q for q in args if hasattr(q, "batch_shape")))
        return result

    return call


def _check_estimate(estimate, q):
    from torch import Tensor, empty

    assert isinstance(empty(q.batch_shape), Shaped[Tensor, "*batch"])
    for name in ("surrogate", "value", "aux_loss"):
        part = getattr(estimate, name)
        if part is not None and not isinstance(part, Float[Tensor, "*batch"]):
            raise TypeError(
                f"{name} has shape {tuple(part.shape)}, not the posterior's {tuple(q.batch_shape)}"
            )

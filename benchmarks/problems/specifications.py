"""The estimators and problems that texts stand for: known ones, grids opened. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import REGISTRY as ESTIMATORS
from ...estimators.plugins.registry import label_of
from ...estimators.plugins.specification import Specification, expand
from .registry import REGISTRY as PROBLEMS


def label_of_text(specification: str) -> str:
    """What results call a specification."""
    return label_of(expand(specification)[0])


def specifications(texts: Sequence[str], kind: str) -> list[str]:
    """Every specification that the user's texts stand for, each known to exist; grids opened.

    Args:
        texts: as given on the command line.
        kind: "estimator" or "problem".

    Raises:
        UsageError: malformed, unknown, or two that results could not tell apart.
    """
    registry = ESTIMATORS if kind == "estimator" else PROBLEMS
    found: dict[str, Specification] = {}
    for specification in (s for text in texts for s in expand(text)):
        registry.find(specification.name)
        label = label_of(specification)
        if label in found and str(found[label]) != str(specification):
            raise UsageError(
                f"{found[label]} and {specification} would both be called {label} in the results"
            )
        found[label] = specification
    return [str(s) for s in found.values()]


def with_latent_dim(problem: str, latent_dim: int) -> str:
    """The same problem at another latent dimension.

    Raises:
        UsageError: the problem has no parameter latent_dim.
    """
    specification = expand(problem)[0]
    if not PROBLEMS.accepts(specification, "latent_dim"):
        raise UsageError(f"problem {problem!r} has no parameter latent_dim to vary")
    return str(Specification(specification.name, {**specification.parameters, "latent_dim": latent_dim}))

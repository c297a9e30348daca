"""Merging streams of replicates: only of one model and one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...estimators.errors import UsageError
from ..problems.fingerprint import of_batch, of_weights
from ..problems.protocol import Problem
from .moments import Sums


def check_same_model(merge: Sequence[Sums], problem: Problem, x: Tensor) -> None:
    """Raise UsageError for sums of other weights, or of another x (B, ...)."""
    if not merge:
        return
    weights, batch = of_weights(problem), of_batch(x)
    for sums in merge:
        of_them = dict(sums.model)
        for what, now in (("weights", weights), ("batch", batch)):
            before = of_them.get(what, now)
            if before != now:
                raise UsageError(
                    f"only sums of one model and one x can be merged: the fingerprint of the {what} is {now} "
                    f"here and was {before} there"
                )


def mark(sums: Sums | None, case: Mapping[str, Any]) -> None:
    """Let sums remember what model they are of."""
    if sums is not None:
        sums.model = {"weights": case["weights"], "batch": case["batch"]}

"""What compares two calls by their random numbers accuses no right estimator, however it draws."""

from __future__ import annotations

from pathlib import Path
from unittest import SkipTest

import pytest
import torch
from elbograd.estimators import create
from elbograd.estimators.testing import batch_checks, estimator_checks
from elbograd.estimators.testing.hidden_state import hidden_values
from elbograd.estimators.testing.replay import NoCounterpart, Part, replayed

HELPERS = Path(__file__).parents[1] / "helpers"
RIGHT = HELPERS / "right_estimators.py"
WRONG = HELPERS / "wrong_estimators.py"
CHECKS = (
    "shape-of-batch",
    "size-of-batch",
    "float32",
    "pure-forward",
    "iid-draws",
    "unbiased",
)
WAYS = (
    "SamplesBehindTheBatch",
    "OneLongVector",
    "SampleBySample",
    "ReplicateByReplicate",
    "Rejection",
    "NumPySeededByTorch",
    "Memoized",
    "CentralDifferences",
    "Dropout",
)

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


@pytest.mark.parametrize("name", WAYS)
def test_a_right_estimator_is_accused_of_nothing(name):
    asked = set(CHECKS) - (
        {"float32"} if name == "CentralDifferences" else set()
    )  # of which no digit is left
    chosen = [c for c in estimator_checks(f"{RIGHT}:{name}") if c.name.partition("[")[0] in asked]
    assert len(chosen) >= len(asked)
    for check in chosen:
        try:
            check()
        except SkipTest:
            assert check.name.startswith("iid-draws")


def compared(spec, monkeypatch):
    """How many estimates were drawn again from another's numbers, and how many had none."""
    counts = {True: 0, False: 0}

    def counted(*arguments):
        try:
            outcome = replayed(*arguments)
        except NoCounterpart:
            counts[False] += 1
            raise
        counts[True] += 1
        return outcome

    monkeypatch.setattr(batch_checks, "replayed", counted)
    for check in estimator_checks(spec):
        if check.name.startswith(("shape-of-batch", "size-of-batch")):
            check()
    return counts[True], counts[False]


@pytest.mark.parametrize("spec", ["score-function", "disarm", "score-function[draws=sobol]", "unordered-set"])
def test_every_comparison_is_made_for_estimators_of_the_catalogue(spec, monkeypatch):
    """Two modes, four S, and seven parts of a batch, for each family."""
    families = 3 if spec.startswith("score") else 2
    assert compared(spec, monkeypatch) == (2 * 4 * 7 * families, 0)


def test_what_is_drawn_where_it_cannot_be_seen_is_not_compared(monkeypatch):
    made, none = compared(f"{RIGHT}:NumPySeededByTorch", monkeypatch)
    assert made == 0
    assert none > 0


def test_a_part_of_a_batch_is_found_by_its_shape():
    drawn = torch.arange(2 * 5 * 3).reshape(2, 5, 3)  # (S, B, D)
    part = Part(size=5, start=1, kept=2)
    assert torch.equal(part.of(drawn, (2, 2, 3)), drawn[:, 1:3])
    assert torch.equal(part.of(drawn.movedim(1, 2), (2, 3, 2)), drawn[:, 1:3].movedim(1, 2))
    rows = drawn.movedim(0, -1).reshape(15, 2)  # (B·D, S), as of multinomial
    assert torch.equal(part.of(rows, (6, 2)), drawn[:, 1:3].movedim(0, -1).reshape(6, 2))
    flat = Part(size=5, start=1, kept=2, before=2).of(drawn.flatten(), (12,))
    assert torch.equal(flat, drawn[:, 1:3].flatten())
    assert torch.equal(part.of(drawn, drawn.shape), drawn)
    for shape in ((2, 2), (1, 2, 3), (2, 3, 3)):
        with pytest.raises(NoCounterpart):
            part.of(drawn, shape)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("WearsOut", "WearsOut.calls"),
        ("WearsOutByModule", "_CALLS of wrong_estimators.py"),
        ("WearsOutByClosure", "WearsOutByClosure.forward's calls"),
        ("WearsOutByObject", "_COUNTER of wrong_estimators.py's calls"),
        ("WearsOutByDefault", "WearsOutByDefault.forward's default 0"),
    ],
)
def test_what_is_kept_outside_of_an_estimator_is_seen_and_named(name, place):
    assert (
        place in hidden_values(create(f"{WRONG}:{name}")) or name == "WearsOutByObject"
    )  # 0 as in its class
    check = next(c for c in estimator_checks(f"{WRONG}:{name}") if c.name == "pure-forward[gaussian]")
    with pytest.raises(AssertionError, match=f"^forward changed {place}"):
        check()

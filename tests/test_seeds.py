"""Seeds made from a user's: pinned, since published numbers rest on them, and apart where they meet."""

from __future__ import annotations

import itertools

import pytest
from elbograd.benchmarks.certification.levels import LOOKS
from elbograd.benchmarks.seeds import derived, hashed


@pytest.mark.parametrize(
    ("purpose", "index", "seed"),
    [
        ("draws", 0, 6),
        ("batch", 7, 12),
        ("repetition", 2, 7),
        ("tuning", 0, 10_012),
        ("conformance", 0, 20_245),
        ("cell", 1, 209_463),
        ("look", 0, 7924),
        ("reference", 1, 15_843),
        ("calibration", 0, 10_000_024),
        ("false alarms", 1, 2_000_011),
        ("peer", 1, 2005),
        ("turn", 3, 8),
        ("moments", 0, 505),
        ("half", 1, 6),
    ],
)
def test_derived_seeds_stay_what_they_are(purpose, index, seed):
    assert derived(5, purpose, index) == seed


def test_hashed_seeds_stay_what_they_are():
    assert hashed(0, 1) == int.from_bytes(bytes.fromhex("fff143c4af61e8"))


def test_the_looks_of_all_cells_are_apart():
    looks = [
        derived(derived(0, "cell", cell), "look", look)
        for cell, look in itertools.product(range(8), range(LOOKS + 1))
    ]
    assert len({*looks, derived(0, "conformance")}) == len(looks) + 1


def test_what_one_measurement_draws_is_apart():
    for seed in (0, 1, 2):
        reference = [derived(seed, "reference", half) for half in range(2)]
        used = [seed, derived(seed, "draws"), *reference, *(derived(s, "draws") for s in reference)]
        assert len(set(used)) == len(used)
    reported = {derived(0, "repetition", number) for number in range(1000)}
    assert derived(0, "tuning") not in reported

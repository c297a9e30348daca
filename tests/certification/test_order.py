"""Which place is drawn from next: that with the worst bound, until nothing is won by it."""

from __future__ import annotations

import pytest
from elbograd.benchmarks.certification.problem import _bring_down

TOLERANCE = 0.003


class Place:
    """Bounds that looks give, one after the other."""

    def __init__(self, *bounds, bounded=True, fails_at=None, goal=TOLERANCE, proof=None):
        self.bounds, self.bounded, self.looks, self._fails_at = list(bounds), bounded, 1, fails_at
        self._goal, self._proof = goal, proof

    @property
    def excess(self):
        return self.bounds[self.looks - 1]

    @property
    def failed(self):
        return self._fails_at is not None and self.looks >= self._fails_at

    def can(self, deadline):
        return self.looks < len(self.bounds)

    def goal(self, deadline):
        return self._goal

    def in_want_of_proof(self, deadline):
        return self._proof is not None

    def go_on(self, deadline):
        self.looks += 1
        if self._proof is not None:
            self.bounds[self.looks - 1 :], self._proof = [self._proof], None


@pytest.mark.parametrize(
    ("places", "looks"),
    [
        # Both reach the tolerance, and neither goes on below it.
        ([Place(0.1, 0.01, 0.002, 0.001), Place(0.004, 0.001, 0.0005)], [3, 2]),
        # The worst ends at 1%: the others need no less.
        ([Place(0.04, 0.02, 0.01), Place(0.03, 0.009, 0.002), Place(0.008, 0.004)], [3, 2, 1]),
        # It ends above thirty times the tolerance: the others are brought to that.
        ([Place(0.5, 0.2), Place(0.3, 0.1, 0.05, 0.01)], [2, 3]),
        # The interval of a declared bias is no bound that a verdict is about.
        ([Place(0.05, 0.02, bounded=False), Place(0.01, 0.005, 0.002, bounded=False)], [2, 3]),
        # What has failed is clear, and the rest would only take time.
        ([Place(0.1, 0.05, 0.02, fails_at=2), Place(0.01, 0.001)], [2, 1]),
        # The tolerance is out of reach for the first: it is brought to its goal, and no other below it.
        ([Place(0.1, 0.05, 0.025, 0.012, goal=0.03), Place(0.04, 0.02, 0.01)], [3, 2]),
        # Unless a proof can be had.
        ([Place(0.5, 0.2, 0.1, goal=0.03, proof=0.0), Place(0.1, 0.04, 0.002)], [2, 3]),
        ([], []),
    ],
)
def test_the_worst_bound_is_brought_down(places, looks):
    _bring_down(places, TOLERANCE, float("inf"))
    assert [place.looks for place in places] == looks

"""How long a run will still take, from the cases of it that have ended."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..cases.base import AnyCase


class Remaining:
    """Guesses that a case takes as long as those most like it: of the same benchmark, estimator and problem.

    Args:
        todo: the cases to come.
    """

    def __init__(self, todo: Sequence[AnyCase]) -> None:
        self._todo = {case.id: case for case in todo}
        self._began: dict[str, float] = {}
        self._took: list[tuple[AnyCase, float]] = []
        self._start = self._last = time.monotonic()

    def look(self, running: Sequence[AnyCase]) -> None:
        """Note which cases are being measured."""
        for case in running:
            self._began.setdefault(case.id, time.monotonic())

    def finish(self, case: AnyCase) -> None:
        """Note that a case has ended."""
        now = time.monotonic()
        self._took.append((case, now - self._began.pop(case.id, self._last)))
        self._todo.pop(case.id, None)
        self._last = now

    def seconds(self) -> float | None:
        """Seconds left, at the rate of working so far; None before the first case has ended."""
        if not self._took:
            return None
        now = time.monotonic()
        spent = {id: now - began for id, began in list(self._began.items())}
        worked = sum(seconds for _, seconds in self._took) + sum(spent.values())
        cases = list(self._todo.values())
        ahead = sum(max(0.0, self._expected(case) - spent.get(case.id, 0.0)) for case in cases)
        return ahead * (now - self._start) / max(worked, 1e-9)

    def _expected(self, case: AnyCase) -> float:
        """Of the cases that have ended, the mean time of those most like this one."""
        best, alike = -1, list[float]()
        for other, seconds in self._took:
            likeness = _likeness(case, other)
            if likeness > best:
                best, alike = likeness, []
            if likeness == best:
                alike.append(seconds)
        return sum(alike) / len(alike)


def _likeness(a: AnyCase, b: AnyCase) -> int:
    """How much of what decides the time two cases share, the weightier things first."""
    same = (
        a.kind is b.kind,
        bool(a.problem) == bool(b.problem),
        a.estimator == b.estimator,
        a.num_samples == b.num_samples,
        a.problem == b.problem,
        a.batch_size == b.batch_size,
    )
    return sum(equal << place for place, equal in enumerate(reversed(same)))

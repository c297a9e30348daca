"""Time: what is left of it, and telling the user."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, float], None]


def silent(_text: str, _share: float) -> None:
    """Show nothing."""


class Budget:
    """Seconds for one point.

    Args:
        seconds: to spend.
        progress: called with what is being done and the share of the seconds that is spent.
    """

    def __init__(self, seconds: float, progress: Progress = silent) -> None:
        self.seconds, self._progress = seconds, progress
        self._begun = time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._begun

    @property
    def left(self) -> float:
        """Seconds until the end, negative after it."""
        return self.seconds - self.spent

    def tell(self, text: str) -> None:
        """Show what is being done."""
        self._progress(text, min(1.0, self.spent / self.seconds))

"""A limit on how long something may take, asked while it is under way, and told how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable

_EARLY = 0.25  # of the limit, after which what would take twice the limit is given up
_TELL_AFTER = 1.0  # seconds: what is done before that needs no telling

#: Given what is being done, and the share of its time that is spent.
Tell = Callable[[str, float], None]


class TookTooLong(Exception):
    """What was under way has taken its time."""


class Clock:
    """Counts from when it is made.

    Args:
        seconds: of the limit; None for none.
        tell: told what is being done.
        what: that is.
        option: which gives it more seconds.
    """

    def __init__(
        self,
        seconds: float | None = None,
        tell: Tell | None = None,
        what: str = "",
        option: str = "--bias-seconds",
    ) -> None:
        self.seconds, self._tell, self.what, self._option = seconds, tell, what, option
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def check(self, share: float = 0.0) -> None:
        """Tell how far it is, and stop it where that takes too long.

        Args:
            share: of the work that is done; 0 where that is not known.

        Raises:
            TookTooLong: the limit is passed, or will be passed by far.
        """
        spent = self.spent
        if self._tell is not None and spent > _TELL_AFTER:
            self._tell(self.what, share)
        if self.seconds is None:
            return
        hopeless = share > 0 and spent > _EARLY * self.seconds and spent / share > 2 * self.seconds
        if spent > self.seconds or hopeless:
            raise TookTooLong(f"it takes longer than {self.seconds:g} s ({self._option} gives it more)")

"""Showing how far a run is: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def is_live() -> bool:
    """Whether progress goes to a terminal that may be redrawn."""
    return sys.stderr.isatty() and not os.environ.get("CI") and not os.environ.get("NO_COLOR")


class CaseProgress:
    """Counts cases as they end.

    Args:
        total: cases of the whole run.
        done: of these, finished in an earlier session.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        self._started = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> CaseProgress:
        """Start the display."""
        if is_live():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, completed=self.done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def start(self, title: str) -> None:
        """A case begins."""
        if self._bar is not None:
            self._bar.update(self._task, description=escape(title))

    def finish(self, title: str, outcome: str) -> None:
        """A case has ended; ``outcome`` is a few words."""
        self.done += 1
        line = f"[{self.done}/{self.total}] {title}: {outcome}"
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
            if outcome.startswith("failed"):
                self._bar.console.print(escape(line), style="red", highlight=False)
        else:
            print(f"{line} ({time.monotonic() - self._started:.0f} s)", file=sys.stderr, flush=True)

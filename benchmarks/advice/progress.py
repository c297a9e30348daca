"""Showing what `elbograd advise` is doing: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ..running.progress import is_live

_EVERY = 5.0  # seconds between lines


class AdviceProgress:
    """Shows a text and the share of the time that is spent; to be used with ``with``."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._last = -float("inf")

    def __enter__(self) -> AdviceProgress:
        """Start the display."""
        if is_live():
            columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, text: str, share: float) -> None:
        """Show it."""
        if self._bar is not None:
            self._bar.update(self._task, description=escape(text), completed=share)
        elif time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            print(f"[{share:4.0%}] {text}", file=sys.stderr, flush=True)

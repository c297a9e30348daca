"""Showing how far a run is: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.text import Text

from ..cases.grid import Case
from .remaining import Remaining, duration

_TITLES = 4  # of the cases being measured
_REFRESHES = 4  # a second


def is_live() -> bool:
    """Whether progress goes to a terminal that may be redrawn."""
    plain = os.environ.get("CI") or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stderr.isatty() and not plain


class CaseProgress:
    """Counts cases as they end.

    Args:
        todo: the cases of this session.
        total: of the whole run, those finished in an earlier session too.
        running: tells which are being measured.
    """

    def __init__(self, todo: Sequence[Case], total: int, running: Callable[[], list[Case]]) -> None:
        self.total, self.done, self.failed = total, total - len(todo), 0
        self._running = running
        self._remaining = Remaining(todo)
        self._started = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> CaseProgress:
        """Start the display."""
        if is_live() and self.done < self.total:
            # What is printed meanwhile, warnings too, appears above the display.
            console = Console(stderr=True)
            self._live = Live(self, console=console, refresh_per_second=_REFRESHES, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the display."""
        if self._live is not None:
            self._live.stop()

    def again(self, case: Case, reason: str, tries: int) -> None:
        """A case has failed and is begun once more."""
        self._say(f"{case.title}: {reason}; trying again ({tries})", "yellow")

    def finish(self, case: Case, outcome: str, failed: bool) -> None:
        """A case has ended; ``outcome`` is a few words."""
        self._remaining.finish(case)
        self._remaining.look(self._running())
        self.done += 1
        self.failed += failed
        line = f"[{self.done}/{self.total}] {case.title}: {outcome}"
        if failed:
            self._say(line, "red")
        elif self._live is None:
            left = self._left()
            told = f", {left}" if left else ""
            self._say(f"{line} ({time.monotonic() - self._started:.0f} s{told})")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The display: a bar, the counts, and what is being measured; nothing is wider than the terminal."""
        running = self._running()
        self._remaining.look(running)
        yield ProgressBar(self.total, self.done, width=min(options.max_width, 60))
        yield Segment.line()
        yield from _lines(self._counts(len(running)), options.max_width)
        room = max(1, min(_TITLES, (options.max_height or 24) - 4))
        for case in running[:room]:
            yield Text(f"  {case.title}", style="dim", no_wrap=True, overflow="ellipsis")
        if len(running) > room:
            yield Text(f"  and {len(running) - room} more", style="dim", no_wrap=True, overflow="ellipsis")

    def _counts(self, running: int) -> list[str]:
        failed = [f"{self.failed} failed"] if self.failed else []
        left = self._left() or "time left unknown"
        return [f"{self.done}/{self.total} done", *failed, f"{running} running", left]

    def _left(self) -> str:
        seconds = self._remaining.seconds()
        return "" if seconds is None or self.done == self.total else f"about {duration(seconds)} left"

    def _say(self, line: str, style: str = "") -> None:
        if self._live is not None:
            self._live.console.print(Text(line, style=style))
        else:
            print(line, file=sys.stderr, flush=True)


def _lines(parts: Sequence[str], width: int) -> Iterator[Text]:
    """The parts on as few lines as hold them."""
    line = parts[0]
    for part in parts[1:]:
        longer = f"{line} · {part}"
        if cell_len(longer) <= width:
            line = longer
        else:
            yield Text(line, no_wrap=True, overflow="ellipsis")
            line = part
    yield Text(line, no_wrap=True, overflow="ellipsis")

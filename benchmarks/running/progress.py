"""Showing how far a run is: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress
from rich.text import Text

from ..cases.base import AnyCase
from ..rows.durations import duration
from .remaining import Remaining

_TITLES = 4  # of the cases being measured
_REFRESHES = 4  # a second
_EVERY = 5.0  # seconds between plain lines on what is being done
_BAR = 60  # columns


def is_live() -> bool:
    """Whether progress goes to a terminal that may be redrawn."""
    plain = os.environ.get("CI") or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stderr.isatty() and not plain


class RunProgress:
    """Counts cases as they end, and tells what is being measured.

    Args:
        todo: the cases of this session.
        total: of the whole run, those finished in an earlier session too.
        running: tells which are being measured.
        quiet: show nothing before a case ends.
    """

    def __init__(
        self,
        todo: Sequence[AnyCase],
        total: int,
        running: Callable[[], list[AnyCase]],
        quiet: bool = False,
    ) -> None:
        self.total, self.done, self.failed = total, total - len(todo), 0
        self._running, self._quiet = running, quiet
        self._remaining = Remaining(todo)
        self._started = time.monotonic()
        self._live: Display | None = None
        self._told: dict[str, tuple[str, float]] = {}  # of cases being measured
        self._last_line = -float("inf")

    def __enter__(self) -> RunProgress:
        """Start the display."""
        if is_live() and self.done < self.total and not self._quiet:
            # What is printed meanwhile, warnings too, appears above the display.
            self._live = Display(self, Console(stderr=True))
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the display."""
        if self._live is not None:
            self._live.stop()

    def tell(self, case: AnyCase, text: str, share: float) -> None:
        """What is being done in a case being measured, and the share of its time that is spent."""
        self._told[case.id] = text, share
        now = time.monotonic()
        if self._live is None and not self._quiet and now - self._last_line >= _EVERY:
            self._last_line = now
            print(f"[{share:4.0%}] {text}", file=sys.stderr, flush=True)

    def again(self, case: AnyCase, reason: str, tries: int) -> None:
        """A case has failed and is begun once more."""
        self._told.pop(case.id, None)
        self._say(f"{case.title}: {reason}; trying again ({tries})", "yellow")

    def finish(self, case: AnyCase, outcome: str, failed: bool) -> None:
        """A case has ended; ``outcome`` is a few words."""
        self._told.pop(case.id, None)
        self._remaining.finish(case)
        self._remaining.look(self._running())
        self.done += 1
        self.failed += failed
        line = f"[{self.done}/{self.total}] {case.title}: {outcome}"
        if failed:
            self._say(line, "red")
        elif self._live is None:
            left = self._left()
            ahead = f", {left}" if left else ""
            self._say(f"{line} ({time.monotonic() - self._started:.0f} s{ahead})")

    def show(self, text: str) -> None:
        """Print a text to standard output, while the display is away."""
        if self._live is not None:
            self._live.stop()
        print(text, end="\n\n", flush=True)
        if self._live is not None and self.done < self.total:
            self._live.start()

    @property
    def completed(self) -> float:
        """Cases that have ended, and the shares of those being measured where these are known."""
        return self.done + sum(share for _, share in list(self._told.values()))

    def lines(self, width: int, height: int) -> Iterable[Text]:
        """The counts, and what is being measured; nothing is wider than the terminal."""
        running = self._running()
        self._remaining.look(running)
        yield from _wrapped(self._counts(len(running)), width)
        room = max(1, min(_TITLES, height - 4))
        for case in running[:room]:
            doing, _ = self._told.get(case.id, (case.title, 0.0))
            yield _cut(f"  {doing}", "dim")
        if len(running) > room:
            yield _cut(f"  and {len(running) - room} more", "dim")

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


class Display(Progress):
    """The progress as rich draws it again and again: a bar, and lines below it.

    Args:
        progress: what to show.
        console: where.
    """

    def __init__(self, progress: RunProgress, console: Console) -> None:
        self._of, self._console = progress, console  # rich asks for what to show before it has a console
        bar = BarColumn(bar_width=min(_BAR, console.width))
        super().__init__(bar, console=console, refresh_per_second=_REFRESHES, transient=True)
        self.add_task("", total=progress.total)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar and the lines."""
        for task in self.tasks:
            task.completed = self._of.completed
        yield self.make_tasks_table(self.tasks)
        yield from self._of.lines(self._console.width, self._console.height)


def _cut(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _wrapped(parts: Sequence[str], width: int) -> Iterator[Text]:
    """The parts on as few lines as hold them."""
    line = parts[0]
    for part in parts[1:]:
        longer = f"{line} · {part}"
        if cell_len(longer) <= width:
            line = longer
        else:
            yield _cut(line)
            line = part
    yield _cut(line)

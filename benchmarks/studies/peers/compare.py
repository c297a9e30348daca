"""Running the comparison: contenders take turns, round by round, and only one works at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...seeds import derived
from . import agreement, timing
from .cases import LIBRARIES, Case, Contender
from .processes import Worker, WorkerError
from .rows import Row
from .shared import write_point, write_state

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How much is run.

    Attributes:
        precision: relative half-width of the total variance at 95%.
        rounds: of turns.
        replicates: a loop draws in one turn.
        run_out: loops predicted to end within so many seconds are really drawn to the precision.
        threads: of torch, in every process.
        steps: training steps before the model is frozen.
        reference: replicates behind the reference gradient.
        suite: replicates behind the suite's variance that others are held against.
        seed: of everything.
    """

    precision: float = 0.01
    rounds: int = 10
    replicates: int = 200
    run_out: float = 10.0
    threads: int = 1
    steps: int = 500
    reference: int = 100_000
    suite: int = 20_000
    seed: int = 0


@dataclass
class _Turns:
    """What one contender of a case has answered so far."""

    contender: Contender
    row: Row
    worker: Worker | None = None
    seconds: list[float] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    contributions: list[float] = field(default_factory=list)

    @property
    def is_suite(self) -> bool:
        return self.contender.library == "elbograd"

    def fail(self, error: WorkerError) -> None:
        """It takes no further part."""
        self.worker = None
        self.row.status = "skipped" if "ModuleNotFoundError" in str(error) else "failed"
        self.row.note = str(error)


class Workers:
    """Processes by library and method, started when first needed.

    Args:
        threads: of torch.
        logs: folder of their standard error.
    """

    def __init__(self, threads: int, logs: Path) -> None:
        self.threads, self.logs = threads, logs
        self.versions: dict[str, str] = {}
        self._running: dict[tuple[str, str], Worker] = {}
        self._absent: dict[str, WorkerError] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Workers:
        """For ``with``."""
        return self

    def __exit__(self, *details: object) -> None:
        """End them all."""
        self._stack.close()

    def get(self, contender: Contender) -> Worker:
        """The contender's process.

        Raises:
            WorkerError: its library is not here.
        """
        key = (contender.library, contender.method)
        if contender.library in self._absent:
            raise self._absent[contender.library]
        if key not in self._running:
            log = self.logs / f"{'-'.join(key).replace(':', '-')}.log"
            try:
                worker = self._stack.enter_context(Worker(contender.library, self.threads, log))
            except WorkerError as error:
                self._absent[contender.library] = error
                raise
            self._running[key] = worker
            self.versions[LIBRARIES.get(contender.library, contender.library)] = worker.version
        return self._running[key]

    def lose(self, contender: Contender) -> None:
        """Forget a process that failed, so that the next case starts afresh."""
        worker = self._running.pop((contender.library, contender.method), None)
        if worker is not None:
            worker.close()


def compare(
    cases: tuple[Case, ...], settings: Settings, say: Callable[[str], None]
) -> tuple[list[Row], dict[str, str]]:
    """Run every case.

    Args:
        cases: in order.
        settings: how much.
        say: told in one line what has ended.

    Returns:
        a row for every contender of every case, and the versions of the libraries that ran.
    """
    torch.set_num_threads(settings.threads)
    rows: list[Row] = []
    with TemporaryDirectory() as scratch, Workers(settings.threads, Path(scratch)) as workers:
        for case in cases:
            done = _run_case(case, settings, workers, Path(scratch))
            rows += done
            for row in done:
                say(f"{case.title}: {row.contender}: {_outcome(row)}")
        _judge(rows)
        return rows, workers.versions


def _outcome(row: Row) -> str:
    if row.status != "done":
        return f"{row.status}: {row.note}"
    return f"{row.seconds:.3g} s to the precision"


def _run_case(case: Case, settings: Settings, workers: Workers, scratch: Path) -> list[Row]:
    point = scratch / f"{case.problem}.pt"
    if not point.exists():
        write_point(case.problem, settings.steps, settings.seed, settings.reference, point)
    state = scratch / "state.pt"
    write_state(case, point, settings.seed, state)
    turns = [_Turns(contender, Row.of(case, contender)) for contender in case.contenders]
    for number, turn in enumerate(turns):
        with _Guard(turn, workers):
            turn.worker = workers.get(turn.contender)
            turn.worker.ask(
                "prepare",
                problem=case.problem,
                estimator=case.estimator,
                num_samples=case.num_samples,
                method=turn.contender.method,
                point=str(point),
                state=str(state),
                seed=derived(settings.seed, "peer", number),
            )
    for number in range(settings.rounds):
        start = number % len(turns)  # who goes first changes, so that no one always follows the same other
        for turn in turns[start:] + turns[:start]:
            with _Guard(turn, workers):
                _take(turn, settings, number)
    saved = torch.load(point, weights_only=True)
    _finish(turns, settings, workers, {k: v.numpy() for k, v in saved.items() if torch.is_tensor(v)})
    return [turn.row for turn in turns]


class _Guard:
    """Turns a WorkerError inside into a failed row; skips the body's work once a contender has none."""

    def __init__(self, turn: _Turns, workers: Workers) -> None:
        self.turn, self.workers = turn, workers

    def __enter__(self) -> None:
        """For ``with``."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Keep the reason."""
        if isinstance(error, WorkerError):
            self.turn.fail(error)
            self.workers.lose(self.turn.contender)
            return True
        return False


def _take(turn: _Turns, settings: Settings, number: int) -> None:
    """One turn of one contender."""
    if turn.worker is None:
        return
    if turn.is_suite:
        seed = derived(settings.seed, "turn", number)
        answer = turn.worker.ask("timed", precision=settings.precision, seed=seed)
        turn.seconds.append(answer["seconds"])
        turn.spent.append(answer["replicates"])
    else:
        answer = turn.worker.ask("draw", n=settings.replicates)
        turn.seconds.append(answer["seconds"] / settings.replicates)
        turn.contributions += answer["contributions"]


def _finish(turns: list[_Turns], settings: Settings, workers: Workers, point: dict[str, Any]) -> None:
    """From answers to numbers."""
    suite = turns[0]
    moments: dict[str, agreement.Moments] = {}
    for turn in turns:
        with _Guard(turn, workers):
            if turn.worker is not None:
                moments[turn.row.contender] = _moments(turn, settings)
    for turn in turns:
        with _Guard(turn, workers):
            if turn.worker is not None:
                _agreement(turn, moments[turn.row.contender], moments.get(suite.row.contender), point)
                _times(turn, suite, settings)


def _moments(turn: _Turns, settings: Settings) -> agreement.Moments:
    assert turn.worker is not None
    if turn.is_suite:
        answer = turn.worker.ask("moments", replicates=settings.suite, seed=derived(settings.seed, "moments"))
        return agreement.of_suite(answer["halves"])
    return agreement.of_loop(turn.worker.ask("summary"), np.array(turn.contributions))


def _agreement(
    turn: _Turns, own: agreement.Moments, suite: agreement.Moments | None, point: dict[str, Any]
) -> None:
    row = turn.row
    reference_stderr = np.concatenate((point["stderr"], point["direction_stderr"]))
    row.mean_p = agreement.mean_p_value(
        own, reference_stderr, float(np.abs(point["reference"]).max()), len(point["directions"])
    )
    row.variance, (row.variance_low, row.variance_high) = own.total, own.interval
    if suite is not None and not turn.is_suite:
        row.variance_ratio, row.variance_ratio_low, row.variance_ratio_high, p = agreement.variance_ratio(
            own, suite
        )
        if turn.contender.same:
            row.variance_p = p


def _times(turn: _Turns, suite: _Turns, settings: Settings) -> None:
    row, seconds = turn.row, np.array(turn.seconds)
    if turn.is_suite:
        _set(row, "seconds", timing.median_time(seconds, settings.seed))
        row.replicates = float(np.median(turn.spent))
        row.ratio = row.ratio_low = row.ratio_high = 1.0
        return
    own = np.array(suite.seconds) if suite.row.status == "done" else np.full(len(seconds), np.nan)
    times = timing.loop_time(seconds, np.array(turn.contributions), own, settings.precision, settings.seed)
    _set(row, "replicate_seconds", times.replicate)
    _set(row, "replicates", times.needed)
    _set(row, "seconds", times.total)
    _set(row, "ratio", times.ratio)
    if times.total.value <= settings.run_out:
        assert turn.worker is not None
        answer = turn.worker.ask("draw", n=int(times.needed.value))
        row.ran_out = answer["seconds"]
        row.ran_out_half_width = timing.half_width(np.array(answer["contributions"]))


def _set(row: Row, name: str, quantity: timing.Quantity) -> None:
    for suffix, value in (("", quantity.value), ("_low", quantity.low), ("_high", quantity.high)):
        setattr(row, name + suffix, value)


def _judge(rows: list[Row]) -> None:
    """Fill in the verdicts, at a level that belongs to the run as a whole."""
    tests = sum(np.isfinite(p) for row in rows for p in (row.mean_p, row.variance_p))
    level = agreement.FAMILY_LEVEL / max(1, tests)
    for row in rows:
        if row.status == "done":
            mean, variance = row.mean_p < level, row.variance_p < level
            verdicts = {(False, False): "agrees", (True, True): "both differ", (True, False): "mean differs"}
            row.agreement = verdicts.get((mean, variance), "variance differs")

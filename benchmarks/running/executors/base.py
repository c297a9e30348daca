"""What runs cases: take them, and hand back what was found as they finish."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Literal

from ...cases.base import AnyCase, Output


@dataclass(frozen=True)
class Work:
    """What all cases of a run have in common. It goes to every worker, as text.

    Attributes:
        folder: of the run, absolute; checkpoints are kept there where a worker can see it.
        directory: where the command was given: relative names start from there.
        plugins: modules or files to import first.
        sources: file name as the user wrote it -> its text, for workers that may not see the file.
        path: folders to import from besides a worker's own.
        threads: that one case computes with.
        timings: whether seconds may be measured.
    """

    folder: str
    directory: str
    plugins: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    threads: int = 1
    timings: bool = True


#: Given a case being measured, what is being done of it, and the share of its time that is spent.
TellOf = Callable[[AnyCase, str, float], None]


def _silent(_case: AnyCase, _text: str, _share: float) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Failure:
    """Why there is no output.

    Attributes:
        kind: "refused" (the case cannot be done: it would be refused again), "raised" (an exception: it may
            have been an accident of the machine), or "vanished" (the process that worked on it is gone).
        reason: one line.
    """

    kind: Literal["refused", "raised", "vanished"]
    reason: str


class Executor(ABC):
    """Somewhere to run cases. Used as a context manager; only one thread may use it.

    Attributes:
        workers: what there is to work with, in a few words; "" for this process.
        tell: told what is being done on this machine by what takes long; called from any thread.
    """

    workers: str = ""
    tell: TellOf = staticmethod(_silent)

    @abstractmethod
    def submit(self, case: AnyCase) -> None:
        """Have a case measured; also while `outcomes` is under way, such as one that failed."""

    @abstractmethod
    def outcomes(self) -> Iterator[tuple[AnyCase, Output | Failure]]:
        """Each submitted case once, with its output or why there is none, in the order in which they end."""

    @abstractmethod
    def running(self) -> list[AnyCase]:
        """The cases being measured now, as far as is known; called from another thread."""

    @abstractmethod
    def close(self) -> None:
        """Stop what is under way, at once, and let go of the workers."""

    def __enter__(self) -> Executor:
        """For ``with``."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.close()


def encode(outcome: Output | Failure) -> dict[str, Any]:
    """An outcome as JSON-ready values."""
    return {"failure" if isinstance(outcome, Failure) else "output": asdict(outcome)}


def decode(values: Mapping[str, Any]) -> Output | Failure:
    """The outcome that `encode` was given."""
    return Failure(**values["failure"]) if "failure" in values else Output(**values["output"])

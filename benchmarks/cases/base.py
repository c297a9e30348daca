"""What the kinds of benchmark share: common options, cases, and what the runner asks of each kind.

A kind is one file of this folder, with a subclass of `Benchmark`; `kinds` finds it there by its name.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import DEFAULT_NAMES
from ...estimators.text import clean
from ..problems.specifications import label_of_text, specifications
from ..rows.schema import NOT_TIMED, row
from .options import (
    BATCH_SIZE,
    DEVICE,
    DTYPE,
    ESTIMATOR,
    MAX_SEED,
    NUM_SAMPLES,
    PROBLEM,
    SEED,
    at_least,
)

if TYPE_CHECKING:
    from ..problems.protocol import Problem
    from .session import Session
    from .support import Support

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What only one kind of benchmark has to know of a case; a frozen dataclass for each kind.

    A field whose default is None is left out of the JSON while it is None: so a setting that came later
    leaves the ids of earlier cases as they were.
    """

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values; the id of a case is made from them."""
        left_out = {f.name for f in fields(self) if f.default is None and getattr(self, f.name) is None}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The settings that `as_json` was called on."""
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Case(Generic[S]):
    """One thing to measure.

    Attributes:
        kind: of benchmark.
        problem: its specification; "" where the kind has problems of its own.
        estimator: its specification; "" where one case is about many.
        num_samples: S; where a case is about several, the smallest.
        batch_size: B; None for the problem's default.
        seed: base seed.
        device: where.
        dtype: floating-point type.
        settings: what only this kind needs.
    """

    kind: type[Benchmark[Any]]
    problem: str
    estimator: str
    num_samples: int
    batch_size: int | None
    seed: int
    device: str
    dtype: str
    settings: S

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values; `kinds.case_from_json` reads them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("kind", "settings")}
        return {"benchmark": self.kind.name, **values, "settings": self.settings.as_json()}

    @cached_property
    def id(self) -> str:
        """The same for the same case, on any machine and in any run."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """What a progress line shows."""
        return clean(self.kind.title(self))

    @property
    def step(self) -> int | None:
        """Training steps before the measurement, where the kind has such a setting."""
        return getattr(self.settings, "step", None)

    def row(self, **values: Any) -> Row:
        """A row that this case says something about, where nothing was measured."""
        known = {
            "case": self.id,
            "benchmark": self.kind.name,
            "problem": self.problem and label_of_text(self.problem),
            "estimator": self.estimator and label_of_text(self.estimator),
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "step": self.step,
            "objective": self.kind.objective(self),
            "device": self.device,
            "dtype": self.dtype,
        }
        return row(**{**known, **values})

    def complete(self, rows: Iterable[Row]) -> list[Row]:
        """Measured rows with what identifies the case filled in."""
        problem = self.problem and label_of_text(self.problem)
        labels = {"problem": problem, "estimator": label_of_text(self.estimator)}
        return [{**r, **labels, "case": self.id, "parameters": self._settings_with(r)} for r in rows]

    def _settings_with(self, measured: Row) -> str:
        return json.dumps({**self.settings.as_json(), **json.loads(measured["parameters"])}, sort_keys=True)


@dataclass(frozen=True)
class Output:
    """What the measuring of a case gives.

    Attributes:
        rows: long rows, complete.
        text: for people, of a kind that has a `Benchmark.text_file`.
        interrupted: the user has stopped it; this is what was found by then.
    """

    rows: list[Row]
    text: str = ""
    interrupted: bool = False


class SharedWork(Protocol):
    """Something that is computed for several cases.

    Attributes:
        title: in a few words.
        seconds: that it takes about; None where that is not known.
        limit: of its seconds.
    """

    @property
    def title(self) -> str: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def limit(self) -> float: ...


class Pilot(Protocol):
    """A small measurement that tells how long the cases like it will take."""

    def seconds(self, case: Case[Any]) -> float:
        """Of another case of the same kind, problem and estimator."""


@dataclass(frozen=True)
class Benchmark(ABC, Generic[S]):
    """A kind of benchmark; an instance is what a user asked of it.

    The fields are the options of its command, whose help is the first line of the class's docstring. Class
    methods are about a case and nothing else: they run in workers too, which are told no more.

    Attributes:
        name: of the command, and of its rows' column ``benchmark``.
        settings: the class of its cases' settings.
        headline: the metric that one number of a case is about.
        position: among the commands.
        fills_cores: unless told how many cases at a time, as many as there are cores: it measures no seconds.
        alone: it is nothing but timings: measured in the command's own process with all its threads, all
            cases together (`measure_together`), and never on machines that others use.
        quiet: it shows its own progress.
        text_file: the file of the run folder with its cases' texts, for what is read as a text and not as
            tables. Such a run is finished when the file is there, and begun anew when it is not.
    """

    name: ClassVar[str]
    settings: ClassVar[type[Settings]]
    headline: ClassVar[str]
    position: ClassVar[int] = 100
    alone: ClassVar[bool] = False
    quiet: ClassVar[bool] = False
    fills_cores: ClassVar[bool] = False
    text_file: ClassVar[str | None] = None

    estimator: tuple[str, ...] = ESTIMATOR.default(())
    problem: tuple[str, ...] = PROBLEM.default(("vae",))
    num_samples: tuple[int, ...] = NUM_SAMPLES.default((1,))
    batch_size: tuple[int, ...] = BATCH_SIZE.default(())
    seed: int = SEED.default(0)
    device: str = DEVICE.default("cpu")
    dtype: str = DTYPE.default("float32")

    # What was asked

    @classmethod
    def asked(cls, given: Mapping[str, Any]) -> Self:
        """What was asked on a command line; ``given`` holds the options that were given there."""
        return cls(**given)

    @abstractmethod
    def quick(self) -> Self:
        """The same benchmark, small: a look whether everything works, not a measurement."""

    @abstractmethod
    def grid(self) -> list[Case[S]]:
        """The cases.

        Raises:
            UsageError: a value is out of range.
        """

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        at_least("--num-samples", 1, *self.num_samples)
        at_least("--batch-size", 1, *self.batch_size)
        at_least("--seed", 0, self.seed)
        if self.seed > MAX_SEED:
            raise UsageError(f"--seed must be at most {MAX_SEED}, not {self.seed}")

    def chosen(self) -> list[str]:
        """Estimators that the user named; it is an error when none of an estimator's cases is possible."""
        return specifications(self.estimator, "estimator")

    @property
    def batch_sizes(self) -> tuple[int | None, ...]:
        """B of each measurement, the base of sweeps first; None for the problem's default."""
        return tuple(dict.fromkeys(self.batch_size)) or (None,)

    def estimators(self) -> list[str]:
        """What is measured: the estimators that the user named, or the default ones."""
        return self.chosen() or list(DEFAULT_NAMES)

    def cases(self, problem: str, num_samples: int, batch_size: int | None, settings: S) -> list[Case[S]]:
        """One case for every estimator."""
        return [self.case(problem, e, num_samples, batch_size, settings) for e in self.estimators()]

    def case(
        self, problem: str, estimator: str, num_samples: int, batch_size: int | None, settings: S
    ) -> Case[S]:
        """One case, with the options that all cases of a command have in common."""
        sizes = num_samples, batch_size
        return Case(type(self), problem, estimator, *sizes, self.seed, self.device, self.dtype, settings)

    def expected_seconds(self, case: Case[S]) -> float | None:
        """How long a case takes, where that was asked for."""
        return None

    def measure_together(
        self, cases: Sequence[Case[S]], session: Session
    ) -> Iterator[tuple[Case[S], Output]]:
        """Measure all cases of a kind that is measured `alone`, each told when it is ready."""
        raise NotImplementedError

    # Of a case

    @classmethod
    def execute(cls, case: Case[S], session: Session) -> list[Row]:
        """Measure a case.

        Raises:
            UsageError: the case asks for what is not supported.
            EstimatorError: the estimator broke the protocol.
        """
        raise NotImplementedError

    @classmethod
    def model(cls, problem: str, seed: int) -> Problem:
        """A problem as it is when a measurement under the seed begins."""
        from ..problems.registry import load_under

        return load_under(seed, problem)

    @classmethod
    def outcome(cls, rows: Sequence[Row]) -> str:
        """A few words on the rows of a case in which nothing failed."""
        headline = [r for r in rows if r["metric"] == cls.headline and r["parameter"] == ""]
        final = [r for r in headline if r["step"] == headline[-1]["step"]]  # one a seed
        value = sum(math.nan if r["value"] is None else r["value"] for r in final) / len(final)
        if not math.isfinite(value):
            return str(final[-1]["status"])
        return f"{cls.headline.replace('_', ' ')} {value:.4g}"

    @classmethod
    def why_not(cls, case: Case[S], support: Support) -> str | None:
        """Why a case cannot be measured, in one line; None where it can, as far as can be told beforehand.

        Raises:
            UsageError: the problem cannot be used at all.
        """
        return support.why_not(case.estimator, case.problem, case.batch_size, case.num_samples)

    @classmethod
    def pilot(cls, case: Case[S]) -> Pilot | None:
        """A pilot of a case, where the time of other cases can be told from one."""
        return None

    @classmethod
    def shared_work(cls, cases: Sequence[Case[S]]) -> Sequence[SharedWork]:
        """What several cases have computed once for all of them, for a dry run."""
        return ()

    @classmethod
    def title(cls, case: Case[S]) -> str:
        """The case in a few words."""
        where = "" if case.step is None else f" at step {case.step}"
        batch = "" if case.batch_size is None else f", B={case.batch_size}"
        sizes = f"S={case.num_samples}{batch}"
        return f"{label_of_text(case.estimator)}, {sizes}, {label_of_text(case.problem)}{where}"

    @classmethod
    def details(cls, case: Case[S]) -> list[str]:
        """What a dry run tells of a case besides, a line each."""
        return []

    @classmethod
    def objective(cls, case: Case[S]) -> str:
        """Whose gradient the rows of a case are about; "" where that is of no matter."""
        return ""

    @classmethod
    def ids_in(cls, cases: Sequence[Case[S]], rows: Sequence[Row]) -> set[str]:
        """Under which identifiers the rows of cases that are about to be measured are in a run folder.

        Args:
            cases: to measure.
            rows: all that the folder holds.
        """
        return {case.id for case in cases}


AnyCase = Case[Any]
AnyBenchmark = Benchmark[Any]


def settings_of(asked: AnyBenchmark) -> dict[str, Any]:
    """What config.toml says of a benchmark."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(asked).items()}


def untimed(measured: Row) -> Row:
    """The row without its seconds."""
    status = "skipped" if measured["status"] == "done" else measured["status"]
    return {**measured, "value": None, "status": status, "reason": NOT_TIMED}


def size_of(case: Case[Any]) -> int:
    """S × B, what the time of a case is in proportion to."""
    from ..problems.placement import default_batch_size
    from ..problems.registry import load_problem

    return case.num_samples * (case.batch_size or default_batch_size(load_problem(case.problem)))

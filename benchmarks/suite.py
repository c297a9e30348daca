"""The benchmarks as a user asks for them: options to cases, cases to rows, rows to tables and figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..estimators.errors import UsageError
from ..estimators.plugins import load_plugin
from ..estimators.registry import BUILTIN_NAMES
from .grid import Case, specifications, with_latent_dim
from .store import RunFolder, default_folder

if TYPE_CHECKING:
    import pandas as pd


_TABLE_WIDTH = 80

#: Seeds of repetitions are added to the base seed, and must all fit into 64 bits.
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Common:
    """Options of every benchmark; the names are those of the command line.

    Raises:
        UsageError: on use, when a value is out of range.
    """

    estimator: tuple[str, ...] = ()
    problem: tuple[str, ...] = ("vae",)
    num_samples: tuple[int, ...] = (1,)
    batch_size: int | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def cases(self, benchmark: str, problem: str, num_samples: int, settings: dict[str, Any]) -> list[Case]:
        """One case for every estimator."""
        return [
            Case(
                benchmark,
                problem,
                e,
                num_samples,
                self.batch_size,
                self.seed,
                self.device,
                self.dtype,
                settings,
            )
            for e in specifications(self.estimator or BUILTIN_NAMES, "estimator")
        ]

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        at_least("--num-samples", 1, *self.num_samples)
        at_least("--batch-size", 1, self.batch_size)
        at_least("--seed", 0, self.seed)
        if self.seed > MAX_SEED:
            raise UsageError(f"--seed must be at most {MAX_SEED}, not {self.seed}")


@dataclass(frozen=True)
class Variance(Common):
    """Options of the variance benchmark."""

    num_samples: tuple[int, ...] = (1, 4, 16)
    replicates: int = 4000
    precision: float | None = None
    route: str = "factorized"
    step: tuple[int, ...] = (0, 2000)
    latent_dim: tuple[int, ...] = (2, 32)

    def grid(self) -> list[Case]:
        """Every problem at every step and S; and at other latent dimensions, at one S."""
        self.check()
        at_least("--replicates", 2, self.replicates)
        at_least("--step", 0, *self.step)
        at_least("--latent-dim", 1, *self.latent_dim)
        settings = {"replicates": self.replicates, "precision": self.precision, "route": self.route}
        cases = []
        for problem in specifications(self.problem, "problem"):
            swept = [with_latent_dim(problem, d) for d in self.latent_dim]
            for step in self.step:
                here = {**settings, "step": step}
                for s in self.num_samples:
                    cases += self.cases("variance", problem, s, here)
                for other in swept:
                    cases += self.cases("variance", other, self.sweep_samples, here)
        return cases

    @property
    def sweep_samples(self) -> int:
        """S of the sweep over latent dimensions: the smallest above 1 that is measured anyway."""
        return min((s for s in self.num_samples if s > 1), default=self.num_samples[0])


@dataclass(frozen=True)
class Convergence(Common):
    """Options of the convergence benchmark."""

    num_samples: tuple[int, ...] = (2,)
    steps: int = 2000
    seeds: int = 3
    optimizer: str = "adam"
    learning_rate: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    tuning_steps: int = 500

    def grid(self) -> list[Case]:
        """Every problem and S; the seeds are repetitions inside a case."""
        self.check()
        at_least("--steps", 1, self.steps)
        at_least("--seeds", 1, self.seeds)
        at_least("--tuning-steps", 1, self.tuning_steps)
        for rate in self.learning_rate:
            if not 0 < rate < float("inf"):
                raise UsageError(f"--learning-rate must be positive, not {rate}")
        if self.optimizer not in ("adam", "sgd"):
            raise UsageError(f"unknown optimizer {self.optimizer!r}: choose from adam, sgd")
        settings = {
            "steps": self.steps,
            "seeds": self.seeds,
            "optimizer": self.optimizer,
            "learning_rates": list(self.learning_rate),
            "tuning_steps": self.tuning_steps,
        }
        return [
            case
            for problem in specifications(self.problem, "problem")
            for s in self.num_samples
            for case in self.cases("convergence", problem, s, settings)
        ]


@dataclass(frozen=True)
class Throughput(Common):
    """Options of the throughput benchmark."""

    num_samples: tuple[int, ...] = (2,)
    seconds: float = 0.5
    mode: tuple[str, ...] = ("eager",)
    compare: str | None = None

    def grid(self) -> list[Case]:
        """Every problem, S and mode."""
        self.check()
        if not self.seconds > 0:
            raise UsageError(f"--seconds must be positive, not {self.seconds}")
        from .placement import check_device
        from .step_modes import check_mode
        from .throughput_suite import earlier_result

        for mode in self.mode:
            check_mode(mode, check_device(self.device))
        if self.compare is not None:
            earlier_result(self.compare)
        return [
            case
            for problem in specifications(self.problem, "problem")
            for s in self.num_samples
            for mode in self.mode
            for case in self.cases("throughput", problem, s, {"mode": mode})
        ]


Benchmark = Variance | Convergence | Throughput


@dataclass(frozen=True)
class Run:
    """What one command does.

    Attributes:
        benchmarks: in order.
        output: the run folder; None for a dated one.
        jobs: processes.
        plugins: modules or files to import first.
        force: begin the folder anew.
        dry_run: print the cases and stop.
        name: for a dated folder.
    """

    benchmarks: Sequence[Benchmark]
    output: Path | None = None
    jobs: int = 1
    plugins: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False
    name: str = "run"


def run(request: Run) -> bool:
    """Do what was asked; whether every case is done.

    Raises:
        UsageError: what was asked cannot be done; nothing has been written then.
    """
    from .environment import describe_environment
    from .plan import Plan, make_plan
    from .runner import run_plan

    at_least("--jobs", 1, request.jobs)
    for plugin in request.plugins:
        load_plugin(plugin)
    plans: list[tuple[Benchmark, Plan]] = []
    for options in request.benchmarks:
        chosen = specifications(options.estimator, "estimator")
        plans.append((options, make_plan(options.grid(), chosen)))
    if request.dry_run:
        for _, plan in plans:
            _print_plan(plan)
        return True
    device = request.benchmarks[0].device
    config = {type(options).__name__.lower(): _settings(options) for options in request.benchmarks}
    folder = RunFolder(
        request.output or default_folder(request.name), config, describe_environment(device), request.force
    )
    if folder.torn:
        print(f"{folder.path}: a row that was not written whole was dropped", file=sys.stderr)
    print(f"results go to {folder.path}", file=sys.stderr)
    good = True
    for options, plan in plans:
        if isinstance(options, Throughput):
            good &= _run_throughput(options, plan, folder)
        else:
            good &= run_plan(plan, folder, jobs=request.jobs, plugins=request.plugins)
    present(folder.finish(), folder.path)
    return good


def present(rows: pd.DataFrame, folder: Path) -> None:
    """Print the tables of a run, and draw its figures into its folder.

    Raises:
        UsageError: the folder cannot be written.
    """
    from rich.console import Console

    from .plots import draw_all
    from .tables import terminal_tables, write_tables

    try:
        write_tables(rows, folder / "tables")
        figures = draw_all(rows, folder / "figures")
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error
    console = Console(width=max(Console().width, _TABLE_WIDTH))  # better wrapped than cut off
    for table in terminal_tables(rows):
        console.print(table)
    failed = rows[rows["status"] == "failed"].drop_duplicates("case")
    for _, row in failed.iterrows():
        console.print(
            f"failed: {row['estimator']} on {row['problem']}: {row['reason']}", markup=False, highlight=False
        )
    pictures = sum(f.suffix == ".png" for f in figures)
    print(f"{pictures} figures in {folder / 'figures'}, tables in {folder / 'tables'}")


def _run_throughput(options: Throughput, plan: Any, folder: RunFolder) -> bool:
    from .throughput import ThroughputCase, run_throughput

    finished = folder.finished()
    todo = [case for case in plan.cases if case.id not in finished]
    folder.forget({case.id for case in todo})
    folder.append(
        case.row(metric="steps_per_second", status="skipped", reason=why)
        for case, why in plan.skipped
        if case.id not in finished
    )
    if not todo:
        return True
    described = {
        ThroughputCase(
            id=case.id,
            problem=case.problem,
            estimator=case.estimator,
            num_samples=case.num_samples,
            batch_size=case.batch_size,
            device=case.device,
            dtype=case.dtype,
            mode=case.settings["mode"],
            seed=case.seed,
        ): case
        for case in todo
    }
    code, rows = run_throughput(
        list(described), folder.path, compare=options.compare, seconds=options.seconds
    )
    folder.append(rows)
    return code == 0


def _settings(options: Benchmark) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()}


def _print_plan(plan: Any) -> None:
    for case in plan.cases:
        print(f"{case.benchmark}: {case.title}")
    for case, reason in plan.skipped:
        print(f"{case.benchmark}: {case.title}: skipped, {reason}")


def at_least(option: str, least: int, *values: int | None) -> None:
    """Raise UsageError unless every value given is at least ``least``."""
    for value in values:
        if value is not None and value < least:
            raise UsageError(f"{option} must be at least {least}, not {value}")


def quick(options: Benchmark) -> Benchmark:
    """The same benchmark, small: a look whether everything works, not a measurement."""
    if isinstance(options, Variance):
        return replace(options, replicates=min(options.replicates, 500), step=options.step[:1], latent_dim=())
    if isinstance(options, Convergence):
        return replace(
            options,
            steps=min(options.steps, 100),
            seeds=2,
            tuning_steps=20,
            learning_rate=options.learning_rate[:1],
        )
    return replace(options, seconds=min(options.seconds, 0.05))

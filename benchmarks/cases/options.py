"""The benchmarks' options as a user gives them, and the cases that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import BUILTIN_NAMES, DEFAULT_NAMES
from ..certification.levels import check_range, confirm_level
from ..certification.oracle_problems import ORACLE_PROBLEMS
from .grid import Case, specifications, with_latent_dim

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
    batch_size: tuple[int, ...] = ()
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def cases(
        self, benchmark: str, problem: str, num_samples: int, batch_size: int | None, settings: dict[str, Any]
    ) -> list[Case]:
        """One case for every estimator."""
        return [
            Case(benchmark, problem, e, num_samples, batch_size, self.seed, self.device, self.dtype, settings)
            for e in specifications(self.estimator or DEFAULT_NAMES, "estimator")
        ]

    @property
    def batch_sizes(self) -> tuple[int | None, ...]:
        """B of each measurement, the base of sweeps first; None for the problem's default."""
        return tuple(dict.fromkeys(self.batch_size)) or (None,)

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        at_least("--num-samples", 1, *self.num_samples)
        at_least("--batch-size", 1, *self.batch_size)
        at_least("--seed", 0, self.seed)
        if self.seed > MAX_SEED:
            raise UsageError(f"--seed must be at most {MAX_SEED}, not {self.seed}")


@dataclass(frozen=True)
class Variance(Common):
    """Options of the variance benchmark.

    Attributes:
        step: training steps of the checkpoints; () for all of ``trajectory``, or 0 where that is None.
        trajectory: folder of one that the user saved; None to train one.
        relative_to: estimator whose variance the others' are divided by; None for no ratios.
        chunk: replicates at a time on the factorized route, ratios apart; None to choose from the sizes.
    """

    num_samples: tuple[int, ...] = (1, 4, 16)
    batch_size: tuple[int, ...] = (64, 4, 16)
    replicates: int = 4000
    precision: float | None = None
    route: str = "factorized"
    step: tuple[int, ...] = (0, 100, 500, 2000, 10_000)
    latent_dim: tuple[int, ...] = (2, 32)
    trajectory: str | None = None
    relative_to: str | None = None
    chunk: int | None = None

    def grid(self) -> list[Case]:
        """Every problem; one setting is swept at a time, so that sweeps add up and do not multiply.

        The first and the last step get every S, those in between one S; at that S the last step gets every
        other D and every other B.
        """
        self.check()
        steps = self._steps()
        settings: dict[str, Any] = {
            "replicates": self.replicates,
            "precision": self.precision,
            "route": self.route,
        }
        if self.trajectory is not None:
            settings["trajectory"] = self.trajectory
        elif max(steps) > 0:
            settings["steps"] = sorted(set(steps))  # the trajectory is as long as the last of them
        if self.chunk is not None:
            settings["chunk"] = self.chunk
        if self.relative_to is not None:
            settings["relative_to"] = self._one_estimator(self.relative_to)
        base, *other_batches = self.batch_sizes
        cases = []
        for problem in specifications(self.problem, "problem"):
            swept = [with_latent_dim(problem, d) for d in self.latent_dim]
            for step in steps:
                here = {**settings, "step": step}
                end = step in (min(steps), max(steps))
                for s in self.num_samples if end else (self.sweep_samples,):
                    cases += self.cases("variance", problem, s, base, here)
                for other in swept if step == max(steps) else ():
                    cases += self.cases("variance", other, self.sweep_samples, base, here)
                for batch in other_batches if step == max(steps) else ():
                    cases += self.cases("variance", problem, self.sweep_samples, batch, here)
        return cases

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        super().check()
        at_least("--replicates", 2, self.replicates)
        at_least("--step", 0, *self.step)
        at_least("--chunk", 1, self.chunk)
        at_least("--latent-dim", 1, *self.latent_dim)
        if self.precision is not None and not 0 < self.precision < 1:
            raise UsageError(f"--precision must be between 0 and 1, not {self.precision}")
        if self.route not in ("factorized", "full"):
            raise UsageError(f"--route {self.route!r} is not one of factorized, full")
        if self.chunk is not None and self.route == "full":
            raise UsageError(
                "--chunk cannot be combined with --route full, which draws one replicate at a time"
            )
        if self.trajectory is not None and self.latent_dim:
            raise UsageError("--latent-dim cannot be combined with --trajectory, which is of one model")

    @staticmethod
    def _one_estimator(text: str) -> str:
        found = specifications([text], "estimator")
        if len(found) > 1:
            raise UsageError(f"--relative-to {text}: expected one estimator, not {len(found)}")
        return found[0]

    def _steps(self) -> tuple[int, ...]:
        if self.trajectory is None:
            return tuple(dict.fromkeys(self.step or (0,)))
        from ..training.checkpoints import steps_in

        there = steps_in(Path(self.trajectory))
        for step in self.step:
            if step not in there:
                known = ", ".join(map(str, there))
                raise UsageError(
                    f"--step {step}: no such checkpoint in {self.trajectory}: choose from {known}"
                )
        return tuple(dict.fromkeys(self.step or there))

    @property
    def sweep_samples(self) -> int:
        """S where another setting is swept: the smallest above 1 that is measured anyway."""
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
        """Every problem, S and B; the seeds are repetitions inside a case."""
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
            for batch in self.batch_sizes
            for case in self.cases("convergence", problem, s, batch, settings)
        ]


@dataclass(frozen=True)
class Throughput(Common):
    """Options of the throughput benchmark."""

    num_samples: tuple[int, ...] = (2,)
    seconds: float = 0.5
    mode: tuple[str, ...] = ("eager",)
    compare: str | None = None

    def grid(self) -> list[Case]:
        """Every problem, S, B and mode."""
        self.check()
        if not self.seconds > 0:
            raise UsageError(f"--seconds must be positive, not {self.seconds}")
        from ..problems.placement import check_device
        from ..throughput.modes import check_mode
        from ..throughput.suite import earlier_result

        for mode in self.mode:
            check_mode(mode, check_device(self.device))
        if self.compare is not None:
            earlier_result(self.compare)
        return [
            case
            for problem in specifications(self.problem, "problem")
            for s in self.num_samples
            for batch in self.batch_sizes
            for mode in self.mode
            for case in self.cases("throughput", problem, s, batch, {"mode": mode})
        ]


@dataclass(frozen=True)
class Certify(Common):
    """Options of certification.

    Attributes:
        confidence: of the bias bound.
        tolerance: relative bias that the bound must reach.
        budget: seconds an estimator; None for a fixed amount of work.
    """

    problem: tuple[str, ...] = ORACLE_PROBLEMS
    dtype: str = "float64"
    confidence: float = 0.99
    tolerance: float = 0.02
    budget: float | None = None

    def grid(self) -> list[Case]:
        """For every estimator the conformance suite (without a problem), and every problem."""
        self.check()
        check_range(self.confidence, self.tolerance, self.budget)
        problems = specifications(self.problem, "problem")
        estimators = specifications(self.estimator or BUILTIN_NAMES, "estimator")
        settings = {
            "confidence": self.confidence,
            "tolerance": self.tolerance,
            "seconds": None if self.budget is None else self.budget / len(problems),
            "confirm_level": confirm_level(len(problems), len(estimators)),
        }
        return [
            Case("certify", problem, estimator, 1, None, self.seed, self.device, self.dtype, settings)
            for estimator in estimators
            for problem in ("", *problems)
        ]


@dataclass(frozen=True)
class Advise(Common):
    """Options of the advice; ``estimator`` empty for the whole catalogue.

    Attributes:
        num_samples: S to choose from.
        train_steps: N, to measure after N steps too; 0 for the current weights alone.
        budget: seconds of measuring, a problem.
        route: "factorized" or "full".
    """

    num_samples: tuple[int, ...] = (1, 4, 16)
    train_steps: int = 0
    budget: float = 60.0
    route: str = "factorized"

    def grid(self) -> list[Case]:
        """None: what is measured in the time there is cannot be listed beforehand."""
        return []

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        super().check()
        at_least("--train-steps", 0, self.train_steps)
        if not 0 < self.budget < float("inf"):
            raise UsageError(f"--budget must be a positive number of seconds, not {self.budget}")
        if len(self.batch_size) > 1:
            raise UsageError("--batch-size: advice is for one batch size")


Benchmark = Variance | Convergence | Throughput | Certify | Advise


def at_least(option: str, least: int, *values: int | None) -> None:
    """Raise UsageError unless every value given is at least ``least``."""
    for value in values:
        if value is not None and value < least:
            raise UsageError(f"{option} must be at least {least}, not {value}")


def quick(options: Benchmark) -> Benchmark:
    """The same benchmark, small: a look whether everything works, not a measurement."""
    if isinstance(options, Variance):
        return replace(
            options,
            replicates=min(options.replicates, 500),
            step=options.step[:1],
            batch_size=options.batch_size[:1],
            latent_dim=(),
        )
    if isinstance(options, Convergence):
        return replace(
            options,
            steps=min(options.steps, 100),
            seeds=2,
            tuning_steps=20,
            learning_rate=options.learning_rate[:1],
        )
    if isinstance(options, Advise):
        return replace(options, budget=min(options.budget, 10.0), train_steps=min(options.train_steps, 100))
    if isinstance(options, Certify):
        return replace(options, problem=options.problem[:1], tolerance=max(options.tolerance, 0.05))
    return replace(options, seconds=min(options.seconds, 0.05))

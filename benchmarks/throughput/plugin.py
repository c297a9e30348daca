"""The pytest plugin that feeds the throughput tests their cases, and puts the sweeps together."""

from __future__ import annotations

import math
import platform
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from ...estimators.errors import UsageError
from ...estimators.text import one_line
from ..store.environment import describe_environment
from .case import ThroughputCase
from .noise import factor
from .rows import METRICS
from .workload import Workload


@dataclass(frozen=True)
class Turn:
    """One sweep's share of a case: what the tests are parametrized by."""

    plugin: ThroughputPlugin
    case: ThroughputCase
    sweep: int

    @property
    def first(self) -> bool:
        """Whether this is the case's first turn."""
        return self.sweep == 0

    @property
    def of(self) -> int:
        """The number of sweeps."""
        return self.plugin.sweeps

    @property
    def seconds(self) -> float:
        """Of timing, in this turn."""
        return self.plugin.seconds / self.plugin.sweeps

    @property
    def label(self) -> str:
        """Name in the table: what tells the cases of this run apart."""
        return self.case.label(without=self.plugin.shared)

    def group(self, name: str) -> str:
        """Heading in the table: what its cases have in common, so that they can be compared."""
        batch = f"B={self.workload().case['batch_size']}"
        return ", ".join((f"{name}: {self.case.problem_label}", batch, *self.plugin.shared))

    @property
    def test_id(self) -> str:
        """Unique; the same in another run for the same case."""
        sweep = "" if self.first else f", sweep {self.sweep + 1}"
        return f"{self.case.name}{sweep}"

    def keep(self, name: str, timings: Sequence[float]) -> None:
        """Remember the timings of this turn, for `with_more`."""
        self.plugin.timings.setdefault((self.case, name), []).extend(timings)

    def with_more(self, name: str, rounds: int) -> int:
        """The rounds of this turn; in the last one as many more as the earlier ones were too noisy for."""
        earlier = self.plugin.timings.get((self.case, name), [])
        if self.sweep < self.of - 1 or not earlier:
            return rounds
        return max(rounds, math.ceil(factor(earlier) * (len(earlier) + rounds)) - len(earlier))

    def workload(self) -> Workload:
        """The case, warmed up once for all its turns; a case that failed before is skipped."""
        if self.case in self.plugin.failures:
            pytest.skip("failed before")
        return self.plugin.workload(self.case)

    def describe(self, name: str) -> dict[str, Any]:
        """Everything about the case that results need beside the timings."""
        workload = self.workload()
        names = {
            "problem": self.case.problem_label,
            "estimator": self.case.estimator_label,
            "case": self.case.id,
        }
        return {
            **workload.case,
            **names,
            "metric": METRICS[name],
            **self.plugin.environment(self.case.device),
            "warmup_seconds": workload.warmup_seconds,
            "peak_memory": workload.peak_memory,
            "note": workload.note,
            "gpu_seconds": [],
        }


class ThroughputPlugin:
    """Parametrizes, orders and merges.

    Args:
        cases: to time.
        seconds: of timing for each of a case's two tests.
        sweeps: turns that each case gets.

    Attributes:
        failures: what went wrong, in one line, by case.
        timings: of the turns so far, by case and what was timed.
        shared: the settings that all cases have in common.
    """

    def __init__(self, cases: Sequence[ThroughputCase], seconds: float, sweeps: int) -> None:
        self.cases, self.seconds, self.sweeps = list(cases), seconds, sweeps
        self.shared = _shared(self.cases)
        self.failures: dict[ThroughputCase, str] = {}
        self.timings: dict[tuple[ThroughputCase, str], list[float]] = {}
        self._workloads: dict[ThroughputCase, Workload] = {}
        self._environments: dict[str, dict[str, Any]] = {}

    @property
    def labels(self) -> list[str]:
        """Names in the table."""
        return [case.label(without=self.shared) for case in self.cases]

    def workload(self, case: ThroughputCase) -> Workload:
        """The case's workload, made at its first turn."""
        if case not in self._workloads:
            arguments = {k: v for k, v in asdict(case).items() if k not in ("problem", "estimator", "id")}
            self._workloads[case] = Workload(case.problem, case.estimator, **arguments)
        return self._workloads[case]

    def environment(self, device: str) -> dict[str, Any]:
        """What rates depend on beside the case."""
        if device not in self._environments:
            described = describe_environment(device)
            name = described.get("gpu") or described["cpu"]
            self._environments[device] = {
                "device_name": name,
                "torch": described["packages"]["torch"],
                "threads": described["threads"],
            }
        return self._environments[device]

    def not_measured(self) -> dict[str, list[dict[str, Any]]]:
        """What the JSON file says of cases that failed: rows, but for their defaults."""
        return {
            "not_measured": [
                {**case.columns(), "metric": "steps_per_second", "status": "failed", "reason": reason}
                for case, reason in self.failures.items()
            ]
        }

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test a case and sweep."""
        turns = [Turn(self, case, sweep) for sweep in range(self.sweeps) for case in self.cases]
        metafunc.parametrize("turn", turns, ids=[turn.test_id for turn in turns])

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sweep by sweep, a case's two tests one after the other."""
        order = {case: index for index, case in enumerate(self.cases)}
        items.sort(key=lambda item: (_turn(item).sweep, order[_turn(item).case]))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep the reason of a failure."""
        report = yield
        if report.failed and call.excinfo is not None:
            self.failures.setdefault(_turn(item).case, _reason(call.excinfo.value))
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Put the rounds of all sweeps of a test into one, before pytest-benchmark prints and saves."""
        benchmarks = session.config._benchmarksession.benchmarks  # type: ignore[attr-defined]
        merged: dict[tuple[ThroughputCase, str], Any] = {}
        for one in benchmarks:
            case = one.params["turn"].case
            if case in self.failures:
                continue
            first = merged.setdefault((case, one.group), one)
            if first is not one:
                first.stats.data.extend(one.stats.data)
        for one in merged.values():
            one.params = asdict(one.params["turn"].case)
        benchmarks[:] = merged.values()
        yield

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what failed, a line a case."""
        for case, reason in self.failures.items():
            terminalreporter.write_line(f"failed: {case.name}: {reason}", red=True)

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Add the cases that failed, which pytest-benchmark leaves out."""
        output_json.update(self.not_measured())

    @pytest.hookimpl(tryfirst=True)
    def pytest_benchmark_generate_machine_info(self) -> dict[str, Any]:
        """What two runs must share to be compared: no host name, and no clock rate, which never stays."""
        devices = dict.fromkeys(case.device for case in self.cases)
        return {
            "python": platform.python_version(),
            "system": platform.system(),
            "devices": {device: self.environment(device) for device in devices},
        }

    def pytest_benchmark_compare_machine_info(
        self, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
    ) -> None:
        """Say what makes a comparison with an earlier run void."""
        if compared_benchmark.get("machine_info") != machine_info:
            print(
                "note: the run compared with was made on another machine, or with other versions or threads"
            )
        then = {benchmark.get("param") for benchmark in compared_benchmark["benchmarks"]}
        if not then & {case.name for case in self.cases}:
            print("note: the run compared with has none of these cases")


def _shared(cases: Sequence[ThroughputCase]) -> tuple[str, ...]:
    """Settings that every case has, as `ThroughputCase.settings` writes them."""
    first, *others = (case.settings for case in cases)
    return tuple(setting for setting in first if all(setting in other for other in others))


def _turn(item: pytest.Item) -> Turn:
    turn = item.callspec.params["turn"]  # type: ignore[attr-defined]
    assert isinstance(turn, Turn)
    return turn


def _reason(error: BaseException) -> str:
    return one_line(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {one_line(error)}"

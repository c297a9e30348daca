"""Timings into rows, and rows out of pytest-benchmark's JSON. Imports no torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...estimators.errors import UsageError
from ..rows.migration import FINGERPRINTS
from ..rows.schema import row
from ..statistics.timings import timing_interval

#: What pytest-benchmark groups by, and the metric that each becomes.
METRICS = {"training step": "steps_per_second", "gradient": "gradients_per_second"}
CASE_COLUMNS = (
    "case",
    "problem",
    "estimator",
    "num_samples",
    "batch_size",
    "latent_dim",
    "seed",
    "device",
    "dtype",
    "mode",
)


@dataclass(frozen=True)
class Rate:
    """How many a second: the median over blocks in the order timed, its 95% interval, the quartiles."""

    median: float
    ci_low: float
    ci_high: float
    q1: float
    q3: float
    n: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Rate:
        """From the seconds each took, one number a block."""
        rates = [1 / s for s in seconds]
        median, low, high = timing_interval(rates)
        q1, _, q3 = statistics.quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else rates * 3
        return cls(median, low, high, q1, q3, len(rates))


@dataclass(frozen=True)
class Timings:
    """All that was measured of one case.

    Attributes:
        case: columns of the results (`CASE_COLUMNS`).
        seconds: by metric, the seconds of each block, a call.
        gpu_seconds: seconds of a training step by CUDA events, one number a block; empty without a GPU.
        warmup_seconds: spent before anything was timed, compilation included.
        peak_memory: bytes, or None when not known.
        note: a warning, or "".
    """

    case: Mapping[str, Any]
    seconds: Mapping[str, Sequence[float]]
    gpu_seconds: Sequence[float] = ()
    warmup_seconds: float | None = None
    peak_memory: int | None = None
    note: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """Rates with interval and interquartile range, peak memory, warm-up; GPU seconds where there are."""
        common = {**self.case, "benchmark": "throughput", "reason": self.note}
        rows = []
        for metric, seconds in self.seconds.items():
            rate = Rate.of(seconds)
            ends = {"ci_low": rate.ci_low, "ci_high": rate.ci_high, "n": rate.n, "unit": "1/s"}
            rows.append(row(**common, metric=metric, value=rate.median, **ends))
            spread = {"value": rate.q3 - rate.q1, "n": rate.n, "unit": "1/s"}
            rows.append(row(**common, metric=f"{metric}_iqr", **spread))
        if self.gpu_seconds:
            value, low, high = timing_interval(list(self.gpu_seconds))
            ends = {"ci_low": low, "ci_high": high, "n": len(self.gpu_seconds), "unit": "s"}
            rows.append(row(**common, metric="gpu_seconds", value=value, **ends))
        if self.peak_memory is not None:
            rows.append(row(**common, metric="peak_memory", value=float(self.peak_memory), n=1, unit="B"))
        if self.warmup_seconds is not None:
            rows.append(row(**common, metric="warmup_seconds", value=self.warmup_seconds, n=1, unit="s"))
        return rows


def read_json(path: Path | str) -> dict[str, Any]:
    """A JSON file as pytest-benchmark writes it.

    Raises:
        UsageError: no such file, or not one of those.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({type(error).__name__})") from error
    try:
        for benchmark in content["benchmarks"]:
            needed = {"min", "median", "iqr", "ops", "rounds", "data"}
            missing = needed - benchmark["stats"].keys()
            if missing or not isinstance(benchmark["fullname"], str):
                raise KeyError(*missing)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a throughput result (a JSON file of pytest-benchmark)") from error
    return content


def rows_from_json(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a throughput run, from the JSON file that it wrote.

    Raises:
        UsageError: no such file, or not a throughput run's.
    """
    content = read_json(path)
    cases: dict[str, list[dict[str, Any]]] = {}
    try:
        for benchmark in content["benchmarks"]:
            cases.setdefault(json.dumps(_case_of(benchmark)), []).append(benchmark)
        measured = {key: _timings(benchmarks).rows() for key, benchmarks in cases.items()}
        others = [row(benchmark="throughput", **case) for case in content.get("not_measured", [])]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: not the result of a throughput run") from error
    return [*(r for rows in measured.values() for r in rows), *others]


def _case_of(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    info = benchmark["extra_info"]
    known = {column: info[column] for column in CASE_COLUMNS}
    return known | {column: info.get(column, "") for column in FINGERPRINTS}  # earlier files lack them


def _timings(benchmarks: Sequence[Mapping[str, Any]]) -> Timings:
    info = benchmarks[0]["extra_info"]
    seconds = {b["extra_info"]["metric"]: b["stats"]["data"] for b in benchmarks}
    return Timings(
        case=_case_of(benchmarks[0]),
        seconds={metric: seconds[metric] for metric in METRICS.values() if metric in seconds},
        gpu_seconds=[s for b in benchmarks for s in b["extra_info"]["gpu_seconds"]],
        warmup_seconds=info["warmup_seconds"],
        peak_memory=info["peak_memory"],
        note=info["note"],
    )

"""Measuring one case: from its description to its rows."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ...estimators.errors import UsageError
from ...estimators.isolation import contained
from ...estimators.plugins.registry import create
from ..certification.cell import Settings
from ..certification.certify import builder, certify_contract, certify_problem
from ..gradients import prepare, seeded
from ..oracles.bias import bias_rows
from ..oracles.references import Reference, reference_gradient
from ..problems.placement import place
from ..problems.point import placed
from ..problems.protocol import Problem
from ..problems.registry import REGISTRY, load_problem
from ..rows.schema import NOT_TIMED, row
from ..statistics.intervals import product_interval
from ..throughput.cost import seconds_per_gradient
from ..training.checkpoints import given_heldout_gap, given_problem_at, heldout_gap, problem_at
from ..training.train import train, tune_learning_rate
from ..variance.measure import measure_variance
from ..variance.ratio import measure_ratio
from ..variance.result import VarianceResult
from .grid import Case, label_of_text

_TIMED = {"variance": ("seconds", "work_normalized_variance"), "convergence": ("seconds",)}
_TUNING_SEED = 10_007  # apart from the seeds that are reported


def execute(case: Case, folder: Path | None = None, *, timings: bool = True) -> list[dict[str, Any]]:
    """Measure a case.

    Args:
        case: of any benchmark but throughput.
        folder: of the run, for checkpoints.
        timings: whether to measure seconds; their rows are else skipped with a reason.

    Raises:
        UsageError: the case asks for what is not supported.
        EstimatorError: the estimator broke the protocol.
    """
    measure = {"variance": _variance, "convergence": _convergence, "certify": _certify}[case.benchmark]
    return case.complete(measure(case, folder, timings))


def _variance(case: Case, folder: Path | None, timings: bool) -> list[dict[str, Any]]:
    step = case.settings["step"]
    problem, x = _problem_and_data(case, folder)
    estimator = create(case.estimator)
    with contained():  # what follows, references that other cases use too, is none of the estimator's
        result = measure_variance(
            problem,
            estimator,
            x,
            num_samples=case.num_samples,
            replicates=case.settings["replicates"],
            precision=case.settings.get("precision"),
            route=case.settings["route"],
            chunk=case.settings.get("chunk"),
            seed=case.seed,
        )
    common = {**result.case, "n": result.replicates}
    rows = result.rows()
    if timings:
        rows += _cost(case, problem, x, result, common)
    else:
        rows += [_untimed(row(**common, metric=metric, unit="s")) for metric in _TIMED["variance"]]
    if case.settings.get("relative_to") not in (None, case.estimator):
        rows.append(_ratio(case, problem, x, common))
    distance = _distance(case, folder)
    if distance is not None:
        at_point = {**result.case, "unit": "nat"}
        rows += [
            row(**at_point, metric=metric, value=value)
            for metric, value in zip(("heldout_objective", "heldout_gap"), distance, strict=True)
        ]
    if result.route == "factorized":  # the full one keeps no gradients in η-space
        rows += bias_rows(problem, x, result, _reference(case, folder, estimator.objective))
    return [{**r, "step": step} for r in rows]


@contained()
def _cost(
    case: Case, problem: Problem, x: torch.Tensor, result: VarianceResult, common: dict[str, Any]
) -> list[dict[str, Any]]:
    """Seconds of one gradient, and variance × seconds."""
    estimator = create(case.estimator)
    with seeded(case.seed, x.device):
        prepare(problem, estimator, x, case.num_samples, warmup=0)
        estimator.train()
        seconds, low, high, n = seconds_per_gradient(problem, estimator, x, case.num_samples)
    timed = row(**{**common, "n": n}, metric="seconds", value=seconds, ci_low=low, ci_high=high, unit="s")
    variance = (result.total, result.ci_low, result.ci_high)
    value, product_low, product_high = product_interval(variance, (seconds, low, high))
    product = row(
        **common,
        metric="work_normalized_variance",
        value=value,
        ci_low=product_low,
        ci_high=product_high,
        unit="s",
        reason=result.warning,
    )
    return [timed, product]


def _untimed(measured: dict[str, Any]) -> dict[str, Any]:
    """The row without its seconds."""
    status = "skipped" if measured["status"] == "done" else measured["status"]
    return {**measured, "value": None, "status": status, "reason": NOT_TIMED}


@contained()
def _ratio(case: Case, problem: Problem, x: torch.Tensor, common: dict[str, Any]) -> dict[str, Any]:
    """The variance over that of the estimator asked for; a skipped row where that one cannot be used here."""
    other = case.settings["relative_to"]
    described = {**common, "metric": "variance_ratio", "parameter": label_of_text(other)}
    try:
        ratio = measure_ratio(
            problem,
            create(case.estimator),
            create(other),
            x,
            num_samples=case.num_samples,
            replicates=max(common["n"], case.settings["replicates"]),
            route=case.settings["route"],
            seed=case.seed,
        )
    except UsageError as error:
        return row(**described, status="skipped", reason=str(error))
    few = "" if ratio.needed is None else f"not enough replicates (at least {ratio.needed})"
    return row(**described, value=ratio.value, ci_low=ratio.ci_low, ci_high=ratio.ci_high, reason=few)


def _problem_and_data(case: Case, folder: Path | None) -> tuple[Problem, torch.Tensor]:
    given, step = case.settings.get("trajectory"), case.settings["step"]
    if given is None:
        problem = problem_at(case.problem, step, case.seed, _checkpoints(folder), _steps(case))
    else:
        problem = given_problem_at(case.problem, step, Path(given))
    return placed(problem, batch_size=case.batch_size, seed=case.seed, device=case.device, dtype=case.dtype)


def _distance(case: Case, folder: Path | None) -> tuple[float, float] | None:
    """How good the checkpoint is: its held-out objective, and the gap to the best of the trajectory."""
    given, step = case.settings.get("trajectory"), case.settings["step"]
    if given is None:
        return heldout_gap(case.problem, step, case.seed, _checkpoints(folder), _steps(case))
    return given_heldout_gap(case.problem, step, case.seed, Path(given))


def _steps(case: Case) -> tuple[int, ...]:
    """All steps at which this run measures the problem."""
    return tuple(case.settings.get("steps", ()))


def _checkpoints(folder: Path | None) -> Path | None:
    return folder and folder / "checkpoints"


def _reference(case: Case, folder: Path | None, objective: str) -> Reference | str:
    """One reference for all estimators of an objective measured at a point."""
    where = {key: value for key, value in case.settings.items() if key in ("step", "steps", "trajectory")}
    samples = 1 if objective == "elbo" else case.num_samples  # which other objectives depend on
    point = replace(case, estimator="exact", num_samples=samples, settings=where)
    return _cached_reference(json.dumps(asdict(point), sort_keys=True), folder, objective)


@lru_cache(maxsize=64)
def _cached_reference(point: str, folder: Path | None, objective: str) -> Reference | str:
    case = Case(**json.loads(point))
    return reference_gradient(*_problem_and_data(case, folder), case.seed, objective, case.num_samples)


def _convergence(case: Case, folder: Path | None, timings: bool) -> list[dict[str, Any]]:
    settings = case.settings
    common: dict[str, Any] = {
        "num_samples": case.num_samples,
        "batch_size": case.batch_size,
        "optimizer": settings["optimizer"],
        "device": case.device,
        "dtype": case.dtype,
    }
    rate = tune_learning_rate(
        case.problem,
        case.estimator,
        settings["learning_rates"],
        steps=settings["tuning_steps"],
        seed=case.seed + _TUNING_SEED,
        **common,
    )
    rows = []
    for repetition in range(settings["seeds"]):
        run = train(
            _fresh(case.problem, case.seed + repetition),
            case.estimator,
            steps=settings["steps"],
            learning_rate=rate,
            seed=case.seed + repetition,
            **common,
        )
        rows += run.rows()
    if timings:
        return rows
    return [_untimed(r) if r["metric"] in _TIMED["convergence"] else r for r in rows]


def _certify(case: Case, folder: Path | None, timings: bool) -> list[dict[str, Any]]:
    given = case.settings
    settings = Settings(
        confidence=given["confidence"],
        tolerance=given["tolerance"],
        confirm_level=given["confirm_level"],
        seed=case.seed,
        seconds=math.inf if given["seconds"] is None else given["seconds"],
    )
    build = builder(case.estimator)
    if not case.problem:
        return certify_contract(build, settings).rows()
    problem = place(load_problem(case.problem), device=case.device)
    return certify_problem(build, problem, label_of_text(case.problem), settings).rows()


def _fresh(problem: str, seed: int) -> Problem:
    """The problem, with initial weights of its own for each seed where it has a seed to set."""
    from ...estimators.plugins.specification import parse

    given = parse(problem).parameters
    if "seed" not in given and REGISTRY.accepts(problem, "seed"):
        return load_problem(problem, seed=seed)
    return copy.deepcopy(load_problem(problem))

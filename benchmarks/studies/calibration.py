"""Are the intervals right? How often those of `measure_variance` hold a variance that is known.

    python -m elbograd.benchmarks.studies.calibration [--quick] [-r REPETITIONS] [-j JOBS] [-o DIR]

Each repetition is a measurement with a fresh seed, on a linear-Gaussian VAE or a cost in one dimension
whose variance follows from Gauss-Hermite quadrature; every repetition counts, the marked ones too. A cell
passes unless its coverage is outside 92.5–97.5% by more than the study's own noise: each side is a
one-sided binomial test at 1e-3, so that of 50 cells exactly at an edge about one run in 20 fails by
chance. Exempt are cells of which more than half of the repetitions are marked "not enough replicates";
the number they ask for (the median) is then tried instead, in a cell that is not exempt. A cell that runs
to a precision must also keep the bias of stopping below a tenth of that precision (by a test at 1e-3).
The exit status is 1 if a cell does not pass.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from itertools import repeat
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ..problems.linear_gaussian import LinearGaussianVAE
from ..problems.placement import first_batch
from ..problems.protocol import Problem
from ..problems.registry import load_problem
from ..seeds import derived
from ..variance.measure import measure_variance

Array = NDArray[np.float64]
BAND = (0.925, 0.975)
LEVEL = 1e-3
MOST_REPLICATES = 50_000  # that a cell is given because another asked for them
_NODES = 150
_BATCH = 4

FUNCTIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "quadratic": (lambda z: -(z**2), lambda z: -2 * z),
    "exponential": (lambda z: -np.exp(-(z**2)), lambda z: 2 * z * np.exp(-(z**2))),
    "cosine": (lambda z: -np.cos(z), np.sin),
}
LINEAR_GAUSSIAN = "linear-gaussian[latent_dim=2,data_dim=3]"


@dataclass(frozen=True)
class Cell:
    """One line of the study: how a known variance is measured.

    Attributes:
        problem: its specification.
        baseline: of the score function; None for reparameterization.
        replicates: R, or None to run to a precision.
        precision: the relative half-width to run to.
        promised: R is what another cell was told would be enough, so this one is never exempt.
    """

    problem: str
    baseline: float | None
    replicates: int | None = None
    precision: float | None = None
    promised: bool = False

    @property
    def estimator(self) -> str:
        """Its specification."""
        if self.baseline is None:
            return "reparameterization"
        return f"constant-baseline[value={self.baseline:g}]" if self.baseline else "score-function"


@dataclass(frozen=True)
class Outcome:
    """What the repetitions of a cell came to.

    Attributes:
        problem: measured.
        estimator: measured.
        replicates: R, the mean of them when running to a precision.
        precision: asked for; NaN for a fixed R.
        repetitions: measurements.
        coverage: share whose 95% interval holds the truth.
        low: lower end of the coverage's own 95% interval (Clopper and Pearson).
        high: upper end.
        marked: share marked "not enough replicates".
        needed: median of the replicates that the marked ones ask for; NaN when none is.
        bias: mean estimate over the truth, less 1.
        bias_error: its standard error.
        verdict: "ok", "exempt", "coverage" or "bias".
    """

    problem: str
    estimator: str
    replicates: float
    precision: float
    repetitions: int
    coverage: float
    low: float
    high: float
    marked: float
    needed: float
    bias: float
    bias_error: float
    verdict: str


def true_variance(cell: Cell) -> float:
    """The tr Cov(ĝ) of one sample that the cell measures, by quadrature over the draw ε."""
    if cell.problem in FUNCTIONS:
        f, slope = FUNCTIONS[cell.problem]
        h = _gradients(lambda z: f(z[:, 0]), lambda z: slope(z), np.ones(1), np.ones(1), cell.baseline)
        return _trace(h, 1, _NODES)  # φ = (μ, σ) = (1, 1), where ∂σ and ∂log σ are the same
    problem, x = _linear_gaussian()
    total = 0.0
    for datum, eta in zip(_numpy(x), _numpy(problem.encoder(x)), strict=True):
        mu, log_sigma = np.split(eta, 2)
        weight, bias = _numpy(problem.decoder.weight), _numpy(problem.decoder.bias)

        def slope_of(z: Array, w: Array = weight, rest: Array = datum - bias) -> Array:
            return np.asarray((rest - z @ w.T) @ w)

        def log_likelihood(z: Array, w: Array = weight, rest: Array = datum - bias) -> Array:
            constant = 0.5 * len(rest) * math.log(2 * math.pi)
            return np.asarray(-0.5 * ((rest - z @ w.T) ** 2).sum(-1) - constant)

        h = _gradients(log_likelihood, slope_of, mu, np.exp(log_sigma), cell.baseline)
        # The encoder is linear: J Jᵀ = (‖x‖² + 1) I. The integrand is a polynomial of degree 8.
        total += _trace(h, len(mu), 6) * (float(datum @ datum) + 1)
    return total / len(x) ** 2


def _gradients(
    f: Callable[[Array], Array],
    slope: Callable[[Array], Array],
    mu: Array,
    sigma: Array,
    baseline: float | None,
) -> Callable[[Array], Array]:
    """h(ε) in (μ, log σ), (N, D) -> (N, 2D), of one sample; the KL is closed form and adds a constant."""

    def h(eps: Array) -> Array:
        z = mu + sigma * eps
        if baseline is None:
            return np.concatenate([slope(z), slope(z) * sigma * eps], 1)
        return (f(z) - baseline)[:, None] * np.concatenate([eps / sigma, eps**2 - 1], 1)

    return h


def _trace(h: Callable[[Array], Array], dimension: int, nodes: int) -> float:
    """Tr Cov h(ε), ε ~ N(0, I), by Gauss-Hermite quadrature; exact for polynomials h of degree < nodes."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    points = np.stack(np.meshgrid(*[x] * dimension), -1).reshape(-1, dimension)
    weights = np.stack(np.meshgrid(*[w / w.sum()] * dimension), -1).reshape(-1, dimension).prod(-1)
    values = h(points)
    return float((weights @ (values - weights @ values) ** 2).sum())


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def _linear_gaussian() -> tuple[LinearGaussianVAE, torch.Tensor]:
    problem = load_problem(LINEAR_GAUSSIAN)
    assert isinstance(problem, LinearGaussianVAE)
    return problem, first_batch(problem, _BATCH, seed=0)


def _at(cell: Cell) -> tuple[Problem, torch.Tensor]:
    if cell.problem in FUNCTIONS:
        return load_problem(cell.problem), torch.zeros(1, 1)
    problem, x = _linear_gaussian()
    return cast("Problem", problem), x  # its decoder is a Linear, which the protocol's Module does not say


def measure(cell: Cell, seeds: Sequence[int]) -> list[tuple[float, float, float, int, int]]:
    """Estimate, interval, replicates and replicates needed (0: enough) of one measurement a seed."""
    torch.set_num_threads(1)
    problem, x = _at(cell)
    estimator, found = create(cell.estimator), []
    for seed in seeds:
        v = measure_variance(
            problem,
            estimator,
            x,
            replicates=cell.replicates or 2,
            precision=cell.precision,
            seed=seed,
            details=False,
        )
        found.append((v.total, v.ci_low, v.ci_high, v.replicates, v.moments[""].needed or 0))
    return found


def assess(cell: Cell, truth: float, found: Sequence[tuple[float, float, float, int, int]]) -> Outcome:
    """Sum up the repetitions of a cell."""
    value, low, high, replicates, needed = np.array(found, dtype=np.float64).T
    n, covered = len(found), int(((low <= truth) & (truth <= high)).sum())
    marked = needed > 0
    ends = stats.binomtest(covered, n).proportion_ci(0.95)
    bias, error = float(value.mean() / truth - 1), float(value.std(ddof=1) / truth / math.sqrt(n))
    return Outcome(
        cell.problem,
        cell.estimator,
        float(replicates.mean()),
        math.nan if cell.precision is None else cell.precision,
        n,
        covered / n,
        float(ends.low),
        float(ends.high),
        float(marked.mean()),
        float(np.median(needed[marked])) if marked.any() else math.nan,
        bias,
        error,
        _verdict(cell, covered, n, float(marked.mean()), bias, error),
    )


def _verdict(cell: Cell, covered: int, n: int, marked: float, bias: float, error: float) -> str:
    if marked > 0.5 and not cell.promised:
        return "exempt"
    below, above = stats.binom.cdf(covered, n, BAND[0]), stats.binom.sf(covered - 1, n, BAND[1])
    if min(below, above) < LEVEL:
        return "coverage"
    if cell.precision is not None and abs(bias) > 0.1 * cell.precision + float(stats.norm.isf(LEVEL)) * error:
        return "bias"
    return "ok"


def cells(quick: bool = False) -> list[Cell]:
    """The study: light and heavy tails, few and many replicates, and two precisions."""
    cases: list[tuple[str, float | None]] = [
        ("quadratic", None),
        ("quadratic", 0.0),
        ("quadratic", -2.0),
        ("exponential", None),
        ("exponential", 0.0),
        ("cosine", None),
        ("cosine", 0.0),
        (LINEAR_GAUSSIAN, None),
        (LINEAR_GAUSSIAN, 0.0),
        (LINEAR_GAUSSIAN, -4.0),
    ]
    if quick:
        first, second = ("exponential", 0.0), (LINEAR_GAUSSIAN, None)
        return [Cell(*first, replicates=200), Cell(*second, replicates=1000), Cell(*first, precision=0.1)]
    fixed = [Cell(*case, replicates=r) for case in cases for r in (20, 200, 4000)]
    precise = [
        Cell(problem, baseline, precision=precision)
        for problem, baseline in (("quadratic", None), ("exponential", 0.0), (LINEAR_GAUSSIAN, None))
        for precision in (0.2, 0.05)
    ]
    return [*fixed, *precise, Cell("exponential", 0.0, precision=0.01)]


def study(
    chosen: Sequence[Cell], repetitions: int, pool: Executor, jobs: int, seed: int = 0
) -> list[Outcome]:
    """Run the cells, and those that exempt ones ask for instead."""
    todo, outcomes = list(chosen), []
    followed: set[tuple[str, float | None]] = set()
    for index, cell in enumerate(todo):  # grows while it runs
        first = derived(seed, "calibration", index)
        seeds = range(first, first + 2 * repetitions, 2)  # a measurement uses its seed and the next
        size = math.ceil(repetitions / (4 * jobs))
        parts = pool.map(measure, repeat(cell), [seeds[i : i + size] for i in range(0, repetitions, size)])
        outcome = assess(cell, true_variance(cell), [one for part in parts for one in part])
        outcomes.append(outcome)
        print(line(columns(outcome)), flush=True)
        case = cell.problem, cell.baseline
        if outcome.verdict == "exempt" and case not in followed and outcome.needed <= MOST_REPLICATES:
            followed.add(case)
            todo.append(Cell(*case, replicates=math.ceil(outcome.needed), promised=True))
    return outcomes


HEADER = ("case", "R", "coverage", "its 95% interval", "marked", "needed", "bias", "verdict")


def columns(o: Outcome) -> tuple[str, ...]:
    """The outcome as printed."""
    goal = f"{o.replicates:,.0f}" + ("" if math.isnan(o.precision) else f" (precision {o.precision:g})")
    return (
        f"{o.problem.partition('[')[0]} {o.estimator}",
        goal,
        f"{100 * o.coverage:.1f}%",
        f"{100 * o.low:.1f}–{100 * o.high:.1f}",
        f"{100 * o.marked:.0f}%",
        "" if math.isnan(o.needed) else f"{o.needed:,.0f}",
        f"{100 * o.bias:+.2f}% ± {196 * o.bias_error:.2f}",
        o.verdict,
    )


def line(row: Sequence[str]) -> str:
    """One line of the table on a terminal."""
    widths = (46, 24, 8, 16, 6, 8, 16, 8)
    return "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()


_PAGE = """# How often the 95% intervals hold the truth

Each case is measured over and over with fresh seeds by `measure_variance`, where the variance is known by
quadrature; every repetition counts, those marked "not enough replicates" too. The band is 92.5–97.5%; a case
fails when its coverage is outside by more than the noise of the study (one-sided, 1e-3 on each side). Exempt
are cases of which more than half the repetitions are marked: the last lines try the replicates that these
ask for, the median of *needed*, and are never exempt. Cases with a precision draw until it is reached; the
bias that this causes must stay below a tenth of it. Made by `tox -e calibration`.
"""


def write(outcomes: Sequence[Outcome], folder: Path) -> None:
    """calibration.csv and calibration.md.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "calibration.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(f.name for f in fields(Outcome))
            table.writerows(astuple(o) for o in outcomes)
        rows = [HEADER, ("---",) * len(HEADER), *(columns(o) for o in outcomes)]
        text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        (folder / "calibration.md").write_text(f"{_PAGE}\n{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m elbograd.benchmarks.studies.calibration",
        description="How often the 95% intervals of measured variances hold the known truth.",
    )
    parser.add_argument("-r", "--repetitions", type=int, help="of each cell (default 2000; quick: 200)")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("-o", "--output", type=Path, help="folder for the table (default under results/runs)")
    parser.add_argument("--seed", type=int, default=0, help="of the whole study")
    parser.add_argument("--quick", action="store_true", help="three cells, under a minute")
    options = parser.parse_args(arguments)
    repetitions = options.repetitions or (200 if options.quick else 2000)
    if repetitions < 2 or options.jobs < 1 or options.seed < 0:
        parser.error("--repetitions must be at least 2, --jobs at least 1, --seed not negative")
    folder = options.output or Path("results/runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-calibration"
    try:
        write([], folder)  # a folder that cannot be written is told before the work
        print(line(HEADER), flush=True)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
            outcomes = study(cells(options.quick), repetitions, pool, options.jobs, options.seed)
        write(outcomes, folder)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wrong = [o for o in outcomes if o.verdict not in ("ok", "exempt")]
    print(f"{len(outcomes)} cells of {repetitions} repetitions, {len(wrong)} wrong; table in {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The calibration study: its truths against closed forms, its verdicts on planted cases, and the real engine."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracles
import pytest
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.studies.calibration.__main__ import main
from elbograd.benchmarks.studies.calibration.cells import LINEAR_GAUSSIAN, Cell, cells
from elbograd.benchmarks.studies.calibration.everything import everything, quantities
from elbograd.benchmarks.studies.calibration.measure import measure
from elbograd.benchmarks.studies.calibration.outcome import assess, judge
from elbograd.benchmarks.studies.calibration.problems import linear_gaussian
from elbograd.benchmarks.studies.calibration.quantities.base import Found, Quantities
from elbograd.benchmarks.studies.calibration.truth import theta_variance, true_variance


@pytest.mark.parametrize(
    ("baseline", "oracle"),
    [(None, "reparameterization"), (0.0, "score-function"), (-2.0, "constant-baseline")],
)
def test_truth_of_the_quadratic_cost(baseline, oracle):
    # E cost = 2 at mu = sigma = 1, so the baseline −2 is the objective's mean.
    closed = sum(oracles.QUADRATIC[oracle](1.0, 1.0))
    assert true_variance(Cell("quadratic", baseline)) == pytest.approx(closed, rel=1e-10)


def test_truth_of_thelinear_gaussian_vae():
    problem, x = linear_gaussian()
    weight = problem.decoder.weight.detach().double().numpy()
    bias = problem.decoder.bias.detach().double().numpy()
    eta, total = problem.encoder(x).detach().double().numpy(), 0.0
    for row, datum in zip(eta, x.double().numpy(), strict=True):
        mu, sigma = row[:2], np.exp(row[2:])
        g = (datum - weight @ mu - bias) @ weight
        covariance = oracles.quadratic_reparameterization_covariance(weight.T @ weight, g, sigma)
        total += np.trace(covariance) * (datum @ datum + 1) / len(x) ** 2
    assert true_variance(Cell(LINEAR_GAUSSIAN, None)) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("problem", ["exponential", "cosine"])
@pytest.mark.parametrize("baseline", [None, 0.0, 0.5])
def test_truth_of_the_other_costs_by_simulation(problem, baseline):
    # One million draws of the same gradients, written out: 5 standard errors, false alarm 6e-7 each.
    eps = np.random.default_rng(0).standard_normal(1_000_000)
    z = 1 + eps
    f, slope = {
        "exponential": (-np.exp(-(z**2)), 2 * z * np.exp(-(z**2))),
        "cosine": (-np.cos(z), np.sin(z)),
    }[problem]
    factor = slope if baseline is None else f - baseline
    h = np.stack([factor, factor * eps] if baseline is None else [factor * eps, factor * (eps**2 - 1)])
    u = ((h - h.mean(1, keepdims=True)) ** 2).sum(0)
    assert abs(u.mean() - true_variance(Cell(problem, baseline))) < 5 * u.std() / 1000


def repetitions(scale=1.0, shift=0.0, needed=0):
    """2,000 Gaussian estimates of 1 with standard error 0.1, and intervals off by a factor."""
    value = 1 + shift + 0.1 * np.random.default_rng(1).standard_normal(2000)
    half = 0.196 * scale
    return [(v, v - half, v + half, 100, needed) for v in value]


def test_verdicts():
    fixed, precise = Cell("quadratic", None, replicates=100), Cell("quadratic", None, precision=0.2)
    assert assess(fixed, 1.0, repetitions()).verdict == "ok"
    assert assess(precise, 1.0, repetitions()).verdict == "ok"
    assert assess(fixed, 1.0, repetitions(1 / 1.3)).verdict == "coverage"
    assert assess(fixed, 1.0, repetitions(1.4)).verdict == "coverage"
    assert assess(fixed, 1.0, repetitions(1 / 1.3, needed=500)).verdict == "exempt"
    assert assess(fixed, 1.0, repetitions(1 / 1.3, needed=500)).needed == 500
    promised = Cell("quadratic", None, replicates=500, promised=True)
    assert assess(promised, 1.0, repetitions(1 / 1.3, needed=500)).verdict == "coverage"
    assert assess(precise, 1.0, repetitions(1.05, shift=0.035)).verdict == "bias"


def test_the_engine_in_a_few_cells():
    # 300 repetitions: the verdict has a false alarm below 1e-4 a cell at a true coverage of 95%.
    for cell in (Cell("exponential", 0.0, replicates=300), Cell("exponential", None, precision=0.1)):
        truth, found = true_variance(cell), measure(cell, range(0, 600, 2))
        outcome = assess(cell, truth, found)
        assert outcome.verdict == "ok"
        assert outcome.marked < 0.5
        # Planted: the same measurements held against a variance 30% larger.
        assert assess(cell, 1.3 * truth, found).verdict == "coverage"


def test_the_study_reaches_from_few_to_many_replicates():
    chosen = cells()
    assert {cell.problem.partition("[")[0] for cell in chosen} == {
        "quadratic",
        "exponential",
        "cosine",
        "linear-gaussian",
    }
    assert {20, 4000} <= {cell.replicates for cell in chosen}
    assert {0.01, 0.05, 0.2} <= {cell.precision for cell in chosen}


def test_command_line(tmp_path, capsys):
    status = main(["--quick", "-r", "4", "-j", "1", "-o", str(tmp_path / "table")])
    with (tmp_path / "table" / "calibration.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 3
    assert all(0 <= float(row["coverage"]) <= 1 for row in rows)
    with (tmp_path / "table" / "intervals.csv").open(encoding="utf-8") as file:
        verdicts = [row["verdict"] for row in (*rows, *csv.DictReader(file))]
    assert status == any(verdict not in ("ok", "exempt") for verdict in verdicts)
    assert "| case |" in (tmp_path / "table" / "calibration.md").read_text(encoding="utf-8")
    with (tmp_path / "table" / "intervals.csv").open(encoding="utf-8") as file:
        others = list(csv.DictReader(file))
    assert {"snr", "minibatch_variance", "variance_ratio", "heldout_objective"} <= {
        row["quantity"] for row in others
    }
    assert "| quantity |" in (tmp_path / "table" / "calibration.md").read_text(encoding="utf-8")
    (tmp_path / "file").touch()
    assert main(["--quick", "-o", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        main(["-r", "1"])
    assert stop.value.code == 2


#: What rows of the suite have with an interval, less the variance itself, which the first table is about.
PRINTED = {
    "variance_by_datum",
    "variance_by_layer",
    "eta_variance",
    "minibatch_variance",
    "variance_ratio",
    "snr",
    "gradient_norm",
    "cosine",
    "seconds",
    "work_normalized_variance",
    "work_normalized_variance_ratio",
    "heldout_objective",
    "steps_per_second",
}


@pytest.fixture(scope="module")
def everything_drawn():
    return quantities()


def test_everything_that_is_printed_with_an_interval_has_a_case(everything_drawn):
    assert {name for case in everything_drawn for name in case.truths} >= PRINTED
    assert len({(case.case, case.n, *case.truths) for case in everything_drawn}) == len(everything_drawn)


def test_every_case_prints_what_it_has_a_truth_of(everything_drawn):
    for case in everything_drawn:
        found = case.draw(np.random.default_rng(1))
        assert set(found) <= set(case.truths), case.case
        assert found or "R = 200" in case.case, case.case
        for one in found.values():
            assert one.low <= one.value <= one.high, case.case


def test_the_truth_in_theta_by_measuring():
    # 1,000 replicates: an error of some 6%, and a fixed seed.
    problem, x = linear_gaussian()
    v = measure_variance(problem, "reparameterization", x, replicates=1000, wrt="theta", details=False)
    assert v.total == pytest.approx(theta_variance(), rel=0.2)


def drawn(scale=1.0, marked=False, cautious=frozenset()):
    """2,000 Gaussian estimates of 1 with their 95% intervals, off by a factor."""
    case = Quantities("planted", 10, {"of": 1.0}, lambda generator: {}, cautious)
    values = 1 + 0.1 * np.random.default_rng(1).standard_normal(2000)
    found = [Found(v, v - 0.196 * scale, v + 0.196 * scale, marked) for v in values]
    return judge("of", case, found, 2000)


def test_verdicts_on_everything():
    assert drawn().verdict == "ok"
    assert drawn(1 / 1.3).verdict == "coverage"
    assert drawn(1 / 1.3, marked=True).verdict == "exempt"
    assert drawn(1.4).verdict == "coverage"
    assert drawn(1.4, cautious=frozenset({"of"})).verdict == "ok"
    assert drawn(1 / 1.3, cautious=frozenset({"of"})).verdict == "coverage"
    assert drawn().below == pytest.approx(drawn().above, abs=0.02)


def test_the_same_seed_gives_the_same_lines():
    with ThreadPoolExecutor(1) as pool:
        first, second = (list(everything(20, pool, jobs, quick=True)) for jobs in (1, 3))
    assert first == second

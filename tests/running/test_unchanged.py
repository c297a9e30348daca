"""One model and one batch at each point: in a run, over seeds, when it goes on, and wherever rows are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from elbograd.benchmarks import load_results, measure_variance, train
from elbograd.benchmarks.comparison.changes import changes
from elbograd.benchmarks.plots import draw_all
from elbograd.benchmarks.problems.fingerprint import of_batch, of_weights
from elbograd.benchmarks.problems.linear_gaussian import LinearGaussianVAE
from elbograd.benchmarks.problems.placement import batches_of, first_batch
from elbograd.benchmarks.problems.point import placed
from elbograd.benchmarks.report import write_report
from elbograd.benchmarks.report.runs import Run
from elbograd.benchmarks.tables import terminal_tables
from elbograd.benchmarks.training.batches import endless
from elbograd.estimators import UsageError

MODEL = """
import random
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from elbograd.benchmarks.problems.linear_gaussian import LinearGaussianVAE

class Model(LinearGaussianVAE):
    def __init__(self):
        super().__init__(latent_dim=2, data_dim=3)
        SEEDING
        self.encoder, self.data = nn.Linear(3, 4), torch.rand(100, 3)

    def batches(self, split, batch_size, generator=None):
        SHUFFLE

problem = Model()
"""
SHUFFLES = {
    "loader": "yield from DataLoader(self.data, batch_size, shuffle=True)",
    "returned": "return DataLoader(self.data, batch_size, shuffle=True)",
    "numpy": "yield from self.data[np.random.permutation(100)].split(batch_size)",
    "python": "order = list(range(100)); random.shuffle(order); yield from self.data[order].split(batch_size)",
    "lazy": "yield from (self.data[np.random.choice(100, batch_size)] for _ in range(3))",
}
SHORT = ("variance", "-e", "reparameterization", "-r", "50", "-s", "1", "--batch-size", "10")
GRID = (*SHORT, "-e", "reparameterization[draws=iid]")


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])


def written(name="my_model.py", shuffle="loader", seeding="pass"):
    Path(name).write_text(MODEL.replace("SHUFFLE", SHUFFLES[shuffle]).replace("SEEDING", seeding))
    return f"{name}:problem"


def fingerprints(folder):
    rows = load_results(folder)
    return {column: set(rows[column]) for column in ("weights", "batch")}


# Data


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_data_are_those_of_the_seed_whoever_shuffles(shuffle):
    problem, _ = placed(written(f"by_{shuffle}.py", shuffle), batch_size=10, seed=0)
    first = first_batch(problem, 10, 1)
    torch.rand(3)
    assert torch.equal(first_batch(problem, 10, 1), first)
    assert not torch.equal(first_batch(problem, 10, 2), first)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_passes_differ_and_do_not_depend_on_what_is_drawn_between_batches(shuffle):
    problem, _ = placed(written(f"by_{shuffle}.py", shuffle), batch_size=10, seed=0)

    def stream(noise):
        batches = endless(problem, 10, 5)
        for _ in range(30):
            torch.rand(noise)
            yield next(batches)

    quiet, loud = list(stream(0)), list(stream(7))
    assert all(torch.equal(a, b) for a, b in zip(quiet, loud, strict=True))
    assert len({of_batch(x) for x in quiet}) == 30
    state = torch.get_rng_state()
    list(batches_of(problem, "train", 10))
    assert torch.equal(torch.get_rng_state(), state)


# Fingerprints


def test_fingerprints_tell_one_bit_and_not_where_it_lies():
    problem = LinearGaussianVAE()
    before = of_weights(problem)
    assert of_weights(LinearGaussianVAE()) == before
    x = torch.rand(4, 6)
    assert of_batch(x.mT.contiguous().mT) == of_batch(x)
    assert len({of_batch(x), of_batch(x.double()), of_batch(x.view(6, 4)), of_batch(-x)}) == 4
    problem.encoder.register_buffer("mean", torch.zeros(2), persistent=False)
    with_buffer = of_weights(problem)
    problem.encoder.mean[1] = 1e-30
    next(problem.decoder.parameters()).requires_grad_(False)
    assert len({before, with_buffer, of_weights(problem)}) == 3
    assert of_batch(torch.zeros(0, 3)) and of_batch(torch.eye(3).to_sparse()) == of_batch(torch.eye(3))
    assert of_batch(torch.ones(2, dtype=torch.bfloat16)) != of_batch(torch.ones(2, dtype=torch.float16))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fingerprints_are_the_same_on_a_device():
    x = torch.rand(4, 6)
    assert of_batch(x.cuda()) == of_batch(x)
    problem, _ = placed(LinearGaussianVAE(), device="cuda")
    assert of_weights(problem) == of_weights(LinearGaussianVAE())


def test_results_carry_them():
    first, again = (measure_variance(written(), "exact", replicates=2, seed=3).rows() for _ in range(2))
    other = measure_variance(written(), "exact", replicates=2, seed=4).rows()
    for column in ("weights", "batch"):
        values = [{r[column] for r in rows} for rows in (first, again, other)]
        assert [len(v) for v in values] == [1, 1, 1]
        assert values[0] == values[1] != values[2]
    trained = train(written(), "reparameterization", steps=2, seed=3, importance_samples=0)
    assert {r["weights"] for r in trained.rows()} == {first[0]["weights"]}  # those that it began with


def test_streams_of_other_weights_are_not_merged():
    problem, x = placed("linear-gaussian", batch_size=4)
    given = {"replicates": 20, "stream": 0}
    sums = measure_variance(problem, "exact", x, **given).sums
    next(problem.encoder.parameters()).data += 1e-3
    with pytest.raises(UsageError, match=r"only sums of one model and one x .* of the weights"):
        measure_variance(problem, "exact", x, **{**given, "stream": 1}, merge=[sums])


# Runs


@pytest.mark.parametrize("name", ["problem", "Model"])
def test_the_cases_of_a_run_and_python_share_weights_and_data(elbograd, name):
    written()
    code, _, _ = elbograd(*GRID, "-p", f"my_model.py:{name}", "--seed", "5", "-o", "run", "--step", "0,3")
    assert code == 0
    rows = load_results("run")
    totals = rows[(rows["metric"] == "variance") & (rows["parameter"] == "")]
    assert list(totals.groupby("step")["value"].nunique()) == [1, 1]
    assert [len(v) for v in fingerprints("run").values()] == [2, 1]  # weights at two steps, one batch
    here = measure_variance(
        f"my_model.py:{name}", "reparameterization", replicates=50, seed=5, batch_size=10, details=False
    )
    assert totals["value"].iloc[0] == pytest.approx(here.total, rel=1e-6)
    assert here.rows()[0]["weights"] == totals["weights"].iloc[0]


def test_processes_and_an_interrupted_run_share_them(elbograd):
    written()
    assert elbograd(*GRID, "-p", "my_model.py:Model", "-o", "one")[0] == 0
    assert elbograd(*GRID, "-p", "my_model.py:Model", "-o", "two", "-j", "2")[0] == 0
    assert fingerprints("one") == fingerprints("two")
    lines = Path("one/rows.jsonl").read_text().splitlines(keepends=True)
    first = json.loads(lines[0])["case"]
    Path("one/rows.jsonl").write_text("".join(line for line in lines if json.loads(line)["case"] == first))
    assert elbograd(*GRID, "-p", "my_model.py:Model", "-o", "one")[0] == 0
    assert fingerprints("one") == fingerprints("two")


@pytest.mark.parametrize("seeding", ["pass", "torch.manual_seed(0)"])
def test_seeds_of_a_training_have_weights_of_their_own_or_the_rows_say_so(elbograd, seeding):
    written(seeding=seeding)
    given = ("--steps", "2", "--seeds", "3", "--learning-rate", "0.01", "--batch-size", "10", "-o", "run")
    assert elbograd("convergence", "-p", "my_model.py:Model", "-e", "reparameterization", *given)[0] == 0
    rows = load_results("run")
    own = seeding == "pass"
    assert rows.groupby("seed")["weights"].unique().map(tuple).nunique() == (3 if own else 1)
    assert set(rows["reason"]) == {
        "" if own else "all seeds begin with the same weights, which the model fixes itself"
    }


def test_a_model_that_has_changed_is_not_gone_on_with(elbograd):
    written()
    command = (*SHORT, "-p", "my_model.py:problem", "-o", "run")
    assert elbograd(*command)[0] == 0
    text = Path("my_model.py").read_text()
    Path("my_model.py").write_text("# a remark\n" + text)
    assert elbograd(*command)[0] == 0
    Path("my_model.py").write_text(text.replace("latent_dim=2, data_dim=3", "2, 3, noise=2.0"))
    code, _, err = elbograd(*command)
    assert code == 2
    assert "my_model.py:problem has changed since rows in run were measured: choose another folder" in err
    assert len(err.strip().splitlines()) == 1


def test_weights_that_have_changed_are_told_though_the_file_is_the_same(elbograd):
    Path("weights.txt").write_text("0")
    written(seeding="torch.manual_seed(int(open('weights.txt').read()))")
    command = (*SHORT, "-p", "my_model.py:Model", "-o", "run")
    assert elbograd(*command)[0] == 0
    Path("weights.txt").write_text("1")
    code, _, err = elbograd(*command)
    assert code == 2
    assert "my_model.py:Model has other initial weights than when rows in run were measured" in err


def test_a_model_that_draws_from_elsewhere_is_refused_before_anything_is_compared(elbograd):
    Path("my_model.py").write_text(
        MODEL.replace("SEEDING", "self.rng = np.random.default_rng()").replace(
            "SHUFFLE", "yield from self.data[self.rng.permutation(100)].split(batch_size)"
        )
    )
    code, out, err = elbograd(*GRID, "-p", "my_model.py:Model", "-o", "run")
    assert code == 2
    assert "met other data than those before it" in err
    assert "variance" not in out


def other(rows, column):
    changed = rows.copy()
    changed.loc[changed["estimator"] == "leave-one-out", column] = "0123456789ab"
    return changed


@pytest.fixture(scope="module")
def rows():
    found = []
    for name in ("leave-one-out", "reparameterization"):
        result = measure_variance("linear-gaussian", name, num_samples=2, replicates=50, details=False)
        found += [{**r, "case": name, "step": 0} for r in result.rows()]
    return pd.DataFrame(found)


@pytest.mark.parametrize("column", ["weights", "batch"])
@pytest.mark.parametrize("shown", ["tables", "figures", "report", "comparison"])
def test_rows_of_other_models_or_data_are_not_put_side_by_side(rows, tmp_path, monkeypatch, column, shown):
    def show(rows):
        if shown == "tables":
            return terminal_tables(rows)
        if shown == "figures":
            return draw_all(rows, tmp_path, [])
        if shown == "report":
            pytest.importorskip("plotly")
            return write_report([Run("a", tmp_path, rows)], tmp_path)
        one = rows["estimator"] == "leave-one-out"
        return changes(rows[one], rows[~one], ["variance"])

    monkeypatch.setattr("elbograd.benchmarks.plots.FIGURES", ())
    monkeypatch.setattr("elbograd.benchmarks.report.page.render", lambda runs: "")
    show(rows)
    show(rows.assign(**{column: ""}))  # of earlier versions
    show(other(rows, column).assign(seed=range(len(rows))))
    with pytest.raises(
        UsageError, match=r"linear-gaussian .* the rows are of different (models|data)"
    ) as error:
        show(other(rows, column))
    assert "0123456789ab" in str(error.value)
    assert "\n" not in str(error.value)

"""The peers benchmark: contenders agree, wrong ones are told, times are what they say, failures are one line."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import wrong_peers
from elbograd.benchmarks.studies.peers import agreement, figure, page, rows, timing
from elbograd.benchmarks.studies.peers.__main__ import main
from elbograd.benchmarks.studies.peers.cases import CASES, LIBRARIES, Case, Contender
from elbograd.benchmarks.studies.peers.compare import Settings, Workers, compare
from elbograd.benchmarks.studies.peers.processes import Worker, WorkerError
from elbograd.benchmarks.studies.peers.shared import load, write_point, write_state
from elbograd.benchmarks.studies.peers.suite_peer import SuitePeer
from elbograd.benchmarks.studies.peers.sums import ReplicateSums
from elbograd.benchmarks.studies.peers.torch_loop import TorchLoop

TESTS = Path(__file__).parents[1] / "helpers"
LEVEL = 1e-4  # false-alarm rate of one comparison


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    for problem in ("vae", "bernoulli-vae"):
        write_point(problem, 300, 0, 20_000, folder / f"{problem}.pt")
    return folder


def shared_case(folder, problem, estimator, num_samples):
    point, state = folder / f"{problem}.pt", folder / "state.pt"
    write_state(Case(problem, estimator, num_samples, ()), point, 0, state)
    return load(problem, estimator, num_samples, point, state)


def draw(contender, shared, n):
    """(moments, contributions) of n replicates."""
    torch.manual_seed(1)
    sums = ReplicateSums(shared)
    contributions = np.array([sums.add(contender.read(contender.step())) for _ in range(n)])
    return agreement.of_loop(sums.summary(), contributions), contributions


def p_values(shared, moments):
    """(of the mean, of the variance) against the reference and the suite."""
    suite = agreement.of_suite(SuitePeer(shared, "").moments(4000, 3)["halves"])
    reference = np.concatenate((shared.stderr, shared.direction_stderr))
    scale = float(shared.reference.abs().max())
    mean = agreement.mean_p_value(moments, reference, scale, len(shared.directions))
    return mean, agreement.variance_ratio(moments, suite)[3]


LOOPED = sorted({(case.problem, case.estimator, case.num_samples) for case in CASES} | {
    ("bernoulli-vae", "score-function", 1),
    ("vae", "leave-one-out[kl=sampled]", 3),
    ("vae", "learned-baseline", 1),
})  # fmt: skip


@pytest.mark.parametrize(("problem", "estimator", "num_samples"), LOOPED)
def test_the_plain_loop_is_the_suites_estimator(folder, problem, estimator, num_samples):
    # Two tests at 1e-4 in each of 16 cases: 3 false alarms in 1,000 runs of other seeds.
    shared = shared_case(folder, problem, estimator, num_samples)
    mean, variance = p_values(shared, draw(TorchLoop(shared, "loop"), shared, 1200)[0])
    assert mean > LEVEL
    assert variance > LEVEL


@pytest.mark.parametrize(
    ("wrong", "problem", "estimator", "num_samples", "which"),
    [
        ("SquaredScale", "vae", "reparameterization", 1, "variance"),
        ("SquaredScale", "vae", "reparameterization", 8, "mean"),
        ("DoubledKl", "vae", "reparameterization", 1, "mean"),
        ("NoKl", "vae", "leave-one-out", 4, "mean"),
        ("NoKl", "bernoulli-vae", "leave-one-out", 4, "mean"),
        ("HalfTheScale", "vae", "score-function", 1, "variance"),
        ("HalfTheScale", "vae", "reparameterization", 1, "mean"),
        ("OwnSampleInBaseline", "bernoulli-vae", "leave-one-out", 4, "mean"),
        ("OwnSampleInBaseline", "vae", "leave-one-out", 4, "variance"),
        ("NoBaseline", "vae", "constant-baseline[kl=sampled]", 1, "variance"),
    ],
)
def test_a_planted_slip_is_told(folder, wrong, problem, estimator, num_samples, which):
    shared = shared_case(folder, problem, estimator, num_samples)
    contender = getattr(wrong_peers, wrong)(shared, "loop")
    mean, variance = p_values(shared, draw(contender, shared, 2000)[0])
    # Far beyond the level of a whole run, which is 0.01 over about 100 tests.
    assert (mean if which == "mean" else variance) < 1e-7


def test_an_exact_reference_is_exact(folder):
    shared = shared_case(folder, "bernoulli-vae", "leave-one-out", 2)
    eta = shared.problem.encoder(shared.x)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 8).unsqueeze(1)
    log_q = shared.problem.posterior(eta).log_prob(states)
    target = shared.problem.target(shared.x)
    f = target.log_likelihood(states.expand(-1, len(shared.x), -1)) - 8 * math.log(2) - log_q
    gradient = torch.autograd.grad((log_q.exp() * f).sum(0).mean(), shared.phi)
    flat = torch.cat([g.reshape(-1) for g in gradient]).double()
    assert (flat - shared.reference).norm() < 1e-4 * flat.norm()
    assert shared.stderr.max() == 0


def test_sums_are_those_of_the_draws(folder):
    shared = shared_case(folder, "vae", "reparameterization", 1)
    loop = TorchLoop(shared, "loop")
    sums, drawn = ReplicateSums(shared), []
    for _ in range(50):
        drawn.append(loop.read(loop.step()))
        contribution = sums.add(drawn[-1])
        assert contribution == pytest.approx(float((drawn[-1] - shared.reference).square().sum()))
    g = torch.stack(drawn) - shared.reference
    columns = torch.cat((g, g @ shared.directions.T), 1).numpy()
    summary = sums.summary()
    for half in range(2):
        mine = columns[half::2]
        assert summary["sizes"][half] == len(mine)
        assert summary["deviation"][half] == pytest.approx(mine.mean(0), rel=1e-8, abs=1e-12)
        assert summary["variance"][half] == pytest.approx(mine.var(0), rel=1e-6, abs=1e-15)
        expected = ((mine - mine.mean(0)) ** 3).mean(0)
        assert np.abs(np.array(summary["third"][half]) - expected).max() < 1e-9 * np.abs(expected).max()
        expected = ((mine - mine.mean(0)) ** 4).mean(0)
        assert np.abs(np.array(summary["fourth"][half]) - expected).max() < 1e-9 * expected.max()
    moments = agreement.of_loop(summary, g.square().sum(1).numpy())
    assert moments.total == pytest.approx(float(g.var(0).sum()), rel=1e-10)


def of_columns(drawn):
    halves = (drawn[::2], drawn[1::2])
    return agreement.Moments(
        total=1.0,
        log_stderr=0.01,
        deviation=np.array([half.mean(0) for half in halves]),
        stderr=np.array([half.std(0, ddof=1) / math.sqrt(len(half)) for half in halves]),
        skewness=np.array([skewness(half) / math.sqrt(len(half)) for half in halves]),
        unsure=np.array([kurtosis(half) / len(half) for half in halves]),
        replicates=len(drawn),
    )


def skewness(drawn):
    centred = drawn - drawn.mean(0)
    return (centred**3).mean(0) / np.maximum(drawn.std(0), 1e-12) ** 3


def kurtosis(drawn):
    centred = drawn - drawn.mean(0)
    return (centred**4).mean(0) / np.maximum(drawn.std(0), 1e-12) ** 4 - 1


@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_the_mean_test_keeps_its_level(shape):
    # 600 families of 43 columns at 5%: the binomial standard deviation is 0.9%, so 8% is 3.4 of them.
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(600):
        drawn = (
            generator.normal(size=(400, 43))
            if shape == "normal"
            else generator.exponential(size=(400, 43)) - 1
        )
        alarms += agreement.mean_p_value(of_columns(drawn), np.zeros(43), 1.0, 3) < 0.05
    assert alarms / 600 < 0.08


def test_rare_draws_raise_no_alarm():
    # Log-normal columns, far too skewed for their number. Of 300 runs at 1% more than 10 alarm once in 4,000.
    generator = np.random.default_rng(3)
    alarms = naive = 0
    for _ in range(300):
        drawn = generator.lognormal(0, 2.5, size=(400, 43)) / math.exp(2.5**2 / 2) - 1
        drawn[:, 40:] = generator.normal(size=(400, 3))
        moments = of_columns(drawn)
        alarms += agreement.mean_p_value(moments, np.zeros(43), 1.0, 3) < 0.01
        sure = replace(moments, unsure=np.zeros_like(moments.unsure))
        naive += agreement.mean_p_value(sure, np.zeros(43), 1.0, 3) < 0.01
    print(alarms, naive)
    assert alarms <= 10
    assert naive > 12  # without a look at how sure the standard errors are


@pytest.mark.parametrize("column", [0, 42])
def test_the_mean_test_sees_one_column(column):
    drawn = np.random.default_rng(1).normal(size=(400, 43))
    drawn[:, column] += 0.5
    assert agreement.mean_p_value(of_columns(drawn), np.zeros(43), 1.0, 3) < 1e-10


def test_the_reference_has_an_error_of_its_own():
    drawn = np.random.default_rng(1).normal(size=(400, 43)) + 0.3
    assert agreement.mean_p_value(of_columns(drawn), np.full(43, 0.3), 1.0, 3) > 0.01


def test_a_coordinate_that_never_varies_must_be_equal():
    drawn = np.random.default_rng(2).normal(size=(400, 43))
    drawn[:, 5] = 1e-9
    assert agreement.mean_p_value(of_columns(drawn), np.zeros(43), 1.0, 3) > LEVEL
    drawn[:, 5] = 1e-3
    assert agreement.mean_p_value(of_columns(drawn), np.zeros(43), 1.0, 3) < 1e-10


def test_the_predicted_replicates_reach_the_precision():
    # A gamma of shape 4 has CV 1/2; the half-width of n draws has a relative standard deviation below 2%.
    generator = np.random.default_rng(0)
    needed = timing.replicates_needed(generator.gamma(4, size=100_000), 0.01)
    assert needed == pytest.approx((1.959964 * 0.5 / 0.01) ** 2, rel=0.03)
    assert timing.half_width(generator.gamma(4, size=needed)) == pytest.approx(0.01, rel=0.06)


def test_intervals_of_times_cover():
    # 100 repetitions with known truth: 95% less 4 binomial standard deviations (2.2%) is 86%; the bootstrap
    # of a median of 10 rounds is a little short of 95% itself.
    generator = np.random.default_rng(0)
    truth = (1.959964 * 0.5 / 0.01) ** 2 * 1e-3
    hits = dict.fromkeys(("total", "ratio"), 0)
    for seed in range(100):
        clock, suite = 1e-3 * generator.lognormal(0, 0.1, 10), 0.1 * generator.lognormal(0, 0.1, 10)
        times = timing.loop_time(clock, generator.gamma(4, size=500), suite, 0.01, seed)
        hits["total"] += times.total.low <= truth <= times.total.high
        hits["ratio"] += times.ratio.low <= truth / 0.1 <= times.ratio.high
    assert min(hits.values()) / 100 > 0.86


@pytest.fixture
def with_wrong_peers(monkeypatch):
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


SMALL = Settings(rounds=2, replicates=150, run_out=0.5, steps=0, reference=2000, suite=2000, precision=0.1)


def planted(name):
    return Contender(f"wrong_peers:{name}", "loop", name)


def test_a_run_end_to_end(with_wrong_peers, tmp_path):
    absent = Contender("no_such_library:Peer", "loop", "absent")
    contenders = (*map(planted, ("Chatty", "DoubledKl", "Raises", "Dies")), absent)
    said = []
    done, versions = compare((Case("vae", "reparameterization", 1, contenders),), SMALL, said.append)
    by = {row.contender: row for row in done}
    assert list(by) == ["elbograd", "PyTorch loop", "Chatty", "DoubledKl", "Raises", "Dies", "absent"]
    for name in ("elbograd", "PyTorch loop", "Chatty"):
        assert (by[name].status, by[name].agreement) == ("done", "agrees")
        assert 0 < by[name].seconds_low <= by[name].seconds <= by[name].seconds_high
    assert by["DoubledKl"].agreement in ("mean differs", "both differ")
    assert by["Raises"].status == "failed"
    assert by["Raises"].note == "ValueError: this contender raises"
    assert by["Dies"].status == "failed"
    assert "ended with status 7" in by["Dies"].note
    assert by["absent"].status == "skipped"
    assert "no_such_library" in by["absent"].note
    assert len(said) == 7
    assert all("\n" not in line for line in said)
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]

    loop = by["PyTorch loop"]
    assert loop.ratio == pytest.approx(loop.seconds / by["elbograd"].seconds)
    assert loop.seconds == pytest.approx(loop.replicate_seconds * loop.replicates, rel=1e-6)
    assert loop.ran_out > 0
    assert loop.ran_out_half_width == pytest.approx(0.1, rel=0.5)

    rows.write(done, tmp_path)
    again = rows.read(tmp_path)
    assert [vars(a) == pytest.approx(vars(b), nan_ok=True) for a, b in zip(again, done, strict=True) if a]
    environment = {"cpu": "a CPU", "threads": 1, "python": "3", "commit": "c", "packages": versions}
    text = page.page(again, vars(SMALL), environment)
    assert text == page.page(done, vars(SMALL), environment)
    assert "Traceback" not in text
    for row in done:
        assert f"| {row.contender} |" in text
    drawn = figure.draw(again, 0.1, "a CPU")
    labels = {line.get_label() for axes in drawn.axes for line in axes.lines}
    assert {name for name in by if by[name].status == "done"} <= labels


def test_without_the_suite_a_loop_still_has_its_time(monkeypatch):
    start = Workers.get

    def get(self, contender):
        if contender.library == "elbograd":
            raise WorkerError("out of order")
        return start(self, contender)

    monkeypatch.setattr(Workers, "get", get)
    suite, loop = compare((Case("vae", "reparameterization", 1, ()),), SMALL, print)[0]
    assert (suite.status, suite.note) == ("failed", "out of order")
    assert loop.seconds > 0
    assert loop.agreement == "agrees"  # the mean, with the reference
    assert math.isnan(loop.ratio)
    assert math.isnan(loop.variance_p)
    environment = {"cpu": "a CPU", "threads": 1, "python": "3", "commit": "c", "packages": {}}
    assert "out of order" in page.page([suite, loop], vars(SMALL), environment)
    assert figure.draw([suite, loop], 0.1, "") is not None
    assert figure.draw([suite], 0.1, "") is None


def test_the_figure_prints_no_ratio_of_times_to_another_estimator():
    suite = rows.Row("vae", "moving-average-baseline", 1, "elbograd", "elbograd", seconds=0.1, ratio=1.0)
    suite.seconds_low, suite.seconds_high = 0.09, 0.11
    loop = replace(suite, contender="PyTorch loop", library="torch", seconds=1.4, ratio=14.0)
    other = replace(
        suite, contender="Pyro TraceGraph_ELBO", library="pyro", seconds=44.4, ratio=444.0, same=False
    )
    texts = [t.get_text() for axes in figure.draw([suite, loop, other], 0.01, "").axes for t in axes.texts]
    assert "14×, –" in texts
    assert not any("444" in text for text in texts)


def test_a_worker_ends_with_its_parent(tmp_path):
    with Worker("torch", 1, tmp_path / "log") as worker:
        process = worker._process
        assert process.poll() is None
    assert process.poll() is not None
    with pytest.raises(WorkerError, match="the process of torch ended with status"):
        worker.ask("summary")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--rounds", "1"), "--rounds 1"),
        (("--threads", "0"), "--threads 0"),
        (("--precision", "2"), "--precision 2"),
        (("--rounds", "many"), "many"),
        (("--no-such-option",), "--no-such-option"),
        (("-o", str(TESTS)), "is not an empty folder"),
        (("--report", str(TESTS)), "no comparison with peers in"),
    ],
)
def test_bad_usage_is_one_line(arguments, named, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert named in err
    assert len(err.strip().splitlines()) == 1


def test_the_published_page_is_made_from_its_rows(tmp_path):
    published = TESTS.parents[1] / "results" / "published" / "peers"
    done = rows.read(published)
    settings, environment = (
        json.loads((published / name).read_text()) for name in ("settings.json", "environment.json")
    )
    assert page.page(done, settings, environment) == (published / "peers.md").read_text(encoding="utf-8")
    assert {(row.problem, row.estimator, row.num_samples) for row in done} == {
        (case.problem, case.estimator, case.num_samples) for case in CASES
    }
    assert {row.status for row in done} == {"done"}
    assert {row.agreement for row in done} == {"agrees"}
    assert set(environment["packages"]) == set(LIBRARIES.values())


@pytest.mark.parametrize("library", ["pyro", "storch"])
def test_each_peer_agrees_with_the_suite(library):
    # Takes minutes: runs where all the peers are installed (the extra "peers"), of which Pyro alone is for more.
    for each in ("pyro", "storch"):
        if find_spec(each) is None:
            pytest.skip(f"{each} is not installed: pip install 'elbograd[peers]'")
    settings = Settings(
        rounds=2, replicates=300, run_out=0.0, steps=50, reference=5000, suite=4000, precision=0.03
    )
    chosen = [
        Case(case.problem, case.estimator, case.num_samples, peers)
        for case in CASES
        if (peers := tuple(peer for peer in case.peers if peer.library == library))
    ]
    done, _ = compare(tuple(chosen), settings, print)
    assert {row.agreement for row in done} == {"agrees"}

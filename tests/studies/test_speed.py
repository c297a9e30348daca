"""What the speed benchmark compares is the same work; the numbers themselves are for quiet machines."""

from __future__ import annotations

import json

import pytest
import torch
from elbograd.benchmarks.studies.speed import __main__ as command
from elbograd.benchmarks.studies.speed import many, rate, whole
from elbograd.benchmarks.studies.speed.by_hand import STEPS
from elbograd.benchmarks.studies.speed.models import SizedVAE, TwoLayerGaussian
from elbograd.benchmarks.studies.speed.rate import engine_rate
from elbograd.benchmarks.studies.speed.steps import _steps
from elbograd.benchmarks.variance.whole_gradients import WholeGradients
from torch.utils.flop_counter import FlopCounterMode

SIZE = (12, 3, 8, 1)


@pytest.mark.parametrize("name", STEPS)
def test_the_steps_by_hand_are_those_of_the_suite(name):
    suite, by_hand, x = _steps(SIZE, name, 4)
    for step in (suite, by_hand):
        torch.manual_seed(3)
        for _ in range(5):
            step(x)
    mine = [*suite.problem.encoder.parameters(), *suite.problem.decoder.parameters()]
    cells = dict(zip(by_hand.__code__.co_freevars, by_hand.__closure__, strict=True))
    other = cells["problem"].cell_contents
    theirs = [*other.encoder.parameters(), *other.decoder.parameters()]
    torch.testing.assert_close(mine, theirs)
    assert not torch.equal(mine[0], SizedVAE(*SIZE).encoder[0].weight)


def test_the_arithmetic_counted_is_that_of_the_matrix_products():
    problem = SizedVAE(*SIZE)
    with FlopCounterMode(display=False) as counter:
        problem.decoder(torch.zeros(1, 3))
    assert problem.decoder_flops == counter.get_total_flops()


def test_a_rate_counts_what_the_decoder_did_against_a_matrix_product(monkeypatch):
    problem, rows = SizedVAE(*SIZE), []
    problem.decoder.register_forward_hook(lambda module, given, result: rows.append(given[0][..., 0].numel()))
    # Every run takes a second; the last is the engine's.
    monkeypatch.setattr(rate, "_seconds", lambda run: (rows.clear(), run(), 1.0)[-1])
    found = engine_rate(problem, "score-function", rounds=2)
    assert found.replicates * rate._BATCH == sum(rows) > 0
    assert found.fraction == pytest.approx(problem.decoder_flops * sum(rows) / (2 * rate._SIZE**3))


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "SIZES", {"tiny": SIZE, "small": (16, 3, 8, 1)})
    monkeypatch.setattr(command, "engine_rate", lambda *_: engine_rate(SizedVAE(*SIZE), "score-function", 1))
    monkeypatch.setitem(whole.CASES, "tiny", (lambda: SizedVAE(*SIZE), (2,), (("batch-mean", 1),)))
    monkeypatch.setattr(command, "whole_rates", lambda rounds: whole.whole_rates(rounds, ("tiny",)))
    together = many.ManyRate("reparameterization", 1, 32, 8e-4, 1e-4, (8.0, 7.0, 9.0), (1.9, 1.8, 2.0))
    monkeypatch.setattr(command, "many_rates", lambda rounds: [together])
    command.main(rounds=6, output=tmp_path)
    found = json.loads((tmp_path / "speed.json").read_text())
    assert len(found["steps"]) == 12
    assert all(s["ratio_low"] <= s["ratio"] <= s["ratio_high"] for s in found["steps"])
    assert "| tiny | `score-function` | 4 |" in (tmp_path / "speed.md").read_text()
    assert "| tiny | 2 | `batch-mean` | 1 | through eta |" in (tmp_path / "speed.md").read_text()
    assert found["many"][0]["ratio"] == [8.0, 7.0, 9.0]
    line = "| vae | `reparameterization` | 1 | 32 | 800 | 100 | 8.0 [7.0, 9.0] | 1.9 [1.8, 2.0] |"
    assert line in (tmp_path / "speed.md").read_text()
    told = capsys.readouterr().out
    assert "of a step by hand" in told
    assert "times as many replicates as a loop" in told


def test_what_is_drawn_at_once_is_timed_by_the_replicate(monkeypatch):
    drawn = []
    draw = WholeGradients._draw
    monkeypatch.setattr(WholeGradients, "_draw", lambda self, size: drawn.append(size) or draw(self, size))
    monkeypatch.setattr(whole, "_seconds", lambda run: (run(), 1.0)[-1])
    monkeypatch.setitem(whole.CASES, "tiny", (TwoLayerGaussian, (2,), (("sticking-the-landing", 1),)))
    (found,) = whole.whole_rates(6, ("tiny",))
    assert (found.way, found.loop) == ("in lanes", 1 / whole._LOOPED)
    assert set(drawn) == {round(1 / found.together)}
    assert found.ratio == pytest.approx((drawn[0] / whole._LOOPED,) * 3)


class InProcess:
    """Two processes that are one, and take no time to start."""

    def __init__(self, number, spawning, prepare, arguments):
        prepare(*arguments)

    def map(self, function, steps):
        return map(function, steps)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        many._PREPARED.clear()


def test_runs_at_once_are_timed_by_the_step_of_each(monkeypatch):
    taken, seen = [], []
    step = many.Stack.step
    monkeypatch.setattr(many.Stack, "step", lambda self, data: taken.append(len(data.x)) or step(self, data))
    monkeypatch.setattr(many, "_take", lambda begun, steps: seen.append(steps))
    monkeypatch.setattr(many, "_seconds", lambda run: (run(), 1.0)[-1])
    monkeypatch.setattr(many, "ProcessPoolExecutor", InProcess)
    monkeypatch.setattr(many, "CASES", (("reparameterization", 1),))
    (found,) = many.many_rates(6, (3,))
    rounds = 7  # the first warms up
    each = (len(taken) - many.STEPS) / rounds  # without those of the pilot
    assert set(taken) == {3}
    assert seen == [many._CALLS] * 3 * rounds
    assert (found.alone, found.stacked) == (1 / many._CALLS, pytest.approx(1 / (each * 3)))
    assert found.ratio[0] == pytest.approx(found.alone / found.stacked)
    assert found.processes[0] == pytest.approx(2)

"""What is timed sees another eta at every call, whatever an estimator remembers."""

from __future__ import annotations

import itertools

import pytest
import torch
from elbograd.benchmarks.gradients import prepare
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.throughput import cost
from elbograd.benchmarks.throughput.cost import seconds_per_gradient
from elbograd.benchmarks.throughput.fresh import FreshEta
from elbograd.benchmarks.throughput.workload import Workload
from elbograd.estimators import Estimate, Estimator, analytic_kl


class Caching(Estimator):
    """Reparameterization that keeps its draws and counts as work what it did not find by eta's values."""

    derivatives = 1

    def __init__(self):
        super().__init__()
        self.kept, self.work = {}, []

    def forward(self, q, target, num_samples):
        eta = torch.cat([q.mean.detach().flatten(), q.stddev.detach().flatten()])
        key = eta.double().numpy().tobytes()
        self.work.append(key not in self.kept)
        noise = self.kept.setdefault(key, torch.randn((num_samples, *q.mean.shape), dtype=q.mean.dtype))
        value = target.log_likelihood(q.mean + q.stddev * noise).mean(0) - analytic_kl(q, target)
        return Estimate(surrogate=value, value=value)


class Ticking:
    """A clock that moves on by 1 ms whenever it is read."""

    def __init__(self):
        self.ticks = itertools.count()

    def __call__(self):
        return next(self.ticks) * 1e-3


def placed(spec, dtype=torch.float32, batch_size=8):
    problem = load_problem(spec)
    problem.encoder.to(dtype)
    problem.decoder.to(dtype)
    x = next(problem.batches("train", batch_size, torch.Generator().manual_seed(0)))
    return problem, x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", ["vae[hidden=8]", "quadratic", "linear-gaussian", "small-vae"])
def test_eta_is_never_the_same_and_all_is_put_back(spec, dtype):
    problem, x = placed(spec, dtype)
    before = [p.detach().clone() for p in problem.encoder.parameters()]
    fresh = FreshEta(problem, x)
    seen = set()
    for _ in range(500):
        fresh.next()
        seen.add(problem.encoder(x).detach().double().numpy().tobytes())
    assert len(seen) == 500
    fresh.restore()
    assert all(map(torch.equal, before, problem.encoder.parameters()))
    assert all(p.grad is None for p in problem.encoder.parameters())


def test_what_is_kept_by_eta_saves_nothing_in_cost(monkeypatch):
    """Timed as before, all but the first call of the same eta were found."""
    problem, x = placed("vae[hidden=8]")
    before = [p.detach().clone() for p in problem.encoder.parameters()]
    estimator = Caching()
    prepare(problem, estimator, x, 2, warmup=0)
    estimator.work.clear()
    _, low, high, n = seconds_per_gradient(problem, estimator, x, 2, clock=Ticking())
    assert n > 100
    assert all(estimator.work)
    assert low == pytest.approx(1e-3) == high
    assert all(map(torch.equal, before, problem.encoder.parameters()))
    monkeypatch.setattr(FreshEta, "next", lambda self: None)
    estimator.work.clear()
    seconds_per_gradient(problem, estimator, x, 2, clock=Ticking())
    assert sum(estimator.work) == 1


def test_slow_calls_are_timed_often_enough():
    problem, x = placed("vae[hidden=8]")
    estimator = Caching()
    prepare(problem, estimator, x, 1, warmup=0)
    slow = Ticking()
    *_, n = seconds_per_gradient(problem, estimator, x, 1, clock=lambda: 1e3 * slow())
    assert n == cost.MIN_BLOCKS


def test_what_is_kept_by_eta_saves_nothing_in_throughput():
    workload = Workload("vae[hidden=8]", Caching(), batch_size=8)
    kept = workload._step.estimator
    kept.work.clear()
    for _ in range(20):
        workload.step()
        workload.gradients()
    assert len(kept.work) == 40
    assert all(kept.work)


def test_an_encoder_that_forgets_its_last_parameters_is_moved_elsewhere():
    problem, x = placed("vae[hidden=8]")
    problem.encoder.register_parameter("unused", torch.nn.Parameter(torch.zeros(3)))
    fresh = FreshEta(problem, x)
    before = problem.encoder(x)
    fresh.next()
    assert not torch.equal(problem.encoder(x), before)

"""What is noisy is timed longer, within bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from elbograd.benchmarks.throughput.case import ThroughputCase
from elbograd.benchmarks.throughput.clock import MIN_BLOCKS, time_in_turn
from elbograd.benchmarks.throughput.noise import MOST, factor, half_width, is_noisy
from elbograd.benchmarks.throughput.plugin import ThroughputPlugin, Turn


class Clock:
    """Time that passes by what runs on it, times log-normal noise."""

    def __init__(self, sigma, seed=0):
        self.now, self.sigma, self.rng = 0.0, sigma, np.random.default_rng(seed)

    def __call__(self):
        return self.now

    def work(self):
        self.now += 5e-3 * math.exp(self.sigma * self.rng.standard_normal())


def spent(sigma):
    clock = Clock(sigma)
    time_in_turn([clock.work], 0.2, clock=clock)
    return clock.now


def test_quiet_ones_get_what_was_asked_for_and_noisy_ones_up_to_three_times():
    assert spent(0.01) < 0.25
    assert 0.55 < spent(2.0) < 1.5
    clock = Clock(2.0)
    (blocks,) = time_in_turn([clock.work], 0.0, clock=clock)
    assert len(blocks) == MIN_BLOCKS


def test_the_factor_is_bounded():
    rng = np.random.default_rng(0)
    assert factor([]) == 1.0
    assert factor([1.0]) == MOST
    assert factor(list(rng.lognormal(0, 0.01, 50))) == 1.0
    assert not is_noisy(list(rng.lognormal(0, 0.01, 50)))
    wide = list(rng.lognormal(0, 0.5, 50))
    assert is_noisy(wide)
    assert factor(wide) == pytest.approx(min(MOST, (half_width(wide) / 0.1) ** 2))


def test_the_last_sweep_makes_up_for_noisy_ones():
    case = ThroughputCase("vae", "reparameterization")
    plugin = ThroughputPlugin([case], 1.0, 3)
    turns = [Turn(plugin, case, sweep) for sweep in range(3)]
    rng = np.random.default_rng(0)
    for turn in turns[:2]:
        assert turn.with_more("gradient", 20) == 20
        turn.keep("gradient", list(rng.lognormal(0, 1.0, 20)))
        turn.keep("training step", list(rng.lognormal(0, 0.01, 20)))
    assert turns[2].with_more("training step", 20) == 20
    assert turns[2].with_more("gradient", 20) == 3 * 60 - 40

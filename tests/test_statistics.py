"""Intervals and bounds: against independent inversions, and by their coverage."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from elbograd.benchmarks.statistics import (
    Moments,
    bias_bound,
    hall_interval,
    median_interval,
    product_interval,
    signal_to_noise,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


@given(st.floats(-0.3, 0.3), st.floats(0.1, 100), st.floats(0.001, 10))
def test_hall_inverts_its_transformation(g, mean, stderr):
    z = stats.norm.ppf(0.975)
    ours = hall_interval(mean, stderr, g, 0.95)
    theirs = oracles.hall_interval_by_inversion(mean, stderr, g, z)
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4 * stderr)


def test_hall_without_skewness_is_the_normal_interval():
    low, high = hall_interval(10.0, 1.0, 0.0, 0.95)
    assert (low, high) == pytest.approx((10 - 1.959964, 10 + 1.959964), abs=1e-5)


@pytest.mark.parametrize("draw", ["exponential", "heavy"])
def test_hall_covers(draw):
    # 2,000 repetitions: the binomial standard deviation of a coverage of 95% is 0.49%.
    generator = np.random.default_rng(0)
    n, repetitions = 4000, 2000
    if draw == "exponential":
        u, truth = generator.exponential(1.0, (repetitions, n)), 1.0
    else:
        # contributions of a score function at a quadratic cost: (f·s)² with f = (z − 1)²
        z = generator.standard_normal((repetitions, n))
        # E (z − 1)⁴ z² = E z⁶ + 6 E z⁴ + E z² = 15 + 18 + 1
        u, truth = ((z - 1) ** 2 * z) ** 2, 34.0
    covered = 0
    for row in u:
        stderr = row.std(ddof=1) / math.sqrt(n)
        low, high = hall_interval(row.mean(), stderr, stats.skew(row) / math.sqrt(n), 0.95)
        covered += low <= truth <= high
    assert 0.925 <= covered / repetitions <= 0.975


def test_signal_to_noise_has_no_floor():
    # Pure noise: E‖mean‖² = variance/n. The plug-in ratio would be 1/√n = 0.01.
    generator = np.random.default_rng(1)
    ratios = []
    for _ in range(400):
        mean = generator.standard_normal(50) / 100
        ratios.append(signal_to_noise(float(mean @ mean), 50.0, 10_000))
    assert np.median(ratios) < 0.003
    assert signal_to_noise(4.0, 1.0, 10**9) == pytest.approx(2.0)


def test_bias_bound_covers_at_its_confidence():
    # b̂ ~ N(b, Σ) with distinct eigenvalues; the bound must exceed ‖b‖ in at least 99% of repetitions.
    # 4,000 repetitions: 3 binomial standard deviations are 0.47%.
    generator = np.random.default_rng(2)
    scales = np.array([1.0, 0.5, 0.2, 0.1])
    for length in (0.0, 1.0, 5.0):
        b = length * np.array([0.6, 0.0, 0.8, 0.0])
        estimates = b + scales * generator.standard_normal((4000, 4))
        bounds = [bias_bound(float(e @ e), float((scales**2).sum()), 1.0) for e in estimates]
        assert np.mean(np.array(bounds) >= length) >= 0.985
        assert np.median(bounds) < length + 5


def test_bias_bound_without_noise_is_the_bias():
    assert bias_bound(4.0, 0.0, 0.0) == 2.0


def test_median_interval_covers():
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(2000):
        _, low, high = median_interval(list(generator.exponential(1.0, 30)))
        covered += low <= math.log(2) <= high
    assert covered / 2000 >= 0.94


def test_product_interval():
    value, low, high = product_interval((2.0, 1.0, 4.0), (3.0, 3.0, 3.0))
    assert (value, low, high) == pytest.approx((6.0, 3.0, 12.0))


def test_needed_replicates():
    assert Moments(1.0, 0.1, 0.1, 1000).needed is None
    assert Moments(1.0, 0.1, 0.4, 1000).needed == 4000

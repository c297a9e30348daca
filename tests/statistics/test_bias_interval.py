"""The interval for a bias covers; fixed seeds, coverage within 4 binomial standard errors below 95% (3e-5 each)."""

from __future__ import annotations

import numpy as np
import pytest
from elbograd.benchmarks.statistics.bias import SquaredNorm, bias_interval
from elbograd.benchmarks.statistics.intervals import sum_interval
from elbograd.benchmarks.statistics.moments import mean_moments


@pytest.mark.parametrize("norm", [0.0, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("spectrum", [np.ones(1), np.ones(50), 0.5 ** np.arange(8)], ids=["1", "50", "8"])
def test_it_covers_near_zero_too_and_where_few_directions_matter(spectrum, norm):
    rng, number = np.random.default_rng(0), 600
    b = np.zeros(len(spectrum))
    b[0] = norm
    seen = ((rng.standard_normal((number, len(b))) * np.sqrt(spectrum) + b) ** 2).sum(1)
    ends = np.array([bias_interval(s, spectrum.sum(), spectrum.max()) for s in seen])
    covered = ((ends[:, 0] <= norm) & (norm <= ends[:, 1])).mean()
    assert covered > 0.95 - 4 * np.sqrt(0.95 * 0.05 / number)
    assert (ends[:, 0] == 0).any() if norm == 0 else (ends[:, 1] > 0).any()


@pytest.mark.parametrize("bias", [0.0, 0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("spectrum", [np.ones(8), 0.5 ** np.arange(8)], ids=["ones", "powers"])
def test_the_interval_of_a_mean_squared_error_covers(spectrum, bias):
    """Variance and squared bias from the same 200 replicates of a Gaussian gradient in eight dimensions."""
    rng, number, n = np.random.default_rng(0), 300, 200
    b = bias * np.eye(len(spectrum))[0]
    truth = spectrum.sum() + bias**2
    covered = narrow = 0
    for _ in range(number):
        h = b + rng.standard_normal((n, len(b))) * np.sqrt(spectrum)
        mean, covariance = h.mean(0), np.cov(h.T) / n
        variance = mean_moments(((h - mean) ** 2).sum(1) * n / (n - 1))
        largest = float(np.linalg.eigvalsh(covariance)[-1])
        squared = SquaredNorm(float(mean @ mean), float(np.trace(covariance)), largest)
        parts = (variance.mean, *variance.interval()), (squared.value, *squared.interval())
        _, low, high = sum_interval(*parts)
        covered += low <= truth <= high
        narrow += low <= truth - bias**2 <= high  # the squared bias left out
    assert covered / number > 0.95 - 4 * np.sqrt(0.95 * 0.05 / number)
    assert bias < 1 or narrow / number < 0.2


def test_without_noise_it_is_a_point():
    assert bias_interval(4.0, 0.0, 0.0) == (2.0, 2.0)


def test_it_is_continuous_where_a_gaussian_takes_over():
    below, above = (bias_interval(s, 1.0, 1.0) for s in (9_990.0, 10_010.0))
    assert above == pytest.approx(below, rel=5e-3)

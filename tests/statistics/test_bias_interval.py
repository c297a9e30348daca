"""The interval for a bias covers; fixed seeds, coverage within 4 binomial standard errors below 95% (3e-5 each)."""

from __future__ import annotations

import numpy as np
import pytest
from elbograd.benchmarks.statistics.bias import bias_interval


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


def test_without_noise_it_is_a_point():
    assert bias_interval(4.0, 0.0, 0.0) == (2.0, 2.0)


def test_it_is_continuous_where_a_gaussian_takes_over():
    below, above = (bias_interval(s, 1.0, 1.0) for s in (9_990.0, 10_010.0))
    assert above == pytest.approx(below, rel=5e-3)

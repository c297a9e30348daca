"""The expected best of k trials, against all subsets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from elbograd.benchmarks.statistics.best_of import expected_best, expected_best_interval

SCORES = [3.0, -1.0, 2.5, 2.5, 0.0, 7.0, -4.0]


@pytest.mark.parametrize("scores", [SCORES, [1.0], [2.0, 2.0, 2.0], [5.0, -5.0]])
def test_it_is_the_mean_over_all_subsets(scores):
    by_hand = [
        np.mean([max(some) for some in itertools.combinations(scores, k)]) for k in range(1, len(scores) + 1)
    ]
    assert expected_best(scores) == pytest.approx(by_hand)


def test_twenty_trials_are_no_trouble():
    curve = expected_best(list(range(20)))
    assert curve[0] == pytest.approx(9.5)
    assert curve[-1] == 19
    assert (np.diff(curve) > 0).all()


def test_it_is_unbiased_where_drawing_with_replacement_is_not():
    # Of uniform scores the best of k is k/(k + 1) in expectation. 4,000 repetitions: standard errors below
    # 0.003, so that a right mean is off by five of them with probability 1e-6.
    drawn = np.random.default_rng(0).uniform(size=(4000, 8))
    means = np.mean([expected_best(scores) for scores in drawn], axis=0)
    k = np.arange(1, 9)
    assert means == pytest.approx(k / (k + 1), abs=0.015)
    with_replacement = np.mean([_with_replacement(scores) for scores in drawn], axis=0)
    assert abs(with_replacement[-1] - 8 / 9) > 0.03


def _with_replacement(scores):
    """Dodge et al. (2019), eq. 7: Σ_i s_(i) [(i/n)^k − ((i − 1)/n)^k]."""
    ordered, n = np.sort(scores), len(scores)
    share = np.arange(n + 1) / n
    return np.array([ordered @ np.diff(share**k) for k in range(1, n + 1)])


def test_the_interval_covers_the_mean_of_one_trial():
    # The mean of 20 scores by the percentile bootstrap: about 93% of the time; 400 repetitions.
    drawn = np.random.default_rng(1).normal(size=(400, 20))
    ends = [expected_best_interval(scores, seed=k) for k, scores in enumerate(drawn)]
    covered = np.mean([low[0] <= 0 <= high[0] for low, high in ends])
    assert 0.88 < covered < 0.98

"""Times to targets with censoring: Kaplan–Meier, medians, restricted means, tests."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from elbograd.benchmarks.statistics.time_to_target import TimesToTarget, first_time, holm, paired_p_value

NEVER = math.inf


def product_limit(times, budget, at):
    """S(t) of the textbook: ∏ (1 − d_i/n_i) over event times up to t."""
    share = 1.0
    for event in sorted({t for t in times if t <= budget}):
        if event <= at:
            at_risk = sum(min(t, budget) >= event for t in times)
            share *= 1 - sum(t == event for t in times) / at_risk
    return share


CASES = [
    (3.0, 5.0, 5.0, NEVER, 9.0, NEVER),
    (1.0,),
    (NEVER,),
    (NEVER, NEVER, NEVER),
    (2.0, 2.0, 2.0),
    (0.0, 4.0, NEVER),
    (10.0, 9.0, NEVER, 1.0),
]


@pytest.mark.parametrize("times", CASES)
def test_the_curve_is_the_product_limit(times):
    found = TimesToTarget(times, 10.0)
    corners, shares = found.curve()
    for at in (0.0, 0.5, 2.0, 3.0, 4.9, 5.0, 9.5, 10.0):
        place = np.flatnonzero(corners <= at)[-1]
        assert shares[place] == pytest.approx(product_limit(times, 10.0, at)), at


@pytest.mark.parametrize("times", CASES)
def test_the_restricted_mean_is_that_of_the_times_cut_at_the_budget(times):
    assert TimesToTarget(times, 10.0).restricted_mean == pytest.approx(np.minimum(times, 10.0).mean())


@pytest.mark.parametrize(
    ("times", "median"),
    [
        ((3.0, 5.0, 5.0, NEVER, 9.0, NEVER), 5.0),
        ((3.0, NEVER), 3.0),  # two of five that reach are not "the mean of two"
        ((3.0, 4.0, NEVER, NEVER, NEVER), NEVER),
        ((7.0,), 7.0),
        ((NEVER,), NEVER),
    ],
)
def test_the_median_is_when_half_are_there(times, median):
    assert TimesToTarget(times, 10.0).median == median


def test_the_interval_of_the_median_covers_it():
    # 10 exponential times, censored at twice their mean: coverage 95% by Brookmeyer & Crowley, of 500 sets;
    # three standard errors of a share of 0.95 are 0.03, and small samples are off by as much again.
    drawn = np.random.default_rng(0).exponential(size=(500, 10))
    truth, covered = math.log(2), 0
    for times in drawn:
        low, high = TimesToTarget(tuple(np.where(times <= 2, times, NEVER)), 2.0).median_interval()
        covered += low <= truth <= high
    assert 0.89 < covered / 500 <= 1.0


def test_an_interval_of_one_run_or_of_none_that_reach():
    assert all(math.isnan(end) for end in TimesToTarget((3.0,), 10.0).median_interval())
    assert TimesToTarget((NEVER, NEVER), 10.0).median_interval() == (NEVER, NEVER)


@pytest.mark.filterwarnings("error")
def test_no_warning_where_all_runs_are_there():
    assert TimesToTarget((1.0, 2.0, 3.0), 10.0).median_interval()[0] == 1.0


def test_the_p_value_is_that_of_all_exchanges():
    one, other = np.array([3.0, 5.0, 4.0, 9.0, 1.0]), np.array([4.0, 5.5, 3.0, 12.0, 1.5])
    difference = one - other
    signs = np.array(list(itertools.product((1, -1), repeat=5)))
    means = (signs * difference).mean(axis=1)
    by_hand = (np.abs(means) >= abs(difference.mean()) - 1e-12).mean()
    assert paired_p_value(one, other) == pytest.approx(by_hand)


def test_ten_pairs_that_all_agree_give_the_least_there_is():
    assert paired_p_value(np.arange(10.0), np.arange(10.0) + 1) == pytest.approx(2**-9)
    assert math.isnan(paired_p_value([1.0], [2.0]))


def test_the_p_value_keeps_its_level():
    # Under exchangeable pairs P(p ≤ 0.05) ≤ 0.05; of 1,000 sets, four standard errors are 0.028.
    drawn = np.random.default_rng(2).exponential(size=(1000, 2, 8))
    found = np.array([paired_p_value(one, other) for one, other in drawn])
    assert (found <= 0.05).mean() <= 0.05 + 0.028


def test_holm_is_the_textbook_procedure():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    found = holm([math.nan, 0.02, 0.01])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.02, 0.02])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("values", "target", "time"),
    [
        ([-5.0, -3.0, -1.0], -2.0, 15.0),
        ([-5.0, -3.0, -1.0], -5.0, 0.0),
        ([-5.0, -3.0, -1.0], -1.0, 20.0),
        ([-5.0, -3.0, -1.0], 0.0, NEVER),
        ([-5.0, math.nan, -1.0], -2.0, 20.0),  # between what is not known nothing is interpolated
        ([-5.0, -1.0, -9.0], -2.0, 7.5),  # the first time counts
    ],
)
def test_when_a_curve_reaches_a_target(values, target, time):
    assert first_time([0, 10, 20], values, target) == time

"""Ratios of variances from common random numbers, against closed forms."""

from __future__ import annotations

import oracles
import pytest
import torch
from elbograd.benchmarks import measure_ratio, measure_variance
from elbograd.benchmarks.statistics.ratios import independent_ratio
from elbograd.estimators import Estimate, Estimator, UsageError, analytic_kl, create
from scipy import stats
from variances import BatchMeanBaseline

D, S = 0.7, 1.3
QUADRATIC = f"quadratic[loc={D},scale={S}]"


def truth(name):
    return sum(oracles.QUADRATIC[name](D, S))


def baseline():
    return create("constant-baseline", value=-(D**2 + S**2))


@pytest.mark.parametrize("other", ["reparameterization", "constant-baseline"])
def test_the_ratio_of_known_variances(other):
    denominator = baseline() if other == "constant-baseline" else other
    ratio = measure_ratio(QUADRATIC, "score-function", denominator, replicates=200_000)
    assert ratio.ci_low <= truth("score-function") / truth(other) <= ratio.ci_high
    assert ratio.ci_high - ratio.ci_low < 0.6 * ratio.value


def test_common_random_numbers_narrow_the_interval():
    of = {}
    for name, estimator in (("a", create("score-function")), ("b", create("constant-baseline", value=-0.1))):
        of[name] = measure_variance(QUADRATIC, estimator, replicates=20_000).moments[""]
    apart = independent_ratio(of["a"], of["b"])
    together = measure_ratio(
        QUADRATIC, "score-function", create("constant-baseline", value=-0.1), replicates=20_000
    )
    assert together.value == pytest.approx(apart.value, rel=0.05)
    assert together.ci_high - together.ci_low < 0.2 * (apart.ci_high - apart.ci_low)


@pytest.mark.parametrize("replicates", [200, 2000])
def test_the_interval_covers_the_truth_as_often_as_it_says(replicates):
    # 400 repetitions, 95%: outside 91.5–98.5% with probability below 2e-3. A 90% interval would fail.
    exact = truth("score-function") / truth("constant-baseline")
    found = [
        measure_ratio(
            "quadratic[loc=0.7,scale=1.3]", "score-function", baseline(), replicates=replicates, seed=s
        )
        for s in range(400)
    ]
    covered = sum(r.ci_low <= exact <= r.ci_high for r in found)
    low, high = stats.binom.ppf([1e-3, 1 - 1e-3], 400, 0.95)
    assert low <= covered <= high or sum(r.needed is not None for r in found) > 200


def test_a_ratio_to_itself_is_one():
    ratio = measure_ratio("vae[latent_dim=2,hidden=8]", "score-function", "score-function", replicates=500)
    assert (ratio.value, ratio.ci_low, ratio.ci_high) == (1.0, 1.0, 1.0)


class Rounded(Estimator):
    """Leave-one-out as another file might write it: the same but for rounding."""

    min_samples, requires_iid_draws = 2, True

    def forward(self, q, target, num_samples):
        z = q.sample((num_samples,))
        f = target.log_likelihood(z)
        cost = f.detach()
        baseline = (cost.sum(0) - cost) / (num_samples - 1)
        kl = analytic_kl(q, target)
        return Estimate(((cost - baseline) * q.log_prob(z)).mean(0) - kl, f.mean(0) - kl)


def test_estimators_that_differ_by_rounding_need_no_more_replicates():
    ratio = measure_ratio("vae", Rounded(), "leave-one-out", num_samples=4, replicates=300)
    assert ratio.value == pytest.approx(1, abs=1e-6)
    assert ratio.ci_high - ratio.ci_low < 1e-6
    assert ratio.needed is None


def test_several_data_and_samples_of_a_vae_agree_with_two_measurements():
    spec, settings = "vae[latent_dim=2,hidden=8]", {"num_samples": 4, "batch_size": 6}
    ratio = measure_ratio(spec, "score-function", "leave-one-out", replicates=20_000, **settings)
    a, b = (
        measure_variance(spec, e, replicates=20_000, seed=0, **settings)
        for e in ("score-function", "leave-one-out")
    )
    assert ratio.value == pytest.approx(a.total / b.total, rel=0.05)
    apart = independent_ratio(a.moments[""], b.moments[""])
    assert ratio.ci_high - ratio.ci_low < 1.02 * (apart.ci_high - apart.ci_low)


def test_estimators_that_couple_the_batch_and_exact_ones_are_measured_apart():
    coupled = measure_ratio(
        "vae[latent_dim=2,hidden=8]", BatchMeanBaseline(), "score-function", replicates=100, batch_size=4
    )
    assert 0 < coupled.value < 1
    zero = measure_ratio("linear-gaussian", "exact", "score-function", replicates=100)
    assert zero.value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("route", ["factorized", "full"])
def test_what_draws_nothing_is_not_said_to_need_more_replicates(route):
    settings = {"replicates": 400, "batch_size": 2, "route": route}
    for pair in (("exact", "reparameterization"), ("reparameterization", "exact"), ("exact", "exact")):
        assert measure_ratio("linear-gaussian", *pair, **settings).needed is None
    few = measure_ratio("linear-gaussian", "exact", "score-function", **(settings | {"replicates": 10}))
    assert few.needed == 20


def test_bad_arguments_are_one_line():
    with pytest.raises(UsageError, match="unknown estimator"):
        measure_ratio("vae", "score-function", "nonsense")
    for size in (0, -1):
        with pytest.raises(UsageError, match="batch"):
            measure_ratio("linear-gaussian", "score-function", "reparameterization", batch_size=size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicates": 0}, "replicates must be an integer of at least 2, not 0"),
        ({"replicates": 2.5}, "replicates must be an integer of at least 2, not 2.5"),
        ({"replicates": 1}, "replicates must be an integer of at least 2, not 1"),
        ({"x": torch.zeros(0, 10)}, "x must be a tensor (B, ...) of at least one datum"),
        ({"x": [1]}, "x must be a tensor (B, ...) of at least one datum"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, not 0"),
        ({"warmup": -1}, "warmup must be an integer of at least 0, not -1"),
        ({"seed": 1.5}, "seed must be an integer from 0 to"),
        ({"batch_size": "a"}, "batch_size must be an integer of at least 1, not 'a'"),
        ({"route": "fast"}, "route='fast' is not one of factorized, full"),
    ],
)
def test_arguments_are_checked_as_for_one_variance(arguments, message):
    with pytest.raises(UsageError) as error:
        measure_ratio("linear-gaussian", "reparameterization", "score-function", **arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)

"""The conformance suite catches every slip planted in wrong_estimators.py, by the property it breaks."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from unittest import SkipTest

import pytest
from elbograd.estimators import create
from elbograd.estimators.testing import check_estimator, estimator_checks
from elbograd.estimators.testing.check import PROPERTIES

WRONG = Path(__file__).parents[1] / "helpers" / "wrong_estimators.py"

#: The class, and a check that must fail on it.
PLANTED = [
    ("SquaredScale", "unbiased[gaussian]"),
    ("SquaredScaleInScore", "unbiased[gaussian]"),
    ("NoKl", "unbiased[bernoulli]"),
    ("DoubledKl", "unbiased[one-hot]"),
    ("NegativeKl", "unbiased[gaussian]"),
    ("StandardPrior", "unbiased[gaussian]"),
    ("InventedPrior", "unbiased-without-prior[gaussian]"),
    ("NeedsPrior", "no-prior[bernoulli]"),
    ("SumOverSamples", "unbiased[gaussian]"),
    ("LeaveNothingOut", "unbiased[bernoulli]"),
    ("LeaveOneOutTwiceNormalized", "unbiased[gaussian]"),
    ("BaselineOfOwnSample", "unbiased[gaussian]"),
    ("OptimalBaselineOfSameSamples", "unbiased[gaussian]"),
    ("ChainRuleDropped", "unbiased[gaussian]"),
    ("ClipsInTraining", "unbiased-in-training[bernoulli]"),
    ("ValueWithoutKl", "value[gaussian]"),
    ("ValueWithoutKl", "theta[bernoulli]"),
    ("DetachedValue", "theta[gaussian]"),
    ("UndetachedCost", "surrogate-reach[gaussian]"),
    ("SurrogateTrainsBaseline", "surrogate-reach[bernoulli]"),
    ("DetachedPosterior", "gradient[bernoulli]"),
    ("Pathwise", "value-reach[gaussian]"),
    ("AuxLossReachesTheta", "aux-loss[gaussian]"),
    ("AuxLossReachesPhi", "aux-loss[bernoulli]"),
    ("AuxLossInEval", "aux-loss[one-hot]"),
    ("AttachedInfo", "info[gaussian]"),
    ("BatchMeanBaseline", "uncoupled[gaussian]"),
    ("AverageOfCurrentBatch", "uncoupled[bernoulli]"),
    ("CouplesReplicates", "uncoupled[gaussian]"),
    ("CouplesReplicates", "independent[gaussian]"),
    ("NoiseSharedOverData", "independent[gaussian]"),
    ("NoiseSharedOverReplicates", "independent[gaussian]"),
    ("StratifiedOverBatch", "independent[gaussian]"),
    ("SamplesDividedOverReplicates", "replicates[bernoulli]"),
    ("OneDrawForAllSamples", "samples[bernoulli]"),
    ("FalseAntitheticPairs", "antithetic[gaussian]"),
    ("ReseedsGlobally", "fresh-draws[bernoulli]"),
    ("ReseedsItsGenerator", "fresh-draws[gaussian]"),
    ("OwnGenerator", "pure-forward[gaussian]"),
    ("NumpyNoise", "reproducible[gaussian]"),
    ("MovedInForward", "pure-forward[gaussian]"),
    ("RemembersLast", "pure-forward[bernoulli]"),
    ("ForgetsInStateDict", "state-dict[gaussian]"),
    ("InitResets", "init-once[gaussian]"),
    ("Uncopyable", "deepcopy[gaussian]"),
    ("ScalarSurrogate", "shapes[gaussian]"),
    ("NotAnEstimate", "shapes[bernoulli]"),
    ("SinglePrecision", "dtype[gaussian]"),
    ("DefaultDtypeNoise", "default-dtype[gaussian]"),
    ("StandardizedCost", "finite[gaussian]"),
    ("RelaxesSilently", "support[bernoulli]"),
    ("DerivativeDenied", "derivatives[gaussian]"),
    ("ForgetsMinSamples", "refusals"),
    ("SupportsRaises", "refusals"),
    ("MinSamplesInWords", "claims"),
    ("SupportsNothing", "supports"),
    ("ConstructorRaises", "create"),
]


@pytest.mark.parametrize(("name", "expected"), PLANTED)
def test_planted_bug_is_caught_by_the_property_it_breaks(name, expected):
    checks = {check.name: check for check in estimator_checks(f"{WRONG}:{name}")}
    with pytest.raises(AssertionError) as failure:
        checks[expected]()
    assert "\n" not in str(failure.value)


def test_every_property_has_a_planted_bug():
    caught = {expected.partition("[")[0] for _, expected in PLANTED}
    # An estimate on the wrong device takes a second device.
    assert caught == set(PROPERTIES) - {"device"} | {"create", "claims", "refusals", "supports"}


@pytest.mark.parametrize("name", ["Correct", "Gaussian", "PathwiseOnce", "Learned", "AntitheticPairs"])
def test_the_estimators_that_the_bugs_are_planted_in_pass(name):
    spec = f"{WRONG}:{name}"
    assert check_estimator(spec) == [check.name for check in estimator_checks(spec)]


def test_a_declared_coupling_along_the_batch_is_allowed():
    def factory():
        estimator = create(f"{WRONG}:BatchMeanBaseline")
        estimator.couples_batch = True
        return estimator

    assert "independent[gaussian]" in check_estimator(factory)


def test_the_error_names_every_failed_check_and_its_reason():
    with pytest.raises(AssertionError) as failure:
        check_estimator(f"{WRONG}:AuxLossInEval")
    assert str(failure.value).splitlines() == [
        "3 of 88 checks failed:",
        "  aux-loss[gaussian]: aux_loss is not None in eval mode",
        "  aux-loss[bernoulli]: aux_loss is not None in eval mode",
        "  aux-loss[one-hot]: aux_loss is not None in eval mode",
    ]


def test_an_estimator_that_raises_fails_each_check_in_one_line():
    with pytest.raises(AssertionError) as failure:
        check_estimator(f"{WRONG}:Raises")
    lines = str(failure.value).splitlines()
    assert lines[0] == "84 of 88 checks failed:"
    assert "  unbiased[gaussian]: raises RuntimeError: nothing works" in lines
    assert "second line" not in str(failure.value)


def test_a_bug_under_one_posterior_is_reported_for_that_posterior():
    with pytest.raises(
        AssertionError, match=r"support\[bernoulli\]: log_likelihood is evaluated off q's support"
    ):
        check_estimator(f"{WRONG}:RelaxesSilently")


def test_a_check_without_a_verdict_is_not_counted_as_passed():
    spec = f"{WRONG}:HeavyTailed"
    checks = {check.name: check for check in estimator_checks(spec)}
    with pytest.raises(SkipTest, match="skewed"):
        checks["unbiased[gaussian]"]()
    ran = check_estimator(spec)
    assert "unbiased[gaussian]" not in ran
    assert "value[gaussian]" in ran


def test_a_missing_support_is_not_counted_as_passed():
    ran = check_estimator(f"{WRONG}:PriorOnly")
    assert "unbiased[gaussian]" in ran
    assert "no-prior[gaussian]" not in ran
    assert "unbiased-without-prior[gaussian]" not in ran


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("no-such-estimator", "unknown estimator 'no-such-estimator'"),
        (lambda: 3, "the factory returned 3, not an Estimator"),
        (create("score-function"), "not an instance"),
        (partial(next, itertools.repeat(create("score-function"))), "returned the same estimator twice"),
    ],
)
def test_a_factory_that_makes_no_fresh_estimator_fails(factory, reason):
    with pytest.raises(AssertionError, match=f"1 of 1 checks failed:\n  create: .*{reason}"):
        check_estimator(factory)

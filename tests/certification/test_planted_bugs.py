"""The conformance suite catches every slip planted in the wrong estimators, by the property it breaks."""

from __future__ import annotations

import itertools
import re
from functools import partial
from pathlib import Path
from unittest import SkipTest

import pytest
import torch
from discrete_paths import EveryState, bernoulli
from elbograd.estimators import create
from elbograd.estimators.testing import check as check_module
from elbograd.estimators.testing import check_estimator, estimator_checks
from elbograd.estimators.testing.check import PROPERTIES

HELPERS = Path(__file__).parents[1] / "helpers"
WRONG = HELPERS / "wrong_estimators.py"
WRONG_DISCRETE = HELPERS / "wrong_discrete_estimators.py"

#: The class, and a check that must fail on it.
PLANTED = [
    ("SquaredScale", "unbiased[gaussian]"),
    ("SquaredScaleInScore", "unbiased[gaussian]"),
    ("NoKl", "unbiased[bernoulli]"),
    ("DoubledKl", "unbiased[one-hot]"),
    ("NegativeKl", "unbiased[gaussian]"),
    ("WeightIgnored", "kl-weight[gaussian]"),
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
    ("ClipsInRealSteps", "unbiased-in-training[gaussian]"),
    ("ClipsInRealSteps", "frozen-theta[one-hot]"),
    ("ValueOffWhereFrozen", "frozen-theta[gaussian]"),
    ("ValueDetachedInTraining", "unbiased-in-training[bernoulli]"),
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
    ("SqueezesOneReplicate", "shape-of-batch[gaussian]"),
    ("ShiftedWithoutReplicates", "shape-of-batch[bernoulli]"),
    ("LastReplicateOfFive", "shape-of-batch[one-hot]"),
    ("RestOfTheChunksForgotten", "size-of-batch[gaussian]"),
    ("WrongForFourData", "size-of-batch[bernoulli]"),
    ("AntitheticCalledIid", "iid-draws[gaussian]"),
    ("SystematicBitsCalledIid", "iid-draws[bernoulli]"),
    ("FalseAntitheticPairs", "antithetic[gaussian]"),
    ("FalseAntitheticBits", "antithetic[bernoulli]"),
    ("ReseedsGlobally", "fresh-draws[bernoulli]"),
    ("ReseedsItsGenerator", "fresh-draws[gaussian]"),
    ("OwnGenerator", "pure-forward[gaussian]"),
    ("NumpyNoise", "reproducible[gaussian]"),
    ("MovedInForward", "pure-forward[gaussian]"),
    ("WearsOut", "pure-forward[gaussian]"),
    ("WearsOutByModule", "pure-forward[bernoulli]"),
    ("WearsOutByClosure", "pure-forward[one-hot]"),
    ("WearsOutByDefault", "pure-forward[gaussian]"),
    ("WearsOutByObject", "pure-forward[gaussian]"),
    ("WrongWhenAged", "unbiased-when-aged[gaussian]"),
    ("WrongWhenAged", "unbiased-when-aged[bernoulli]"),
    ("RemembersLast", "pure-forward[bernoulli]"),
    ("ForgetsInStateDict", "state-dict[gaussian]"),
    ("InitResets", "init-once[gaussian]"),
    ("Uncopyable", "deepcopy[gaussian]"),
    ("ScalarSurrogate", "shapes[gaussian]"),
    ("NotAnEstimate", "shapes[bernoulli]"),
    ("SinglePrecision", "dtype[gaussian]"),
    ("DefaultDtypeNoise", "default-dtype[gaussian]"),
    ("Autocast", "float32[gaussian]"),
    ("Autocast", "float32[bernoulli]"),
    ("LogOfExponential", "float32[one-hot]"),
    ("LogOfZero", "value[gaussian]"),
    ("StandardizedCost", "finite[gaussian]"),
    ("RelaxesSilently", "support[bernoulli]"),
    ("RelaxesSilently", "off-support[bernoulli]"),
    ("DerivativeDenied", "derivatives[gaussian]"),
    ("ForgetsMinSamples", "refusals"),
    ("SupportsRaises", "refusals"),
    ("MinSamplesInWords", "claims"),
    ("SupportsNothing", "supports"),
    ("ConstructorRaises", "create"),
]

#: The same for discrete latents.
PLANTED_DISCRETE = [
    ("OddSampleUncounted", "every-size[bernoulli]"),
    ("GroupsOfThree", "every-size[one-hot]"),
    ("NotDividedBySamplesLessOne", "every-size[four-states]"),
    ("ProductOfMeans", "unbiased[bernoulli]"),
    ("DividedByDeviation", "unbiased[one-hot]"),
    ("ClippedRatio", "unbiased[bernoulli]"),
    ("StraightThrough", "unbiased-off-support[bernoulli]"),
    ("TaylorNotAddedBack", "unbiased[bernoulli]"),
    ("RebarConditionalFixed", "unbiased[bernoulli]"),
    ("LogSumOverData", "uncoupled[bernoulli]"),
    ("LogarithmOfProbabilities", "sure[bernoulli]"),
    ("SmoothedProbabilities", "impossible[bernoulli]"),
    ("SmoothedProbabilities", "impossible[four-states]"),
]


pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def named(factory):
    return {check.name: check for check in estimator_checks(factory)}


@pytest.mark.parametrize(("name", "expected"), PLANTED)
def test_planted_bug_is_caught_by_the_property_it_breaks(name, expected):
    _caught(f"{WRONG}:{name}", expected)


@pytest.mark.parametrize(("name", "expected"), PLANTED_DISCRETE)
def test_planted_bug_for_discrete_latents_is_caught_by_the_property_it_breaks(name, expected):
    _caught(f"{WRONG_DISCRETE}:{name}", expected)


def _caught(spec, expected):
    with pytest.raises(AssertionError) as failure:
        named(spec)[expected]()
    assert "\n" not in str(failure.value)


def test_every_property_has_a_planted_bug():
    caught = {expected.partition("[")[0] for _, expected in PLANTED + PLANTED_DISCRETE}
    # An estimate on the wrong device takes a second device.
    assert caught == set(PROPERTIES) - {"device"} | {"create", "claims", "refusals", "supports"}


@pytest.mark.parametrize(
    "name",
    [
        "Correct",
        "Gaussian",
        "PathwiseOnce",
        "Learned",
        "AntitheticPairs",
        "AntitheticBits",
        "RemembersFirst",
    ],
)
def test_the_estimators_that_the_bugs_are_planted_in_pass(name):
    _passes(f"{WRONG}:{name}")


@pytest.mark.parametrize("name", ["Correct", "Pairs", "Taylor", "Rebar", "Concrete", "HeunsMethod"])
def test_the_estimators_for_discrete_latents_that_the_bugs_are_planted_in_pass(name):
    _passes(f"{WRONG_DISCRETE}:{name}")


@pytest.mark.parametrize(
    ("name", "right", "wrong"), [("OddSampleUncounted", (1, 2, 4), (3,)), ("GroupsOfThree", (1, 2, 3), (4,))]
)
def test_a_slip_at_one_number_of_samples_alone_shows(name, right, wrong):
    """The means at every S but the wrong one pass, so that only trying all of them shows it."""
    for check in estimator_checks(f"{WRONG_DISCRETE}:{name}"):
        if check.name in ("unbiased[bernoulli]", "unbiased-without-prior[bernoulli]"):
            check()
    with pytest.raises(AssertionError, match=f"gradient in η at S = {wrong[0]}"):
        named(f"{WRONG_DISCRETE}:{name}")["every-size[bernoulli]"]()


def test_probabilities_that_are_logits_are_seen_where_f_is_quadratic():
    """There the mean of Heun's method is the gradient of the ELBO: a softmax named and not called misses it."""
    every = EveryState(bernoulli, torch.tensor([-1.3, 0.4, 2.1], dtype=torch.float64))

    def quadratic(z):
        return z[..., 0] * z[..., 1] - 0.7 * z[..., 1] * z[..., 2] + (z - 0.3).square().sum(-1)

    exact = every.exact(quadratic)
    right, wrong = (every.mean(f"{WRONG_DISCRETE}:{n}", quadratic) for n in ("HeunsMethod", "MeanOfLogits"))
    torch.testing.assert_close(right, exact, rtol=1e-12, atol=1e-14)
    assert float((wrong - exact).norm()) > float(exact.norm())


def _passes(spec):
    assert check_estimator(spec) == [check.name for check in estimator_checks(spec)]


def test_a_declared_coupling_along_the_batch_is_allowed():
    def factory():
        estimator = create(f"{WRONG}:BatchMeanBaseline")
        estimator.couples_batch = True
        return estimator

    named(factory)["independent[gaussian]"]()


def test_the_error_names_every_failed_check_and_its_reason(monkeypatch):
    checks = named(f"{WRONG}:AuxLossInEval")
    chosen = [check for name, check in checks.items() if name.startswith(("shapes", "aux-loss"))]
    monkeypatch.setattr(check_module, "estimator_checks", lambda factory: chosen)
    with pytest.raises(AssertionError) as failure:
        check_estimator(f"{WRONG}:AuxLossInEval")
    assert str(failure.value).splitlines() == [
        "3 of 6 checks failed:",
        "  aux-loss[gaussian]: aux_loss is not None in eval mode",
        "  aux-loss[bernoulli]: aux_loss is not None in eval mode",
        "  aux-loss[one-hot]: aux_loss is not None in eval mode",
    ]


def test_an_estimator_that_raises_fails_each_check_in_one_line():
    with pytest.raises(AssertionError) as failure:
        check_estimator(f"{WRONG}:Raises")
    lines = str(failure.value).splitlines()
    assert lines[0] == "115 of 119 checks failed:"
    assert "  unbiased[gaussian]: raises RuntimeError: nothing works" in lines
    assert "second line" not in str(failure.value)


def test_what_is_not_finite_is_told_as_that_by_every_check_that_meets_it():
    told = {}
    for check in estimator_checks(f"{WRONG}:LogOfZero"):
        try:
            check()
        except (AssertionError, SkipTest) as failure:
            told[check.name.partition("[")[0]] = str(failure)
    assert {"value", "theta", "unbiased", "every-size", "unbiased-in-training"} <= set(told)
    pattern = (
        r"(value|value's gradient in θ) is -?(inf|nan) at datum \d+ in [\d,]+ of [\d,]+ estimates, S = \d"
    )
    assert [reason for reason in told.values() if not re.fullmatch(pattern, reason)] == []
    assert re.fullmatch(r"value is -inf at datum 0 in \d of 4,096 estimates, S = 2", told["unbiased"])


def test_a_check_without_a_verdict_is_not_counted_as_passed(monkeypatch):
    checks = named(f"{WRONG}:HeavyTailed")
    chosen = [checks["unbiased[gaussian]"], checks["value[gaussian]"]]
    with pytest.raises(SkipTest, match="skewed"):
        chosen[0]()
    monkeypatch.setattr(check_module, "estimator_checks", lambda factory: chosen)  # whose draws are kept
    assert check_estimator(f"{WRONG}:HeavyTailed") == ["value[gaussian]"]


def test_a_missing_support_is_not_counted_as_passed():
    checks = named(f"{WRONG}:PriorOnly")
    checks["unbiased[gaussian]"]()
    for name in ("no-prior[gaussian]", "unbiased-without-prior[gaussian]"):
        with pytest.raises(SkipTest, match="prior"):
            checks[name]()


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

"""What a verdict says: the bias and where it is worst, what was never tried, a badge, JSON; from rows too."""

from __future__ import annotations

import doctest
import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from certificates import BITS, QUADRATIC, certificate, check, declared, open_, right, rows_of, wrong
from elbograd.benchmarks.certification.oracle_problems import ORACLE_PROBLEMS
from elbograd.benchmarks.rows import (
    certificate_checks,
    certificate_kinds,
    certificate_text,
    certificate_untried,
)
from elbograd.benchmarks.rows.certificate import outcome
from elbograd.benchmarks.rows.certificate_badge import _COLORS, badge_of
from elbograd.benchmarks.rows.certificate_checks import BiasBound, Check
from elbograd.benchmarks.rows.certificate_kinds import KINDS, kinds_of, place_of
from elbograd.benchmarks.rows.certificate_text import at_most
from elbograd.benchmarks.rows.certificate_untried import in_words, refused_sizes
from elbograd.benchmarks.rows.certificates import certificates
from elbograd.benchmarks.rows.schema import row

REFUSAL = "needs a reparameterizable posterior; {} is not (torch has no rsample for it)"


# What it says


@pytest.mark.parametrize(
    "module", [certificate_checks, certificate_kinds, certificate_text, certificate_untried]
)
def test_examples_in_docstrings(module):
    ran = doctest.testmod(module)
    assert ran.attempted
    assert ran.failed == 0


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            right(),
            f"mine: holds: relative bias ≤ 0.29% at 99% confidence (estimate 0.05% [0%, 0.29%] on {QUADRATIC} at "
            "scales, S = 5, B = 9), 6 of 6 checks ran, 1 of them a proof, in 16 s; never tried: flows, Betas, Gammas",
        ),
        (
            wrong(),
            f"wrong: fails: relative bias 12% [11%, 13%] at 99% confidence (on {QUADRATIC} at scales, S = 1, B = 3), "
            "5 of 5 checks ran, 1 failed, in 7 s",
        ),
        (
            open_(),
            "slow: not shown: relative bias ≤ 2% at 99% confidence (estimate 0.1% [0%, 2%] on "
            f"{QUADRATIC} at initial, S = 1, B = 3), 1 of 1 checks ran, in 5 min",
        ),
        (
            declared(),
            "straight-through: holds: relative bias 3.1% … 12% (declared; exact), 2 of 2 checks ran, in 4 s",
        ),
    ],
)  # fmt: skip
def test_the_verdict_in_a_line(made, said):
    assert str(made) == said


@pytest.mark.parametrize(("holds", "off", "said"), [
    (True, 1e-12, f"holds: relative bias ≤ 1e-4% (exact, on {BITS} at initial, S = 2, B = 3)"),
    (False, 0.12, f"fails: relative bias 12% (exact, on {BITS} at initial, S = 2, B = 3)"),
])  # fmt: skip
def test_of_a_proof_no_confidence_is_told(holds, off, said):
    proven = check(problem=BITS, num_samples=2, holds=holds, exact=True, bias=BiasBound(off, off, off, off))
    made = certificate(proven)
    assert made.verdict.startswith(said)


def test_the_line_of_a_case_counts_proofs():
    assert outcome(right().rows()) == "6 of 6 checks hold (1 by proof), relative bias ≤ 0.29%"


@pytest.mark.parametrize("share", [0.002801, 0.0028, 0.00999, 0.0999999, 0.5, 0.9901, 1.061, 3e-5])
def test_a_bound_is_rounded_up(share):
    printed = float(at_most(share).removesuffix("%")) / 100
    assert share * (1 - 1e-6) <= printed <= 1.1 * share


def test_the_worst_place_is_that_of_the_largest_bound_not_of_the_largest_estimate():
    made = certificate(
        check(bias=BiasBound(0.002, 0.001, 0.0021, 1.0)),
        check(point="scales", bias=BiasBound(0.0, 0.0, 0.0029, 1.0)),
        check("elbo-bias", bias=BiasBound(0.5, 0.4, 0.6, 1.0)),
    )
    assert made.worst.point == "scales"
    assert made.bias_bound == 0.0029


def test_of_a_gradient_that_fails_the_place_is_told_where_it_is_wrong_for_sure():
    made = certificate(
        check(bias=BiasBound(0.0, 0.0, 10.3, 1.0)),  # a look too short to tell
        check(point="middle", holds=False, bias=BiasBound(0.2, 0.1, 0.3, 1.0)),
        check(point="scales", holds=False, bias=BiasBound(0.28, 0.259, 0.3, 1.0)),
    )
    assert made.bias_bound == 10.3
    assert made.worst.point == "scales"
    assert made.bias_in_short == "≥ 25%"
    assert made.verdict.startswith("fails: relative bias 28% [25%, 30%] at 99% confidence (on ")
    only_value = certificate(check(bias=BiasBound(0.0, 0.0, 0.01, 1.0)), check("value", holds=False))
    assert only_value.bias_in_short == "≤ 1%"


def test_a_bias_that_is_not_finite_is_told_as_that():
    nan, inf = math.nan, math.inf
    for odd in (BiasBound(nan, nan, nan, nan), BiasBound(0.0, nan, inf, inf), BiasBound(inf, inf, inf, inf)):
        made = certificate(check(holds=False, reason="NaN", bias=odd), check(bias=BiasBound(0, 0, 0.001, 1)))
        assert made.bias_bound == inf
        assert "nan" not in f"{made} {made.bias_in_short}"
        json.dumps(made.as_json(), allow_nan=False)


# What was never tried


def test_every_problem_of_the_suite_has_its_kind():
    for label in (*ORACLE_PROBLEMS, "waves[posterior=categorical,latent_dim=4]", "bayesian-mlp"):
        assert kinds_of(place_of(label)), label
        assert set(kinds_of(place_of(label))) <= set(KINDS)
    for label in ("SmallVAE", "my_model.py:problem", "[", "my-own[posterior=bernoulli]", "a\nb"):
        assert kinds_of(place_of(label)) == []


@pytest.mark.parametrize(
    ("place", "kinds"),
    [
        ("small-vae", ["diagonal Gaussians"]),
        ("waves[posterior=full-gaussian,latent_dim=6]", ["full-covariance Gaussians", "full-covariance Gaussians of 4 dimensions or more"]),
        ("waves[latent_dim=2,offset=-500]", ["diagonal Gaussians", "costs of hundreds of nats"]),
        (f"{BITS} at initial, S = 1, B = 1", ["Bernoulli latents", "S = 1", "B = 1"]),
        ("a, S = 9, B = 2", ["odd S above 1", "S above 8", "B = 2"]),
        ("a at b c, S = 16, B = 9, float32, train mode", ["even S", "S above 8", "B of 4 or more", "B above 8", "float32", "train mode"]),
        ("a at b, S = 2, train mode, θ frozen", ["even S"]),  # no real step: θ requires no gradient there
    ],
)  # fmt: skip
def test_the_kinds_of_a_place(place, kinds):
    assert kinds_of(place_of(place)) == kinds


@pytest.mark.parametrize("mode", certificate_checks.MODES)
def test_a_place_is_read_as_a_check_writes_it(mode):
    for dtype in ("float64", "float32"):
        one = check(problem=BITS, point="near-optimal", num_samples=5, mode=mode, dtype=dtype)
        assert place_of(one.place) == (BITS, 5, 3, dtype, mode)


def test_refusals_of_one_reason_are_told_together():
    skipped = {
        BITS: REFUSAL.format("Bernoulli"),
        "small-vae[posterior=categorical]": REFUSAL.format("OneHotCategorical"),
        "categorical-toy": REFUSAL.format("OneHotCategorical"),
        "waves[posterior=bernoulli,latent_dim=8]": REFUSAL.format("Bernoulli"),
        "small-vae[posterior=flow]": "no closed-form KL of TransformedDistribution against Normal: use kl=sampled",
        "my-own": REFUSAL.format("Mine"),
    }
    untried = certificate(check(bias=BiasBound(0, 0, 0.001, 1)), skipped=skipped).never_tried
    assert untried["Bernoulli latents"] == REFUSAL.format("Bernoulli")
    assert in_words(untried) == (
        "Bernoulli and K-ary latents (needs a reparameterizable posterior); "
        "flows (no closed-form KL of TransformedDistribution against Normal)"
    )


def test_what_was_tried_anywhere_is_not_told():
    even = {f"{BITS}, S = {s}": f"needs an even num_samples, for pairs, not {s}" for s in (3, 5)}
    at_two = check(problem=BITS, num_samples=2)
    assert certificate(at_two, skipped=even).never_tried == {"odd S above 1": even[f"{BITS}, S = 3"]}
    at_seven = check(problem="categorical-toy", num_samples=7)
    assert certificate(at_two, at_seven, skipped=even).never_tried == {}
    begun = replace(at_seven, holds=None, reason="the estimates are too skewed")
    assert set(certificate(at_two, begun, skipped=even).never_tried) == {"odd S above 1"}
    never_begun = replace(begun, reason="out of the budget of 60 s", draws=0)
    untried = certificate(at_two, never_begun, skipped=even).never_tried
    assert untried["K-ary latents"] == never_begun.reason


def test_dimensions_that_were_left_out_are_told_where_the_latents_were_tried():
    few, many = "small-vae[posterior=full-gaussian]", "waves[posterior=full-gaussian,latent_dim=6]"
    skipped = {many: "out of the budget of 60 s"}
    made = certificate(check(problem=few), skipped=skipped)
    assert made.never_tried == {"full-covariance Gaussians of 4 dimensions or more": skipped[many]}
    assert certificate(check(problem=many)).never_tried == {}


def test_of_refused_sizes_one_of_each_kind_is_told():
    even = {s: None if s % 2 == 0 else f"needs an even num_samples, for pairs, not {s}" for s in range(1, 40)}
    few = {s: None if s <= 8 else f"draws without replacement: at most 8, not {s}" for s in range(1, 40)}
    assert refused_sizes(BITS, even) == {f"{BITS}, S = {s}": even[s] for s in (1, 3)}
    assert refused_sizes(BITS, few) == {f"{BITS}, S = 9": few[9]}
    assert refused_sizes(BITS, dict.fromkeys(range(2, 40))) == {}
    ran = [check(problem=BITS, num_samples=s) for s in (2, 16)]
    told = in_words(certificate(*ran, skipped=refused_sizes(BITS, even)).never_tried)
    assert told == "S = 1, odd S above 1 (needs an even num_samples, for pairs)"


def test_a_declared_smallest_s_is_no_gap():
    skipped = {f"{BITS}, S = 1": "needs num_samples of at least 2, not 1"}
    assert certificate(check(problem=BITS, num_samples=2), skipped=skipped).never_tried == {}


# From rows


@pytest.mark.parametrize("made", [right(), wrong(), open_(), declared(), certificate()])
def test_rows_give_the_same_certificate(made):
    stored = json.loads(rows_of(made).to_json(orient="records", double_precision=15))
    for frame in (rows_of(made), rows_of(made).from_records(stored)):
        (read,) = certificates(frame)
        assert read == made
        assert str(read) == str(made)
        assert read.as_json() == made.as_json()


def test_rows_of_an_earlier_version_are_read():
    """They name S alone, all was in float64, and ``seconds`` was the case's budget."""
    common = {
        "case": "a",
        "benchmark": "certify",
        "estimator": "mine",
        "problem": BITS,
        "num_samples": 2,
        "n": 4096,
    }
    settings = {"confidence": 0.99, "tolerance": 0.02, "seconds": 3.5, "confirm_level": 1e-4}
    given = {"parameters": json.dumps({**settings, "point": "initial"}), "parameter": "gradient"}
    claims = {**settings, "objective": "elbo"}
    rows = [
        row(**common, **given, metric="check", value=1.0),
        row(**common, **given, metric="relative_bias", value=0.0, ci_low=0.0, ci_high=0.015),
        row(**common, metric="unbiased", value=1.0, parameters=json.dumps(claims)),
    ]  # fmt: skip
    (read,) = certificates(rows_of().from_records(rows))
    assert read.verdict == (
        "holds: relative bias ≤ 1.5% at 99% confidence (estimate 0% [0%, 1.5%] on "
        f"{BITS} at initial, S = 2), 1 of 1 checks ran"
    )
    assert read.seconds == 0
    assert read.checks[0].dtype == "float64"
    assert math.isnan(read.bias.absolute)


def test_a_case_that_never_came_to_its_checks_is_told_as_that():
    lost = {"case": "a", "benchmark": "certify", "estimator": "mine", "problem": BITS, "num_samples": 1}
    reason = {"status": "failed", "reason": "killed"}
    (read,) = certificates(rows_of().from_records([row(**lost, metric="check", **reason)]))
    assert read.failures == [f"run on {BITS}: killed"]


# For a repository of one's own


def test_json_has_stable_keys_and_no_infinity():
    endless = certificate(check(bias=BiasBound(0.0, 0.0, math.inf, math.inf)))
    for made in (right(), wrong(), open_(), declared(), endless, certificate()):
        values = json.loads(json.dumps(made.as_json(), allow_nan=False))
        assert list(values) == [
            "estimator", "objective", "claims_unbiased", "verdict", "bias_bound", "bias_estimate", "bias_low",
            "bias_high", "bias_is_exact", "confidence", "tolerance", "alarm_rate", "worst", "checks", "failures",
            "open_questions", "problems", "never_tried", "seconds",
        ]  # fmt: skip
        assert values["verdict"] in ("holds", "fails", "not shown")
        assert list(values["checks"]) == ["counted", "ran", "failed", "exact"]
    assert endless.as_json()["bias_bound"] is None
    assert wrong().as_json()["checks"] == {"counted": 5, "ran": 5, "failed": 1, "exact": 0}
    assert right().as_json()["worst"] == {
        "problem": QUADRATIC, "point": "scales", "num_samples": 5, "batch_size": 9, "dtype": "float64", "mode": "eval",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("made", "message", "color"),
    [
        (right(), "bias ≤ 0.29%", "brightgreen"),
        (wrong(), "fails", "red"),
        (open_(), "not shown", "lightgrey"),
        (declared(), "bias 3.1% … 12%, as declared", "blue"),
        (certificate(Check("finite[gaussian]", True), unbiased=False), "holds", "blue"),
    ],
)
def test_badges(made, message, color):
    endpoint = made.badge.endpoint()
    assert (endpoint["schemaVersion"], endpoint["label"]) == (1, "elbograd")
    assert (endpoint["message"], endpoint["color"]) == (message, color)


@pytest.mark.parametrize("title", ["", 'a<b>&"c"', "a\x00\x1b[2Jb\n'", "\ud800", "]]>"])
def test_a_badge_is_valid_xml_whatever_it_is_called(title):
    root = ElementTree.fromstring(badge_of(True, True, '≤ <5% & "more"').svg(title))
    assert root.tag.endswith("svg")
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert texts == ["elbograd", 'bias ≤ <5% & "more"']
    assert not any(ord(c) < 32 for c in root.attrib["aria-label"])
    widths = [float(e.attrib["width"]) for e in root.iter() if e.tag.endswith("}rect")]
    assert widths[0] == widths[1] + widths[2] == float(root.attrib["width"])


def test_white_on_a_badge_can_be_read():
    """WCAG 2, level AA: a contrast of 4.5."""

    def luminance(color):
        shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for _, color in _COLORS.values():
        assert 1.05 / (luminance(color) + 0.05) >= 4.5

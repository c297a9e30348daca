"""Every built-in estimator passes the conformance suite, and the suite's own instruments are right."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import pytest
import torch
from elbograd.benchmarks.certification import levels
from elbograd.estimators import Estimator, create
from elbograd.estimators.testing import estimator_checks, sampling_checks
from elbograd.estimators.testing import toy_problems as toy
from elbograd.estimators.testing.mean_test import (
    CONFIRM_LEVEL,
    SCREEN_LEVEL,
    Undecided,
    find_deviation,
    studentize,
)
from elbograd.estimators.testing.sampling_checks import SCREENING_LOOKS
from elbograd.estimators.testing.toy_problems import FAMILIES, alien_cases


def test_a_class_and_a_function_do_as_well_as_a_specification():
    kind = type(create("reparameterization"))
    names = [check.name for check in estimator_checks("reparameterization")]
    assert [check.name for check in estimator_checks(kind)] == names
    assert [check.name for check in estimator_checks(lambda: create("reparameterization"))] == names


def test_claims_that_are_not_made_are_not_checked():
    def names(**claims):
        def factory() -> Estimator:
            estimator = create("moving-average-baseline")
            for name, value in claims.items():
                setattr(estimator, name, value)
            return estimator

        return {check.name for check in estimator_checks(factory)}

    everything = names()

    def missing(**claims):
        return {name.partition("[")[0] for name in everything - names(**claims)}

    means = {"unbiased", "unbiased-without-prior"}
    any_mean = {"every-size", "unbiased-in-training", "unbiased-when-aged"}
    assert missing(unbiased=False) == means
    assert missing(unbiased_value=False) == {"value", "theta"}
    assert missing(unbiased=False, unbiased_value=False) == means | {"value", "theta"} | any_mean
    assert missing(objective="iwae") == means | {"value", "theta"} | any_mean
    assert missing(draws="coupled") == missing(deterministic=True) == {"iid-draws"}
    assert missing(couples_batch=True) == {"size-of-batch"}
    assert missing(derivatives=1) == {"derivatives"}
    assert missing(weighs_kl=False) == {"kl-weight"}
    assert missing(relaxes_target=True) == {"support", "off-support"}
    added = {name.partition("[")[0] for name in names(derivatives=1) - everything}
    assert added == {"unbiased-off-support"}
    assert "unbiased-off-support" not in {
        n.partition("[")[0] for n in names(derivatives=1, depends_off_support=True)
    }


def test_a_posterior_that_is_not_supported_is_left_out():
    families = {check.name.partition("[")[2] for check in estimator_checks("reparameterization")}
    assert families == {"", "gaussian]"}


def test_the_callers_random_state_and_default_dtype_are_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for check in estimator_checks("learned-baseline"):
        if check.name in ("default-dtype[bernoulli]", "fresh-draws[bernoulli]", "unbiased[bernoulli]"):
            check()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32


def test_the_false_alarm_rate_is_as_stated(monkeypatch):
    """9.7e-4: the looks that all searches may take, less the last of each, which can only confirm."""
    taken = Counter()

    def search(draw, looks, screens, floor, level):
        taken[check.name] += len(looks) - 1
        assert level == CONFIRM_LEVEL

    def with_everything_to_check() -> Estimator:
        estimator = create("moving-average-baseline")
        estimator.derivatives = 1
        return estimator

    monkeypatch.setattr(sampling_checks, "find_deviation", search)
    for check in estimator_checks(with_everything_to_check):
        check()
    assert len({name.partition("[")[2] for name in taken}) == len(FAMILIES)
    assert taken.total() == SCREENING_LOOKS == levels._CONFORMANCE_LOOKS
    assert taken.total() * SCREEN_LEVEL * CONFIRM_LEVEL == pytest.approx(9.7e-4)


# --- The oracle ---


def test_gaussian_oracle_agrees_with_the_closed_form():
    """E sin(w·z + a) = exp(−½ Σ w²σ²) sin(w·μ + a); E(z − m)² = (μ − m)² + σ²; KL of two Gaussians."""
    problem = FAMILIES[0].problem(learned=True)
    loc, log_scale = problem.eta.chunk(2, -1)
    scale = log_scale.exp()
    w = torch.tensor(toy._FREQUENCIES, dtype=torch.float64)[:, :2]
    waves = torch.exp(-0.5 * scale.square() @ w.square().T) * torch.sin(
        loc @ w.T + torch.tensor(toy._PHASES, dtype=torch.float64)
    )
    centre = torch.tensor(toy._CENTRES, dtype=torch.float64)
    bowl = ((loc - centre).square() + scale.square()).sum(-1)
    prior_loc, prior_log_scale = problem.prior_theta.chunk(2, -1)
    ratio = (2 * (log_scale - prior_log_scale)).exp()
    distance = ((loc - prior_loc) / prior_log_scale.exp()).square()
    kl = 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)
    offset = torch.tensor(toy._OFFSETS, dtype=torch.float64)
    elbo = offset + (problem.theta * waves).sum(-1) - toy._BOWL * bowl - kl
    exact = problem.exact()
    leaves = (problem.eta, problem.theta, problem.prior_theta)
    eta, *theta = torch.autograd.grad(elbo.sum(), leaves)
    torch.testing.assert_close(exact.value, elbo.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(exact.eta_grad, eta, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(exact.theta_grad, torch.cat(theta, -1), rtol=1e-12, atol=1e-12)


def test_bernoulli_oracle_agrees_with_a_sum_over_outcomes():
    problem = FAMILIES[1].problem()
    probs, prior = torch.sigmoid(problem.eta), torch.sigmoid(problem.prior_theta)
    elbo = torch.zeros(3, dtype=torch.float64)
    for outcome in product((0.0, 1.0), repeat=3):
        z = torch.tensor(outcome, dtype=torch.float64)
        mass = torch.where(z == 1, probs, 1 - probs).prod(-1)
        prior_mass = torch.where(z == 1, prior, 1 - prior).prod(-1)
        f = problem.log_likelihood(z.expand(1, 3, 3))[0]
        elbo = elbo + mass * (f + prior_mass.log() - mass.log())
    torch.testing.assert_close(problem.exact().value, elbo.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES[1:], ids=lambda family: family.name)
def test_what_is_added_off_the_support_is_zero_on_it_and_there_alone(family):
    problem = family.problem()
    z = problem.q.sample((50,))
    assert torch.equal(problem.bump(z), torch.zeros(50, 3).double())
    assert (problem.bump(problem.q.mean.unsqueeze(0)).abs() > 0.01).all()
    moved = z.requires_grad_()
    (slope,) = torch.autograd.grad(problem.bump(moved).sum(), moved)
    assert (slope.abs() > 0.5).all()


@pytest.mark.parametrize("family", FAMILIES[1:], ids=lambda family: family.name)
def test_a_sure_posterior_and_one_with_forbidden_states(family):
    sure = family.sure().problem(dtype=torch.float32).q
    assert torch.equal(sure.sample((1000,)).std(0), torch.zeros_like(sure.mean))
    forbidden, never = family.forbidden()
    q = forbidden.problem(dtype=torch.float32).q
    mean = q.mean.flatten(-len(q.event_shape))
    assert (mean[never == 1] == 0).all()
    assert (mean[never == 0] > 0.01).all()
    assert never.sum() == 3 * (1 if family.states == 2 else q.event_shape[0])


def test_scales_avoid_the_blind_spots():
    scales = FAMILIES[0].problem().eta.detach()[:, 2:].exp()
    assert {0.3, 2.0} <= {round(float(scale), 9) for scale in scales.flatten()}
    for blind in (1.0, math.sqrt(0.5)):
        assert ((scales - blind).abs() > 0.1).all()


def test_toy_target_refuses_another_shape_or_dtype():
    problem = FAMILIES[0].problem((2,))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 2\), not \(S, 2, 3, 2\)"):
        problem.log_likelihood(torch.zeros(2, 3, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"torch\.float32 under a posterior in torch\.float64"):
        problem.log_likelihood(torch.zeros(5, 2, 3, 2))


def test_alien_targets_can_be_evaluated():
    for q, target in alien_cases():
        z = q.sample((5,))
        assert target.log_likelihood(z).shape == target.prior.log_prob(z).shape == (5, 2)


# --- The test of a mean ---


def _exponential():
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> torch.Tensor:
        u = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        return -torch.log1p(-u) - 1

    return draw


def test_a_mean_of_zero_raises_no_alarm_on_skewed_draws():
    """200 × 3 columns of centred exponentials; a false alarm in any has probability 2e-3."""
    draw = _exponential()
    assert all(find_deviation(draw, (1000, 4000)) is None for _ in range(200))


def test_a_shifted_mean_is_found_with_its_column_and_size():
    """A shift of 8 standard errors at the first look escapes with probability 1e-4."""
    centred = _exponential()
    shift = torch.tensor([0.0, 0.13, 0.0], dtype=torch.float64)
    found = find_deviation(lambda n: centred(n) + shift, (4096, 16384))
    assert found is not None
    assert found.column == 1
    assert abs(found.mean - 0.13) < 4 * found.stderr


def test_an_alarm_that_is_not_confirmed_is_dropped():
    draws = iter([1.0, 0.0])

    def draw(n: int) -> torch.Tensor:
        noise = torch.linspace(-1, 1, n, dtype=torch.float64).unsqueeze(1)
        return noise + next(draws)

    assert find_deviation(draw, (1000, 4000)) is None


def test_draws_too_skewed_for_a_verdict_leave_it_open():
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> torch.Tensor:
        return torch.rand(n, 1, generator=generator, dtype=torch.float64).pow(-0.9)

    with pytest.raises(Undecided):
        find_deviation(draw, (1000, 4000, 16000))


def test_constant_columns_are_held_to_the_floor():
    exact = torch.full((100, 1), 1e-12, dtype=torch.float64)
    assert find_deviation(lambda n: exact, (100, 400), floor=1e-9) is None
    assert find_deviation(lambda n: exact + 1e-6, (100, 400), floor=1e-9) is not None


def test_draws_that_are_not_finite_are_refused():
    with pytest.raises(AssertionError, match="not finite"):
        find_deviation(lambda n: torch.full((n, 1), math.nan), (10, 20))


def test_the_transform_is_students_t_without_skewness():
    symmetric = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]], dtype=torch.float64) + 2
    transformed, g = studentize(symmetric)
    torch.testing.assert_close(g, torch.zeros_like(g), rtol=0, atol=1e-12)
    expected = 2 / math.sqrt(20 / 3 / 4)  # mean over √(sample variance / n)
    assert math.isclose(transformed.item(), expected, rel_tol=1e-12)

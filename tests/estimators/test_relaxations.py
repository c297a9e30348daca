"""What the relaxed and the straight-through estimators have in common: conformance, numerics, refusals, schedules."""

from __future__ import annotations

import math

import pytest
import torch
from discrete_paths import bernoulli, one_hot
from elbograd.benchmarks.gradients import has_moving_state
from elbograd.estimators import Target, UsageError, create
from elbograd.estimators.methods.gumbel_softmax import GumbelSoftmax
from elbograd.estimators.methods.straight_through_gumbel_softmax import StraightThroughGumbelSoftmax
from elbograd.estimators.pieces.relaxations import along_softmax, largest, log_probs, perturbed
from elbograd.estimators.testing import check_estimator
from torch import distributions as td

HARD = (
    "straight-through",
    "straight-through-gumbel-softmax",
    "gumbel-rao",
    "gapped-straight-through",
    "reinmax",
)
NAMES = ("gumbel-softmax", *HARD)


def cost(z):
    return -(z - 0.3).square().flatten(-1).sum(-1) + z.sum(-1).sin()


def cost_of(q):
    """The same of a vector and of one-hot codes (D, K)."""
    if len(q.event_shape) == 1:
        return cost
    return lambda z: cost(z.flatten(-2)) / z.shape[-2]


def estimated(spec, q, leaf, num_samples=1, prior=None):
    estimator = create(spec) if isinstance(spec, str) else spec
    estimate = estimator(q, Target(cost_of(q), prior), num_samples)
    assert estimate.surrogate is estimate.value
    return torch.autograd.grad(estimate.surrogate.sum(), leaf)[0], estimate.value.detach()


# --- Conformance at other settings than the defaults ---

SETTINGS = (
    "gumbel-softmax[temperature=0.1,kl=sampled]",
    "gumbel-softmax[temperature=3,annealing=0.02]",
    "straight-through[temperature=0.25]",
    "straight-through-gumbel-softmax[temperature=2,annealing=0.1,lowest=1]",
    "gumbel-rao[temperature=0.2,inner_samples=1,kl=sampled]",
    "gapped-straight-through[temperature=0.6,gap=2]",
    "reinmax[temperature=1.3]",
)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("spec", SETTINGS)
def test_the_conformance_suite(spec):
    ran = check_estimator(spec)
    assert {"shapes[bernoulli]", "replicates[one-hot]", "no-prior[one-hot]"} <= set(ran)
    assert ("value[one-hot]" in ran) == (create(spec).objective == "elbo")


@pytest.mark.parametrize("spec", HARD)
def test_claims_of_the_biased_ones(spec):
    estimator = create(spec)
    assert (estimator.unbiased, estimator.unbiased_value, estimator.objective) == (False, True, "elbo")
    assert (estimator.relaxes_target, estimator.depends_off_support, estimator.derivatives) == (
        False,
        True,
        1,
    )


# --- Numbers at the edge ---


def logits_at_the_edge(k, kind):
    """±40, and far beyond."""
    row = torch.zeros(k, dtype=kind)
    row[0], row[-1] = 40, -40
    return torch.stack((row, -row, 30 * row, torch.zeros_like(row)))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.01, 1, 50.0])
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("name", NAMES)
def test_everything_is_finite_at_extreme_logits(name, kl, num_samples, tau, kind):
    torch.manual_seed(0)
    estimator = create(name, temperature=tau, kl=kl)
    edge = torch.tensor([40.0, -40.0, 1e3, -1e3, 0.0], dtype=kind)
    for family, logits in [(bernoulli, edge)] + [
        (one_hot, logits_at_the_edge(k, kind)) for k in (2, 3, 1000)
    ]:
        leaf = logits.expand(2, *logits.shape).clone().requires_grad_()
        prior = family(torch.zeros_like(logits))
        h, value = estimated(estimator, family(leaf), leaf, num_samples, prior)
        assert h.dtype == value.dtype == kind
        assert bool(h.isfinite().all())
        assert bool(value.isfinite().all())
        assert float(h.abs().max()) < 1e3


class PlainExponentials(GumbelSoftmax):
    """A softmax by exponentials that overflow at a small τ."""

    def codes(self, q, variables, num_samples):
        noisy = (perturbed(log_probs(variables), num_samples) / self.temperature).exp()
        return noisy / noisy.sum(-1, keepdim=True)


def test_exponentials_that_overflow_are_seen():
    leaf = torch.full((2, 5), 3.0, requires_grad=True)
    h, _ = estimated(PlainExponentials(0.01), bernoulli(leaf), leaf)
    assert not bool(h.isfinite().all())


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_0_to_rounding_where_a_state_is_certain(name, kind):
    """Logits of ±40 have s = 4e-18; at τ = 1 no path is steeper than 1e-15 but for noise beyond 35."""
    torch.manual_seed(0)
    leaf = torch.tensor([40.0, -40.0], dtype=kind).expand(256, 2).clone().requires_grad_()
    spec = "gapped-straight-through[gap=40]" if name.startswith("gapped") else name
    h, value = estimated(spec, bernoulli(leaf), leaf, 3)
    assert float(h.abs().max()) < 1e-10
    z = torch.tensor([1.0, 0.0], dtype=kind)
    torch.testing.assert_close(value, cost(z).expand(256))


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name):
    found = []
    for kind in (torch.float32, torch.float64):
        torch.manual_seed(0)
        logits = torch.linspace(-6, 7, 4 * 1000).reshape(4, 1000).to(kind)
        leaf = logits.expand(256, 4, 1000).clone().requires_grad_()
        q = one_hot(leaf)
        if name not in ("gumbel-softmax", "straight-through-gumbel-softmax"):
            z = torch.nn.functional.one_hot(torch.arange(4 * 256).reshape(1, 256, 4) % 1000, 1000).to(kind)
            q.sample = lambda shape, z=z: z
        found.append(estimated(create(name, temperature=0.5), q, leaf))
    (low, low_value), (high, high_value) = found
    torch.testing.assert_close(low.double(), high, rtol=2e-3, atol=2e-6)
    torch.testing.assert_close(low_value.double(), high_value, rtol=1e-4, atol=1e-4)


# --- States of probability zero ---


class BelievesLogits(StraightThroughGumbelSoftmax):
    """torch's logits of a probability 0 are −15.94 in float32, e⁻¹⁵·⁹⁴ = 1.2e-7."""

    def codes(self, q, variables, num_samples):
        noisy = perturbed(variables.logits.detach(), num_samples)
        return largest(noisy) + along_softmax(noisy.softmax(-1), variables.logits)


def impossible():
    """Distributions in which all but the first state of each variable are impossible, with their leaf."""
    by_probs = torch.zeros(1000)
    by_probs[0] = 1
    by_logits = torch.full((1000,), -1e5)
    by_logits[0] = 1
    nothing = torch.full((1000,), -math.inf)
    nothing[0] = 0
    return {
        "probs": (td.OneHotCategorical, "probs", by_probs),
        "logits": (td.OneHotCategorical, "logits", by_logits),
        "few logits": (td.OneHotCategorical, "logits", by_logits[:3]),
        "infinite logits": (td.OneHotCategorical, "logits", nothing),
        "bernoulli probs": (lambda **p: td.Independent(td.Bernoulli(**p), 1), "probs", torch.zeros(100)),
    }


def drawn_impossible(estimator, case, draws, calls=1):
    """The largest weight of an impossible state in any z that f is evaluated at."""
    family, name, parameter = impossible()[case]
    torch.manual_seed(0)
    worst = []

    def f(z):
        worst.append(float((z if "bernoulli" in case else z[..., 1:]).detach().abs().max()))
        return cost(z)

    for _ in range(calls):
        leaf = parameter.clone().requires_grad_()
        estimate = estimator(family(**{name: leaf}), Target(f), draws)
        (h,) = torch.autograd.grad(estimate.surrogate.sum(), leaf)
        assert bool(h.isfinite().all())
    return max(worst)


@pytest.mark.parametrize("tau", [0.01, 1.0, 1e5])
@pytest.mark.parametrize("case", impossible())
@pytest.mark.parametrize("name", NAMES)
def test_an_impossible_state_is_never_drawn_nor_given_weight(name, case, tau):
    assert drawn_impossible(create(name, temperature=tau), case, 200) == 0


@pytest.mark.parametrize("name", NAMES)
def test_not_in_a_million_draws_of_a_few_states(name):
    estimator = create(name, inner_samples=1) if name == "gumbel-rao" else create(name)
    assert drawn_impossible(estimator, "few logits", 1_000_000) == 0


def test_not_in_a_hundred_million_draws():
    """10⁵ draws of 1000 states each; a probability of 1.2e-7 instead of 0 shows but with probability 7e-6."""
    assert drawn_impossible(StraightThroughGumbelSoftmax(), "probs", 1000, 100) == 0
    assert drawn_impossible(BelievesLogits(), "probs", 1000, 100) == 1


# --- What they cannot do ---


@pytest.mark.parametrize("name", NAMES)
def test_posteriors_without_a_path_are_refused_in_one_line(name):
    logits = torch.zeros(4, 3)
    target = Target(lambda z: z.sum(-1))
    posteriors = {
        "use OneHotCategorical": td.Categorical(logits=logits),
        "not a Normal posterior": td.Independent(td.Normal(logits, 1.0), 1),
        "not a Poisson posterior": td.Independent(td.Poisson(logits.exp()), 1),
    }
    for reason, q in posteriors.items():
        answer = create(name).supports(q, target, 2)
        assert reason in answer
        assert "\n" not in answer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, math.nan, math.inf, True, "warm", None])
def test_a_temperature_that_is_none_is_told_in_one_line(name, value):
    with pytest.raises(UsageError, match=r"temperature=\S* is not (positive|a number)$"):
        create(name, temperature=value)


@pytest.mark.parametrize("name", NAMES)
def test_an_integer_temperature_is_a_number_like_any_other(name):
    def draws(temperature):
        torch.manual_seed(0)
        leaf = torch.linspace(-1, 1, 12).reshape(4, 3).clone().requires_grad_()
        return estimated(create(name, temperature=temperature), bernoulli(leaf), leaf, 5)

    assert torch.equal(draws(2)[0], draws(2.0)[0])
    assert not torch.equal(draws(2)[0], draws(1)[0])


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("gapped-straight-through[gap=-1]", "gap=-1 is not 0 or more"),
        ("gapped-straight-through[gap=true]", "gap=True is not a number"),
        ("straight-through-gumbel-softmax[backward_temperature=0]", "backward_temperature=0 is not positive"),
        ("gumbel-softmax[annealing=-0.1]", "annealing=-0.1 is not 0 or more"),
        ("gumbel-softmax[annealing=0.1,lowest=0]", "lowest=0 is not positive"),
        (
            "gumbel-softmax[temperature=0.2,annealing=0.1]",
            "lowest=0.5 is above temperature=0.2, where annealing starts",
        ),
        (
            "straight-through-gumbel-softmax[annealing=0.1,backward_temperature=1]",
            "annealing moves temperature, which has no effect beside backward_temperature",
        ),
    ],
)
def test_arguments_that_make_no_sense(spec, reason):
    with pytest.raises(UsageError) as error:
        create(spec)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


THETA = torch.tensor(2.0, requires_grad=True)
NOT_DIFFERENTIABLE = {
    "detached": lambda z: THETA * cost(z.detach()),
    "compared": lambda z: THETA * (z > 0.5).float().sum(-1),
    "rounded": lambda z: THETA * z.round().sum(-1),
    "floored": lambda z: (z + 0.5).floor().sum(-1),
    "signs": lambda z: (z - 0.5).sign().sum(-1) + THETA,
    "constant": lambda z: z.new_zeros(z.shape[:-1]),
    "constant in z": lambda z: THETA.expand(z.shape[:-1]),
}


@pytest.mark.parametrize("f", NOT_DIFFERENTIABLE)
@pytest.mark.parametrize("name", NAMES)
def test_a_target_that_cannot_be_differentiated_is_refused_in_one_line(name, f):
    leaf = torch.zeros(4, 3, requires_grad=True)
    with pytest.raises(UsageError, match="log_likelihood cannot be differentiated in z") as error:
        create(name)(bernoulli(leaf), Target(NOT_DIFFERENTIABLE[f]), 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "f",
    [
        lambda z: THETA * cost(z.detach()) + cost(z),
        lambda z: z.round().sum(-1) + z[..., 0],
        lambda z: 0 * z.sum(-1),
        lambda z: z[..., 0],
        lambda z: torch.utils.checkpoint.checkpoint(cost, z, use_reentrant=False),
        lambda z: torch.vmap(torch.vmap(lambda row: row.square().sum()))(z),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_one_that_can_in_part_is_not(name, f):
    leaf = torch.zeros(4, 3, requires_grad=True)
    estimate = create(name)(bernoulli(leaf), Target(f), 2)
    assert torch.autograd.grad(estimate.surrogate.sum(), leaf)[0].isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_value_alone_asks_for_no_derivative(name):
    leaf = torch.zeros(4, 3, requires_grad=True)
    target = Target(NOT_DIFFERENTIABLE["detached"])
    with torch.no_grad():
        assert create(name)(bernoulli(leaf), target, 2).value.shape == (4,)
    assert create(name)(bernoulli(leaf.detach()), target, 2).value.shape == (4,)


@pytest.mark.parametrize("name", NAMES)
def test_a_prior_that_cannot_be_differentiated_is_refused_under_a_sampled_kl(name):
    leaf = torch.zeros(4, 2, 3, requires_grad=True)
    codes = one_hot(torch.zeros(5, 2, 3))
    prior = td.MixtureSameFamily(td.Categorical(torch.ones(5)), codes, validate_args=False)
    with pytest.raises(UsageError, match="the prior's log_prob cannot be differentiated in z"):
        create(name, kl="sampled")(one_hot(leaf), Target(lambda z: z.sum((-2, -1)), prior), 2)


def test_a_prior_that_checks_its_samples_is_told_where_they_are_relaxed():
    q, coins = bernoulli(torch.zeros(4, 2, requires_grad=True)), td.Bernoulli(torch.full((8, 2), 0.5))
    target = Target(cost, td.MixtureSameFamily(td.Categorical(torch.ones(8)), td.Independent(coins, 1)))
    with pytest.raises(
        UsageError, match="refuses z between the states: build all of it with validate_args=False"
    ):
        create("gumbel-softmax[kl=sampled]")(q, target, 2)
    create("straight-through[kl=sampled]")(q, target, 2)


# --- Schedules ---


def temperatures(estimator, steps):
    """Before every step, as `forward` uses them."""
    leaf = torch.zeros(4, 3, requires_grad=True)
    found = []
    for _ in range(steps):
        found.append(float(estimator.temperature))
        estimator.update(estimator.train()(bernoulli(leaf), Target(cost), 2))
    return found


class StartsAtItsMinimum(GumbelSoftmax):
    """A schedule for τ that begins where it should end."""

    def __init__(self, temperature, annealing, lowest):
        super().__init__(temperature, annealing, lowest)
        self.temperature.fill_(self.lowest)


def falls(make):
    expected = [max(0.7, 2 * math.exp(-0.3 * step)) for step in range(8)]
    return temperatures(make(temperature=2, annealing=0.3, lowest=0.7), 8) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("name", ["gumbel-softmax", "straight-through-gumbel-softmax"])
def test_an_annealed_temperature_falls_from_the_first_to_the_lowest(name):
    assert falls(lambda **given: create(name, **given))
    assert not falls(StartsAtItsMinimum)


@pytest.mark.parametrize("name", ["gumbel-softmax", "straight-through-gumbel-softmax"])
def test_a_fixed_temperature_stays_and_is_no_state(name):
    assert temperatures(create(name, temperature=0.1), 3) == [0.1, 0.1, 0.1]
    assert not has_moving_state(create(name))
    assert has_moving_state(create(name, annealing=0.1))


@pytest.mark.parametrize("name", ["gumbel-softmax", "straight-through-gumbel-softmax"])
def test_the_annealed_temperature_is_the_one_in_use_and_is_saved(name):
    def draws(estimator):
        torch.manual_seed(0)
        leaf = torch.linspace(-1, 1, 12).reshape(4, 3).clone().requires_grad_()
        return estimated(estimator, bernoulli(leaf), leaf, 5)[0]

    annealed = create(name, temperature=2, annealing=math.log(2), lowest=0.25)
    temperatures(annealed, 2)
    torch.testing.assert_close(draws(annealed), draws(create(name, temperature=0.5)))
    restored = create(name, temperature=2, annealing=math.log(2), lowest=0.25)
    restored.load_state_dict(annealed.state_dict())
    assert torch.equal(draws(restored), draws(annealed))


# --- Shapes ---


@pytest.mark.parametrize("batch", [(), (1,), (256,), (2, 3)])
@pytest.mark.parametrize("num_samples", [1, 2, 3, 100])
@pytest.mark.parametrize("name", NAMES)
def test_any_batch_and_number_of_samples(name, num_samples, batch):
    for family, size in ((bernoulli, (1,)), (bernoulli, (7,)), (one_hot, (1, 4)), (one_hot, (3, 2))):
        leaf = torch.zeros(*batch, *size).requires_grad_()
        h, value = estimated(name, family(leaf), leaf, num_samples)
        assert h.shape == leaf.shape
        assert value.shape == batch
        if math.prod(batch) * num_samples > 100:
            assert bool(h.any())


@pytest.mark.parametrize("name", NAMES)
def test_a_scalar_posterior_and_a_bare_one_hot(name):
    leaf = torch.zeros(5, requires_grad=True)
    estimate = create(name)(td.Bernoulli(logits=leaf), Target(torch.sin), 3)
    assert torch.autograd.grad(estimate.surrogate.sum(), leaf)[0].abs().max() > 0
    leaf = torch.zeros(5, 4, requires_grad=True)
    estimate = create(name)(td.OneHotCategorical(logits=leaf), Target(cost), 3)
    assert torch.autograd.grad(estimate.surrogate.sum(), leaf)[0].abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_128_variables(name):
    leaf = torch.zeros(2, 128, 3, requires_grad=True)
    h, _ = estimated(name, one_hot(leaf), leaf, 2)
    assert bool(h.isfinite().all())

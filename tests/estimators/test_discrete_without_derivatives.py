"""Estimators for discrete latents that use values of f alone: identities, and moments by enumeration."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from elbograd.estimators import Target, create
from elbograd.estimators.methods import arm, arms, carms, local_expectation, sum_and_sample, unordered_set
from elbograd.estimators.pieces import antithetic_bits
from elbograd.estimators.pieces.sticks import break_sticks
from elbograd.estimators.pieces.variables import variables_of
from elbograd.estimators.pieces.without_replacement import inclusion, most_likely, ordered_samples
from elbograd.estimators.posteriors.outcomes import enumerate_outcomes
from scipy.stats import chisquare
from torch import distributions as td

WITHOUT_DERIVATIVES = (
    "local-expectation",
    "bit-flip",
    "arm",
    "disarm",
    "arsm",
    "arms",
    "carms",
    "unordered-set",
    "sum-and-sample",
    "sum-and-sample[summed=drawn]",
)
K_ARY = ("local-expectation", "disarm", "arsm", "carms", "unordered-set", "sum-and-sample")


def bernoulli(eta):
    return td.Independent(td.Bernoulli(logits=eta, validate_args=False), 1)


def one_hot(eta):
    return td.Independent(td.OneHotCategorical(logits=eta, validate_args=False), 1)


def coupled(z):
    """Couples all coordinates, and is no polynomial."""
    z = z.flatten(2)
    weights = torch.linspace(-1.3, 1.7, z.shape[-1], dtype=z.dtype)
    return 2 * (z @ weights + 0.4).sin() + (z @ weights.flip(0)).square() - z[..., 0]


def gradient(spec, posterior, eta, num_samples, f=coupled, replicates=1):
    """Of the surrogate in eta, one a replicate: (R, *eta.shape)."""
    leaf = eta.expand(replicates, *eta.shape).clone().requires_grad_()
    estimate = create(spec)(posterior(leaf), Target(f), num_samples)
    return torch.autograd.grad(estimate.surrogate.sum(), leaf)[0]


def exact(posterior, eta, f=coupled):
    return gradient("exact[method=enumeration]", posterior, eta, 1, f)[0]


BITS = torch.tensor([-1.3, 0.4, 2.1], dtype=torch.float64)
STATES = torch.tensor([[-0.6, 0.9, 0.2, 1.4], [1.1, -2.0, 0.3, 0.0]], dtype=torch.float64)


# --- Pairs ---


def uniforms(monkeypatch, module, values):
    """What ``module`` draws: these numbers, of any shape that fits."""
    monkeypatch.setattr(module, "open_uniform", lambda shape, like: values.reshape(shape).clone())


@pytest.mark.parametrize("p", [0.2, 0.5, 0.7])
def test_disarm_is_the_conditional_expectation_of_arm(p, monkeypatch):
    """One bit: the pair is constant between breaks at p and 1 − p, and ARM linear in u there."""
    eta = torch.tensor([math.log(p / (1 - p))], dtype=torch.float64)
    for low, high in itertools.pairwise(sorted({0.0, p, 1 - p, 1.0})):
        u = torch.linspace(low, high, 2001, dtype=torch.float64)[1:-1]
        of_each = []
        for name, module in (("arm", arm), ("disarm", antithetic_bits)):
            uniforms(monkeypatch, module, u)
            of_each.append(gradient(name, bernoulli, eta, 2, replicates=len(u)))
        given = of_each[1]
        torch.testing.assert_close(of_each[0].mean(0), given[0])
        torch.testing.assert_close(given, given[:1].expand_as(given))


@pytest.mark.parametrize("logits", [BITS[:1], -BITS[1:2]])
def test_arms_of_two_is_disarm_draw_by_draw(logits, monkeypatch):
    u = torch.rand(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    uniforms(monkeypatch, antithetic_bits, u)
    pair = torch.stack((1 - u, u)) if logits > 0 else torch.stack((u, 1 - u))
    monkeypatch.setattr(arms, "dirichlet_uniforms", lambda n, shape, like: pair.reshape(n, *shape))
    both = [gradient(name, bernoulli, logits, 2, replicates=500) for name in ("arms", "disarm")]
    torch.testing.assert_close(*both)
    assert both[0].std() > 0.1


def test_arsm_of_two_states_is_arm(monkeypatch):
    """The same u in arm gives the gradient in the logit of state 1."""
    torch.manual_seed(0)
    made = []

    def exponential(self, *arguments, original=torch.Tensor.exponential_):
        made.append(original(self, *arguments))
        return made[-1]

    monkeypatch.setattr(torch.Tensor, "exponential_", exponential)
    states = torch.stack((torch.zeros_like(BITS), BITS), -1)
    found = gradient("arsm", one_hot, states, 1, lambda z: coupled(z[..., 1]), replicates=400)
    clocks = made[0]
    uniforms(monkeypatch, arm, (clocks[..., 0] / clocks.sum(-1)))
    expected = gradient("arm", bernoulli, BITS, 2, replicates=400)
    torch.testing.assert_close(found[..., 1], expected)
    torch.testing.assert_close(found.sum(-1), torch.zeros_like(expected))


@pytest.mark.parametrize("name", ["arms", "carms"])
def test_independent_copies_make_it_leave_one_out(name, monkeypatch):
    module = {"arms": arms, "carms": carms}[name]
    posterior, eta = (bernoulli, BITS) if name == "arms" else (one_hot, STATES)
    monkeypatch.setattr(
        module, "dirichlet_uniforms", lambda n, shape, like: torch.rand(n, *shape, dtype=torch.float64)
    )
    monkeypatch.setattr(module, "both_below", lambda p, n: p.square())
    seen = []

    def recorded(z):
        seen.append(z)
        return coupled(z)

    torch.manual_seed(0)
    found = gradient(name, posterior, eta, 4, recorded, replicates=50)
    z, probs = seen[0], posterior(eta).base_dist.probs
    f = coupled(z)
    centred = (f - f.mean(0)).reshape(4, 50, *(1,) * eta.dim())
    torch.testing.assert_close(found, (centred * (z - probs)).sum(0) / 3)


def test_sticks_spell_the_states_with_their_probabilities():
    variables = variables_of(one_hot(STATES))
    sticks = break_sticks(variables)
    p = sticks.probs
    assert (p <= 0.5).all()
    broken = torch.cat((p, torch.ones_like(p[..., :1])), -1) * torch.cat(
        (torch.ones_like(p[..., :1]), (1 - p).cumprod(-1)), -1
    )
    torch.testing.assert_close(broken, variables.probs.gather(-1, sticks.order))


# --- Samples without replacement ---


def every_order(posterior, eta, count):
    """Every ordered draw of ``count`` different configurations, (N, count, D), and its probability (N,)."""
    variables = variables_of(posterior(eta))
    size, states = variables.logits.shape
    outcomes = torch.tensor(list(itertools.product(range(states), repeat=size)))
    q = variables.log_prob(variables.one_hot(outcomes)).exp()
    orders = torch.tensor(list(itertools.permutations(range(len(outcomes)), count)))
    chances = q[orders]
    left = 1 - torch.cat((torch.zeros(len(orders), 1).double(), chances[:, :-1].cumsum(1)), 1)
    return outcomes[orders], (chances / left).prod(1)


def dealt(monkeypatch, orders):
    """`ordered_samples` deals these orders, one a replicate."""
    for module in (unordered_set, sum_and_sample):
        monkeypatch.setattr(module, "ordered_samples", lambda variables, count: orders.movedim(0, 1))


def moments(spec, posterior, eta, count, monkeypatch, f=coupled):
    """Exact mean and variance of the gradient."""
    orders, chances = every_order(posterior, eta, count)
    dealt(monkeypatch, orders)
    draws = gradient(spec, posterior, eta, count, f, replicates=len(orders))
    mean = torch.tensordot(chances, draws, 1)
    return mean, torch.tensordot(chances, (draws - mean).square(), 1)


SETS = ("unordered-set", "sum-and-sample", "sum-and-sample[summed=drawn]")


@pytest.mark.parametrize("spec", SETS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("posterior", "eta"), [(bernoulli, BITS), (one_hot, STATES[:, :3]), (one_hot, 3 * STATES[:1])]
)
def test_the_mean_of_a_set_is_exact_for_every_size(spec, posterior, eta, count, monkeypatch):
    mean, variance = moments(spec, posterior, eta, count, monkeypatch)
    torch.testing.assert_close(mean, exact(posterior, eta))
    if count == 1:
        torch.testing.assert_close(variance, moments("unordered-set", posterior, eta, 1, monkeypatch)[1])


@pytest.mark.parametrize("spec", SETS)
def test_all_states_are_enumeration(spec):
    found = gradient(spec, one_hot, STATES[:1], 4, replicates=20)
    torch.testing.assert_close(found, exact(one_hot, STATES[:1]).expand_as(found))


@pytest.mark.parametrize("count", [2, 3])
def test_sum_and_sample_averaged_over_the_orders_of_a_set_is_unordered_set(count, monkeypatch):
    """Of the value, that is; in the gradient the unordered set has a baseline of its own."""
    orders, chances = every_order(bernoulli, BITS, count)
    dealt(monkeypatch, orders)
    q = bernoulli(BITS.expand(len(orders), 3))
    drawn, of_set = (
        create(spec)(q, Target(coupled), count).value
        for spec in ("sum-and-sample[summed=drawn]", "unordered-set")
    )
    key = (2 ** (orders * torch.tensor([4, 2, 1])).sum(-1)).sum(-1)
    for one in key.unique():
        same = key == one
        average = chances[same] @ drawn[same] / chances[same].sum()
        torch.testing.assert_close(of_set[same], average.expand_as(of_set[same]))
    assert drawn.std() > of_set.std() + 0.01


@pytest.mark.parametrize(
    ("eta", "expected"),
    [(0.0, {2: 0.0061125, 3: 0.0022625, 4: 0.00113083, 5: 0.0006105}), (-4.0, {2: 2.978e-5, 3: 8.071e-6})],
)
def test_published_variances_of_three_bits_with_one_logit(eta, expected, monkeypatch):
    """Kool et al. 2020, section 5.1."""

    def f(z):
        return (z - torch.tensor([0.6, 0.51, 0.48], dtype=z.dtype)).square().sum(-1)

    logits = torch.full((3,), eta, dtype=torch.float64)
    for count, variance in expected.items():
        orders, chances = every_order(bernoulli, logits, count)
        dealt(monkeypatch, orders)
        draws = gradient("unordered-set", bernoulli, logits, count, f, replicates=len(orders)).sum(-1)
        mean = chances @ draws
        torch.testing.assert_close(mean, exact(bernoulli, logits, f).sum())
        assert float(chances @ (draws - mean).square()) == pytest.approx(variance, rel=5e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("scale", "tolerance"), [(1.0, 0.0), (20.0, 1e-7)])
def test_inclusion_agrees_with_the_sum_over_orders(count, scale, tolerance):
    """Where the rest has 1e-8, its rounding is 1e-8 of it."""
    p = torch.softmax(scale * torch.tensor([0.3, -0.8, 0.1, 1.2, -0.2], dtype=torch.float64), 0)

    def of_set(chances, rest):
        """P that these come first, in any order, of all that have probability Σ chances + rest."""
        total = Fraction(0)
        for order in itertools.permutations(range(len(chances))):
            left, product = sum(chances) + rest, Fraction(1)
            for k in order:
                product, left = product * chances[k] / left, left - chances[k]
            total += product
        return total

    for chosen in itertools.combinations(range(5), count):
        chances = [Fraction(float(p[k])) for k in chosen]
        rest = sum(Fraction(float(p[k])) for k in range(5) if k not in chosen)
        found = inclusion(p[list(chosen)].log())
        for i in range(count):
            without = chances[:i] + chances[i + 1 :]
            ratio = of_set(without, rest) / of_set(chances, rest)
            assert float(found.first[i]) == pytest.approx(float(chances[i] * ratio), rel=1e-10, abs=tolerance)
            for j in range(count):
                if j != i:
                    less = [c for k, c in enumerate(chances) if k not in (i, j)]
                    second = chances[j] * of_set(less, rest) / of_set(without, rest)
                    assert float(found.second[i, j]) == pytest.approx(float(second), rel=1e-10, abs=tolerance)


def test_inclusion_of_many_agrees_with_the_sum_over_subsets():
    p = torch.softmax(torch.linspace(-1.5, 2.5, 15, dtype=torch.float64), 0)[torch.randperm(15)].tolist()
    count = 11

    def of_set(chances, rest):
        """P that these come first, in any order: subset by subset, each by which was drawn last of it."""
        whole, come = sum(chances) + rest, [1.0] + [0.0] * (2 ** len(chances) - 1)
        for subset in range(1, len(come)):
            for k in range(len(chances)):
                if subset >> k & 1:
                    before = subset & ~(1 << k)
                    drawn = sum(c for j, c in enumerate(chances) if before >> j & 1)
                    come[subset] += come[before] * chances[k] / (whole - drawn)
        return come[-1]

    found = inclusion(torch.tensor(p[:count], dtype=torch.float64).log())
    rest, together = sum(p[count:]), of_set(p[:count], sum(p[count:]))
    for i in (0, 5):
        first = p[i] * of_set([p[k] for k in range(count) if k != i], rest) / together
        assert float(found.first[i]) == pytest.approx(first, rel=1e-10)


@pytest.mark.parametrize(
    ("count", "of"), [(1, 5), (2, 5), (3, 27), (8, 27), (33, 625), (129, 625), (129, 130), (1000, 4096)]
)
@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_one_of_the_set_was_the_first_and_another_the_second(count, of, scale):
    """Sums of probabilities, each by a quadrature of its own: 1 where that is fine enough for so many."""
    torch.manual_seed(0)
    log_q = (scale * torch.randn(3, of, dtype=torch.float64)).log_softmax(-1)
    chosen = (log_q - torch.empty_like(log_q).exponential_().log()).topk(count, -1).indices
    found = inclusion(log_q.gather(-1, chosen).T)
    assert float((found.first.sum(0) - 1).abs().max()) < 1e-12
    if count > 1:
        assert float((found.second.sum(1) - 1).abs().max()) < 1e-12


def test_samples_without_replacement_come_in_the_order_of_the_law():
    """χ² over the 56 ordered pairs of 20,000 draws; a false alarm has probability 1e-4."""
    torch.manual_seed(0)
    orders, chances = every_order(bernoulli, BITS, 2)
    drawn = ordered_samples(variables_of(bernoulli(BITS.expand(20_000, 3))), 2).movedim(0, 1)
    counts = [(drawn == order).all(-1).all(-1).sum().item() for order in orders]
    assert sum(counts) == 20_000
    assert chisquare(counts, 20_000 * chances.numpy()).pvalue > 1e-4
    assert chisquare(counts, 20_000 * chances.roll(1).numpy()).pvalue < 1e-10


def test_the_most_likely_are_found_among_many():
    eta = torch.linspace(-2, 2.5, 10, dtype=torch.float64).exp() - 1.7
    variables = variables_of(bernoulli(eta))
    outcomes = torch.tensor(list(itertools.product(range(2), repeat=10)))
    q = variables.log_prob(variables.one_hot(outcomes))
    assert torch.equal(most_likely(variables, 5), outcomes[q.topk(5).indices])


# --- One variable summed out ---


def test_local_expectation_of_an_additive_f_is_exact():
    def additive(z):
        return (z * torch.tensor([1.0, -2.0, 0.7], dtype=z.dtype)).exp().sum(-1)

    found = gradient("local-expectation", bernoulli, BITS, 1, additive, replicates=20)
    torch.testing.assert_close(found, exact(bernoulli, BITS, additive).expand_as(found))


@pytest.mark.parametrize(("posterior", "eta"), [(bernoulli, BITS), (one_hot, STATES)])
def test_the_mean_of_local_expectation_is_exact(posterior, eta, monkeypatch):
    z = enumerate_outcomes(posterior(eta))
    chances = posterior(eta).log_prob(z).exp()
    monkeypatch.setattr(local_expectation, "draw", lambda q, s: (z.unsqueeze(0), None))
    draws = gradient("local-expectation", posterior, eta, 1, replicates=len(z))
    torch.testing.assert_close(torch.tensordot(chances, draws, 1), exact(posterior, eta))


@pytest.mark.parametrize(("name", "variance"), [("arm", 3.39e-4), ("disarm", 2.94e-4), ("arms", 2.94e-4)])
def test_published_variances_of_one_bit(name, variance):
    """p = .3, f = (z − .45)², pairs: 200,000 estimates; the tolerance is five standard errors and the digits."""
    torch.manual_seed(0)
    eta = torch.tensor([math.log(0.3 / 0.7)], dtype=torch.float64)
    draws = gradient(name, bernoulli, eta, 2, lambda z: (z - 0.45).square().sum(-1), replicates=200_000)
    squares = (draws - 0.021).square()
    assert abs(float(draws.mean()) - 0.021) < 5 * float(draws.std()) / 200_000**0.5
    assert abs(float(squares.mean()) - variance) < 5 * float(squares.std()) / 200_000**0.5 + 5e-7


# --- Off the support, refusals ---


@pytest.mark.parametrize("name", WITHOUT_DERIVATIVES)
@pytest.mark.parametrize(("posterior", "eta"), [(bernoulli, BITS), (one_hot, STATES)])
def test_nothing_is_evaluated_off_the_support(name, posterior, eta):
    if posterior is one_hot and name.partition("[")[0] not in K_ARY:
        assert "two states, not of 4" in create(name).supports(one_hot(eta), Target(coupled), 2)
        return

    def poked(z):
        return coupled(z) + 1e3 * (z * (1 - z)).flatten(2).sum(-1)

    found = []
    for f in (coupled, poked):
        torch.manual_seed(1)
        found.append(gradient(name, posterior, eta, 2, f, replicates=30))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", [*WITHOUT_DERIVATIVES, "local-disarm"])
def test_a_gaussian_is_refused_in_one_line(name):
    q = td.Independent(td.Normal(torch.zeros(2, 3), 1.0), 1)
    reason = create(name).supports(q, Target(coupled, prior=q), 2)
    assert reason == "needs independent Bernoulli or categorical latents, not a Normal posterior"


@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_pairs_need_an_even_number(name):
    reasons = [create(name).supports(bernoulli(BITS), Target(coupled), s) for s in (1, 2, 3, 4)]
    assert reasons[1::2] == [None, None]
    assert reasons[2] == "needs an even num_samples, for pairs, not 3"
    assert "at least 2" in reasons[0]


@pytest.mark.parametrize("name", SETS)
def test_more_samples_than_states_are_refused(name):
    reasons = [create(name).supports(bernoulli(BITS), Target(coupled), s) for s in (8, 9)]
    assert reasons == [None, "draws without replacement: num_samples is at most 8 here, not 9"]
    many = bernoulli(torch.zeros(1, 2000))
    assert create(name).supports(many, Target(coupled), 3) is None


def test_too_many_states_for_arsm_are_refused():
    q = one_hot(torch.zeros(1, 2, 101))
    assert "100 states at most, not 101" in create("arsm").supports(q, Target(coupled), 1)


@pytest.mark.parametrize("name", K_ARY)
def test_integer_samples_are_handled_like_one_hot(name):
    table = torch.tensor([1.0, -0.3, 2.0, 0.4], dtype=torch.float64)
    eta = STATES[:1]
    found = []
    for posterior, f in (
        (lambda e: td.Categorical(logits=e[..., 0, :]), lambda z: table[z]),
        (one_hot, lambda z: z[..., 0, :] @ table),
    ):
        torch.manual_seed(2)
        found.append(gradient(name, posterior, eta, 2, f, replicates=3000))
    for draws in found:
        deviation = (draws.mean(0) - exact(one_hot, eta, lambda z: z[..., 0, :] @ table)).abs()
        assert (deviation <= 5 * draws.std(0) / 3000**0.5 + 1e-12).all()

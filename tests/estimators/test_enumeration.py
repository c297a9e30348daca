"""Sums over many outcomes, a few at a time, against one sum over all: value, φ and θ, whatever q and f are."""

from __future__ import annotations

import itertools

import pytest
import torch
from elbograd.estimators import Target, create
from elbograd.estimators.pieces import enumeration
from elbograd.estimators.pieces.enumeration import expected
from elbograd.estimators.posteriors.outcomes import MAX_OUTCOMES, Outcomes, enumerate_outcomes, outcomes
from torch import distributions as td

B = 3


def logits(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


class Chain(td.Distribution):
    """D bits, of which each one but the first leans on the one before: no product of independent ones."""

    arg_constraints = {}  # noqa: RUF012
    support = td.constraints.independent(td.constraints.boolean, 1)
    has_enumerate_support = True

    def __init__(self, leaf):
        self.leaf = leaf
        super().__init__(leaf.shape[:-1], leaf.shape[-1:], validate_args=False)

    def _logits(self, z):
        before = torch.cat((torch.zeros_like(z[..., :1]), z[..., :-1]), -1)
        return self.leaf + 1.7 * before * self.leaf.flip(-1)

    def log_prob(self, z):
        given = self._logits(z)
        return (z * given - torch.nn.functional.softplus(given)).sum(-1)


def bernoulli(leaf):
    return td.Independent(td.Bernoulli(logits=leaf), 1)


def one_hot(leaf):
    return td.Independent(td.OneHotCategorical(logits=leaf.unflatten(-1, (-1, 3))), 1)


def integers(leaf):
    return td.Independent(td.Categorical(logits=leaf.unflatten(-1, (-1, 3))), 1)


def counts(leaf):
    return td.Independent(td.Binomial(torch.tensor([2.0, 1.0, 3.0]).double().repeat(2), logits=leaf), 1)


def nested(leaf):
    return td.Independent(td.Independent(td.Bernoulli(logits=leaf.unflatten(-1, (2, 3))), 1), 1)


def codes(leaf):
    """One variable of 3⁴ values, listed by the distribution itself."""
    return td.OneHotCategorical(logits=torch.cat([leaf] * 13 + [leaf[..., :3]], -1) * torch.arange(81))


POSTERIORS = {
    f.__name__: f for f in (bernoulli, one_hot, integers, counts, nested, Chain, codes)
}  # each of 6 parameters a datum


class Model(torch.nn.Module):
    """f couples the coordinates, differs between data and holds θ; its prior does too."""

    def __init__(self, event, broadcasts, prior):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        size = event.numel()
        self.weight = torch.nn.Parameter(torch.randn(size, 4, generator=generator).double())
        self.lean = torch.nn.Parameter(torch.randn(event, generator=generator).double())
        self.x = torch.randn(B, 4, generator=generator).double()
        self.event, self.broadcasts, self.has_prior, self.rows = event, broadcasts, prior, []

    def log_likelihood(self, z):
        shape = z.shape[: z.dim() - len(self.event)]
        if not self.broadcasts and shape[-1] != B:
            raise RuntimeError("one z for each datum, please")
        self.rows.append(shape[0])
        hidden = torch.tanh(z.to(self.weight).reshape(*shape, -1) @ self.weight)
        return (hidden * self.x).sum(-1)

    def target(self, q):
        return Target(self.log_likelihood, Prior(self.lean) if self.has_prior else None)


class Prior(td.Distribution):
    """A density with no KL in closed form against any q."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, lean):
        self.lean = lean
        super().__init__((), lean.shape, validate_args=False)

    def log_prob(self, z):
        value = (self.lean * z.to(self.lean)).flatten(-self.lean.dim()).sum(-1)
        return value - 0.1 * value.square()


def answers(value, leaf, model):
    grads = torch.autograd.grad(value.sum(), [leaf, *model.parameters()], materialize_grads=True)
    return [value.detach(), *grads]


def brute_force(q, model, kl):
    """Every z by itself."""
    z = enumerate_outcomes(q)
    log_q = q.log_prob(z)
    f = model.log_likelihood(z)
    if kl == "sampled":
        f = f + Prior(model.lean).log_prob(z) - log_q
    return (log_q.exp() * f).sum(0)


@pytest.mark.parametrize(("broadcasts", "lead"), [(True, (2,)), (False, ())])
@pytest.mark.parametrize("kl", ["analytic", "sampled"])
@pytest.mark.parametrize("name", POSTERIORS)
def test_a_few_at_a_time_is_all_at_once(name, kl, broadcasts, lead, monkeypatch):
    leaf = logits(*lead, B, 6)
    q = POSTERIORS[name](leaf)
    model = Model(q.event_shape, broadcasts, kl == "sampled")
    whole = answers(brute_force(POSTERIORS[name](leaf), model, kl), leaf, model)
    for entries in (5 * leaf[..., 0].numel(), 16 * leaf[..., 0].numel()):
        monkeypatch.setattr(enumeration, "_ENTRIES", entries)
        for at_once in (0, 2**15):
            monkeypatch.setattr(enumeration, "_AT_ONCE", at_once)
            model.rows.clear()
            q = POSTERIORS[name](leaf)
            found = answers(expected(q, model.target(q), kl), leaf, model)
            torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-11)
            most = max(entries // leaf[..., 0].numel(), enumeration._PROBES)
            assert at_once or max(model.rows) <= most


@pytest.mark.parametrize("name", POSTERIORS)
def test_where_no_parameter_of_f_asks_for_it_there_is_one_pass(name, monkeypatch):
    monkeypatch.setattr(enumeration, "_AT_ONCE", 0)
    monkeypatch.setattr(enumeration, "_ENTRIES", 12)
    leaf = logits(B, 6)
    q = POSTERIORS[name](leaf)
    model = Model(q.event_shape, True, True)
    with torch.no_grad():
        plain = expected(q, model.target(q), "sampled")
    (attached,) = torch.autograd.grad(expected(q, model.target(q), "sampled").sum(), leaf)
    q = POSTERIORS[name](leaf)
    model.requires_grad_(False)
    model.rows.clear()
    value = expected(q, model.target(q), "sampled")
    assert not plain.requires_grad
    torch.testing.assert_close(value.detach(), plain)
    once = sum(model.rows)
    (frozen,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(frozen, attached)
    if name in (
        "bernoulli",
        "one_hot",
        "integers",
        "nested",
    ):  # of independent variables f is not needed again
        assert sum(model.rows) == once
        assert once <= outcomes(q) + 3 * enumeration._PROBES


def test_a_decoder_is_run_once_for_all_data_where_it_broadcasts(monkeypatch):
    monkeypatch.setattr(enumeration, "_AT_ONCE", 0)
    leaf = logits(2, B, 6)
    seen = []

    def log_likelihood(z):
        seen.append(z.shape)
        return (z * torch.arange(6)).sum(-1) * torch.arange(1.0, B + 1).double()

    expected(bernoulli(leaf), Target(log_likelihood), "analytic")
    assert all(shape[1:] == (1, 1, 6) for shape in seen[3:])


@pytest.mark.parametrize(
    "f",
    [
        lambda z: z.sum(-1) + (z.shape[-2] == 1),  # another number
        lambda z: z.sum(-1) if z.shape[-2] == B else z.new_zeros(2, 5),  # another shape
        lambda z: {B: z}[z.shape[-2]].sum(-1),  # an error
    ],
)
def test_a_decoder_that_needs_a_z_for_each_datum_gets_it(f):
    z = torch.arange(12.0).reshape(2, 1, 6)
    assert not enumeration._takes_one_for_all(Target(f), z, z.expand(2, B, 6))
    assert enumeration._takes_one_for_all(Target(lambda z: z.sum(-1)), z, z.expand(2, B, 6))


def test_outcomes_are_counted_before_they_are_made():
    q = bernoulli(logits(2, 200))
    assert outcomes(q) == 2**200
    target = Target(lambda z: z.sum(-1))
    line = create("exact[method=enumeration]").supports(q, target, 1)
    assert line == f"2^200 outcomes are too many to enumerate (at most {MAX_OUTCOMES})"
    assert "2^200" in create("exact").supports(q, target, 1)
    chain = Chain(logits(2, 60))
    assert create("exact[method=enumeration]").supports(chain, target, 1).startswith("2^60 outcomes")
    single = td.Categorical(logits=torch.zeros(1, MAX_OUTCOMES + 1))
    assert create("exact[method=enumeration]").supports(single, target, 1).startswith("1048577 outcomes")
    assert create("exact").supports(bernoulli(logits(2, 20)), target, 1) is None


def test_numbers_name_outcomes_in_order():
    q = one_hot(logits(B, 6))
    every = Outcomes(q)
    z = enumerate_outcomes(q)
    assert z.shape == (9, B, 2, 3)
    states = list(itertools.product(range(3), repeat=2))
    assert z[:, 0].argmax(-1).tolist() == [list(pair) for pair in states]
    torch.testing.assert_close(every.at(torch.tensor([7, 2])), z[[7, 2], :1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_impossible_states_and_infinite_costs_leave_finite_gradients(dtype, monkeypatch):
    monkeypatch.setattr(enumeration, "_ENTRIES", 12)
    for at_once in (0, 2**15):
        monkeypatch.setattr(enumeration, "_AT_ONCE", at_once)
        leaf = torch.tensor([[0.3, -torch.inf, 1.0], [-1e5, 1.0, 0.5]], dtype=dtype)
        leaf = leaf.expand(B, 2, 3).clone().requires_grad_()
        q = td.Independent(td.OneHotCategorical(logits=leaf, validate_args=False), 1)

        def log_likelihood(z):
            impossible = (z[..., 0, 1] + z[..., 1, 0]) > 0
            return torch.where(impossible, -torch.inf, z[..., 0, 0] + 2 * z[..., 0, 0] * z[..., 1, 1])

        value = expected(q, Target(log_likelihood), "analytic")
        (grad,) = torch.autograd.grad(value.sum(), leaf)
        p, r = q.base_dist.probs[0, 0, 0].item(), q.base_dist.probs[0, 1, 1].item()
        torch.testing.assert_close(value, torch.full((B,), p + 2 * p * r, dtype=dtype))
        # ∂/∂logit of p + 2pr: p(1 − p)(1 + 2r), and r(1 − r)·2p.
        one = torch.tensor([[p * (1 - p) * (1 + 2 * r), 0, 0], [0, 2 * p * r * (1 - r), 0]], dtype=dtype)
        one[0, 2], one[1, 2] = -one[0, 0], -one[1, 1]
        torch.testing.assert_close(grad, one.expand(B, 2, 3))


def test_a_million_states():
    """An additive f has a mean that algebra gives, whatever D is."""
    leaf = logits(2, 20, seed=4)
    weight = logits(20, seed=5)
    q = bernoulli(leaf)
    p = leaf.sigmoid()
    value = create("exact")(q, Target(lambda z: (z * weight).sum(-1).square()), 1).value
    exact = (p * weight).sum(-1).square() + (p * (1 - p) * weight.square()).sum(-1)
    torch.testing.assert_close(value, exact)
    ours = torch.autograd.grad(value.sum(), (leaf, weight))
    torch.testing.assert_close(ours, torch.autograd.grad(exact.sum(), (leaf, weight)))

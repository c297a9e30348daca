"""Estimators of independent discrete variables on hierarchies: exact means by enumeration of all that they draw.

Where noise is continuous and its cells do not decide, means of many draws are held against the exact gradient.
"""

from __future__ import annotations

import pytest
import torch
from elbograd.estimators import Layered, Target, create
from elbograd.estimators.pieces import layer_by_layer, local_signals
from every_way import every_way
from hierarchies import Hierarchy
from torch import distributions as td

UP, DOWN = {"z2": ("z1",)}, {"z1": ("z2",)}
GRAPHS = {
    # sizes, parents in q, parents in p, what log p(x|z) reads
    "up": ({"z1": 2, "z2": 1}, UP, DOWN, ("z1",)),
    "down": ({"z1": 1, "z2": 1}, DOWN, DOWN, ("z1",)),
    "all-read": ({"z1": 1, "z2": 1}, UP, DOWN, None),
    "independent": ({"z1": 1, "z2": 1}, {}, DOWN, None),
    "chain": (
        {"z1": 1, "z2": 1, "z3": 1},
        {"z2": ("z1",), "z3": ("z2",)},
        {"z1": ("z2",), "z2": ("z3",)},
        ("z1",),
    ),
    "collider": ({"z1": 1, "z2": 1, "z3": 1}, {"z3": ("z1", "z2")}, {"z1": ("z3",), "z2": ("z3",)}, ("z2",)),
}
#: Estimators whose draws are bits, whole numbers and cells of uniforms, with S, and the graphs that are not too
#: many ways for it.
ENUMERATED = [
    *[("local-expectation", 1, graph) for graph in GRAPHS],
    ("local-expectation", 2, "down"),
    *[("bit-flip", 1, graph) for graph in GRAPHS],
    ("bit-flip", 2, "down"),
    *[(name, 2, graph) for name in ("arm", "disarm") for graph in ("up", "down", "all-read", "independent")],
]


def hierarchy(graph, **kwargs):
    sizes, q_parents, p_parents, reads = GRAPHS[graph]
    return Hierarchy(sizes, q_parents, p_parents, reads, seed=len(graph), **kwargs)


def exact_means(model, estimator, num_samples):
    weights, found = every_way(lambda ways: estimator(model.q(ways), model.target(), num_samples))
    value = (weights * found.value).sum()
    surrogate = (weights * found.surrogate).sum()
    return model.gradients(surrogate, model.phi), model.gradients(value, model.theta), value.detach()


def check_exact(model, found):
    exact = model.exact()
    torch.testing.assert_close(found[0], model.gradients(exact, model.phi), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found[1], model.gradients(exact, model.theta), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found[2], exact.detach())


@pytest.mark.parametrize(("name", "num_samples", "graph"), ENUMERATED)
def test_means_are_exact_in_phi_and_in_theta(name, num_samples, graph):
    model, estimator = hierarchy(graph), create(f"{name}[kl=sampled]")
    assert estimator.supports(model.q(1), model.target(), num_samples) is None
    check_exact(model, exact_means(model, estimator, num_samples))


@pytest.mark.parametrize("weight", [0.0, 0.5, {"z1": 2.0, "z2": 0.3}])
@pytest.mark.parametrize("name", ["local-expectation", "bit-flip"])
def test_a_weighted_kl(name, weight):
    model = hierarchy("up", kl_weight=weight)
    check_exact(model, exact_means(model, create(f"{name}[kl=sampled]"), 1))


@pytest.mark.parametrize("graph", ["down", "independent"])
@pytest.mark.parametrize("name", ["score-function", "leave-one-out", "local-expectation", "disarm"])
def test_a_closed_form_kl_of_each_layer(name, graph):
    sizes = {"z1": 1, "z2": 1}
    model = Hierarchy(
        sizes, DOWN if graph == "down" else {}, DOWN, ("z1",), seed=5, kl_weight={"z1": 0.5, "z2": 2.0}
    )
    estimator = create(name)
    num_samples = 1 if name in ("score-function", "local-expectation") else 2
    assert estimator.supports(model.q(1), model.target(), num_samples) is None
    check_exact(model, exact_means(model, estimator, num_samples))


# --- What would be wrong ---


@pytest.mark.parametrize("name", ["local-expectation", "bit-flip"])
@pytest.mark.parametrize("graph", ["up", "all-read", "chain"])
def test_descendants_that_are_not_drawn_anew_are_seen(name, graph, monkeypatch):
    given = layer_by_layer._Problem._layer

    def at_zero(problem, name, parts, rows):
        if name in problem.below and name != problem.name:
            parts = {**parts, problem.name: torch.zeros_like(parts[problem.name])}
        return given(problem, name, parts, rows)

    monkeypatch.setattr(layer_by_layer._Problem, "_layer", at_zero)
    model = hierarchy(graph)
    found = exact_means(model, create(f"{name}[kl=sampled]"), 1)[0]
    assert not torch.allclose(found, model.gradients(model.exact(), model.phi), rtol=1e-3)


# --- Noise that is not enumerated ---

REPLICATES = 10_000
#: No coordinate of a mean is off by so many standard errors: below 1e-6 each, 4e-4 in all of the tests below.
LIMIT = 4.9
SAMPLED = [
    ("arsm", 1),
    ("arsm", 3),
    ("arms", 2),
    ("arms", 3),
    ("arms", 4),
    ("carms", 3),
    ("unordered-set", 2),
    ("unordered-set", 4),  # of which z² has two outcomes alone
    ("sum-and-sample", 1),
    ("sum-and-sample", 2),
    ("sum-and-sample[summed=drawn]", 2),
    ("disarm", 4),
    ("arm", 4),
    ("bit-flip", 3),
    ("local-expectation", 3),
]


def with_sampled_kl(spec):
    return create(f"{spec[:-1]},kl=sampled]" if spec.endswith("]") else f"{spec}[kl=sampled]")


def off(draws, exact):
    """The largest distance of the mean of draws (R, P) from the exact gradient, in standard errors."""
    error = draws.std(0) / len(draws) ** 0.5
    return float(((draws.mean(0) - exact).abs() / (error + 1e-9 * exact.abs().max())).max())


def draws_of(model, estimator, num_samples):
    """The gradient in φ of each of many estimates, (R, P), drawn from one seed."""
    torch.manual_seed(11)
    q, tables = model.replicated(REPLICATES)
    estimate = estimator(q, model.target(), num_samples)
    found = torch.autograd.grad(estimate.surrogate.sum(), list(tables.values()))
    return torch.cat([part.flatten(1) for part in found], 1)


@pytest.mark.parametrize(
    ("spec", "num_samples", "graph"),
    [
        *[(*case, "up") for case in SAMPLED],
        *[(*case, "collider") for case in SAMPLED if case[0] in ("arsm", "arms")],
    ],
)
def test_means_are_right(spec, num_samples, graph, unchecked_shapes):
    model, estimator = hierarchy(graph), with_sampled_kl(spec)
    assert estimator.supports(model.q(1), model.target(), num_samples) is None
    exact = model.gradients(model.exact(), model.phi)
    assert off(draws_of(model, estimator, num_samples), exact) < LIMIT


def test_a_signal_that_lacks_a_term_is_seen(monkeypatch):
    monkeypatch.setattr(local_signals, "_of_prior", lambda q, target, z, wanted: [])
    model = hierarchy("up")
    exact = model.gradients(model.exact(), model.phi)
    assert off(draws_of(model, create("arms[kl=sampled]"), 2), exact) > 2 * LIMIT


class Categories:
    """z¹ of 3 states → z² of 2 variables of 3 states, tables of logits; p the other way round; f of both."""

    def __init__(self, integers):
        generator = torch.Generator().manual_seed(3)
        self.integers = integers
        shapes = {"q1": (1, 3), "q2": (3, 2, 3), "p2": (2, 3), "p1": (3, 3, 1, 3), "f": (3, 3, 3)}
        self.tables = {k: torch.randn(s, generator=generator).double() for k, s in shapes.items()}

    def posterior(self, q1, q2):
        """From tables with one copy an entry of the batch."""
        return Layered({"z1": self.variables(q1), "z2": lambda z1: self.variables(self.look_up(q2, z1))})

    def variables(self, logits):
        one = td.Categorical if self.integers else td.OneHotCategorical
        return td.Independent(one(logits=logits, validate_args=False), 1, validate_args=False)

    def codes(self, z):
        return torch.nn.functional.one_hot(z.long(), 3).double() if self.integers else z

    def look_up(self, table, z1):
        """Rows (..., 2, 3) of a table (..., 3, 2, 3) by the state of z¹."""
        return torch.einsum("...k,...kdj->...dj", self.codes(z1).squeeze(-2), table)

    def target(self):
        p1, p2, f = (self.tables[name] for name in ("p1", "p2", "f"))

        def lower(z2):
            a, b = self.codes(z2).unbind(-2)
            return self.variables(torch.einsum("...i,...j,ijdk->...dk", a, b, p1))

        prior = Layered({"z1": lower, "z2": self.variables(p2)})

        def log_likelihood(z):
            parts = prior.split(z)
            (c,), (a, b) = self.codes(parts["z1"]).unbind(-2), self.codes(parts["z2"]).unbind(-2)
            return torch.einsum("...c,...a,...b,cab->...", c, a, b, f)

        return Target(log_likelihood, prior)

    def exact(self):
        """∇ of the sum over all 27 outcomes in the tables of q, flattened."""
        q1, q2 = (self.tables[name].clone().requires_grad_() for name in ("q1", "q2"))
        t = self.tables
        log_q = q1.log_softmax(-1)[0][:, None, None] + (
            q2.log_softmax(-1)[:, 0][:, :, None] + q2.log_softmax(-1)[:, 1][:, None, :]
        )
        log_p2 = t["p2"].log_softmax(-1)[0][:, None] + t["p2"].log_softmax(-1)[1]
        log_p1 = t["p1"].log_softmax(-1)[:, :, 0].permute(2, 0, 1)
        value = (log_q.exp() * (t["f"] + log_p1 + log_p2 - log_q)).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, (q1, q2))])


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize(
    ("spec", "num_samples"),
    [
        ("leave-one-out", 2),
        ("local-expectation", 1),
        ("disarm", 2),
        ("arsm", 1),
        ("carms", 3),
        ("unordered-set", 3),
        ("sum-and-sample", 2),
    ],
)
def test_means_are_right_of_categories(spec, num_samples, integers, unchecked_shapes):
    model, estimator = Categories(integers), with_sampled_kl(spec)
    leaves = [model.tables[n].expand(REPLICATES, *model.tables[n].shape).clone() for n in ("q1", "q2")]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    q, target = model.posterior(*leaves), model.target()
    assert estimator.supports(q, target, num_samples) is None
    torch.manual_seed(5)
    found = torch.autograd.grad(estimator(q, target, num_samples).surrogate.sum(), leaves)
    draws = torch.cat([part.flatten(1) for part in found], 1)
    assert off(draws, model.exact()) < LIMIT


# --- Claims ---


@pytest.mark.parametrize(
    ("spec", "evaluations"),
    [
        ("disarm[kl=sampled]", 4 + 4),
        ("local-expectation[kl=sampled]", 4 * 3 + 4 * 2),
        ("unordered-set[kl=sampled]", 4 + 4),
    ],
)
def test_every_latent_costs_what_the_estimator_costs(spec, evaluations):
    model = Hierarchy({"z1": 2, "z2": 1} if "set" not in spec else {"z1": 2, "z2": 2}, UP, DOWN)
    target, seen = model.target(), []

    def counted(z):
        seen.append(len(z))
        return target.log_likelihood(z)

    create(spec)(model.q(1), Target(counted, target.prior), 4)
    assert sum(seen) == evaluations


def test_a_likelihood_that_does_not_read_the_top_is_not_evaluated_for_it():
    model = hierarchy("up")
    target, seen = model.target(), []

    def counted(z):
        seen.append(len(z))
        return target.log_likelihood(z)

    create("disarm[kl=sampled]")(model.q(1), Target(counted, target.prior, reads=("z1",)), 4)
    assert sum(seen) == 4


@pytest.mark.parametrize("batch", [(1,), (256,), (3, 2)])
@pytest.mark.parametrize(
    ("spec", "num_samples"), [("disarm", 2), ("disarm", 6), ("arms", 3), ("bit-flip", 100)]
)
def test_shapes_and_replicates(spec, num_samples, batch):
    model = hierarchy("up")
    estimate = create(f"{spec}[kl=sampled]")(model.q(*batch), model.target(), num_samples)
    assert estimate.surrogate.shape == batch
    assert estimate.value is estimate.surrogate


def test_what_cannot_be_done_is_refused_in_one_line():
    bits = hierarchy("up")
    normal = td.Independent(td.Normal(torch.zeros(1, 2), 1.0), 1)
    mixed = Layered({"z1": normal, "z2": lambda z1: td.Independent(td.Bernoulli(logits=z1), 1)})
    target = Target(lambda z: z.sum(-1))
    refused = create("disarm").supports(mixed, target, 2)
    assert refused == "takes discrete latents alone, and z1 is a Normal: use leave-one-out"
    assert create("disarm").supports(mixed, target, 1) == "needs num_samples of at least 2, not 1"
    assert "needs an even num_samples, for pairs, not 3" in create("disarm[kl=sampled]").supports(
        bits.q(1), bits.target(), 3
    )
    assert "kl=sampled" in create("disarm").supports(bits.q(1), bits.target(), 2)

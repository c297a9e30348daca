"""Several latents as one distribution: draws, densities, the cut, and what is refused, by hand."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from elbograd.estimators import Layered, Target, UsageError, catalogue, create, reading
from elbograd.estimators.posteriors import noise
from elbograd.estimators.posteriors.distributions import (
    cut,
    describe,
    draw,
    log_prob,
    parameters_of,
    reparameterizable,
    rsample,
)
from elbograd.estimators.posteriors.outcomes import enumerate_outcomes, outcomes
from torch import distributions as td

DOUBLE = torch.float64


def normal(loc, scale):
    return td.Independent(td.Normal(loc, scale, validate_args=False), 1, validate_args=False)


def bits(logits):
    return td.Independent(td.Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def one_hots(logits):
    return td.Independent(td.OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)


class Weights:
    """Of two linear layers between latents of sizes 2 and 3, and of a root; attached."""

    def __init__(self, dtype=DOUBLE, batch=(4,), scale=0.5):
        generator = torch.Generator().manual_seed(3)

        def leaf(*shape):
            return (0.6 * torch.randn(shape, generator=generator, dtype=DOUBLE)).to(dtype).requires_grad_()

        self.loc, self.up, self.down = leaf(*batch, 2), leaf(3, 2), leaf(2, 3)
        self.top, self.log_scale, self.bias = leaf(*batch, 3), leaf(3), leaf(2)
        self.scale = scale

    def leaves(self):
        return [self.loc, self.up, self.log_scale]

    def bottom_up(self, scale=None):
        scale = self.scale if scale is None else scale
        first = normal(self.loc, torch.full_like(self.loc, scale))
        return Layered(
            {"z1": first, "z2": lambda z1: normal((z1 @ self.up.T).sin(), scale * self.log_scale.exp())}
        )

    def top_down(self):
        """The same latents, in the same order, drawn the other way; z² are bits."""
        return Layered({"z1": lambda z2: normal(z2 @ self.down.T, self.bias.exp()), "z2": bits(self.top)})


def log_normal(z, loc, scale):
    return (-0.5 * ((z - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


@pytest.mark.parametrize("batch", [(4,), (5, 4), (1,)])
def test_densities_in_both_directions(batch):
    w = Weights(batch=batch)
    up, down = w.bottom_up(), w.top_down()
    assert up.order == ("z1", "z2")
    assert down.order == ("z2", "z1")
    for q in (up, down):
        assert (q.batch_shape, q.event_shape) == (torch.Size(batch), torch.Size((5,)))
        assert q.rsample((3,)).shape == (3, *batch, 5) if q is up else q.sample().shape == (*batch, 5)
    z = up.sample((3,))
    z1, z2 = z[..., :2], z[..., 2:]
    by_hand = log_normal(z1, w.loc, torch.tensor(0.5)) + log_normal(
        z2, (z1 @ w.up.T).sin(), 0.5 * w.log_scale.exp()
    )
    torch.testing.assert_close(up.log_prob(z), by_hand)
    z = down.sample((3,))
    z1, z2 = z[..., :2], z[..., 2:]
    assert bool(((z2 == 0) | (z2 == 1)).all())
    of_bits = (z2 * w.top - torch.nn.functional.softplus(w.top)).sum(-1)
    torch.testing.assert_close(down.log_probs(z)["z2"], of_bits)
    torch.testing.assert_close(down.log_prob(z), of_bits + log_normal(z1, z2 @ w.down.T, w.bias.exp()))
    wrong = down.log_prob(z) - down.log_probs(z)["z1"]  # a latent forgotten
    assert not torch.allclose(wrong, of_bits + log_normal(z1, z2 @ w.down.T, w.bias.exp()))


def three_layers():
    """Events (), (2, 3) and (2,), the middle one drawn last."""
    return Layered(
        {
            "a": td.Normal(torch.zeros(4), 1.0),
            "c": lambda a, b: one_hots(a[..., None, None] + b[..., None] * torch.arange(3.0)),
            "b": lambda a: normal(a.unsqueeze(-1) + torch.zeros(2), torch.ones(2)),
        }
    )


def test_three_layers_and_events_of_all_shapes():
    q = three_layers()
    assert q.order == ("a", "b", "c")
    assert q.event_shapes == {"a": (), "c": (2, 3), "b": (2,)}
    z = draw(q, 7)
    assert z.shape == (7, 4, 9)
    parts = q.split(z)
    assert [tuple(part.shape) for part in parts.values()] == [(7, 4), (7, 4, 2, 3), (7, 4, 2)]
    torch.testing.assert_close(q.join(parts), z)
    given = q.given(parts)
    by_hand = sum(given[name].log_prob(parts[name]) for name in "abc")
    torch.testing.assert_close(q.log_prob(z), by_hand)
    assert q.expand((5, 4)).sample((2,)).shape == (2, 5, 4, 9)
    assert describe(q) == "Layered (a: Normal, c: OneHotCategorical, b: Normal)"
    assert not reparameterizable(q)
    torch.testing.assert_close(q.log_prob(z[0, 0]), q.log_prob(z[0, 0].expand(4, 9)))


def test_a_categorical_latent_stays_an_integer():
    q = Layered(
        {
            "k": td.Categorical(torch.ones(4, 3)),
            "z": lambda k: normal(k.unsqueeze(-1) * torch.ones(2), torch.ones(2)),
        }
    )
    z = q.sample((5,))
    assert z.dtype == torch.float32
    assert q.split(z)["k"].dtype == torch.int64
    torch.testing.assert_close(q.log_probs(z)["k"], torch.full((5, 4), -math.log(3)))


def test_one_seed_gives_every_estimator_the_same_z():
    q = Weights().bottom_up()
    ways = [rsample, draw, lambda q, s: noise.draw(q, s)[0], lambda q, s: noise.rsample(q, s)[0]]
    drawn = []
    for looked_at in (False, True):
        for way in ways:
            q = Weights().bottom_up()
            assert not looked_at or q.event_shape == (5,)  # which draws nothing
            torch.manual_seed(0)
            drawn.append(way(q, 3).detach())
    assert all(torch.equal(z, drawn[0]) for z in drawn)


# --- Noise ---


def gradients(value, leaves):
    return torch.autograd.grad(value.sum(), leaves, retain_graph=True, materialize_grads=True)


def test_the_noise_gives_log_q_and_its_derivatives():
    w = Weights()
    q = w.bottom_up()
    z, made = noise.rsample(q, 3)
    plain = q.log_prob(z)
    for way in (noise.log_prob, noise.log_prob_along):
        found = way(q, z, made)
        torch.testing.assert_close(found, plain)
        torch.testing.assert_close(
            gradients(found, w.leaves()), gradients(plain, w.leaves()), atol=1e-12, rtol=1e-9
        )
    z, made = noise.draw(q, 3)
    found = noise.log_prob(q, z, made)
    torch.testing.assert_close(gradients(found, w.leaves()), gradients(q.log_prob(z), w.leaves()))


def test_log_q_does_not_suffer_from_rounding():
    w = Weights(torch.float32)
    q = w.bottom_up(scale=1e-6)
    z, made = noise.rsample(q, 200)
    spread = {"z1": torch.full((2,), 1e-6), "z2": 1e-6 * w.log_scale.exp()}
    exact = sum(
        (-0.5 * made[name].epsilon.square() - scale.log() - 0.5 * math.log(2 * math.pi)).double().sum(-1)
        for name, scale in spread.items()
    )
    for way in (noise.log_prob, noise.log_prob_along):
        torch.testing.assert_close(way(q, z, made).double(), exact, rtol=1e-5, atol=1e-4)
    off = (q.log_prob(z).double() - exact).abs().max()
    assert off > 1e-2  # from z alone
    (slope,) = torch.autograd.grad(
        noise.log_prob_along(q, z, made).sum(), w.up, allow_unused=True, materialize_grads=True
    )
    assert not bool(slope.any())  # of a scale that does not depend on z¹


# --- The cut ---


def by_hand_cut(w, z):
    """log q of a bottom-up Gaussian with copies of its parameters, attached to z alone."""
    z1, z2 = z[..., :2], z[..., 2:]
    scale = 0.5 * w.log_scale.detach().exp()
    return log_normal(z1, w.loc.detach(), torch.tensor(0.5)) + log_normal(
        z2, (z1 @ w.up.detach().T).sin(), scale
    )


@pytest.mark.parametrize("with_noise", [True, False])
def test_the_cut_leaves_what_z_does(with_noise):
    w = Weights()
    q = w.bottom_up()
    z, made = noise.rsample(q, 3)
    found = noise.log_prob(cut(q), z, made if with_noise else None)
    torch.testing.assert_close(found, q.log_prob(z))
    of_each = torch.arange(1.0, 13).reshape(3, 4).double()  # rows do not mix
    right = torch.autograd.grad((of_each * by_hand_cut(w, z)).sum(), w.leaves(), retain_graph=True)
    for a, b in zip(
        torch.autograd.grad((of_each * found).sum(), w.leaves(), retain_graph=True), right, strict=True
    ):
        torch.testing.assert_close(a, b)
    # What the conditional's network makes of z¹ counts: without it the gradient is another.
    blind = q.given({"z1": z[..., :2].detach()})["z2"]
    wrong = log_prob(cut(q.layers["z1"]), z[..., :2]) + log_prob(cut(blind), z[..., 2:])
    torch.testing.assert_close(wrong, found)
    grad = torch.autograd.grad((of_each * wrong).sum(), w.loc)[0]
    assert not torch.allclose(grad, right[0], rtol=1e-2)


def test_the_cut_at_a_z_that_is_not_attached_has_no_gradient():
    w = Weights()
    q = w.bottom_up()
    z = draw(q, 2)
    assert not cut(q).log_prob(z).requires_grad
    each = cut(q).log_probs(z)
    torch.testing.assert_close(sum(each.values()), q.log_prob(z))


def linear_gaussian(dtype=DOUBLE):
    """p(z²) p(z¹|z²) p(x|z¹), all of one number, and its posterior q(z²|x) q(z¹|z², x) by algebra."""
    a, b, r, s = 0.8, 1.3, 0.7, 0.6  # z¹ = a z² + r ε, x = b z¹ + s ε
    x = torch.tensor([[0.9], [-1.7]], dtype=dtype)
    one = torch.ones(1, dtype=dtype)
    variance = b**2 * (a**2 + r**2) + s**2
    loc2 = (a * b / variance * x).requires_grad_()
    scale2 = math.sqrt(1 - (a * b) ** 2 / variance) * one
    precision = 1 / r**2 + b**2 / s**2
    weight = torch.tensor(a / r**2 / precision, dtype=dtype, requires_grad=True)
    q = Layered(
        {
            "z1": lambda z2: normal(weight * z2 + b / s**2 / precision * x, precision**-0.5 * one),
            "z2": normal(loc2, scale2.expand(2, 1)),
        }
    )
    prior = Layered({"z1": lambda z2: normal(a * z2, r * one), "z2": normal(0 * one, one)})
    likelihood = reading(prior, lambda z1: log_normal(x, b * z1, torch.tensor(s, dtype=dtype)))
    evidence = log_normal(x, 0 * x, torch.tensor(variance, dtype=dtype).sqrt())
    return q, Target(likelihood, prior), [loc2, weight], evidence


@pytest.mark.parametrize(
    ("spec", "num_samples"), [("sticking-the-landing", 1), ("dreg", 3), ("iwae-sticking-the-landing", 3)]
)
def test_no_variance_at_the_exact_posterior(spec, num_samples):
    q, target, leaves, evidence = linear_gaussian()
    estimate = create(spec)(q, target, num_samples)
    torch.testing.assert_close(estimate.value, evidence)
    for gradient in torch.autograd.grad(estimate.surrogate.sum(), leaves):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)
    plain = create("reparameterization[kl=sampled]")(q, target, num_samples)
    assert all(bool((g.abs() > 1e-3).any()) for g in torch.autograd.grad(plain.surrogate.sum(), leaves))


# --- Outcomes ---


def test_outcomes_of_bits_given_one_hots():
    logits = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    q = Layered({"b": lambda k: bits(k.flatten(-2)[..., :2]), "k": one_hots(logits)})
    assert outcomes(q) == 4 * 9
    assert q.has_enumerate_support
    z = enumerate_outcomes(q)
    assert z.shape == (36, 4, 8)
    assert len(z[:, 0].unique(dim=0)) == 36
    torch.testing.assert_close(q.log_prob(z).exp().sum(0), torch.ones(4))
    assert q.enumerate_support(expand=False).shape == (36, 1, 8)
    assert outcomes(Weights().top_down()) is None


# --- What is refused ---


def test_what_is_wrong_with_the_layers_is_told_in_a_line():
    good = normal(torch.zeros(4, 2), torch.ones(2))
    cases = [
        ({}, "needs a latent"),
        ({"z1": 3}, "z1 is a int, neither a distribution nor a function"),
        ({"z1": good, "z2": lambda y: y}, "takes y, which is none of the latents z1, z2"),
        ({"z1": lambda z2: z2, "z2": lambda z1: z1}, "z1, z2 depend on each other"),
        ({"z1": good, "z2": normal(torch.zeros(3, 2), torch.ones(2))}, "z1 has (4,), z2 has (3,)"),
    ]
    for layers, words in cases:
        with pytest.raises(UsageError) as told:
            Layered(layers)
        assert words in str(told.value)
        assert "\n" not in str(told.value)
    wrong = Layered({"z1": good, "z2": lambda z1: td.Normal(z1, 1.0)})
    with pytest.raises(UsageError, match=r"z2 has batch shape \(3, 4, 2\), expected \(3, 4\): Independent"):
        wrong.sample((3,))
    with pytest.raises(UsageError, match="z2 returned a Tensor, no distribution"):
        Layered({"z1": good, "z2": lambda z1: z1}).sample()
    with pytest.raises(UsageError, match=r"expected \(..., 5\): z1 2, z2 3"):
        Weights().bottom_up().log_prob(torch.zeros(4, 6))
    with pytest.raises(UsageError, match="log_likelihood takes x, which is none"):
        reading(wrong, lambda x: x)


def test_arguments_of_a_functions_own_are_no_latents():
    net = torch.nn.Linear(2, 2)
    q = Layered(
        {
            "z1": normal(torch.zeros(4, 2), torch.ones(2)),
            "z2": lambda z1, net=net, **rest: normal(net(z1), torch.ones(2)),
        }
    )
    assert q.parents["z2"] == ("z1",)

    class Network(torch.nn.Module):
        def forward(self, z1):
            return normal(z1, torch.ones(2))

    assert Layered({"z1": q.layers["z1"], "z2": Network()}).sample((3,)).shape == (3, 4, 4)


def test_latents_in_another_order_are_refused():
    """Both are of two numbers: the densities would read each other's latents."""
    one = normal(torch.zeros(4, 1), torch.ones(1))
    q = Layered({"z1": one, "z2": lambda z1: normal(z1, torch.ones(1))})
    prior = Layered({"z2": normal(torch.zeros(1), torch.ones(1)), "z1": lambda z2: normal(z2, torch.ones(1))})
    with pytest.raises(UsageError, match="latents are z1, z2, the prior's z2, z1: give both the same names"):
        create("iwae")(q, Target(lambda z: z.sum(-1), prior), 2)


LATENTS = {
    "gaussian": lambda: Weights().bottom_up(),
    "mixed": lambda: Weights().top_down(),
    "bits": lambda: Layered({"z1": bits(torch.zeros(4, 2)), "z2": lambda z1: bits(z1)}),
}


@pytest.mark.parametrize("kind", LATENTS)
def test_every_estimator_works_or_says_in_a_line_why_not(kind):
    for name in catalogue():
        for suffix in ("", "[kl=sampled]", "[kl=sampled,draws=antithetic]"):
            try:
                estimator = create(name + suffix)
            except UsageError:
                continue
            q = LATENTS[kind]()
            target = Target(lambda z: z.sum(-1), q, features=torch.zeros(4, 1, dtype=DOUBLE))
            why = estimator.supports(q, target, 4)
            if why is not None:
                assert "\n" not in why
                assert len(why) < 250
                continue
            estimator.init(q, target)
            assert estimator.double()(q, target, 4).surrogate.shape == (4,), name


def test_parameters_one_by_one_are_refused_with_a_remedy():
    q = Weights().bottom_up()
    with pytest.raises(TypeError, match="lie in functions: use an estimator that needs its draws and log q"):
        parameters_of(q)
    line = create("mixed[kl=sampled]").supports(q, Target(lambda z: z.sum(-1), q), 4)
    assert ": use " in line
    assert "\n" not in line


# --- As an object ---


def _shifted(z1):
    return normal(z1, torch.ones(2))


def test_copies_and_pickles():
    q = Layered({"z1": normal(torch.zeros(4, 2), torch.ones(2)), "z2": _shifted})
    z = draw(q, 3)
    for twin in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        torch.testing.assert_close(twin.log_prob(z), q.log_prob(z))


def test_a_likelihood_over_named_latents():
    q = three_layers()
    f = reading(q, lambda b, a: b.sum(-1) + a)
    assert f.reads == ("b", "a")
    assert Target(f).reads == ("b", "a")
    assert Target(lambda z: f(z)).reads is None
    z = draw(q, 2)
    torch.testing.assert_close(f(z), z[..., 7:].sum(-1) + z[..., 0])
    with pytest.raises(UsageError, match="reading needs a Layered"):
        reading(q.layers["a"], lambda a: a)


def test_it_runs_under_vmap():
    """Each copy of the parameters a map of its own; derivatives of the cut included."""
    w = Weights()
    ups = torch.stack([w.up.detach(), 2 * w.up.detach()])
    z = draw(w.bottom_up(), 3)

    def at(up):
        own = copy.copy(w)
        own.up = up
        q = own.bottom_up()
        leaf = z + 0 * up.sum()
        return torch.func.grad(lambda z: cut(q).log_prob(z).sum())(leaf), q.log_prob(z)

    slopes, values = torch.func.vmap(at)(ups)
    for up, slope, value in zip(ups, slopes, values, strict=True):
        one = at(up)
        torch.testing.assert_close((slope, value), one)

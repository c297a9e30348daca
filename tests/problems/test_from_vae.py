"""Public VAEs brought by `from_vae`: their gradients are those of their own code, and what does not fit is told.

Gradients are compared with the user's own modules and autograd at the same draws, to rounding in float64
(1e-10 of the largest), so there are no false alarms; a KL that weighs 0.1% more must fail the comparison. The one
comparison of variances with a plain loop has a fixed seed and allows 4 standard errors (6e-5 under normality).
"""

from __future__ import annotations

import copy
import doctest
import pickle
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.problems import from_vae
from elbograd.benchmarks.problems.checks import check_problem
from elbograd.benchmarks.problems.datum_index import index_of
from elbograd.benchmarks.problems.own_vae import building
from elbograd.benchmarks.problems.own_vae.data import sources
from elbograd.benchmarks.problems.own_vae.packing import Packing
from elbograd.benchmarks.problems.placement import batches_of, place
from elbograd.estimators import Layered, UsageError, create
from pages import Page
from public_models import MODELS, ConditionalVAE, PlainVAE
from torch import distributions as td
from torch import nn
from torch.nn import functional
from torch.utils import data as tud

ROUNDING = 1e-10
X = torch.rand(40, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def brought(name):
    """A model, what from_vae makes of it, and how it was brought; in float64."""
    torch.manual_seed(3)
    how = MODELS[name]
    model = how.make().double()
    return model, how.problem(model), how


def batch(problem, size):
    """A batch as the suite has it, and x and y as the user does."""
    served = next(batches_of(problem, "train", size, torch.Generator().manual_seed(5)))
    return served, *problem.encoder._encoding.packing.unpack(served)


def gradients(value, modules):
    """By parameter, those of the model itself on both sides."""
    parameters = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, retain_graph=True)
    return {key: g for key, g in zip(parameters, found, strict=True) if g is not None}


def same(ours, theirs):
    """Whether two gradients by parameter are, to rounding."""
    scale = max(float(g.abs().max()) for g in theirs.values())
    return set(ours) == set(theirs) and all(
        float((gradient - theirs[key]).abs().max()) <= ROUNDING * scale for key, gradient in ours.items()
    )


@pytest.mark.parametrize(("size", "samples"), [(1, 1), (7, 3)])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_users_code(name, size, samples):
    model, problem, how = brought(name)
    check_problem(problem)
    served, x, y = batch(problem, size)
    mine, target = problem.posterior(problem.encoder(served)), problem.target(served)
    q, prior = how.q(model, x, y), how.prior(model)
    z = q.rsample((samples,)) if q.has_rsample else q.sample((samples,))

    def objective(log_p, q, prior, z, weight):
        kl = (
            q.log_prob(z) - prior.log_prob(z)
            if how.sampled
            else td.kl_divergence(q, prior.expand(q.batch_shape))
        )
        score = 0 if q.has_rsample else q.log_prob(z) * log_p.detach()
        return (log_p + score - weight * kl).mean()

    theirs = objective(torch.stack([how.log_p(model, one, x, y) for one in z]), q, prior, z, how.weight)
    flat = z.reshape(samples, size, *mine.event_shape)
    log_p, sides = target.log_likelihood(flat), (problem.encoder, problem.decoder)
    ours = objective(log_p, mine, target.prior, flat, target.kl_weight)
    expected = gradients(theirs, [model])
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    assert same(gradients(ours, sides), expected)
    wrong = objective(log_p, mine, target.prior, flat, 1.001 * target.kl_weight)
    assert not same(gradients(wrong, sides), expected)
    in_two = flat.expand(2, *flat.shape).transpose(0, 1)  # two replicates, as the suite draws them
    assert torch.allclose(target.log_likelihood(in_two)[:, 1], log_p, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_five_lines_measure_it(name, capsys):
    how = MODELS[name]
    assert f"| `{how.call}` |" in Page("docs/bring-your-own-model.md").text
    assert len(how.usage.splitlines()) == 5
    torch.manual_seed(0)
    vae = how.make()
    before = {key: value.clone() for key, value in vae.state_dict().items()}
    modes = [module.training for module in vae.modules()]
    exec(how.usage, {"vae": vae, "data": how.data})
    total = float(capsys.readouterr().out.split()[0])
    assert total > 0
    assert all(torch.equal(before[key], value) for key, value in vae.state_dict().items())
    assert modes == [module.training for module in vae.modules()]
    assert all(p.requires_grad for p in vae.parameters())


def test_the_total_is_that_of_a_plain_loop():
    """The 784-400-20 MLP as it is, with its own ``forward`` and loss."""
    torch.manual_seed(0)
    vae = PlainVAE(784, 400, 20)
    images = torch.rand(30, 1, 28, 28).round()
    problem = from_vae(vae.encode, vae.decode, images, likelihood="bernoulli-probs")
    x = next(problem.batches("train", 2))
    v = measure_variance(problem, "reparameterization", x, replicates=200, details=False)
    phi = [*vae.fc1.parameters(), *vae.fc21.parameters(), *vae.fc22.parameters()]
    loop = []
    for _ in range(60):
        recon, mu, logvar = vae(x)
        bce = functional.binary_cross_entropy(recon, x.view(-1, 784), reduction="sum")
        kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        loop.append(torch.cat([g.flatten() for g in torch.autograd.grad(-(bce + kld) / len(x), phi)]))
    squares = (torch.stack(loop) - torch.stack(loop).mean(0)).square().sum(1) * 60 / 59
    error = float(squares.std()) / 60**0.5
    half = (v.ci_high - v.ci_low) / 3.92
    assert abs(float(squares.mean()) - v.total) < 4 * (error**2 + half**2) ** 0.5
    assert abs(2 * float(squares.mean()) - v.total) > 4 * (error**2 + half**2) ** 0.5


class Returns(nn.Module):
    """h = linear(x) (B, 4), and what a function makes of it."""

    def __init__(self, function, inputs=16, outputs=4):
        super().__init__()
        self.linear, self.function = nn.Linear(inputs, outputs), function

    def forward(self, x):
        return self.function(self.linear(x.flatten(1)))


def halves(h):
    return h[:, :2], h[:, 2:]


class Moments:
    """Says one spread in several ways, as the posteriors of latent diffusion do."""

    def __init__(self, h):
        self.mean, self.logvar = halves(h)
        self.std, self.var = (0.5 * self.logvar).exp(), self.logvar.exp()


@dataclass
class Encoded:
    latent_dist: Moments
    hidden: torch.Tensor | None = None


@dataclass
class Decoded:
    sample: torch.Tensor
    loss: torch.Tensor | None = None


@pytest.mark.parametrize(
    ("function", "posterior", "scale"),
    [
        (halves, None, lambda s: (0.5 * s).exp()),
        (lambda h: h, None, lambda s: (0.5 * s).exp()),
        (lambda h: h.view(-1, 4, 1, 1), None, lambda s: (0.5 * s).exp()),
        (halves, "gaussian-logscale", torch.exp),
        (lambda h: (h[:, :2], h[:, 2:].exp()), "gaussian-scale", torch.exp),
        (lambda h: (h[:, :2], h[:, 2:].exp()), "gaussian-variance", lambda s: (0.5 * s).exp()),
        (lambda h: {"mean": h[:, :2], "log_std": h[:, 2:]}, None, torch.exp),
        (lambda h: {"loc": h[:, :2], "scale": h[:, 2:].exp(), "h": h}, None, torch.exp),
        (lambda h: (h, *halves(h)), lambda out: out[1:], lambda s: (0.5 * s).exp()),
        (lambda h: {"mu": h[:, :2], "std": h[:, 2:].exp(), "var": h[:, 2:].exp() ** 2}, None, torch.exp),
        (lambda h: Encoded(Moments(h)), None, lambda s: (0.5 * s).exp()),
        (lambda h: td.Normal(h[:, :2], h[:, 2:].exp()), None, torch.exp),
        (lambda h: td.Independent(td.Normal(h[:, :2], h[:, 2:].exp()), 1), None, torch.exp),
        (
            lambda h: td.MultivariateNormal(h[:, :2], scale_tril=torch.diag_embed(h[:, 2:].exp())),
            None,
            torch.exp,
        ),
    ],
)
def test_what_encoders_return_is_read(function, posterior, scale):
    encoder = Returns(function)
    problem = from_vae(encoder, Returns(lambda h: h, 2, 16), X, posterior=posterior)
    for size in (1, 5):
        h = encoder.linear(X[:size])
        eta = problem.encoder(X[:size])
        for q in (problem.posterior(eta), problem.posterior(eta.expand(3, *eta.shape))):
            assert q.event_shape == (2,)
            assert torch.allclose(q.mean, h[:, :2], rtol=1e-5)
            assert torch.allclose(q.stddev, scale(h[:, 2:]), rtol=1e-5)
    assert next(iter(problem.eta_parts)) in ("mean", "loc")
    assert sum(len(range(eta.shape[1])[part]) for part in problem.eta_parts.values()) == eta.shape[1]


@pytest.mark.parametrize("kind", [tuple, dict, torch.Tensor])
def test_a_posterior_of_any_family_is_made_of_what_the_encoder_returns(kind):
    def returned(h):
        return {tuple: halves(h), dict: {"a": h[:, :2], "b": h[:, 2:]}, torch.Tensor: h}[kind]

    def student(out):
        loc, scale = (
            (out[..., :2], out[..., 2:])
            if kind is torch.Tensor
            else tuple(getattr(out, "values", lambda: out)())
        )
        return td.StudentT(5.0, loc, scale.exp())

    encoder = Returns(returned)
    problem = from_vae(encoder, Returns(lambda h: h, 2, 16), X, posterior=student)
    eta = problem.encoder(X)
    q, h = problem.posterior(eta.expand(3, *eta.shape)), encoder.linear(X)
    z = q.rsample((2,))
    expected = td.StudentT(5.0, h[:, :2], h[:, 2:].exp()).log_prob(z).sum(-1)
    assert torch.allclose(q.log_prob(z), expected, rtol=1e-5)
    assert problem.target(X).log_likelihood(z).shape == (2, 3, 40)
    v = measure_variance(
        problem, "reparameterization[kl=sampled]", replicates=50, batch_size=4, details=False
    )
    assert v.total > 0


def test_discrete_latents_are_read():
    for function, keywords, event, probs in (
        (lambda h: h, {"posterior": "bernoulli"}, (4,), torch.sigmoid),
        (torch.sigmoid, {"posterior": "bernoulli-probs"}, (4,), torch.sigmoid),
        (lambda h: td.Bernoulli(logits=h), {}, (4,), torch.sigmoid),
        (
            lambda h: h,
            {"posterior": "categorical", "categories": 2},
            (2, 2),
            lambda h: h.view(-1, 2, 2).softmax(-1),
        ),
        (
            lambda h: h.view(-1, 2, 2),
            {"posterior": "categorical"},
            (2, 2),
            lambda h: h.view(-1, 2, 2).softmax(-1),
        ),
        (
            lambda h: td.OneHotCategorical(logits=h.view(-1, 2, 2)),
            {},
            (2, 2),
            lambda h: h.view(-1, 2, 2).softmax(-1),
        ),
    ):
        encoder = Returns(function)
        problem = from_vae(encoder, Returns(lambda h: h, 4, 16), X, **keywords)
        eta = problem.encoder(X)
        q, target = problem.posterior(eta.expand(2, *eta.shape)), problem.target(X)
        assert q.event_shape == event == target.prior.event_shape
        assert torch.allclose(q.mean[1], probs(encoder.linear(X)), rtol=1e-5)
        assert target.log_likelihood(q.sample((3,))).shape == (3, 2, 40)


@pytest.mark.parametrize(
    ("likelihood", "scale", "by_hand"),
    [
        (None, None, lambda h: td.Bernoulli(logits=h[:, :16])),
        ("gaussian", None, lambda h: td.Normal(h[:, :16], 1.0)),
        ("gaussian", 0.3, lambda h: td.Normal(h[:, :16], 0.3)),
        ("gaussian", "learned", lambda h: td.Normal(h[:, :16], 1.0)),
        ("gaussian-logvar", None, lambda h: td.Normal(h[:, :16], (0.5 * h[:, 16:]).exp())),
        ("gaussian-logscale", None, lambda h: td.Normal(h[:, :16], h[:, 16:].exp())),
        ("continuous-bernoulli", None, lambda h: td.ContinuousBernoulli(logits=h[:, :16])),
        (lambda out, x: -(out - x).abs(), None, lambda h: td.Laplace(h[:, :16], 1.0)),
    ],
)
def test_likelihoods_are_those_of_torch(likelihood, scale, by_hand):
    two = isinstance(likelihood, str) and likelihood.startswith("gaussian-")
    decoder = Returns(lambda h: h, 2, 32 if two else 16)
    images = X.view(40, 1, 4, 4).round() if likelihood is None else X.view(40, 1, 4, 4)
    problem = from_vae(Returns(halves), decoder, images, likelihood=likelihood, scale=scale)
    z = torch.randn(3, 2, 40, 2)
    expected = by_hand(decoder.linear(z.flatten(0, 2))).log_prob(images.view(40, 16).repeat(6, 1)).sum(1)
    if callable(likelihood):
        expected = expected + 16 * torch.tensor(2.0).log()  # which the function leaves out
    found = problem.target(images).log_likelihood(z)
    assert torch.allclose(found, expected.view(3, 2, 40), rtol=1e-4)
    assert any("likelihood" in name for name, _ in problem.decoder.named_parameters()) == (scale == "learned")


@pytest.mark.parametrize("returned", [lambda h: {"logits": h}, Decoded])
def test_the_one_tensor_of_what_a_decoder_returns_is_taken(returned):
    encoder, plain = nn.Linear(16, 4), Returns(lambda h: h, 2, 16)
    wrapped = Returns(returned, 2, 16)
    wrapped.load_state_dict(plain.state_dict())
    z = torch.randn(3, 40, 2)
    found, expected = (
        from_vae(encoder, decoder, X.round()).target(X.round()).log_likelihood(z)
        for decoder in (wrapped, plain)
    )
    assert torch.equal(found, expected)


def test_a_loss_in_a_likelihood_of_ones_own_is_negated_by_its_user():
    loss = nn.BCEWithLogitsLoss(reduction="none")
    encoder, decoder = two()
    z = torch.randn(3, 40, 2)
    found, expected = (
        from_vae(encoder, decoder, X.round(), likelihood=likelihood).target(X.round()).log_likelihood(z)
        for likelihood in (lambda out, x: -loss(out, x), "bernoulli")
    )
    assert torch.allclose(found, expected, rtol=1e-5)


def test_the_example_of_the_docstring_holds():
    (example,) = doctest.DocTestFinder().find(from_vae, "from_vae", building, globs={})
    ran = doctest.DocTestRunner().run(example)
    assert ran.attempted > 5
    assert ran.failed == 0


class Ladder(nn.Module):
    """q(z2 | x) q(z1 | z2, x), p(z2) p(z1 | z2) p(x | z1), with a network between the latents on each side."""

    def __init__(self):
        super().__init__()
        self.body, self.q2, self.q1 = nn.Linear(16, 8), nn.Linear(8, 4), nn.Linear(10, 6)
        self.p1, self.out = nn.Linear(2, 6), nn.Linear(3, 16)

    def encode(self, x):
        return self.body(x).tanh()

    def posterior(self, h):
        def z1(z2):
            return normal(self.q1(torch.cat([h.expand(*z2.shape[:-1], 8), z2], -1)))

        return Layered({"z1": z1, "z2": normal(self.q2(h))})

    def prior(self):
        return Layered({"z1": lambda z2: normal(self.p1(z2)), "z2": normal(self.p1.weight.new_zeros(4))})

    def decode(self, z):
        return self.out(z[..., :3])


def normal(numbers):
    loc, log_scale = numbers.chunk(2, -1)
    return td.Independent(td.Normal(loc, (0.3 * log_scale).exp()), 1)


def test_networks_between_latents_belong_to_phi_and_theta():
    vae = Ladder().double()
    problem = from_vae(vae.encode, vae.decode, X.round(), posterior=vae.posterior, prior=vae.prior)
    sides = [{n.split(".")[0] for n, _ in m.named_parameters()} for m in (problem.encoder, problem.decoder)]
    assert sides == [{"body", "q1", "q2"}, {"p1", "out"}]
    x = next(problem.batches("train", 5)).double()
    estimator, drawn = create("reparameterization[kl=sampled]"), []
    for q, target in (
        (problem.posterior(problem.encoder(x)), problem.target(x)),
        (vae.posterior(vae.encode(x)), None),
    ):
        torch.manual_seed(1)
        if target is not None:
            objective = estimator(q, target, 3).surrogate.mean()
        else:
            z = q.rsample((3,))
            log_p = -functional.binary_cross_entropy_with_logits(
                vae.decode(z), x.expand(3, -1, -1), reduction="none"
            ).sum(-1)
            objective = (log_p + vae.prior().log_prob(z) - q.log_prob(z)).mean()
        drawn.append(gradients(objective, [vae.body, vae.q1, vae.q2]))
    assert len(drawn[0]) == 6
    assert same(*drawn)
    v = measure_variance(problem, "sticking-the-landing", replicates=20, batch_size=4, details=False)
    assert set(v.mean) == {f"{n}.{p}" for n in ("body", "q1", "q2") for p in ("weight", "bias")}


def test_a_decoder_may_return_a_distribution():
    counts = (X * 9).round().view(40, 4, 4)
    decoder = Returns(lambda h: td.NegativeBinomial(torch.ones(16), logits=h), 2, 16)
    problem = from_vae(Returns(halves), decoder, counts)
    z = torch.randn(3, 2, 40, 2)
    expected = decoder(z.flatten(0, 2)).log_prob(counts.flatten(1).repeat(6, 1)).sum(1).view(3, 2, 40)
    x = torch.cat(list(problem.batches("train", 36)))
    assert torch.allclose(problem.target(counts).log_likelihood(z), expected, rtol=1e-5)
    assert problem.target(x).log_likelihood(z[:, :, :36]).shape == (3, 2, 36)


@pytest.mark.parametrize("first", [True, False])
def test_classes_may_come_first_or_last(first):
    levels = (X * 5).long().clamp(max=4).view(40, 4, 4)
    shape = (5, 4, 4) if first else (4, 4, 5)
    decoder = Returns(lambda h: h.view(-1, *shape), 2, 80)
    encoder = nn.Sequential(nn.Embedding(5, 1), Returns(halves))
    target = from_vae(encoder, decoder, levels, likelihood="categorical").target(levels)
    z = torch.randn(3, 40, 2)
    logits = decoder(z.flatten(0, 1))
    logits = logits.movedim(1, -1) if first else logits
    expected = td.Categorical(logits=logits).log_prob(levels.repeat(3, 1, 1)).sum((1, 2)).view(3, 40)
    assert torch.allclose(target.log_likelihood(z), expected, rtol=1e-5)


def two(latents=2, pixels=16, inputs=16):
    return nn.Linear(inputs, 2 * latents), nn.Linear(latents, pixels)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.tied, self.logvar = nn.Linear(16, 2), nn.Linear(16, 2)

    def encode(self, x):
        return self.tied(x), self.logvar(x)

    def decode(self, z):
        return functional.linear(z, self.tied.weight.T)


class Stream(tud.IterableDataset):
    def __iter__(self):
        yield from X


def loader(**keywords):
    return tud.DataLoader(tud.TensorDataset(X, Y), batch_size=8, **keywords)


REFUSALS = {
    "decoder is missing": lambda: from_vae(nn.Linear(16, 4), data=X),
    "encoder is the class PlainVAE: give an instance": lambda: from_vae(PlainVAE, data=X),
    "data is missing, and decoder is a Tensor": lambda: from_vae(PlainVAE(), X),
    "data is missing: a tensor": lambda: from_vae(*two()),
    "is a function that uses vae": lambda: _hiding(),
    "is a function that uses model": lambda: from_vae(Holder(PlainVAE()).encode, PlainVAE().decode, X),
    "is a function that uses argument 0": lambda: from_vae(
        *two(), X, likelihood=partial(torch.add, nn.Linear(1, 1))
    ),
    "encoder is 3, not a torch.nn.Module": lambda: from_vae(3, nn.Linear(2, 16), X),
    "of shape (8, 5), which is no pair": lambda: from_vae(nn.Linear(16, 5), nn.Linear(2, 16), X),
    "returns a tuple of 3, not (μ, log σ²)": lambda: from_vae(
        Returns(lambda h: (h, h, h)), nn.Linear(4, 16), X
    ),
    "returns a, b, of which no pair": lambda: from_vae(
        Returns(lambda h: {"a": h, "b": h}), nn.Linear(4, 16), X
    ),
    "posterior=lambda out: (out.a, out.b) picks": lambda: from_vae(
        Returns(lambda h: Decoded(h)), nn.Linear(4, 16), X
    ),
    "returns NaN or infinity": lambda: from_vae(Returns(lambda h: h / 0), nn.Linear(2, 16), X),
    "expected (8, ...)": lambda: from_vae(Returns(lambda h: h[:1]), nn.Linear(2, 16), X),
    "(a softplus or an exp, say), and would be read as log σ²": lambda: from_vae(
        Returns(lambda h: (h[:, :2], functional.softplus(h[:, 2:]) + 1e-4)), two()[1], X
    ),
    "positive by how it is made": lambda: from_vae(
        Returns(lambda h: (h[:, :2], 0.1 + 0.9 * h[:, 2:].sigmoid())), two()[1], X
    ),
    "scales that are not positive": lambda: from_vae(*two(), X, posterior="gaussian-scale"),
    "posterior='normal' is not one of gaussian-logvar": lambda: from_vae(*two(), X, posterior="normal"),
    "likelihood='bce' is not one of bernoulli": lambda: from_vae(*two(), X, likelihood="bce"),
    "encoder(float32 (8, 15)) fails": lambda: from_vae(*two(), X[:, :15]),
    "decoder(float32 (8, 2)) fails": lambda: from_vae(nn.Linear(16, 4), nn.Linear(3, 16), X),
    "the decoder returns (8, 15) for 8 latents": lambda: from_vae(*two(pixels=15), X),
    "say what the second is": lambda: from_vae(
        nn.Linear(16, 4), Returns(halves, 2, 4), X, likelihood="gaussian"
    ),
    "likelihood='bernoulli-probs', or": lambda: from_vae(nn.Linear(16, 4), Returns(torch.sigmoid, 2, 16), X),
    "takes logits": lambda: from_vae(*two(), X, likelihood="bernoulli-probs"),
    "likelihood(output, x) returns shape ()": lambda: from_vae(
        *two(), X, likelihood=lambda o, x: (o - x).sum()
    ),
    "likelihood is BCELoss, a loss, which is −log p: likelihood='bernoulli-probs', or": lambda: from_vae(
        *two(), X, likelihood=nn.BCELoss(reduction="none")
    ),
    "likelihood is smooth_l1_loss, a loss, which is −log p: lambda": lambda: from_vae(
        *two(), X, likelihood=partial(functional.smooth_l1_loss, reduction="none")
    ),
    "scale must be a positive number, not -1": lambda: from_vae(*two(), X, likelihood="gaussian", scale=-1),
    "scale=2 is for likelihood='gaussian'": lambda: from_vae(*two(), X, scale=2),
    "x holds 255, and the default likelihood": lambda: from_vae(*two(), (X.round() * 255)),
    "likelihood='gaussian' takes any number": lambda: from_vae(*two(), X + 1),
    "x / 255 may be meant": lambda: from_vae(*two(), X.to(torch.uint8)),
    "x holds -1, and the default": lambda: from_vae(*two(), -X.round()),
    "x is int64, and likelihood='gaussian'": lambda: from_vae(
        nn.Sequential(nn.Embedding(9, 1), Returns(halves)), two()[1], X.long(), likelihood="gaussian"
    ),
    "x.float() may be meant": lambda: from_vae(*two(), X.long()),
    "likelihood='categorical' is one of the integers": lambda: from_vae(*two(), X, likelihood="categorical"),
    "the decoder's logits are of 4 classes": lambda: from_vae(
        nn.Linear(16, 4),
        Returns(lambda h: h.view(-1, 16, 4), 2, 64),
        (9 * X).round(),
        likelihood="categorical",
    ),
    "x of datum 7 holds NaN": lambda: from_vae(*two(), torch.where(torch.arange(40) == 7, torch.nan, X.T).T),
    "categories=K": lambda: from_vae(nn.Linear(16, 6), nn.Linear(6, 16), X, posterior="categorical"),
    "categories=4 does not fit": lambda: from_vae(
        nn.Linear(16, 6), nn.Linear(6, 16), X, posterior="categorical", categories=4
    ),
    "z has event shape (2,)": lambda: from_vae(*two(), X, prior=td.Normal(torch.zeros(3), 1.0)),
    "whose parameters require a gradient": lambda: from_vae(
        *two(), X, prior=td.Normal(nn.Parameter(X[0, :2]), 1.0)
    ),
    "no usual prior for a Gamma": lambda: from_vae(
        Returns(lambda h: td.Gamma(h[:, :2].exp(), h[:, 2:].exp())), two()[1], X
    ),
    "posterior=lambda out: StudentT(...) make it": lambda: from_vae(
        Returns(lambda h: td.StudentT(5.0, h[:, :2])), two()[1], X
    ),
    "tied.weight is reached by the encoder and by the decoder": lambda: from_vae(Shared(), data=X),
    "posterior=vae.posterior, say, a method": lambda: from_vae(
        Returns(lambda h: Layered({"a": normal(h), "b": normal(h)})), nn.Linear(4, 16), X
    ),
    "0.weight is reached by the encoder and by the decoder": lambda: from_vae(
        tied := nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 32)), tied[0], X
    ),
    "condition= needs a y": lambda: from_vae(*two(), X, condition=True),
    "does not take (x, y)": lambda: from_vae(*two(), (X, Y), condition=True),
    "condition=True gives it y": lambda: from_vae(ConditionalVAE(), data=(X, Y)),
    "40 x and 3 y": lambda: from_vae(*two(), (X, Y[:3])),
    "the keys 'train', 'val'": lambda: from_vae(*two(), {"train": X, "val": X}),
    "data is 'mnist'": lambda: from_vae(*two(), "mnist"),
    "there is none (length 0)": lambda: from_vae(*two(), X[:0]),
    "Stream is an IterableDataset": lambda: from_vae(*two(), tud.DataLoader(Stream())),
    "WeightedRandomSampler has an order": lambda: from_vae(
        *two(), loader(sampler=tud.WeightedRandomSampler(torch.ones(40), 40))
    ),
    "data=[d['image'] for d in dataset]": lambda: from_vae(*two(), [{"image": x} for x in X]),
    "data=[(item[0], item[1]) for item": lambda: from_vae(*two(), [(x, 1, 2) for x in X]),
    "transform=ToTensor()": lambda: from_vae(*two(), [("image", 1) for _ in X]),
    "a pair of all x and all y is a tuple": lambda: from_vae(*two(), [X, Y]),
    "kl_weight=-1 is not": lambda: from_vae(*two(), X, kl_weight=-1),
}


class Holder:
    """Is no module, and has one."""

    def __init__(self, model):
        self.model = model

    def encode(self, x):
        return self.model.encode(x)


def _hiding():
    vae = PlainVAE()
    return from_vae(lambda x: vae.encode(x), vae.decode, X)


@pytest.mark.parametrize("told", REFUSALS)
def test_what_does_not_fit_is_told_in_one_line(told):
    with pytest.raises(UsageError) as error:
        REFUSALS[told]()
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        X,
        X.numpy(),
        (X, Y),
        tud.TensorDataset(X, Y),
        [(x, 1) for x in X],
        loader(),
        loader(shuffle=True, drop_last=True),
        loader(sampler=tud.SubsetRandomSampler(range(40))),
        loader(collate_fn=lambda items: torch.stack([x for x, _ in items])),
        {"train": X, "test": loader()},
    ],
)
def test_data_are_served_once_a_pass_in_an_order_that_follows_the_seed(given):
    problem = from_vae(*two(), given)
    sets = {split: torch.cat(list(problem.batches(split, 7))) for split in ("train", "test")}
    if not isinstance(given, dict):
        assert len(sets["test"]) == 4
        rows = torch.cat(list(sets.values()))
        assert torch.equal(rows[rows[:, 0].argsort()], X[X[:, 0].argsort()])

    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        batches = list(batches_of(problem, "train", 7, generator))
        for x in batches:
            assert torch.equal(x, sets["train"][index_of(x)])
        return torch.cat([index_of(x) for x in batches])

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))
    assert torch.equal(order(1).sort().values, torch.arange(len(sets["train"])))
    assert problem.default_batch_size == (8 if isinstance(given, tud.DataLoader) else len(sets["train"]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X, Y),
        (X.view(40, 1, 4, 4), torch.tensor([-3, 70_000, 2**40, 255]).repeat(10)),
        (X, X[:, :3]),
        ((X * 300).long(), Y),
        ((X * 300).int() - 7, X[:, :2]),
        (X, X.view(40, 4, 4) > 0.5),
    ],
)
def test_x_and_its_condition_come_apart_as_they_were(x, y, dtype):
    packing = Packing(x, y)
    packed = packing.pack(x[:5], y[:5])
    assert packed.shape[0] == 5
    moved = packed.to(dtype) if packed.is_floating_point() else packed
    for found, given in zip(packing.unpack(moved), (x[:5], y[:5]), strict=True):
        assert found.shape == given.shape
        assert torch.equal(found, given.to(found.dtype))
        assert given.is_floating_point() or found.dtype == given.dtype


def test_a_condition_may_be_made_of_y_and_reaches_a_learned_prior():
    class Prior(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Linear(3, 2)

        def forward(self, c):
            return td.Normal(self.loc(c), 1.0)

    encoder, decoder = Returns(halves, 19), Returns(lambda h: h, 5, 16)
    both = nn.ModuleList([encoder, decoder])
    problem = from_vae(
        Joined(encoder),
        Joined(decoder),
        (X, Y),
        condition=lambda y: functional.one_hot(y, 3).float(),
        prior=Prior(),
    )
    x = next(problem.batches("train", 6))
    target, q = problem.target(x), problem.posterior(problem.encoder(x))
    one_hot = x[:, 16:]
    assert torch.equal(one_hot, functional.one_hot(Y[_train_index(6)], 3).float())
    assert torch.allclose(q.mean, both[0](x)[0])
    z = q.rsample((2, 3))
    logits = decoder(torch.cat((z, one_hot.expand(2, 3, 6, 3)), -1).flatten(0, 2)).view(2, 3, 6, 16)
    assert torch.allclose(
        target.log_likelihood(z), td.Bernoulli(logits=logits, validate_args=False).log_prob(x[:, :16]).sum(-1)
    )
    loc = problem.decoder.get_submodule("prior.loc")(one_hot)
    assert torch.allclose(target.prior.log_prob(z), td.Normal(loc, 1.0).log_prob(z).sum(-1))


def _train_index(size):
    return sources(X)[0]["train"].index[:size]


class Joined(nn.Module):
    """A module of two inputs joined."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, a, b):
        return self.module(torch.cat((a, b), -1))


class Mixed(nn.Module):
    """Both sides in one list, a parameter and a buffer of its own on each, names that the adapter might use."""

    def __init__(self):
        super().__init__()
        self.output = nn.ModuleList([nn.Linear(16, 4), nn.Linear(2, 16), nn.Dropout(0.5)])
        self.shift, self.gain = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(16))
        self.unused = nn.Linear(3, 3)
        self.register_buffer("centre", torch.full((16,), 0.5))

    def encode(self, x):
        return self.output[2](self.output[0](x - self.centre) + self.shift)

    def decode(self, z):
        return self.output[1](z) * self.gain


def test_one_module_is_seen_from_two_sides():
    model = Mixed().eval()
    problem = from_vae(model, data=X.round())
    names = {side: set(dict(getattr(problem, side).named_parameters())) for side in ("encoder", "decoder")}
    assert names["encoder"] == {"output.0.weight", "output.0.bias", "shift"}
    assert names["decoder"] == {"output.1.weight", "output.1.bias", "gain"}
    assert problem.encoder.get_parameter("shift") is model.shift
    assert set(problem.encoder.state_dict()) == names["encoder"] | {"centre"}
    x = X[:3].round()
    wide = place(problem, dtype="float64")
    assert wide is not problem
    assert model.shift.dtype == torch.float32
    assert wide.encoder(x.double()).dtype == torch.float64
    with torch.no_grad():
        wide.encoder.get_parameter("shift").add_(1)
    assert torch.allclose(wide.encoder(x.double()).float(), problem.encoder(x) + 1, atol=1e-6)
    moved = {name: p + 2.0 for name, p in problem.encoder.named_parameters() if name == "shift"}
    called = torch.func.functional_call(problem.encoder, moved, x)
    assert torch.allclose(called, problem.encoder(x) + 2, atol=1e-6)
    loaded = copy.deepcopy(problem)
    loaded.encoder.load_state_dict(
        {name: torch.zeros_like(t) for name, t in problem.encoder.state_dict().items()}
    )
    assert not loaded.encoder(x).any()
    assert problem.encoder(x).any()
    problem.encoder.train()
    assert model.training
    assert model.output[2].training
    problem.encoder.eval()
    assert not model.training
    with torch.no_grad():
        model.shift.add_(1)  # the user's own training moves what is measured
    assert torch.equal(problem.encoder.get_parameter("shift"), model.shift)


def test_modes_are_told_by_the_names_in_the_users_code():
    net = MODELS["conv"].make().train()
    problem = from_vae(net.encode, net.decode, MODELS["conv"].data)
    line = r"net.encoder\[1\] \(BatchNorm2d\) is in train mode: call net.eval\(\) first, or use route='full'"
    with pytest.raises(UsageError, match=line):
        measure_variance(problem, "reparameterization", replicates=4)
    dropped = Mixed().train()
    problem = from_vae(dropped, data=X.round())
    line = r"dropped.output\[2\] \(Dropout\) is in train mode: call dropped.eval\(\) first"
    with pytest.raises(UsageError, match=line):
        measure_variance(problem, "reparameterization", replicates=4)
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    problem = from_vae(net.encode, net.decode, MODELS["conv"].data)
    full = measure_variance(problem, "reparameterization", replicates=4, route="full")
    assert full.total > 0
    assert all(torch.equal(buffers[name], b) for name, b in net.named_buffers())


def test_a_problem_is_pickled_with_what_it_shows():
    model = PlainVAE()
    problem = from_vae(model, data=(X, Y), likelihood="bernoulli-probs", kl_weight=0.5)
    twin = pickle.loads(pickle.dumps(problem))
    assert torch.equal(twin.encoder(X), problem.encoder(X))
    assert twin.target(X).kl_weight == 0.5
    with torch.no_grad():
        twin.encoder.get_parameter("fc21.bias").add_(1)
    assert torch.allclose(twin.encoder(X)[:, :2], problem.encoder(X)[:, :2] + 1)
    shown = pickle.loads(pickle.dumps(from_vae(Mixed().eval(), data=X.round())))
    before = shown.encoder(X)
    with torch.no_grad():
        shown.encoder.get_parameter("shift").add_(1)
    assert torch.allclose(shown.encoder(X), before + 1)

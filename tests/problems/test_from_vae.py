"""Public VAEs brought by `from_vae`: their gradients are those of their own code, and what does not fit is told.

Gradients are compared with the user's own modules and autograd at the same draws, to rounding in float64
(1e-10 of the largest), so there are no false alarms; a KL that weighs 0.1% more must fail the comparison. The one
comparison of variances with a plain loop has a fixed seed and allows 4 standard errors (6e-5 under normality).
"""

from __future__ import annotations

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.problems import from_vae
from elbograd.benchmarks.problems.checks import check_problem
from elbograd.benchmarks.problems.placement import batches_of
from public_models import MODELS, PlainVAE
from torch import distributions as td
from torch import nn
from torch.nn import functional

ROUNDING = 1e-10
X = torch.rand(40, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


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
    assert list(problem.eta_parts)[0] in ("mean", "loc")
    assert sum(len(range(eta.shape[1])[part]) for part in problem.eta_parts.values()) == eta.shape[1]


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

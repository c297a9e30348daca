"""Models as users build them: the total against a plain loop, or one line that says why not.

A comparison with the loop allows |difference| up to 4.5 standard errors of both: a false alarm of 7e-6
each under normality (fixed seeds), some 20 comparisons. A planted wrong variance (twice what it is) must fail it.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings

import pytest
import torch
from elbograd.benchmarks import advise, examine_problem, measure_variance, train
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.checks import check_problem
from elbograd.benchmarks.problems.model_checks import check_model
from elbograd.benchmarks.problems.module_modes import check_modes
from elbograd.benchmarks.training.held_out import evaluate_elbo
from elbograd.estimators import Target, UsageError, create
from torch import distributions as td
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

D, PIXELS, BATCH = 2, 12, 5


def normal(loc, scale):
    return td.Independent(td.Normal(loc, scale), 1)


def gaussian(eta):
    loc, log_scale = eta.chunk(2, -1)
    return normal(loc, log_scale.exp())


class Model:
    """Parts that a test gives; the rest is a linear-Gaussian VAE."""

    latent_dim = D

    def __init__(
        self, encoder=None, decoder=None, x=None, posterior=gaussian, likelihood=None, prior="normal"
    ):
        self.encoder = encoder or nn.Linear(PIXELS, 2 * D)
        self.decoder = decoder or nn.Linear(D, PIXELS)
        self.x = torch.rand(BATCH, PIXELS) if x is None else x
        self._posterior, self._likelihood = posterior, likelihood
        self._prior = normal(torch.zeros(D), torch.ones(D)) if prior == "normal" else prior

    def posterior(self, eta):
        return self._posterior(eta)

    def target(self, x):
        def log_likelihood(z):
            if self._likelihood:
                return self._likelihood(self, z, x)
            return -(self.decoder(z) - x.float().flatten(1)).square().sum(-1)

        return Target(log_likelihood, self._prior)

    def batches(self, split, batch_size, generator=None):
        yield self.x if batch_size >= len(self.x) else self.x[:batch_size]


class Apply(nn.Module):
    """Modules, and how the input goes through them."""

    def __init__(self, function, /, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def linear_after(function, inputs=PIXELS):
    return Apply(lambda m, x: m.last(function(x)), last=nn.Linear(inputs, 2 * D))


def images():
    return torch.rand(BATCH, 1, 4, 3)


def convolutional(*layers):
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 2), *layers, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 2 * D)
    )
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return encoder


def shared_module():
    shared = nn.Linear(PIXELS, PIXELS)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(PIXELS, 2 * D))


def transformer():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    return Apply(lambda m, x: m.last(m.body(x.view(-1, 3, 4)).mean(1)), body=layer, last=nn.Linear(4, 2 * D))


def recurrent():
    return Apply(
        lambda m, x: m.last(m.body(x.view(len(x), 4, 3))[0][:, -1]),
        body=nn.GRU(3, 4, batch_first=True),
        last=nn.Linear(4, 2 * D),
    )


def words():
    encoder = Apply(
        lambda m, x: m.last(m.table(x).mean(1)),
        table=nn.Embedding(9, 3, sparse=True),
        last=nn.Linear(3, 2 * D),
    )
    return Model(encoder, x=torch.randint(0, 9, (BATCH, PIXELS)))


def partly_used():
    encoder = Apply(
        lambda m, x: m.last(torch.tanh(m.fixed(x))),
        fixed=nn.Linear(PIXELS, 6).requires_grad_(False),
        last=nn.Linear(6, 2 * D),
        unused=nn.Linear(3, 3),
    )
    encoder.register_buffer("scale", torch.ones(3))
    return encoder


class ConvolutionalDecoder(nn.Module):
    """What takes images alone, (N, C, H, W), under any leading dimensions."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(D, 8), nn.Unflatten(1, (4, 2, 1)), nn.ConvTranspose2d(4, 1, (2, 3), stride=2)
        )

    def forward(self, z):
        return self.layers(z.flatten(0, -2)).unflatten(0, z.shape[:-1])


def image_likelihood(model, z, x):
    return -(model.decoder(z) - x).square().sum((-1, -2, -3))


def full_covariance(eta):
    scale = torch.diag_embed(functional.softplus(eta[..., D : 2 * D]) + 0.1)
    lower = functional.pad(eta[..., 2 * D :].unsqueeze(-1), (0, 1, 1, 0))
    return td.MultivariateNormal(eta[..., :D], scale_tril=scale + lower)


def positive(family):
    return lambda eta: td.Independent(family(*(functional.softplus(eta) + 0.5).chunk(2, -1)), 1)


def one_hot(eta):
    return td.Independent(td.OneHotCategorical(logits=eta.unflatten(-1, (2, 3))), 1)


def flow(eta):
    return td.TransformedDistribution(gaussian(eta), [td.TanhTransform(cache_size=1)])


def mixture(eta):
    parts = td.Normal(eta[..., :2], 1 + eta[..., 2:].square())
    return td.MixtureSameFamily(td.Categorical(logits=torch.zeros_like(eta[..., :2])), parts)


def counts():
    return torch.poisson(torch.full((BATCH, PIXELS), 0.6))


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(PIXELS, 5)), nn.Tanh(), nn.Linear(5, 2 * D))


def keeps_tensors():
    """An encoder that was used before, and keeps results of its last pass in several places."""

    def forward(module, x):
        eta = module.last(x)
        module.kl, module.log = eta.square().mean(), {"eta": [eta]}
        return eta

    model = Model(Apply(forward, last=nn.Linear(PIXELS, 2 * D)))
    model.encoder(model.x)
    return model


def padded_words():
    """Attention with a padding mask in eval mode, which without gradients returns zeros at padded positions."""

    def forward(module, x):
        return module.last(module.body(module.table(x), src_key_padding_mask=x == 0).mean(1))

    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    parts = {"table": nn.Embedding(9, 4, padding_idx=0), "body": nn.TransformerEncoder(layer, 1)}
    x = torch.randint(1, 9, (BATCH, PIXELS))
    x[::2, 2:] = 0
    return Model(Apply(forward, **parts, last=nn.Linear(4, 2 * D)).eval(), x=x)


class Hierarchy(Model):
    """φ inside the posterior: a learned scale."""

    def __init__(self):
        super().__init__(Apply(lambda m, x: m.last(x), last=nn.Linear(PIXELS, D), log_scale=nn.Linear(1, D)))

    def posterior(self, eta):
        return normal(eta, self.encoder.log_scale.bias.exp())


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """A problem that no attribute can be set on."""

    encoder: nn.Module
    decoder: nn.Module
    model: Model

    def posterior(self, eta):
        return gaussian(eta)

    def target(self, x):
        return self.model.target(x)

    def batches(self, split, batch_size, generator=None):
        return self.model.batches(split, batch_size)


def frozen_dataclass():
    model = Model()
    return Frozen(model.encoder, model.decoder, model)


def tied_in_the_likelihood():
    """The decoder's weight is the encoder's, unregistered: φ is in log p(x|z) too."""
    parts = Apply(
        lambda m, x: torch.cat((m.loc(x), m.log_scale(x)), -1),
        loc=nn.Linear(PIXELS, D),
        log_scale=nn.Linear(PIXELS, D),
    )
    return Model(
        parts,
        nn.Module(),
        likelihood=lambda m, z, x: -(z @ m.encoder.loc.weight - x).square().sum(-1),
    )


ones = torch.ones
UNIT = td.Independent(td.Uniform(-ones(D), ones(D), validate_args=False), 1)
# name -> model, estimator, route that must be taken
WORK = {
    "BatchNorm in eval mode": (lambda: Model(convolutional(nn.BatchNorm2d(4)).eval(), x=images()), None, None),
    "GroupNorm": (lambda: Model(convolutional(nn.GroupNorm(2, 4)), x=images()), None, None),
    "dropout in eval mode": (lambda: Model(convolutional(nn.Dropout(0.3)).eval(), x=images()), None, None),
    "one module twice": (lambda: Model(shared_module()), None, None),
    "GRU": (lambda: Model(recurrent()), None, None),
    "transformer": (lambda: Model(transformer().eval()), None, None),
    "words": (words, None, None),
    "frozen and unused parameters": (lambda: Model(partly_used()), None, None),
    "lazy layers": (lambda: Model(nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(4))), None, None),
    "weight norm": (
        lambda: Model(nn.Sequential(parametrizations.weight_norm(nn.Linear(PIXELS, 5)), nn.Linear(5, 4))),
        None,
        None,
    ),
    "old weight norm": (lambda: Model(old_weight_norm()), None, None),
    "an encoder that keeps what it computed": (keeps_tensors, None, None),
    "padded words": (padded_words, None, None),
    "sparse counts": (lambda: Model(x=counts().to_sparse()), None, None),
    "compressed sparse counts": (lambda: Model(x=counts().to_sparse_csr()), None, None),
    "data that require a gradient": (lambda: Model(x=counts().requires_grad_()), None, None),
    "integer pixels": (
        lambda: Model(linear_after(lambda x: x / 255), x=torch.randint(0, 255, (BATCH, PIXELS), dtype=torch.uint8)),
        None,
        None,
    ),
    "convolutional decoder": (
        lambda: Model(convolutional(), ConvolutionalDecoder(), images(), likelihood=image_likelihood),
        None,
        None,
    ),
    "decoder that loops": (
        lambda: Model(decoder=Apply(lambda m, z: torch.stack([m.layer(s) for s in z]), layer=nn.Linear(D, PIXELS))),
        None,
        None,
    ),
    "full covariance": (
        lambda: Model(
            nn.Linear(PIXELS, 5), posterior=full_covariance, prior=td.MultivariateNormal(torch.zeros(D), torch.eye(D))
        ),
        None,
        None,
    ),
    "Gamma": (
        lambda: Model(posterior=positive(td.Gamma), prior=td.Independent(td.Gamma(ones(D), ones(D)), 1)),
        None,
        None,
    ),
    "Beta": (
        lambda: Model(posterior=positive(td.Beta), prior=td.Independent(td.Beta(ones(D), ones(D)), 1)),
        None,
        None,
    ),
    "one-hot": (
        lambda: Model(
            nn.Linear(PIXELS, 6),
            nn.Linear(6, PIXELS),
            posterior=one_hot,
            likelihood=lambda m, z, x: -(m.decoder(z.flatten(-2)) - x).square().sum(-1),
            prior=td.Independent(td.OneHotCategorical(logits=torch.zeros(2, 3)), 1),
        ),
        "score-function",
        None,
    ),
    "flow": (lambda: Model(posterior=flow, prior=UNIT), "score-function[kl=sampled]", None),
    "mixture": (
        lambda: Model(
            decoder=nn.Linear(1, PIXELS),
            posterior=mixture,
            likelihood=lambda m, z, x: -(m.decoder(z.unsqueeze(-1).tanh()) - x).square().sum(-1),
            prior=None,
        ),
        "leave-one-out",
        None,
    ),
    "one datum": (lambda: Model(x=torch.rand(1, PIXELS)), None, None),
    "frozen dataclass": (frozen_dataclass, None, None),
    "φ in the posterior": (Hierarchy, None, "full"),
    "φ in the likelihood": (tied_in_the_likelihood, None, "full"),
    "dropout in train mode": (lambda: Model(convolutional(nn.Dropout(0.3)), x=images()), None, "asked"),
    "BatchNorm in train mode": (lambda: Model(convolutional(nn.BatchNorm2d(4)), x=images()), None, "asked"),
    "BatchNorm of the decoder in train mode": (
        lambda: Model(decoder=Apply(lambda m, z: m.norm(m.layer(z).flatten(0, -2)).view(*z.shape[:-1], PIXELS),
                                    layer=nn.Linear(D, PIXELS), norm=nn.BatchNorm1d(PIXELS))),
        None,
        "asked",
    ),
    "dropout as a function": (
        lambda: Model(linear_after(lambda x: functional.dropout(x, 0.3, training=True))),
        None,
        "asked",
    ),
}  # fmt: skip


def loop(model, estimator, x, replicates):
    """What a training loop would see, written out: total variance and its standard error."""
    torch.manual_seed(99)
    phi = [p for p in model.encoder.parameters() if p.requires_grad]
    gradients = []
    for _ in range(replicates):
        q = model.posterior(model.encoder(x))
        surrogate = estimator(q, model.target(x), 2).surrogate.mean()
        parts = torch.autograd.grad(surrogate, phi, allow_unused=True)
        gradients.append(
            torch.cat(
                [
                    torch.zeros(p.numel()) if g is None else g.to_dense().flatten()
                    for p, g in zip(phi, parts, strict=True)
                ]
            )
        )
    centred = torch.stack(gradients).double()
    centred = centred - centred.mean(0)
    each = centred.square().sum(1)
    return float(each.sum()) / (replicates - 1), float(each.std()) / replicates**0.5


@pytest.mark.parametrize("name", WORK)
def test_the_total_is_that_of_a_plain_loop(name):
    torch.manual_seed(0)
    make, specification, route = WORK[name]
    model = make()
    x = next(iter(model.batches("train", BATCH)))
    estimator = create(specification or "reparameterization")
    full = route in ("full", "asked")
    v = measure_variance(
        model,
        estimator,
        x,
        num_samples=2,
        replicates=400 if full else 4000,
        route="full" if route == "asked" else "factorized",
    )
    assert v.route == ("full" if full else "factorized")
    total, error = loop(model, estimator, x.detach().to_dense(), 400)
    own = (v.ci_high - v.ci_low) / 3.92
    allowed = 4.5 * (error**2 + own**2) ** 0.5
    assert abs(total - v.total) < allowed
    assert allowed < abs(2 * total - v.total), "the comparison would not see a factor 2"
    assert v.per_parameter.keys() == {n for n, p in model.encoder.named_parameters() if p.requires_grad}
    assert float(sum(p.sum() for p in v.per_parameter.values())) == pytest.approx(v.total, rel=1e-3)


def coupled(function):
    return Apply(lambda m, z: m.layer(function(z)), layer=nn.Linear(D, PIXELS))


def complex_weight():
    encoder = linear_after(lambda x: x)
    encoder.extra = nn.Parameter(torch.zeros(2, dtype=torch.cfloat))
    return Model(encoder)


def tied_modules():
    model = Model()
    model.decoder.weight = model.encoder.weight
    return model


def with_parts(parts):
    model = Model()
    model.eta_parts = parts
    return model


def with_target(target):
    model = Model()
    model.target = lambda x: target
    return model


class NewEachTime(Model):
    """A property that builds another encoder whenever it is asked."""

    encoder = property(lambda self: nn.Linear(PIXELS, 2 * D), lambda self, value: None)


# what a model is -> the line that is said of it
REFUSED = {
    "BatchNorm in train mode": (
        lambda: Model(convolutional(nn.BatchNorm2d(4)), x=images()),
        "encoder.1 (BatchNorm2d) is in train mode: call encoder.eval() first, or use route='full' to measure with",
    ),
    "dropout in train mode": (
        lambda: Model(convolutional(nn.Dropout(0.3)), x=images()),
        "encoder.1 (Dropout) is in train mode: call encoder.eval() first, or use route='full' to count its noise",
    ),
    "attention with dropout in train mode": (
        lambda: Model(transformer()),
        "encoder.body.self_attn (MultiheadAttention) is in train mode",
    ),
    "dropout as a function": (
        lambda: Model(linear_after(lambda x: functional.dropout(x, 0.05, training=True))),
        "the encoder gives the same data another eta each time",
    ),
    "batch statistics as a function": (
        lambda: Model(linear_after(lambda x: functional.batch_norm(x, None, None, training=True))),
        "the encoder fails for a datum alone",
    ),
    "frequencies in the batch": (
        lambda: Model(
            Apply(lambda m, x: m.table(x).sum(1), table=nn.Embedding(9, 4, scale_grad_by_freq=True)),
            x=torch.randint(0, 9, (BATCH, PIXELS)),
        ),
        "set scale_grad_by_freq=False",
    ),
    "spectral norm in train mode": (
        lambda: Model(parametrizations.spectral_norm(nn.Linear(PIXELS, 2 * D))),
        "a forward pass changes the buffer encoder.parametrizations.weight.0._",
    ),
    "running mean of the decoder's own": (
        lambda: Model(decoder=parametrizations.spectral_norm(nn.Linear(D, PIXELS))),
        "a forward pass changes the buffer decoder.parametrizations.weight.0._",
    ),
    "a tuple": (
        lambda: Model(Apply(lambda m, x: m.last(x).chunk(2, -1), last=nn.Linear(PIXELS, 2 * D))),
        "the encoder returns a tuple, not one tensor: torch.cat(..., -1) joins several",
    ),
    "three dimensions": (
        lambda: Model(nn.Sequential(nn.Linear(PIXELS, 2 * D), nn.Unflatten(1, (2, D)))),
        "eta has shape (5, 2, 2) for 5 data, expected (B, P) = (5, P)",
    ),
    "a batch of none": (
        lambda: Model(linear_after(lambda x: x.mean(0))),
        "eta has shape (4,) for 5 data, expected (B, P) = (5, P)",
    ),
    "NaN": (lambda: Model(linear_after(lambda x: x * float("nan"))), "eta is not finite"),
    "no gradient": (
        lambda: Model(Apply(lambda m, x: m.last(x).detach(), last=nn.Linear(PIXELS, 2 * D))),
        "eta depends on no trainable parameter",
    ),
    "an encoder that is a function": (
        lambda: Model(lambda x: x),
        "Model.encoder is a function, not a torch.nn.Module",
    ),
    "an encoder built anew": (NewEachTime, "NewEachTime.encoder is another module each time: build it once"),
    "a class": (lambda: Model, "Model is a class: give an instance, Model(...)"),
    "nothing": (lambda: object(), "object is not a problem: it has no encoder, decoder, posterior"),
    "a complex parameter": (complex_weight, "encoder.extra is complex"),
    "weights tied with the decoder's": (tied_modules, "encoder.weight is also decoder.weight"),
    "eta sliced from the front": (
        lambda: Model(posterior=lambda eta: normal(eta[:, :D], eta[:, D:].exp())),
        "index eta from the last dimension (eta[..., :D]",
    ),
    "a posterior over the batch": (
        lambda: Model(posterior=lambda eta: normal(eta[..., :D].softmax(-2), eta[..., D:].exp())),
        "the posterior of a datum depends on the eta of others",
    ),
    "dropout in the decoder": (
        lambda: Model(decoder=nn.Sequential(nn.Linear(D, PIXELS), nn.Dropout())),
        "decoder.1 (Dropout) is in train mode: call decoder.eval() first",
    ),
    "noise in the decoder": (
        lambda: Model(decoder=coupled(lambda z: z + 0.01 * torch.randn_like(z))),
        "log_likelihood gives the same z another value each time",
    ),
    "a decoder that couples data": (
        lambda: Model(decoder=coupled(lambda z: z - z.mean(-2, keepdim=True))),
        "log_likelihood of a datum depends on the z of others",
    ),
    "a decoder that couples replicates": (
        lambda: Model(decoder=coupled(lambda z: z - z.flatten(0, -2).mean(0))),
        "log_likelihood of a datum depends on the z of others",
    ),
    "a likelihood of the whole batch": (
        lambda: Model(likelihood=lambda m, z, x: -m.decoder(z).sum((-1, -2)).unsqueeze(-1).expand(z.shape[:-1])),
        "log_likelihood of a datum depends on the z of others",
    ),
    "a decoder of images alone": (
        lambda: Model(
            convolutional(),
            nn.Sequential(nn.Linear(D, 8), nn.Unflatten(-1, (4, 2, 1)), nn.ConvTranspose2d(4, 1, (2, 3), stride=2)),
            images(),
            likelihood=image_likelihood,
        ),
        "flatten what leads: decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2]) here",
    ),
    "parts of eta as a list": (lambda: with_parts([slice(0, D)]), "eta_parts is a list, not name -> slice"),
    "parts of eta as None": (lambda: with_parts(None), "eta_parts is None, not name -> slice"),
    "parts of eta as a number": (lambda: with_parts(3), "eta_parts is 3, not name -> slice"),
    "a part of eta that is a number": (
        lambda: with_parts({"mean": 0}),
        "eta_parts['mean'] = 0 is not a slice of eta's 4 coordinates",
    ),
    "a part beyond eta": (
        lambda: with_parts({"mean": slice(0, 99)}),
        "eta_parts['mean'] = slice(0, 99, None) is not a slice of eta's 4 coordinates",
    ),
    "a part from beyond eta": (lambda: with_parts({"mean": slice(-9, 2)}), "eta_parts['mean'] = slice(-9, 2, None)"),
    "a part of letters": (lambda: with_parts({"mean": slice("a", 2)}), "eta_parts['mean'] = slice('a', 2, None)"),
    "a part backwards": (lambda: with_parts({"mean": slice(3, 0, -1)}), "is not a slice of eta's 4 coordinates"),
    "an empty part": (lambda: with_parts({"mean": slice(2, 2)}), "is not a slice of eta's 4 coordinates"),
    "no target": (lambda: with_target(None), "target returns a NoneType, not an elbograd.estimators.Target"),
    "a posterior that is a tensor": (
        lambda: Model(posterior=lambda eta: eta),
        "posterior returns a Tensor, not a torch.distributions.Distribution",
    ),
    "a posterior that raises": (
        lambda: Model(posterior=lambda eta: {}["scale"]),
        "posterior fails for shape (5, 4) (KeyError: 'scale')",
    ),
    "a posterior that raises for replicates": (
        lambda: Model(posterior=lambda eta: gaussian({2: eta}[eta.dim()])),
        "the posterior fails (KeyError: 3) for eta (2, 5, 4)",
    ),
    "a likelihood that is a number": (
        lambda: Model(likelihood=lambda m, z, x: 0.0),
        "log_likelihood returns a float, not a tensor (S, *batch)",
    ),
    "a likelihood that returns nothing": (
        lambda: Model(likelihood=lambda m, z, x: None),
        "log_likelihood returns a NoneType, not a tensor (S, *batch)",
    ),
    "a likelihood of integers": (
        lambda: Model(likelihood=lambda m, z, x: torch.zeros(z.shape[:-1], dtype=torch.int64)),
        "log_likelihood returns int64, not floating-point numbers",
    ),
    "a likelihood that raises": (
        lambda: Model(likelihood=lambda m, z, x: m.nowhere),
        "log_likelihood fails for z of shape (1, 5, 2) (AttributeError: 'Model' object has no attribute 'nowhere')",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_said_in_one_line(name):
    torch.manual_seed(0)
    make, message = REFUSED[name]
    model = make()
    with pytest.raises(UsageError) as error:
        measure_variance(model, "reparameterization", getattr(model, "x", None), replicates=10)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WORK)
def test_checks_leave_buffers_and_weights_alone(name):
    torch.manual_seed(0)
    make, _, route = WORK[name]
    model = make()
    x = next(iter(model.batches("train", BATCH))).detach().to_dense()
    if name == "lazy layers":
        model.encoder(x)
    before = {n: v.clone() for n, v in model.encoder.state_dict().items()}
    check_problem(model)
    check_model(model, x, "full" if route == "asked" else "factorized")
    after = model.encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_spectral_norm_is_put_back():
    model = REFUSED["spectral norm in train mode"][0]()
    before = {n: b.clone() for n, b in model.encoder.named_buffers()}
    with pytest.raises(UsageError, match="changes the buffer"):
        check_model(model, model.x)
    assert all(torch.equal(before[n], b) for n, b in model.encoder.named_buffers())


@pytest.mark.parametrize("wide", [1, D])
@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_a_buffer_that_has_converged_is_refused_all_the_same(wide, norm):
    """Whether the last bit of a converged power iteration moves is up to the processor."""
    torch.manual_seed(0)
    model = Model(decoder=nn.Sequential(norm(nn.Linear(D, wide)), nn.Linear(wide, PIXELS)))
    for _ in range(200):
        model.decoder(torch.zeros(1, D))
    with pytest.raises(UsageError, match=r"^a forward pass changes the buffer decoder\.0\.\S+: call decoder"):
        check_model(model, model.x)
    model.decoder.eval()
    check_model(model, model.x)


def test_a_buffer_may_be_written_anew_in_eval_mode():
    def forward(module, x):
        module.mask.copy_(torch.ones(4))
        return module.last(x) * module.mask

    encoder = Apply(forward, last=nn.Linear(PIXELS, 2 * D))
    encoder.register_buffer("mask", torch.ones(4))
    with pytest.raises(UsageError, match=r"changes the buffer encoder\.mask: call encoder\.eval"):
        check_model(Model(encoder), torch.rand(BATCH, PIXELS))
    check_model(Model(encoder.eval()), torch.rand(BATCH, PIXELS))


def test_a_buffer_that_is_replaced_is_seen_and_put_back():
    def forward(module, x):
        module.calls = module.calls + 1
        return module.last(x)

    encoder = Apply(forward, last=nn.Linear(PIXELS, 2 * D)).eval()
    encoder.register_buffer("calls", torch.zeros(()))
    with pytest.raises(UsageError, match=r"changes the buffer encoder\.calls"):
        check_model(Model(encoder), torch.rand(BATCH, PIXELS))
    assert encoder.calls == 0


def test_batches_of_pairs_are_told():
    model = Model(x=torch.rand(16, PIXELS))
    model.batches = lambda split, size, generator: iter([(model.x[:size], torch.zeros(size))])
    message = r"^batches yields a tuple, not a tensor x \(B, \.\.\.\): of pairs \(x, y\) yield x alone$"
    with pytest.raises(UsageError, match=message):
        measure_variance(model, "reparameterization", batch_size=16, replicates=10)


def test_parts_of_eta_may_be_any_slices_inside():
    model = with_parts({"all": slice(None), "last": slice(-1, None), "even": slice(0, 4, 2)})
    v = measure_variance(model, "reparameterization", model.x, replicates=50)
    assert v.by_eta.keys() == {"all", "last", "even"}


@pytest.mark.filterwarnings("error")
def test_an_encoder_that_returns_its_parameter_warns_of_nothing():
    encoder = Apply(lambda m, x: m.eta.expand(len(x), -1), eta=nn.Parameter(torch.zeros(1, 2 * D)))
    for x in (torch.rand(1, PIXELS), torch.rand(BATCH, PIXELS)):
        assert measure_variance(Model(encoder), "reparameterization", x, replicates=10).total > 0


def test_modes_by_route():
    noisy = Model(nn.Sequential(nn.Linear(PIXELS, 4), nn.Dropout(0.5)))
    with pytest.raises(UsageError, match="route='full'"):
        check_modes(noisy)
    check_modes(noisy, "full")
    check_modes(Model(nn.Sequential(nn.Linear(PIXELS, 4), nn.Dropout(0.0))))
    coupling = Model(nn.Sequential(nn.Linear(PIXELS, 4), nn.BatchNorm1d(4)))
    with pytest.raises(UsageError, match=r"call encoder\.eval\(\) first"):
        check_modes(coupling)
    check_modes(coupling, "full")


def test_measuring_moves_no_running_statistics_and_says_whose_were_used():
    model = Model(nn.Sequential(nn.Linear(PIXELS, 4), nn.BatchNorm1d(4)))
    before = copy.deepcopy(model.encoder.state_dict())
    v = measure_variance(model, "moving-average-baseline", model.x, replicates=20, route="full")
    for name, value in model.encoder.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert v.notes[0] == "BatchNorm of the encoder in train mode, statistics of the batch"
    assert v.notes[0] in [row["reason"] for row in v.rows() if row["metric"] == "note"]


@pytest.mark.parametrize("measure", ["variance", "train", "advise"])
def test_a_copy_is_made_of_what_was_used_before(measure):
    for make in (keeps_tensors, old_weight_norm_used):
        model = make()
        if measure == "variance":
            measure_variance(model, "reparameterization", model.x, replicates=10, dtype="float64")
        elif measure == "train":
            train(model, "reparameterization", steps=2, batch_size=BATCH)
        else:
            advise(model, ["reparameterization"], model.x, num_samples=(1,), budget=0.1)


def old_weight_norm_used():
    model = Model(old_weight_norm())
    model.encoder(model.x)
    return model


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(16)], ids=["dropout", "BatchNorm"])
def test_training_evaluates_in_eval_mode_and_moves_statistics_once_a_step(layer):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(PIXELS, 16), layer, nn.ReLU(), nn.Linear(16, 2 * D))
    encoder.append(nn.Identity().eval())  # a module whose mode is its own stays as it is
    model = Model(encoder, x=torch.rand(64, PIXELS))
    run = train(model, "reparameterization", steps=6, batch_size=16, evaluate_every=1)
    trained = run.problem
    assert [m.training for m in trained.encoder] == [m.training for m in encoder]
    told = run.history[-1].heldout_objective
    trained.encoder.eval()
    data = next(iter(trained.batches("test", 64)))
    assert told == pytest.approx(evaluate_elbo(trained, data, 0), rel=1e-6)
    if isinstance(layer, nn.BatchNorm1d):
        assert trained.encoder[1].num_batches_tracked == 6


def test_dropout_adds_noise_that_the_full_route_counts():
    torch.manual_seed(0)
    model = WORK["dropout in train mode"][0]()
    noisy = measure_variance(model, "reparameterization", model.x, replicates=400, route="full")
    model.encoder.eval()
    quiet = measure_variance(model, "reparameterization", model.x, replicates=400, route="full")
    assert noisy.ci_low > quiet.ci_high


def test_a_slip_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text(
        "class Half:\n"
        "    encoder, decoder = (lambda x: x), None\n"
        "    def posterior(self, eta): ...\n"
        "    def target(self, x): ...\n"
        "    def batches(self, split, batch_size, generator): ...\n"
    )
    with pytest.raises(
        UsageError, match=r"my_model\.py.*encoder is a (method|function), not a torch\.nn\.Module"
    ):
        load_problem(f"{file}:Half")


def test_what_does_not_fit_while_a_file_is_executed_names_the_file(tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text(
        "import torch\n"
        "from elbograd.benchmarks.problems import from_vae\n"
        "problem = from_vae(torch.nn.Linear(12, 5), torch.nn.Linear(2, 12), torch.rand(9, 12))\n"
    )
    with pytest.raises(UsageError, match=r"^\S*my_model\.py: the encoder returns one tensor") as error:
        load_problem(str(file))
    assert str(error.value).count("my_model.py") == 1
    assert [fault.text[:11] for fault in examine_problem(str(file)).faults] == ["the encoder"]


def test_a_frozen_dataclass_in_a_file(tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    encoder: nn.Module\n"
        "    decoder: nn.Module\n"
        "    def posterior(self, eta): ...\n"
        "    def target(self, x): ...\n"
        "    def batches(self, split, batch_size, generator): ...\n"
        "problem = Mine(nn.Linear(2, 2), nn.Linear(2, 2))\n"
    )
    assert type(load_problem(f"{file}:problem")).__name__ == "Mine"

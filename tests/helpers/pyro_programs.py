"""Pyro models and guides as their public tutorials write them, small, on 12 binary pixels; imports Pyro.

Each has a scale: from the data shown to how many times the sum of their ELBOs Pyro's own is.
"""

from __future__ import annotations

from types import SimpleNamespace

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.distributions.transforms import affine_autoregressive, conditional_planar
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

PIXELS = 12


def data(count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, PIXELS, generator=generator).round().to(torch.get_default_dtype())


class Encoder(nn.Module):
    def __init__(self, z_dim, hidden_dim):
        super().__init__()
        self.fc1, self.softplus = nn.Linear(PIXELS, hidden_dim), nn.Softplus()
        self.fc21, self.fc22 = nn.Linear(hidden_dim, z_dim), nn.Linear(hidden_dim, z_dim)

    def forward(self, x):
        hidden = self.softplus(self.fc1(x.reshape(-1, PIXELS)))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class Decoder(nn.Module):
    def __init__(self, z_dim, hidden_dim):
        super().__init__()
        self.fc1, self.fc21 = nn.Linear(z_dim, hidden_dim), nn.Linear(hidden_dim, PIXELS)
        self.softplus, self.sigmoid = nn.Softplus(), nn.Sigmoid()

    def forward(self, z):
        return self.sigmoid(self.fc21(self.softplus(self.fc1(z))))


class VAE(nn.Module):
    """The VAE of the tutorial: modules told to Pyro by hand, one plate, to_event."""

    def __init__(self, z_dim=3, hidden_dim=7):
        super().__init__()
        self.encoder, self.decoder, self.z_dim = Encoder(z_dim, hidden_dim), Decoder(z_dim, hidden_dim), z_dim

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = x.new_zeros(torch.Size((x.shape[0], self.z_dim)))
            z_scale = x.new_ones(torch.Size((x.shape[0], self.z_dim)))
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            loc_img = self.decoder(z)
            pyro.sample("obs", dist.Bernoulli(loc_img).to_event(1), obs=x.reshape(-1, PIXELS))
            return loc_img

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))


def vae():
    one = VAE()
    return SimpleNamespace(model=one.model, guide=one.guide, scale=lambda shown: 1.0, vae=one)


def parameters():
    """`pyro.param` with constraints on both sides, a scale for the KL, and a scalar scale that Pyro keeps positive."""
    encoder, decoder = nn.Linear(PIXELS, 2), nn.Linear(2, PIXELS)

    def model(x):
        pyro.module("decoder", decoder)
        width = pyro.param("width", torch.tensor([0.5, 2.0]), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=4.0):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), width).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        spread = pyro.param("spread", torch.full((2,), 0.7), constraint=constraints.interval(0.1, 3.0))
        with pyro.plate("data", len(x)), poutine.scale(scale=4.0):
            pyro.sample("z", dist.Normal(encoder(x), spread).to_event(1))

    return SimpleNamespace(model=model, guide=guide, scale=lambda shown: 1.0, kl_weight=4.0)


def bernoulli(rows=1000):
    """Bernoulli latents, in a plate of more data than a batch shows."""
    encoder, decoder = nn.Linear(PIXELS, 3), nn.Linear(3, PIXELS)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", rows, subsample=x):
            z = pyro.sample("z", dist.Bernoulli(0.3 * torch.ones(3)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", rows, subsample=x):
            pyro.sample("z", dist.Bernoulli(logits=encoder(x)).to_event(1))

    return SimpleNamespace(model=model, guide=guide, scale=lambda shown: rows / shown)


def hierarchy():
    """Two layers: the model draws z2 first, the guide z1, and z2 given z1 and x."""
    first, second = nn.Linear(PIXELS, 6), nn.Linear(PIXELS + 3, 4)
    prior, decoder = nn.Linear(2, 6), nn.Linear(3, PIXELS)

    def model(x):
        pyro.module("prior", prior)
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
            loc, log_scale = prior(z2).chunk(2, -1)
            z1 = pyro.sample("z1", dist.Normal(loc, log_scale.exp()).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z1)).to_event(1), obs=x)

    def guide(x):
        pyro.module("first", first)
        pyro.module("second", second)
        with pyro.plate("data", len(x)):
            loc, log_scale = first(x).chunk(2, -1)
            z1 = pyro.sample("z1", dist.Normal(loc, log_scale.exp()).to_event(1))
            loc, log_scale = second(torch.cat((x, z1), -1)).chunk(2, -1)
            pyro.sample("z2", dist.Normal(loc, log_scale.exp()).to_event(1))

    return SimpleNamespace(model=model, guide=guide, scale=lambda shown: 1.0)


def mixed(classes=3):
    """The semi-supervised VAE: a class y, which nobody tells, and z given x and y."""
    encoder_y, encoder_z = nn.Linear(PIXELS, classes), nn.Linear(PIXELS + classes, 4)
    decoder = nn.Linear(2 + classes, PIXELS)

    def model(xs, ys=None):
        pyro.module("decoder", decoder)
        with pyro.plate("data"):
            ys = pyro.sample("y", dist.OneHotCategorical(xs.new_ones(len(xs), classes) / classes), obs=ys)
            zs = pyro.sample("z", dist.Normal(xs.new_zeros(len(xs), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(torch.cat((zs, ys), -1))).to_event(1), obs=xs)

    def guide(xs, ys=None):
        pyro.module("encoder_y", encoder_y)
        pyro.module("encoder_z", encoder_z)
        with pyro.plate("data"):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(logits=encoder_y(xs)))
            loc, log_scale = encoder_z(torch.cat((xs, ys), -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return SimpleNamespace(model=model, guide=guide, scale=lambda shown: 1.0, classes=classes)


class Model(PyroModule):
    """A model made of modules that Pyro knows by themselves, with a parameter kept positive."""

    def __init__(self):
        super().__init__()
        self.decoder = PyroModule[nn.Linear](2, PIXELS)
        self.width = PyroParam(torch.ones(2), constraint=constraints.positive)
        self.register_buffer("centre", torch.tensor([0.3, -0.2]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.centre, self.width).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, 5), nn.Tanh(), nn.Linear(5, 2))
        self.spread = PyroParam(torch.tensor(0.4), constraint=constraints.positive)
        self.shift = nn.Parameter(torch.tensor([0.2, -0.1]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x) + self.shift, self.spread).to_event(1))


def modules():
    return SimpleNamespace(model=Model(), guide=Guide(), scale=lambda shown: 1.0)


def counts():
    """A latent that is a number and one that is an integer, a factor and a deterministic statement."""
    encoder, heads, decoder = nn.Linear(PIXELS, 4), nn.Embedding(4, 2), nn.Linear(3, PIXELS)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=torch.zeros(4)))
            s = pyro.sample("s", dist.Normal(0.0, 1.0))
            code = pyro.deterministic("code", torch.stack((k == 1, k == 2), -1).to(x.dtype), event_dim=1)
            pyro.factor("bonus", -0.1 * k.to(x.dtype))
            logits = decoder(torch.cat((code, s.unsqueeze(-1)), -1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        pyro.module("heads", heads)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=encoder(x)))
            loc, log_scale = heads(k).unbind(-1)
            pyro.sample("s", dist.Normal(loc, log_scale.exp()))

    return SimpleNamespace(model=model, guide=guide, scale=lambda shown: 1.0)


def flow(make=affine_autoregressive, given=False):
    """A posterior that is drawn and scored by networks of its own, as an inverse autoregressive flow has them.

    Args:
        make: of the flow; one that takes x too where it is ``given``.
        given: see there.
    """
    encoder, decoder = nn.Linear(PIXELS, 4), nn.Linear(2, PIXELS)
    steps = make(2, PIXELS, [5]) if given else make(2, [5])

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        pyro.module("steps", steps)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            base = dist.Normal(loc, log_scale.exp()).to_event(1)
            step = steps.condition(x) if given else steps
            pyro.sample("z", dist.TransformedDistribution(base, [step]))

    return SimpleNamespace(model=model, guide=guide, scale=lambda shown: 1.0)


def positive():
    """One number alone, log-normal in both programs."""
    encoder, decoder = nn.Linear(PIXELS, 2), nn.Linear(1, PIXELS)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
            pyro.sample("x", dist.Bernoulli(logits=decoder(s.unsqueeze(-1))).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).unbind(-1)
            pyro.sample("s", dist.LogNormal(loc, log_scale.exp()))

    return SimpleNamespace(model=model, guide=guide, scale=lambda shown: 1.0)


def planar():
    """A flow without an inverse, whose networks take x."""
    return flow(conditional_planar, given=True)


def views():
    """Two views of a datum, of which one counts a quarter of the other."""
    encoder, decoder, other = nn.Linear(PIXELS, 4), nn.Linear(2, PIXELS), nn.Linear(2, 1)

    def model(x):
        pyro.module("decoder", decoder)
        pyro.module("other", other)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with poutine.scale(scale=2.0):
                pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)
            with poutine.scale(scale=0.5):
                pyro.sample("sum", dist.Normal(other(z).squeeze(-1), 1.0), obs=x.sum(-1))

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return SimpleNamespace(model=model, guide=guide, scale=lambda shown: 2.0)

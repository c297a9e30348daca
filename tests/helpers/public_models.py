"""VAEs as they are found in public repositories, written anew and small: what people bring to `from_vae`.

Each is a module with what its authors' code has (``encode``, ``decode``, ``reparameterize``, ``forward``, a loss), which
`from_vae` knows nothing of; `MODELS` says how each is brought, and its ELBO by hand, with its own code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from elbograd.benchmarks.problems import from_vae
from torch import distributions as td
from torch import nn
from torch.nn import functional


class PlainVAE(nn.Module):
    """The MLP of PyTorch's examples: two heads, a sigmoid at the end."""

    def __init__(self, pixels=16, hidden=10, latents=2):
        super().__init__()
        self.pixels = pixels
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21 = nn.Linear(hidden, latents)
        self.fc22 = nn.Linear(hidden, latents)
        self.fc3 = nn.Linear(latents, hidden)
        self.fc4 = nn.Linear(hidden, pixels)

    def encode(self, x):
        h1 = functional.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z):
        return torch.sigmoid(self.fc4(functional.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, self.pixels))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


class ConvVAE(nn.Module):
    """Convolutions and BatchNorm on both sides; encoder, heads, decoder_input, decoder and final_layer apart."""

    def __init__(self, latents=2):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.LeakyReLU(), nn.Flatten()
        )
        self.fc_mu = nn.Linear(12, latents)
        self.fc_var = nn.Linear(12, latents)
        self.decoder_input = nn.Linear(latents, 12)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1), nn.BatchNorm2d(3), nn.LeakyReLU()
        )
        self.final_layer = nn.Conv2d(3, 1, 3, padding=1)

    def encode(self, x):
        h = self.encoder(x)
        return [self.fc_mu(h), self.fc_var(h)]

    def decode(self, z):
        h = self.decoder_input(z).view(-1, 3, 2, 2)
        return self.final_layer(self.decoder(h))


class ConditionalVAE(nn.Module):
    """Labels as one-hot vectors beside x and beside z."""

    def __init__(self, pixels=16, hidden=8, latents=2, labels=3):
        super().__init__()
        self.labels = labels
        self.encoder = nn.Sequential(nn.Linear(pixels + labels, hidden), nn.ReLU())
        self.linear_means = nn.Linear(hidden, latents)
        self.linear_log_var = nn.Linear(hidden, latents)
        self.decoder = nn.Sequential(
            nn.Linear(latents + labels, hidden), nn.ReLU(), nn.Linear(hidden, pixels)
        )

    def one_hot(self, c):
        return functional.one_hot(c, self.labels).to(self.linear_means.weight)

    def encode(self, x, c):
        h = self.encoder(torch.cat((x, self.one_hot(c)), dim=-1))
        return self.linear_means(h), self.linear_log_var(h)

    def decode(self, z, c):
        return torch.sigmoid(self.decoder(torch.cat((z, self.one_hot(c)), dim=-1)))


class GumbelVAE(nn.Module):
    """Categorical latents; logits of all of them in one row."""

    def __init__(self, pixels=16, latents=3, categories=4):
        super().__init__()
        self.latents, self.categories = latents, categories
        self.enc = nn.Sequential(nn.Linear(pixels, 8), nn.ReLU(), nn.Linear(8, latents * categories))
        self.dec = nn.Sequential(nn.Linear(latents * categories, 8), nn.ReLU(), nn.Linear(8, pixels))

    def encode(self, x):
        return self.enc(x)

    def decode(self, z):
        return self.dec(z)


class MixturePrior(nn.Module):
    """A learned mixture of diagonal Gaussians."""

    def __init__(self, components, latents):
        super().__init__()
        self.means = nn.Parameter(torch.randn(components, latents))
        self.logvars = nn.Parameter(torch.randn(components, latents) * 0.1)
        self.weights = nn.Parameter(torch.zeros(components))

    def forward(self):
        parts = td.Independent(td.Normal(self.means, (0.5 * self.logvars).exp()), 1)
        return td.MixtureSameFamily(td.Categorical(logits=self.weights), parts)


class LearnedPriorVAE(nn.Module):
    """Encoder and decoder as modules, the encoder returns a distribution; a mixture for a prior."""

    def __init__(self, pixels=16, latents=2):
        super().__init__()
        self.encoder = GaussianNet(pixels, latents)
        self.decoder = nn.Sequential(nn.Linear(latents, 8), nn.ELU(), nn.Linear(8, 2 * pixels))
        self.prior = MixturePrior(3, latents)


class VampVAE(PlainVAE):
    """A prior that is the mean posterior of learned pseudo-inputs: made with the encoder."""

    def __init__(self, pixels=16, hidden=10, latents=2, components=3):
        super().__init__(pixels, hidden, latents)
        self.pseudo_inputs = nn.Parameter(torch.rand(components, pixels))

    def prior(self):
        mu, logvar = self.encode(self.pseudo_inputs)
        parts = td.Independent(td.Normal(mu, (0.5 * logvar).exp()), 1)
        return td.MixtureSameFamily(td.Categorical(logits=torch.zeros_like(mu[:, 0])), parts)


class GaussianNet(nn.Module):
    """x -> Normal(μ, softplus)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 8), nn.Tanh())
        self.loc, self.scale = nn.Linear(8, outputs), nn.Linear(8, outputs)

    def forward(self, x):
        h = self.body(x)
        return td.Normal(self.loc(h), functional.softplus(self.scale(h)) + 1e-3)


class SentenceVAE(nn.Module):
    """Tokens through a GRU, whose last state makes q; a GRU that is told the sentence makes the logits."""

    def __init__(self, words=6, embedding=4, hidden=5, latents=2):
        super().__init__()
        self.words, self.hidden = words, hidden
        self.embedding = nn.Embedding(words, embedding)
        self.encoder_rnn = nn.GRU(embedding, hidden, batch_first=True)
        self.hidden2mean = nn.Linear(hidden, latents)
        self.hidden2logv = nn.Linear(hidden, latents)
        self.decoder_embedding = nn.Embedding(words + 1, embedding)
        self.latent2hidden = nn.Linear(latents, hidden)
        self.decoder_rnn = nn.GRU(embedding, hidden, batch_first=True)
        self.outputs2vocab = nn.Linear(hidden, words)

    def encode(self, tokens):
        _, hidden = self.encoder_rnn(self.embedding(tokens))
        return self.hidden2mean(hidden[-1]), self.hidden2logv(hidden[-1])

    def decode(self, z, tokens):
        start = torch.full_like(tokens[:, :1], self.words)
        inputs = self.decoder_embedding(torch.cat((start, tokens[:, :-1]), 1))
        outputs, _ = self.decoder_rnn(inputs, self.latent2hidden(z).tanh().unsqueeze(0))
        return self.outputs2vocab(outputs)


class LitVAE(nn.Module):
    """What a LightningModule looks like: parts, and all else in ``training_step``; σ is learned."""

    def __init__(self, pixels=16, latents=2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.GELU())
        self.fc_mu = nn.Linear(8, latents)
        self.fc_std = nn.Linear(8, latents)
        self.decoder = nn.Sequential(nn.Linear(latents, 8), nn.GELU(), nn.Linear(8, pixels))
        self.log_scale = nn.Parameter(torch.tensor([0.3]))
        self.discriminator = nn.Linear(pixels, 1)  # of another loss, which no ELBO reaches

    def gaussian_likelihood(self, mean, x):
        log_pxz = td.Normal(mean, torch.exp(self.log_scale)).log_prob(x.flatten(1))
        return log_pxz.sum(dim=1)

    def encode(self, x):
        h = self.encoder(x)
        return {"mu": self.fc_mu(h), "log_var": self.fc_std(h)}

    def training_step(self, batch, batch_idx):
        x, _ = batch
        mu, log_var = self.encode(x).values()
        std = torch.exp(log_var / 2)
        z = td.Normal(mu, std).rsample()
        log_qzx = td.Normal(mu, std).log_prob(z).sum(-1)
        log_pz = td.Normal(torch.zeros_like(mu), torch.ones_like(std)).log_prob(z).sum(-1)
        return -(self.gaussian_likelihood(self.decoder(z), x) + log_pz - log_qzx).mean()


@dataclass(frozen=True)
class Brought:
    """A model as its user brings it, and its objective as its user writes it.

    Attributes:
        make: the module, in the mode it is measured in.
        data: (N, ...) or what from_vae takes.
        call: what makes a problem of ``vae`` and ``data``, in Python.
        log_p: log p(x|z) by hand: (module, z (N, ...), x, y) -> (N,).
        q: by hand: (module, x, y) -> distribution over (B, ...).
        prior: by hand: module -> distribution.
        weight: of the KL.
        sampled: whether the KL has no closed form.
    """

    make: Callable[[], nn.Module]
    data: Any
    call: str
    log_p: Callable[[Any, torch.Tensor, torch.Tensor, Any], torch.Tensor]
    q: Callable[[Any, torch.Tensor, Any], Any]
    prior: Callable[[Any], Any]
    weight: float = 1.0
    sampled: bool = False

    def problem(self, vae):
        """What `from_vae` makes of it, called as in a user's file."""
        return eval(self.call, {"from_vae": from_vae, "vae": vae, "data": self.data})

    @property
    def usage(self):
        """All that its user writes to measure it."""
        return (
            "from elbograd.benchmarks import measure_variance\n"
            "from elbograd.benchmarks.problems import from_vae\n"
            f"problem = {self.call}\n"
            "v = measure_variance(problem, 'leave-one-out[kl=sampled]', num_samples=4, replicates=100)\n"
            "print(v.total, (v.ci_low, v.ci_high))"
        )


def _binary(*shape):
    return (torch.rand(20, *shape, generator=torch.Generator().manual_seed(1)) > 0.5).float()


def _labels(values, *shape):
    return torch.randint(values, (20, *shape), generator=torch.Generator().manual_seed(2))


def _gaussian(pair):
    mu, logvar = pair
    return td.Independent(td.Normal(mu, torch.exp(0.5 * logvar)), 1)


def _standard(latents):
    return lambda model: td.Independent(td.Normal(torch.zeros(latents), torch.ones(latents)), 1)


def _bce(probabilities, x):
    return -functional.binary_cross_entropy(probabilities, x, reduction="none").flatten(1).sum(1)


def _bce_logits(logits, x):
    return -functional.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


_BATCH_NORM_STATISTICS = {"running_mean": 0.3, "running_var": 1.7}


def _conv():
    model = ConvVAE()
    for name, buffer in model.named_buffers():
        buffer.fill_(_BATCH_NORM_STATISTICS.get(name.rpartition(".")[2], 1))
    return model.eval()


MODELS = {
    "plain": Brought(
        PlainVAE,
        _binary(1, 4, 4),
        "from_vae(vae.encode, vae.decode, data, likelihood='bernoulli-probs')",
        lambda vae, z, x, y: _bce(vae.decode(z), x.view(-1, 16)),
        lambda vae, x, y: _gaussian(vae.encode(x.view(-1, 16))),
        _standard(2),
    ),
    "conv": Brought(
        _conv,
        _binary(1, 4, 4),
        "from_vae(vae.encode, vae.decode, data)",
        lambda vae, z, x, y: _bce_logits(vae.decode(z), x),
        lambda vae, x, y: _gaussian(vae.encode(x)),
        _standard(2),
    ),
    "beta": Brought(
        PlainVAE,
        torch.rand(20, 16, generator=torch.Generator().manual_seed(1)),
        "from_vae(vae.encode, vae.decode, data, likelihood='gaussian', scale=0.5**0.5, kl_weight=4.0)",
        lambda vae, z, x, y: (
            -functional.mse_loss(vae.decode(z), x, reduction="none").sum(1) - 8 * math.log(math.pi)
        ),
        lambda vae, x, y: _gaussian(vae.encode(x)),
        _standard(2),
        weight=4.0,
    ),
    "conditional": Brought(
        ConditionalVAE,
        (_binary(16), _labels(3)),
        "from_vae(vae.encode, vae.decode, data, likelihood='bernoulli-probs', condition=True)",
        lambda vae, z, x, y: _bce(vae.decode(z, y), x),
        lambda vae, x, y: _gaussian(vae.encode(x, y)),
        _standard(2),
    ),
    "gumbel": Brought(
        GumbelVAE,
        _binary(16),
        "from_vae(vae.encode, vae.decode, data, posterior='categorical', categories=4)",
        lambda vae, z, x, y: _bce_logits(vae.decode(z.flatten(1)), x),
        lambda vae, x, y: td.Independent(td.OneHotCategorical(logits=vae.encode(x).view(-1, 3, 4)), 1),
        lambda vae: td.Independent(td.OneHotCategorical(logits=torch.zeros(3, 4)), 1),
    ),
    "learned prior": Brought(
        LearnedPriorVAE,
        torch.randn(20, 16, generator=torch.Generator().manual_seed(1)),
        "from_vae(vae.encoder, vae.decoder, data, prior=vae.prior, likelihood='gaussian-logvar')",
        lambda vae, z, x, y: _gaussian(vae.decoder(z).chunk(2, -1)).log_prob(x),
        lambda vae, x, y: td.Independent(vae.encoder(x), 1),
        lambda vae: vae.prior(),
        sampled=True,
    ),
    "vamp prior": Brought(
        VampVAE,
        _binary(16),
        "from_vae(vae.encode, vae.decode, data, prior=vae.prior, likelihood='bernoulli-probs')",
        lambda vae, z, x, y: _bce(vae.decode(z), x),
        lambda vae, x, y: _gaussian(vae.encode(x)),
        lambda vae: vae.prior(),
        sampled=True,
    ),
    "sequence": Brought(
        SentenceVAE,
        _labels(6, 5),
        "from_vae(vae.encode, vae.decode, data, likelihood='categorical', teacher_forcing=True)",
        lambda vae, z, x, y: (
            -functional.cross_entropy(vae.decode(z, x).transpose(1, 2), x, reduction="none").sum(1)
        ),
        lambda vae, x, y: _gaussian(vae.encode(x)),
        _standard(2),
    ),
    "lightning": Brought(
        LitVAE,
        (torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(1)), _labels(10)),
        "from_vae(vae.encode, vae.decoder, data, likelihood=vae.gaussian_likelihood)",
        lambda vae, z, x, y: vae.gaussian_likelihood(vae.decoder(z), x),
        lambda vae, x, y: _gaussian(vae.encode(x).values()),
        _standard(2),
    ),
}

"""A Bayesian VAE: a posterior over the decoder's weights beside that over each image's latents."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ...estimators.base import Target
from ...estimators.network import Apply, Linear, Network
from ...estimators.pieces.arguments import positive_number
from ...estimators.posteriors.layered import Layered
from .data import BinarizedDigits
from .layers import check_sizes, mlp, weights_from
from .vae import bernoulli_log_likelihood
from .weights import WeightPosterior, mean_field, normal_prior

_PIXELS = 64


class Encoder(nn.Module):
    """eta of z from the image, beside that of the weights, which is the same for all."""

    def __init__(self, image: nn.Module, weights: WeightPosterior) -> None:
        super().__init__()
        self.image, self.weights = image, weights

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, 64) to eta (B, 2·latent_dim + 2·weights)."""
        return torch.cat((self.image(x), self.weights(x)), -1)


class BayesianVAE:
    """p(x, z | w) p(w) with Bernoulli pixels, w the decoder's weights ~ N(0, prior_scale² I), z ~ N(0, I).

    The posterior is q(w) Π_i q(z_i|x_i), all Gaussian and diagonal. Of N images a batch of B gives
    (N/B) Σ_i (E log p(x_i|z_i, w) − KL(q(z_i|x_i) ‖ p(z))) − KL(q(w) ‖ p(w)): the target of each datum is N
    times its own, the KL of w is whole. q is `Layered` with the latents "w", of which a batch shares its
    draws, and "z". φ are the encoder's weights and (μ, log σ) of the decoder's, `encoder.weights`.

    Args:
        latent_dim: of z.
        hidden: units of each hidden tanh layer.
        layers: hidden layers of encoder and decoder each.
        prior_scale: standard deviation of every weight of the decoder under the prior.
        scale: initial σ of every weight; μ starts as torch's linear layers do.
        binarization: "dynamic" or "fixed".
        seed: of the initial weights.

    Raises:
        UsageError: a size or a scale that is not positive, an unknown binarization.

    References:
        Kingma & Welling, Auto-Encoding Variational Bayes, 2014, appendix F (full VB).
    """

    def __init__(
        self,
        latent_dim: int = 4,
        hidden: int = 32,
        layers: int = 1,
        prior_scale: float = 1.0,
        scale: float = 0.05,
        binarization: str = "dynamic",
        seed: int = 0,
    ) -> None:
        check_sizes(latent_dim=latent_dim, hidden=hidden, layers=layers)
        self.latent_dim, self.data = latent_dim, BinarizedDigits(binarization)
        self.prior_scale = positive_number("prior_scale", prior_scale)
        sizes = [latent_dim, *[hidden] * layers]
        pairs = enumerate(pairwise(sizes), 1)
        self.layers = {f"hidden{i}": Linear(*pair) for i, pair in pairs} | {"output": Linear(hidden, _PIXELS)}
        self.upper_dim = sum(layer.size for layer in self.layers.values())
        with weights_from(seed):
            image = mlp(_PIXELS, hidden, 2 * latent_dim, layers)
            self.encoder: nn.Module = Encoder(
                image, WeightPosterior(self.layers, positive_number("scale", scale))
            )
        self.decoder: nn.Module = nn.Module()

    @property
    def data_size(self) -> int:
        """N, of the training data."""
        return len(self.data.fixed["train"])

    @property
    def eta_parts(self) -> dict[str, slice]:
        """What the coordinates of eta are."""
        z, w = self.latent_dim, self.upper_dim
        ends = [0, z, 2 * z, 2 * z + w, 2 * z + 2 * w]
        names = ("mean", "log_scale", "weights_mean", "weights_log_scale")
        return {name: slice(*pair) for name, pair in zip(names, pairwise(ends), strict=True)}

    def posterior(self, eta: Tensor) -> Distribution:
        """q(w) q(z|x) for eta (*batch, P), whose part for w has equal rows."""
        loc, log_scale = eta[..., : 2 * self.latent_dim].chunk(2, dim=-1)
        z = Independent(Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)
        return Layered({"w": mean_field(eta[..., 2 * self.latent_dim :]), "z": z})

    def target(self, x: Tensor) -> Target:
        """N log p(x|z, w) of each datum of x (B, 64), the priors, and the KL of z N times."""
        network = Network(self.layers, partial(self._log_likelihood, x), latent="w")
        size = self.upper_dim

        def log_likelihood(joined: Tensor) -> Tensor:
            return network.dense(joined[..., :size], z=joined[..., size:])

        prior = Layered(
            {"w": normal_prior(x, size, self.prior_scale), "z": normal_prior(x, self.latent_dim, 1.0)}
        )
        weights = {"w": 1.0, "z": float(self.data_size)}
        return Target(log_likelihood, prior, features=x, kl_weight=weights, network=network)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over the digits of a split, x (B, 64)."""
        return self.data.batches(split, batch_size, generator)

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the index of each image in its split, (B,)."""
        return self.data.indexed_batches(split, batch_size, generator)

    def _log_likelihood(self, x: Tensor, apply: Apply, z: Tensor) -> Tensor:
        hidden = z
        for name in self.layers:
            hidden = apply(name, hidden if hidden is z else torch.tanh(hidden))
        return self.data_size * bernoulli_log_likelihood(hidden, x)

"""A Bayesian VAE: a posterior over the decoder's weights beside that over each image's latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ...estimators.base import Target
from ...estimators.network import Apply, Linear, Network
from ...estimators.pieces.arguments import one_of, positive_number
from ...estimators.posteriors.layered import Layered
from .datasets.images import Images
from .layers import check_sizes, mlp, weights_from
from .likelihoods import bernoulli_log_likelihood
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


class AllWeights(nn.Module):
    """eta of the weights of both networks, the same for all, beside the image that q(z|x, u) needs."""

    def __init__(self, image_weights: WeightPosterior, weights: WeightPosterior) -> None:
        super().__init__()
        self.image_weights, self.weights = image_weights, weights

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, 64) to eta (B, 2·encoder weights + 2·decoder weights + 64)."""
        return torch.cat((self.image_weights(x), self.weights(x), x), -1)


class BayesianVAE:
    """p(x, z | w) p(w) with Bernoulli pixels, w the decoder's weights ~ N(0, prior_scale² I), z ~ N(0, I).

    The posterior is q(w) Π_i q(z_i|x_i), all Gaussian and diagonal. Of N images a batch of B gives
    (N/B) Σ_i (E log p(x_i|z_i, w) − KL(q(z_i|x_i) ‖ p(z))) − KL(q(w) ‖ p(w)): the target of each datum is N
    times its own, the KL of w is whole. q is `Layered` with the latents "w", of which a batch shares its
    draws, and "z". φ are the encoder's weights and (μ, log σ) of the decoder's, `encoder.weights`.

    With ``weights="both"`` the encoder's weights u are latent too, a batch shares each draw of them, and the
    posterior is q(u) q(w) Π_i q(z_i|x_i, u): the image travels to it inside eta. KL(q(u) ‖ p(u)) is whole as
    that of w, that of z is taken at the u drawn; φ are (μ, log σ) of all weights.

    Args:
        latent_dim: of z.
        hidden: units of each hidden tanh layer.
        layers: hidden layers of encoder and decoder each.
        prior_scale: standard deviation of every weight of the decoder under the prior.
        scale: initial σ of every weight; μ starts as torch's linear layers do.
        weights: which are latent, "decoder" or "both" networks'.
        binarization: "dynamic" or "fixed".
        seed: of the initial weights.

    Raises:
        UsageError: a size or a scale that is not positive, an unknown binarization, other weights.

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
        weights: str = "decoder",
        binarization: str = "dynamic",
        seed: int = 0,
    ) -> None:
        check_sizes(latent_dim=latent_dim, hidden=hidden, layers=layers)
        self.latent_dim = latent_dim
        self.data = Images("digits", one_of("binarization", binarization, ("dynamic", "fixed")))
        self.prior_scale = positive_number("prior_scale", prior_scale)
        self.both = one_of("weights", weights, ("decoder", "both")) == "both"
        scale = positive_number("scale", scale)
        self.layers = _layers([latent_dim, *[hidden] * layers, _PIXELS])
        self.image_layers = _layers([_PIXELS, *[hidden] * layers, 2 * latent_dim])
        self.upper_dim, self.image_dim = (
            sum(layer.size for layer in each.values()) for each in (self.layers, self.image_layers)
        )
        with weights_from(seed):
            self.encoder: nn.Module
            if self.both:
                image = WeightPosterior(self.image_layers, scale)
                self.encoder = AllWeights(image, WeightPosterior(self.layers, scale))
            else:
                network = mlp(_PIXELS, hidden, 2 * latent_dim, layers)
                self.encoder = Encoder(network, WeightPosterior(self.layers, scale))
        self.decoder: nn.Module = nn.Module()

    @property
    def data_size(self) -> int:
        """N, of the training data."""
        return self.data.size("train")

    @property
    def eta_parts(self) -> dict[str, slice]:
        """What the coordinates of eta are."""
        z, w, u = self.latent_dim, self.upper_dim, self.image_dim
        first = "encoder_weights_" if self.both else ""
        names = (f"{first}mean", f"{first}log_scale", "weights_mean", "weights_log_scale")
        ends = accumulate([u, u, w, w] if self.both else [z, z, w, w], initial=0)
        return {name: slice(*pair) for name, pair in zip(names, pairwise(ends), strict=True)}

    def posterior(self, eta: Tensor) -> Distribution:
        """q for eta (*batch, P), whose parts for weights have equal rows."""
        if self.both:
            u, w, x = eta.split([2 * self.image_dim, 2 * self.upper_dim, _PIXELS], -1)
            image = Network(self.image_layers, partial(_through, self.image_layers, x))
            return Layered({"u": mean_field(u), "w": mean_field(w), "z": lambda u: _normal(image.dense(u))})
        z, w = eta.split([2 * self.latent_dim, 2 * self.upper_dim], -1)
        return Layered({"w": mean_field(w), "z": _normal(z)})

    def target(self, x: Tensor) -> Target:
        """N log p(x|z, w) of each datum of x (B, 64), the priors, and the KL of z N times."""
        network = Network(self.layers, partial(self._log_likelihood, x), latent="w")
        sizes = {"u": self.image_dim} if self.both else {}
        sizes |= {"w": self.upper_dim, "z": self.latent_dim}

        def log_likelihood(joined: Tensor) -> Tensor:
            *_, w, z = joined.split(list(sizes.values()), -1)
            return network.dense(w, z=z)

        scales = {name: 1.0 if name == "z" else self.prior_scale for name in sizes}
        prior = Layered({name: normal_prior(x, size, scales[name]) for name, size in sizes.items()})
        weights = {name: float(self.data_size) if name == "z" else 1.0 for name in sizes}
        return Target(log_likelihood, prior, features=x, kl_weight=weights, network=network, reads=("w", "z"))

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

    def _log_likelihood(self, x: Tensor, apply: Apply, z: Tensor, **_: Tensor) -> Tensor:
        return self.data_size * bernoulli_log_likelihood(_through(self.layers, z, apply), x)


def _layers(sizes: Sequence[int]) -> dict[str, Linear]:
    """Of an MLP, by name."""
    *hidden, output = (Linear(*pair) for pair in pairwise(sizes))
    return {f"hidden{i}": layer for i, layer in enumerate(hidden, 1)} | {"output": output}


def _through(layers: Mapping[str, Linear], inputs: Tensor, apply: Apply) -> Tensor:
    """What comes out of an MLP of tanh layers."""
    hidden = inputs
    for i, name in enumerate(layers):
        hidden = apply(name, torch.tanh(hidden) if i else hidden)
    return hidden


def _normal(eta: Tensor) -> Distribution:
    """Diagonal Gaussian for (μ, log σ) (..., 2D)."""
    loc, log_scale = eta.chunk(2, dim=-1)
    return Independent(Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)

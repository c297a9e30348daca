"""The shared VAE on images, digits by default, with Gaussian, Bernoulli or categorical latents."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, OneHotCategorical

from ...estimators.base import Target
from ...estimators.kl_weight import weight_or_free_bits
from ...estimators.pieces.arguments import integer_from
from .architectures import networks
from .datasets.images import Images
from .layers import check_sizes, weights_from
from .likelihoods import pixel_log_likelihood


class ImageVAE:
    """What the VAEs share: their networks, a decoder of independent pixels, the images.

    Args:
        latent_dim: D.
        hidden: units of each hidden tanh layer.
        layers: hidden layers of encoder and decoder each.
        binarization: "dynamic", "fixed", or "none" (or None) for intensities in [0, 1], whose likelihood is
            the continuous Bernoulli density.
        seed: of the initial weights.
        kl_weight: what the KL is multiplied by.
        free_bits: nats of the KL that each latent has free, in place of kl_weight; None for none.
        data: which images: "digits", "mnist-5k", "mnist", "fashion-mnist" or "omniglot".
        architecture: "mlp", or "conv" for convolutions before and after the MLPs.
        channels: of the first convolution; the second has twice as many.
        validation: how many training images are held out as split "validation"; None for what is usual of
            the data (`Images`).

    Raises:
        UsageError: a size that is not a positive integer, an unknown binarization, data set or architecture,
            a weight below 0, or data that cannot be had.
    """

    eta_per_latent: int
    numbers_per_latent = 1  # that the decoder sees
    binarization = "dynamic"  # of what is shown; a class with data of its own need not say it

    def __init__(
        self,
        latent_dim: int = 8,
        hidden: int = 64,
        layers: int = 1,
        binarization: str | None = "dynamic",
        seed: int = 0,
        kl_weight: float = 1.0,
        free_bits: float | None = None,
        *,
        data: str = "digits",
        architecture: str = "mlp",
        channels: int = 16,
        validation: int | None = None,
    ) -> None:
        check_sizes(latent_dim=latent_dim)
        self.latent_dim = latent_dim
        self.kl_weight = weight_or_free_bits(kl_weight, free_bits)
        self.data = Images(data, binarization, validation)
        self.binarization = self.data.binarization
        self.encoder: nn.Module
        self.decoder: nn.Module
        with weights_from(seed):
            self.encoder, self.decoder = networks(
                architecture,
                self.data.data_set.side,
                self.numbers_per_latent * latent_dim,
                self.eta_per_latent * latent_dim,
                hidden=hidden,
                layers=layers,
                channels=channels,
            )

    def prior(self, like: Tensor) -> Distribution:
        """p(z), event shape (D,), on the device and in the dtype of ``like``."""
        raise NotImplementedError

    def target(self, x: Tensor) -> Target:
        """log p(x|z) of pixels x (B, pixels) in nats, and the prior."""
        log_p = pixel_log_likelihood(self.binarization)
        return Target(
            lambda z: log_p(self.decoder(z), x),
            self.prior(x),
            features=x,
            kl_weight=self.kl_weight,
        )

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over the images of a split, x (B, pixels)."""
        return self.data.batches(split, batch_size, generator)

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the index of each image in its split, (B,)."""
        return self.data.indexed_batches(split, batch_size, generator)


class GaussianVAE(ImageVAE):
    """The shared VAE: q(z|x) = N(μ, diag σ²), eta = (μ, log σ), p(z) = N(0, I)."""

    eta_per_latent = 2

    @property
    def eta_parts(self) -> dict[str, slice]:
        """What the coordinates of eta are."""
        return {"mean": slice(0, self.latent_dim), "log_scale": slice(self.latent_dim, None)}

    def posterior(self, eta: Tensor) -> Distribution:
        """Diagonal Gaussian for eta (*batch, 2D)."""
        loc, log_scale = eta.chunk(2, dim=-1)
        return Independent(Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)

    def prior(self, like: Tensor) -> Distribution:
        """N(0, I)."""
        zero = like.new_zeros(self.latent_dim)
        return Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1, validate_args=False)


class BernoulliVAE(ImageVAE):
    """The shared VAE with binary latents: q(z|x) = Bernoulli(logits eta), p(z) = Bernoulli(1/2)."""

    eta_per_latent = 1

    def posterior(self, eta: Tensor) -> Distribution:
        """Independent Bernoulli latents for logits eta (*batch, D)."""
        return Independent(Bernoulli(logits=eta, validate_args=False), 1, validate_args=False)

    def prior(self, like: Tensor) -> Distribution:
        """Fair coins."""
        zero = like.new_zeros(self.latent_dim)
        return Independent(Bernoulli(logits=zero, validate_args=False), 1, validate_args=False)


class CategoricalVAE(ImageVAE):
    """The shared VAE with K-ary latents: q(z|x) = D one-hot variables of logits eta (D, K), p(z) uniform.

    Args:
        latent_dim: D.
        categories: K.
        hidden: units of each hidden tanh layer.
        layers: hidden layers of encoder and decoder each.
        binarization: "dynamic", "fixed" or "none".
        seed: of the initial weights.
        kl_weight: what the KL is multiplied by.
        free_bits: nats of the KL that each latent has free, in place of kl_weight; None for none.
        data: which images, as in `ImageVAE`.
        architecture: "mlp" or "conv".
        channels: of the first convolution.
        validation: how many training images are held out as split "validation".

    Raises:
        UsageError: fewer than two categories, and what `ImageVAE` raises.
    """

    def __init__(
        self,
        latent_dim: int = 3,
        categories: int = 8,
        hidden: int = 64,
        layers: int = 1,
        binarization: str | None = "dynamic",
        seed: int = 0,
        kl_weight: float = 1.0,
        free_bits: float | None = None,
        *,
        data: str = "digits",
        architecture: str = "mlp",
        channels: int = 16,
        validation: int | None = None,
    ) -> None:
        self.eta_per_latent = self.numbers_per_latent = integer_from(2, "categories", categories)
        super().__init__(
            latent_dim,
            hidden,
            layers,
            binarization,
            seed,
            kl_weight,
            free_bits,
            data=data,
            architecture=architecture,
            channels=channels,
            validation=validation,
        )
        self.decoder = nn.Sequential(nn.Flatten(-2), self.decoder)

    def posterior(self, eta: Tensor) -> Distribution:
        """Independent one-hot latents for logits eta (*batch, D·K)."""
        return _one_hot(eta.unflatten(-1, (self.latent_dim, self.eta_per_latent)))

    def prior(self, like: Tensor) -> Distribution:
        """Fair dice."""
        return _one_hot(like.new_zeros(self.latent_dim, self.eta_per_latent))


def _one_hot(logits: Tensor) -> Distribution:
    return Independent(OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)

"""A linear-Gaussian VAE: everything about it is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ...estimators.base import Target
from ...estimators.kl_weight import weight_or_free_bits
from ...estimators.pieces.arguments import positive_number
from .data import SPLITS, check_split, serve
from .layers import check_sizes, weights_from

_DATA = 1000  # data in each split


class LinearGaussianVAE:
    """p(z) = N(0, I), p(x|z) = N(W z + b, noise² I), q(z|x) = N(μ, diag σ²), (μ, log σ) linear in x.

    Its data are drawn from a model of the same form. log p(x|z) is quadratic in z, so the ELBO, its
    gradients and the variances of the estimators are known: E_q[log p(x|z)] is log p(x|μ) less
    ½ Σ_j σ_j² ‖w_j‖² / noise².

    Args:
        latent_dim: D.
        data_dim: size of x.
        noise: standard deviation of x given z.
        seed: of the data and of the initial weights.
        kl_weight: what the KL is multiplied by.
        free_bits: nats of the KL that each latent has free, in place of kl_weight; None for none.

    Raises:
        UsageError: a size or the noise is not positive, a weight is below 0.
    """

    def __init__(
        self,
        latent_dim: int = 4,
        data_dim: int = 10,
        noise: float = 1.0,
        seed: int = 0,
        kl_weight: float = 1.0,
        free_bits: float | None = None,
    ) -> None:
        check_sizes(latent_dim=latent_dim, data_dim=data_dim)
        self.kl_weight = weight_or_free_bits(kl_weight, free_bits)
        self.latent_dim, self.noise = latent_dim, positive_number("noise", noise)
        with weights_from(seed):
            loading = torch.randn(latent_dim, data_dim)
            self.data = {
                split: torch.randn(_DATA, latent_dim) @ loading + noise * torch.randn(_DATA, data_dim)
                for split in SPLITS
            }
            self.encoder: nn.Module = nn.Linear(data_dim, 2 * latent_dim)
            self.decoder = nn.Linear(latent_dim, data_dim)

    @property
    def eta_parts(self) -> dict[str, slice]:
        """What the coordinates of eta are."""
        return {"mean": slice(0, self.latent_dim), "log_scale": slice(self.latent_dim, None)}

    def posterior(self, eta: Tensor) -> Distribution:
        """Diagonal Gaussian for eta (*batch, 2D) = (μ, log σ)."""
        loc, log_scale = eta.chunk(2, dim=-1)
        return Independent(Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)

    def target(self, x: Tensor) -> Target:
        """log p(x|z) for x (B, data_dim), the prior, and the closed-form expectation."""
        zero = x.new_zeros(self.latent_dim)
        prior = Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1, validate_args=False)
        return Target(
            partial(self._log_likelihood, x),
            prior,
            features=x,
            expectation=partial(self._expectation, x),
            kl_weight=self.kl_weight,
        )

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over a split, x (B, data_dim)."""
        check_split(split)
        return serve(self.data[split], batch_size, generator)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        residual = (x - self.decoder(z)) / self.noise
        return -0.5 * residual.square().sum(-1) - x.shape[-1] * math.log(self.noise * math.sqrt(2 * math.pi))

    def _expectation(self, x: Tensor, q: Distribution) -> Tensor:
        column_norms = self.decoder.weight.square().sum(0)
        return self._log_likelihood(x, q.mean) - 0.5 * (q.variance * column_norms).sum(-1) / self.noise**2

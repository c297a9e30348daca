"""Counts with Gamma latents: a reparameterizable posterior that is not Gaussian."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Gamma, Independent

from ...estimators.base import Target
from .data import SPLITS, check_split, serve
from .layers import check_sizes, weights_from

_DATA = 300  # data in each split
_PRIOR = (2.0, 1.5)  # concentration and rate
_HIDDEN = 6


class GammaPoisson:
    """z_j ~ Gamma(2, 1.5), counts x_i ~ Poisson(Σ_j W_ij z_j), q(z|x) = Gamma(α, β), eta = (log α, log β).

    Gamma samples are reparameterized implicitly (torch's rsample); the posterior has no closed form for
    D > 1, and the ELBO is known by quadrature for D = 1 and 2.

    Args:
        latent_dim: D.
        data_dim: counts a datum.
        seed: of the data and of the initial weights.

    Raises:
        UsageError: a size is not positive.

    References:
        Figurnov, Mohamed & Mnih, Implicit Reparameterization Gradients, 2018.
    """

    default_batch_size = 64

    def __init__(self, latent_dim: int = 1, data_dim: int = 2, seed: int = 0) -> None:
        check_sizes(latent_dim=latent_dim, data_dim=data_dim)
        self.latent_dim = latent_dim
        with weights_from(seed):
            log_loading = 0.3 * torch.randn(data_dim, latent_dim)
            prior = Gamma(torch.tensor(_PRIOR[0]), torch.tensor(_PRIOR[1]))
            z = prior.sample((len(SPLITS), _DATA, latent_dim))
            counts = torch.poisson(z @ log_loading.exp().T)
            self.data = dict(zip(SPLITS, counts, strict=True))
            self.encoder: nn.Module = nn.Sequential(
                nn.Linear(data_dim, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 2 * latent_dim)
            )
            self.decoder: nn.Module = _Loadings(log_loading + 0.2)

    @property
    def eta_parts(self) -> Mapping[str, slice]:
        """What the coordinates of eta are."""
        return {
            "log_concentration": slice(0, self.latent_dim),
            "log_rate": slice(self.latent_dim, None),
        }

    def posterior(self, eta: Tensor) -> Distribution:
        """Independent Gammas for eta (*batch, 2D)."""
        concentration, rate = eta.exp().chunk(2, dim=-1)
        return Independent(Gamma(concentration, rate, validate_args=False), 1, validate_args=False)

    def target(self, x: Tensor) -> Target:
        """log p(x|z) of counts x (B, data_dim), and the prior."""
        ones = x.new_ones(self.latent_dim)
        prior = Gamma(_PRIOR[0] * ones, _PRIOR[1] * ones, validate_args=False)
        return Target(
            partial(self._log_likelihood, x), Independent(prior, 1, validate_args=False), features=x
        )

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over a split, x (B, data_dim)."""
        check_split(split)
        return serve(self.data[split], batch_size, generator)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        rate = self.decoder(z)
        return (x * rate.log() - rate - torch.lgamma(x + 1)).sum(-1)


class _Loadings(nn.Module):
    """z (..., D) -> Poisson rates (..., data_dim), by positive loadings."""

    def __init__(self, log_weight: Tensor) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(log_weight)

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.log_weight.exp().T

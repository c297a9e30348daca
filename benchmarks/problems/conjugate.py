"""A linear-Gaussian model whose true posterior q can reach, and where the encoder begins there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...estimators.pieces.arguments import number
from .linear_gaussian import LinearGaussianVAE


class ConjugateGaussian(LinearGaussianVAE):
    """`LinearGaussianVAE` with orthogonal loadings: p(z|x) is a diagonal Gaussian with a mean linear in x.

    p(z|x) = N(V Wᵀ(x − b) / noise², V), V = diag 1 / (1 + ‖w_j‖² / noise²). The encoder starts at it, where
    the ELBO is log p(x), its gradient zero, and sticking-the-landing without any variance.

    Args:
        latent_dim: D.
        data_dim: size of x, at least D.
        noise: standard deviation of x given z.
        distance: added to every coordinate of eta, to start off the optimum.
        seed: of the data and of the weights.

    Raises:
        UsageError: a size or the noise is not positive.
    """

    def __init__(
        self,
        latent_dim: int = 2,
        data_dim: int = 4,
        noise: float = 1.0,
        distance: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(latent_dim, max(data_dim, latent_dim), noise, seed)
        with torch.no_grad():
            directions = torch.linalg.qr(self.decoder.weight).Q
            self.decoder.weight.copy_(directions * torch.linspace(0.8, 1.6, latent_dim))
            precision = 1 + self.decoder.weight.square().sum(0) / self.noise**2
            mean = self.decoder.weight.T / self.noise**2 / precision.unsqueeze(1)
            assert isinstance(self.encoder, nn.Linear)
            self.encoder.weight.copy_(torch.cat((mean, torch.zeros_like(mean))))
            self.encoder.bias.copy_(torch.cat((-mean @ self.decoder.bias, -0.5 * precision.log())))
            self.encoder.bias.add_(number("distance", distance))

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), (B,), by the Gaussian marginal N(b, W Wᵀ + noise² I)."""
        w, size = self.decoder.weight, x.shape[-1]
        covariance = w @ w.T + self.noise**2 * torch.eye(size, dtype=w.dtype, device=w.device)
        marginal = torch.distributions.MultivariateNormal(self.decoder.bias, covariance)
        evidence: Tensor = marginal.log_prob(x)
        return evidence

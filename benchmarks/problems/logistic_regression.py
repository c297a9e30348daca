"""Bayesian logistic regression on real data, with a mean-field Gaussian posterior over the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ...estimators.base import Target
from ...estimators.pieces.arguments import positive_number
from .data import check_split
from .layers import check_sizes

_NODES = 64


class MeanField(nn.Module):
    """An encoder that ignores x: eta = (μ, log σ), which are φ."""

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.full((size,), math.log(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, 1) to eta (B, 2D)."""
        return torch.cat((self.loc, self.log_scale)).expand(len(x), -1)


class LogisticRegression:
    """y_n ~ Bernoulli(sigmoid(zᵀ x_n)), weights z ~ N(0, I), q(z) = N(μ, diag σ²), for the whole data set.

    The data are scikit-learn's breast cancer data: 569 patients, 30 standardized features and a constant,
    so D = 31. The whole data set makes one "datum" of the suite. Under a Gaussian posterior every logit is
    Gaussian, so that E_q[log p(y|z)] is a sum of 569 one-dimensional integrals, done by Gauss-Hermite
    quadrature: the ELBO and its gradient are known.

    Args:
        scale: initial σ; μ starts at 0.

    Raises:
        UsageError: the scale is not positive.

    References:
        Street, Wolberg & Mangasarian, Nuclear Feature Extraction for Breast Tumor Diagnosis, 1993 (data).
        Mohamed et al., Monte Carlo Gradient Estimation in Machine Learning, 2020, section 8.3.
    """

    default_batch_size = 1

    def __init__(self, scale: float = 0.3) -> None:
        features, labels = breast_cancer()
        self.encoder: nn.Module = MeanField(features.shape[1], positive_number("scale", scale))
        self.decoder: nn.Module = nn.Module()
        # Buffers, so that the data move to a device and a dtype with the model.
        self.decoder.register_buffer("features", features)
        self.decoder.register_buffer("signs", 2 * labels - 1)
        self.latent_dim = features.shape[1]

    @property
    def eta_parts(self) -> dict[str, slice]:
        """What the coordinates of eta are."""
        return {"mean": slice(0, self.latent_dim), "log_scale": slice(self.latent_dim, None)}

    def posterior(self, eta: Tensor) -> Distribution:
        """Diagonal Gaussian for eta (*batch, 2D)."""
        loc, log_scale = eta.chunk(2, dim=-1)
        return Independent(Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)

    def target(self, x: Tensor) -> Target:
        """log p(y|z) of all data, the prior, and the expectation by quadrature."""
        zero = x.new_zeros(self.latent_dim)
        prior = Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1, validate_args=False)
        return Target(self._log_likelihood, prior, features=x, expectation=self._expectation)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One batch of zeros (batch_size, 1): the data set is inside the model."""
        check_split(split)
        check_sizes(batch_size=batch_size)
        yield torch.zeros(batch_size, 1)

    def accuracy(self, eta: Tensor) -> float:
        """Share of the patients whom the posterior mean classifies rightly, eta (1, 2D)."""
        logits = self._signs * (eta[0, : self.latent_dim] @ self._features.T)
        return float((logits > 0).to(eta.dtype).mean())

    @property
    def _features(self) -> Tensor:
        return self.decoder.get_buffer("features")

    @property
    def _signs(self) -> Tensor:
        return self.decoder.get_buffer("signs")

    def _log_likelihood(self, z: Tensor) -> Tensor:
        return nn.functional.logsigmoid(self._signs * (z @ self._features.T)).sum(-1)

    def _expectation(self, q: Distribution) -> Tensor:
        mean = q.mean @ self._features.T
        spread = (q.variance @ self._features.square().T).sqrt()
        return expected_log_sigmoid(self._signs, mean, spread).sum(-1)


@lru_cache(maxsize=1)
def breast_cancer() -> tuple[Tensor, Tensor]:
    """Standardized features with a constant (569, 31), and labels 0 or 1 (569,)."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    x = torch.tensor(data.data, dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0)
    x = torch.cat((x, torch.ones(len(x), 1, dtype=x.dtype)), 1)
    return x.float(), torch.tensor(data.target, dtype=torch.float32)


def expected_log_sigmoid(signs: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """E log sigmoid(± t) for t ~ N(mean, spread²), of mean's shape, by Gauss-Hermite quadrature."""
    points, weights = (part.to(mean) for part in _hermite(_NODES))
    logits = signs * (mean + spread * points.reshape(-1, *(1,) * mean.dim()))
    return (weights @ nn.functional.logsigmoid(logits).flatten(1)).reshape(mean.shape)


def _hermite(nodes: int) -> tuple[Tensor, Tensor]:
    from ...estimators.posteriors.quadrature import hermite_grid

    points, weights = hermite_grid(1, nodes)
    return points[:, 0], weights

"""Bayesian linear regression in minibatches: a posterior over weights where all has a closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.network import Apply, Linear
from ...estimators.pieces.arguments import positive_number
from .data import SPLITS
from .layers import check_sizes, weights_from
from .weights import WeightsProblem


class BayesianLinearRegression(WeightsProblem):
    """y_i ~ N(wᵀ u_i, noise²), w ~ N(0, prior_scale² I), q(w) = N(μ, diag σ²); x_i = (u_i, y_i).

    The data are drawn from the model; the last feature is a constant. log p(y|w) is quadratic in w, so that
    the ELBO, its gradient and the variances of the estimators have closed forms
    (`elbograd.benchmarks.oracles.weight_variances`).

    Args:
        features: D, with the constant.
        data: N, in each split.
        noise: standard deviation of y, known.
        prior_scale: standard deviation of every weight under the prior.
        scale: initial σ; μ starts at 0.
        seed: of the data.

    Raises:
        UsageError: a size, the noise or a scale is not positive.
    """

    def __init__(
        self,
        features: int = 3,
        data: int = 200,
        noise: float = 1.0,
        prior_scale: float = 1.0,
        scale: float = 0.3,
        seed: int = 0,
    ) -> None:
        check_sizes(features=features, data=data)
        self.noise = positive_number("noise", noise)
        positive_number("prior_scale", prior_scale)
        with weights_from(seed):
            weights = prior_scale * torch.randn(features)
            drawn = {split: self._draw(weights, data) for split in SPLITS}
        super().__init__({"weights": Linear(features, 1, False)}, drawn, prior_scale, scale, drawn=False)

    def log_likelihood(self, x: Tensor, apply: Apply) -> Tensor:
        """log p(y_i|w) for x (B, D + 1)."""
        return self._normal(x[:, -1], apply("weights", x[:, :-1]).squeeze(-1))

    def target(self, x: Tensor) -> Target:
        """With the closed-form expectation."""
        return replace(super().target(x), expectation=partial(self._expectation, x))

    def _expectation(self, x: Tensor, q: Distribution) -> Tensor:
        u, y = x[:, :-1], x[:, -1]
        spread = (q.variance * u.square()).sum(-1) / self.noise**2
        return self.data_size * (self._normal(y, (q.mean * u).sum(-1)) - 0.5 * spread)

    def _normal(self, y: Tensor, mean: Tensor) -> Tensor:
        return -0.5 * ((y - mean) / self.noise).square() - math.log(self.noise * math.sqrt(2 * math.pi))

    def _draw(self, weights: Tensor, data: int) -> Tensor:
        u = torch.cat((torch.randn(data, len(weights) - 1), torch.ones(data, 1)), 1)
        return torch.cat((u, (u @ weights + self.noise * torch.randn(data)).unsqueeze(1)), 1)

"""Costs of discrete latents: the toys of the literature on gradients without reparameterization."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, OneHotCategorical

from ...estimators.base import Target
from ...estimators.errors import UsageError
from ...estimators.pieces.arguments import integer_from, number
from .data import check_split
from .layers import check_sizes, weights_from

_SHARED_TARGETS = (0.6, 0.51, 0.48)


class Logits(nn.Module):
    """An encoder that ignores x: eta is ``logits``, which are φ, for every datum; of a single one, copies."""

    def __init__(self, logits: Tensor, size: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, 1) to eta (B, P)."""
        return self.logits.expand(len(x), self.size)


class DiscreteCost:
    """Minimize E[cost(z)] over the logits of independent discrete variables: the objective is −E[cost(z)].

    As of the costs under a Gaussian there is no KL term, φ is eta itself, and there is one datum unless asked
    otherwise. Papers that print the gradient of the cost have the opposite sign.
    """

    latent_dim: int
    default_batch_size = 1
    eta_parts: Mapping[str, slice] = MappingProxyType({"logits": slice(0, None)})

    def __init__(self, logits: Tensor, size: int) -> None:
        self.encoder: nn.Module = Logits(logits, size)
        self.decoder: nn.Module = nn.Module()

    def cost(self, z: Tensor) -> Tensor:
        """The cost at z (..., *event), a polynomial that is known off the support of q too."""
        raise NotImplementedError

    def posterior(self, eta: Tensor) -> Distribution:
        """Independent Bernoulli variables of logits eta (*batch, D)."""
        return Independent(Bernoulli(logits=eta, validate_args=False), 1, validate_args=False)

    def target(self, x: Tensor) -> Target:
        """Minus the cost; the features are x, which says nothing."""
        return Target(lambda z: -self.cost(z), features=x)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One batch of zeros (batch_size, 1): there are no data."""
        check_split(split)
        check_sizes(batch_size=batch_size)
        yield torch.zeros(batch_size, 1)


class BinaryToy(DiscreteCost):
    """Cost mean_j (z_j − t)² of D independent Bernoulli variables.

    The gradient of the objective in each logit is p(1 − p)(2t − 1)/D.

    Args:
        latent_dim: D.
        target: t.
        probability: p = P(z_j = 1), at which all logits start.

    Raises:
        UsageError: a size that is not a positive integer, a probability that is not between 0 and 1.

    References:
        Tucker et al., REBAR: Low-Variance, Unbiased Gradient Estimates for Discrete Latent Variable Models,
        2017; Grathwohl et al., Backpropagation through the Void, 2018 (the toy problems of both, D = 1).
    """

    def __init__(self, latent_dim: int = 1, target: float = 0.499, probability: float = 0.5) -> None:
        check_sizes(latent_dim=latent_dim)
        self.latent_dim, self.value = latent_dim, number("target", target)
        p = number("probability", probability)
        if not 0 < p < 1:
            raise UsageError(f"probability={probability!r} is not between 0 and 1")
        super().__init__(torch.full((latent_dim,), math.log(p) - math.log1p(-p)), latent_dim)

    def cost(self, z: Tensor) -> Tensor:
        return (z - self.value).square().mean(-1)


class SharedLogit(DiscreteCost):
    """Cost Σ_i (z_i − p_i)², p = (0.6, 0.51, 0.48), of three Bernoulli variables with one logit between them.

    φ is that one logit, and eta three copies of it: the gradient in φ is the sum of those in η. That of the
    objective is s(2 Σ_i p_i − 3), s the variance of one variable.

    Args:
        logit: where it starts.

    Raises:
        UsageError: the logit is not a number.

    References:
        Kool, van Hoof & Welling, Estimating Gradients for Discrete Random Variables by Sampling without
        Replacement, 2020 (Bernoulli toy experiment).
    """

    latent_dim = len(_SHARED_TARGETS)

    def __init__(self, logit: float = 0.0) -> None:
        super().__init__(torch.tensor([number("logit", logit)]), self.latent_dim)

    def cost(self, z: Tensor) -> Tensor:
        return (z - z.new_tensor(_SHARED_TARGETS)).square().sum(-1)


class CategoricalToy(DiscreteCost):
    """Cost aᵀv + vᵀWv of D variables of K categories, v their one-hot codes in a row: all pairs are coupled.

    a, W and the logits at which φ starts are standard normal, W over √(DK) so that the parts count alike.

    Args:
        latent_dim: D.
        categories: K.
        seed: of the cost and of the logits.

    Raises:
        UsageError: a size that is not a positive integer, fewer than two categories.
    """

    def __init__(self, latent_dim: int = 3, categories: int = 4, seed: int = 0) -> None:
        check_sizes(latent_dim=latent_dim)
        integer_from(2, "categories", categories)
        self.latent_dim, self.categories = latent_dim, categories
        size = latent_dim * categories
        with weights_from(seed):
            self._linear = torch.randn(size, dtype=torch.float64)
            self._coupling = torch.randn(size, size, dtype=torch.float64) / math.sqrt(size)
            super().__init__(torch.randn(size), size)

    def posterior(self, eta: Tensor) -> Distribution:
        """Independent categorical variables, one-hot (D, K), for eta (*batch, D·K)."""
        logits = eta.unflatten(-1, (self.latent_dim, self.categories))
        return Independent(OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)

    def cost(self, z: Tensor) -> Tensor:
        v = z.flatten(-2)
        return v @ self._linear.to(v) + ((v @ self._coupling.to(v)) * v).sum(-1)

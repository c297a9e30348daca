"""One-dimensional costs under a Gaussian: the test functions of the gradient-estimation literature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ...estimators.base import Target
from ...estimators.pieces.arguments import number, positive_number
from .data import check_split
from .layers import check_sizes


class GaussianParameters(nn.Module):
    """An encoder that ignores x: eta = (μ, σ) for every datum, φ being μ (``loc``) and σ (``scale``)."""

    def __init__(self, loc: float, scale: float) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(float(loc)))
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, 1) to eta (B, 2)."""
        return torch.stack((self.loc, self.scale)).expand(len(x), 2)


class OneDimensionalCost:
    """Minimize E[cost(z)], z ~ N(μ, σ²): the objective is −E[cost(z)], there is no KL term.

    Gradients are with respect to μ and σ themselves, as in Mohamed et al., Monte Carlo Gradient
    Estimation in Machine Learning, 2020, section 3. There is one datum, so batches are of size 1
    unless asked otherwise.

    Args:
        loc: μ.
        scale: σ.
        k: the cost's parameter.

    Raises:
        UsageError: σ is not positive.
    """

    latent_dim = 1
    default_batch_size = 1
    eta_parts: Mapping[str, slice] = MappingProxyType({"mean": slice(0, 1), "scale": slice(1, 2)})

    def __init__(self, loc: float = 1.0, scale: float = 1.0, k: float = 0.0) -> None:
        self.encoder: nn.Module = GaussianParameters(number("loc", loc), positive_number("scale", scale))
        self.decoder: nn.Module = nn.Module()
        self.k = number("k", k)

    def cost(self, z: Tensor) -> Tensor:
        """The cost at z, elementwise."""
        raise NotImplementedError

    def posterior(self, eta: Tensor) -> Distribution:
        """N(μ, σ²) for eta (*batch, 2)."""
        loc, scale = eta.split(1, dim=-1)
        return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)

    def target(self, x: Tensor) -> Target:
        """Minus the cost; the features are x, which says nothing."""
        return Target(lambda z: -self.cost(z).squeeze(-1), features=x)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One batch of zeros (batch_size, 1): there are no data."""
        check_split(split)
        check_sizes(batch_size=batch_size)
        yield torch.zeros(batch_size, 1)


class Quadratic(OneDimensionalCost):
    """Cost (z − k)²."""

    def cost(self, z: Tensor) -> Tensor:
        return (z - self.k).square()


class Exponential(OneDimensionalCost):
    """Cost exp(−k z²): smooth for small k, a narrow spike for large."""

    def __init__(self, loc: float = 1.0, scale: float = 1.0, k: float = 1.0) -> None:
        super().__init__(loc, scale, k)

    def cost(self, z: Tensor) -> Tensor:
        return torch.exp(-self.k * z.square())


class Cosine(OneDimensionalCost):
    """Cost cos(k z): the rougher the larger k."""

    def __init__(self, loc: float = 1.0, scale: float = 1.0, k: float = 1.0) -> None:
        super().__init__(loc, scale, k)

    def cost(self, z: Tensor) -> Tensor:
        return torch.cos(self.k * z)

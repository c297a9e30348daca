"""A linear-Gaussian VAE of two layers: everything about it is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ...estimators.base import Target
from ...estimators.pieces.arguments import one_of, positive_number
from ...estimators.posteriors.affine import Affine, moments
from ...estimators.posteriors.layered import Layered, reading
from .data import SPLITS, check_split, serve
from .layers import check_sizes, weights_from

DIRECTIONS = ("bottom-up", "top-down")
_DATA = 1000  # data in each split


class TwoLayerGaussian:
    """z² → z¹ → x, all of them Gaussian, each mean affine in what it is drawn given.

    p(z²) = N(0, I), p(z¹|z²) = N(A z² + a, diag r²), p(x|z¹) = N(W z¹ + b, noise² I). The posterior is
    q(z¹|x) q(z²|z¹), bottom-up, or q(z²|x) q(z¹|z², x), top-down, with scales that do not depend on x in the
    second factor. eta is what x says: mean and log scale of z¹, or of both; the matrix between the latents is
    the encoder's too and reaches the posterior directly, so that gradients in eta are not the whole gradient.
    Its data are drawn from a model of the same form. All is jointly Gaussian: the ELBO and its gradients are
    algebra, whatever the sizes. Top-down the KL has a closed form layer by layer, bottom-up it has not: use
    kl=sampled.

    Args:
        direction: "bottom-up" or "top-down".
        latent_dim: D₁.
        upper_dim: D₂.
        data_dim: size of x.
        noise: standard deviation of x given z¹.
        seed: of the data and of the initial weights.

    Raises:
        UsageError: an unknown direction; a size or the noise is not positive.
    """

    def __init__(
        self,
        direction: str = "bottom-up",
        latent_dim: int = 3,
        upper_dim: int = 2,
        data_dim: int = 10,
        noise: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.direction = one_of("direction", direction, DIRECTIONS)
        check_sizes(latent_dim=latent_dim, upper_dim=upper_dim, data_dim=data_dim)
        self.latent_dim, self.upper_dim = latent_dim, upper_dim
        self.noise = positive_number("noise", noise)
        with weights_from(seed):
            loading = torch.randn(latent_dim, data_dim) / math.sqrt(latent_dim)
            mixing = torch.randn(upper_dim, latent_dim) / math.sqrt(upper_dim)
            self.data = {split: self._drawn(loading, mixing) for split in SPLITS}
            self.encoder: nn.Module = _Recognition(self.direction, latent_dim, upper_dim, data_dim)
            self.decoder: nn.Module = _Generation(latent_dim, upper_dim, data_dim)

    def _drawn(self, loading: Tensor, mixing: Tensor) -> Tensor:
        middle = torch.randn(_DATA, self.upper_dim) @ mixing + 0.7 * torch.randn(_DATA, self.latent_dim)
        return middle @ loading + self.noise * torch.randn(_DATA, loading.shape[1])

    @property
    def eta_parts(self) -> dict[str, slice]:
        """What the coordinates of eta are."""
        size = self.latent_dim + (self.upper_dim if self.direction == "top-down" else 0)
        return {"mean": slice(0, size), "log_scale": slice(size, None)}

    def posterior(self, eta: Tensor) -> Distribution:
        """q(z¹, z²) for eta (*batch, P) = (means, log scales)."""
        loc, log_scale = eta.chunk(2, dim=-1)
        between: nn.Linear = self.encoder.between  # type: ignore[assignment]
        if self.direction == "bottom-up":
            spread: Tensor = self.encoder.log_scale  # type: ignore[assignment]
            upper = Affine("z1", between.weight, between.bias, spread.exp())
            return Layered({"z1": _normal(loc, log_scale.exp()), "z2": upper})
        sizes = (self.latent_dim, self.upper_dim)
        (loc1, loc2), (scale1, scale2) = loc.split(sizes, -1), log_scale.exp().split(sizes, -1)
        return Layered({"z1": Affine("z2", between.weight, loc1, scale1), "z2": _normal(loc2, scale2)})

    def target(self, x: Tensor) -> Target:
        """log p(x|z¹) for x (B, data_dim), the prior p(z²) p(z¹|z²), and the closed-form expectation."""
        between: nn.Linear = self.decoder.between  # type: ignore[assignment]
        spread: Tensor = self.decoder.log_scale  # type: ignore[assignment]
        zero = spread.new_zeros(self.upper_dim)
        prior = Layered(
            {
                "z1": Affine("z2", between.weight, between.bias, spread.exp()),
                "z2": _normal(zero, torch.ones_like(zero)),
            }
        )

        def log_likelihood(z1: Tensor) -> Tensor:
            lower: nn.Linear = self.decoder.lower  # type: ignore[assignment]
            return self._log_density((x - lower(z1)).square())

        return Target(
            reading(prior, log_likelihood),
            prior,
            features=x,
            expectation=partial(self._expectation, x),
        )

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over a split, x (B, data_dim)."""
        check_split(split)
        return serve(self.data[split], batch_size, generator)

    def _log_density(self, squares: Tensor) -> Tensor:
        """Of residuals, squared, or of their mean squares."""
        constant = squares.shape[-1] * math.log(self.noise * math.sqrt(2 * math.pi))
        return -0.5 * squares.sum(-1) / self.noise**2 - constant

    def _expectation(self, x: Tensor, q: Distribution) -> Tensor:
        assert isinstance(q, Layered)
        known = moments(q)
        assert known is not None
        lower: nn.Linear = self.decoder.lower  # type: ignore[assignment]
        return self._log_density(known["z1"].through(-lower.weight, x - lower.bias).second)


class _Recognition(nn.Module):
    """Holds φ: x to eta, and the matrix between the latents."""

    def __init__(self, direction: str, latent_dim: int, upper_dim: int, data_dim: int) -> None:
        super().__init__()
        up = direction == "bottom-up"
        size = latent_dim if up else latent_dim + upper_dim
        self.lower = nn.Linear(data_dim, 2 * size)
        with torch.no_grad():  # scales near one for all data: a large one rules the sum over them
            self.lower.weight[size:] *= 0.3
        self.between = (
            nn.Linear(latent_dim, upper_dim) if up else nn.Linear(upper_dim, latent_dim, bias=False)
        )
        if up:
            self.log_scale = nn.Parameter(0.3 * torch.randn(upper_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, data_dim) to eta (B, P)."""
        eta: Tensor = self.lower(x)
        return eta


class _Generation(nn.Module):
    """Holds θ: z² to the mean of z¹, the scales of that, and z¹ to the mean of x."""

    def __init__(self, latent_dim: int, upper_dim: int, data_dim: int) -> None:
        super().__init__()
        self.between = nn.Linear(upper_dim, latent_dim)
        self.log_scale = nn.Parameter(0.3 * torch.randn(latent_dim))
        self.lower = nn.Linear(latent_dim, data_dim)


def _normal(loc: Tensor, scale: Tensor) -> Distribution:
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)

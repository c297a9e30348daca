"""A VAE of two stochastic layers so small that its ELBO is known by quadrature and enumeration."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.pieces.arguments import one_of
from ...estimators.posteriors.layered import Layered, reading
from .data import SPLITS, check_split, serve
from .layers import check_sizes, weights_from
from .two_layer_gaussian import DIRECTIONS

_DATA = 300  # data in each split
_DATA_DIM = 2
_HIDDEN = 5
_NOISE = 0.7
_WIDTHS = {"gaussian": 1, "bernoulli": 2}
_NUMBERS = 2  # that say how one latent is distributed: mean and log scale, or the logits of two bits


class SmallHierarchy:
    """z² → z¹ → x in R², each latent one Gaussian number or two bits; all that joins them is not linear.

    The posterior is q(z¹|x) q(z²|z¹, x), bottom-up, or q(z²|x) q(z¹|z², x), top-down. eta is what x says of
    each latent; what one latent says of the other is added by a network that lies in the encoder and reaches
    the posterior directly. The prior p(z²) p(z¹|z²) is learned. Log-likelihoods are of the order of one nat,
    so that even the score function shows its mean.

    Args:
        lower: "gaussian" or "bernoulli", of z¹.
        upper: the same of z².
        direction: "bottom-up" or "top-down".
        seed: of the data and of the initial weights.

    Raises:
        UsageError: an unknown family or direction.
    """

    default_batch_size = 3

    def __init__(
        self,
        lower: str = "gaussian",
        upper: str = "bernoulli",
        direction: str = "bottom-up",
        seed: int = 0,
    ) -> None:
        self.families = {
            "z1": one_of("lower", lower, tuple(_WIDTHS)),
            "z2": one_of("upper", upper, tuple(_WIDTHS)),
        }
        self.direction = one_of("direction", direction, DIRECTIONS)
        check_sizes(seed=seed + 1)
        self.latent_dim = sum(_WIDTHS[family] for family in self.families.values())
        self.first, self.second = ("z1", "z2") if direction == "bottom-up" else ("z2", "z1")
        sizes = {name: _WIDTHS[family] for name, family in self.families.items()}
        with weights_from(seed):
            angle = 6.3 * torch.rand(len(SPLITS), _DATA)
            arc = torch.stack((angle.cos(), 0.6 * angle.sin()), -1)
            noisy = arc + 0.3 * torch.randn(*arc.shape)
            self.data = dict(zip(SPLITS, noisy, strict=True))
            self.encoder: nn.Module = _Recognition(sizes[self.first])
            self.decoder: nn.Module = _Generation(sizes["z1"], sizes["z2"])

    @property
    def eta_parts(self) -> dict[str, slice]:
        """What the coordinates of eta are: what x says of each latent."""
        return {self.first: slice(0, _NUMBERS), self.second: slice(_NUMBERS, None)}

    def posterior(self, eta: Tensor) -> Distribution:
        """q(z¹, z²) for eta (*batch, 4)."""
        own, of_x = eta[..., :_NUMBERS], eta[..., _NUMBERS:]
        between: nn.Module = self.encoder.between  # type: ignore[assignment]

        def second(z: Tensor) -> Distribution:
            return _FAMILIES[self.families[self.second]](of_x + between(z))

        if self.direction == "bottom-up":
            return Layered({"z1": _FAMILIES[self.families["z1"]](own), "z2": lambda z1: second(z1)})
        return Layered({"z1": lambda z2: second(z2), "z2": _FAMILIES[self.families["z2"]](own)})

    def target(self, x: Tensor) -> Target:
        """log p(x|z¹) for x (B, 2), and the learned prior p(z²) p(z¹|z²)."""
        between: nn.Module = self.decoder.between  # type: ignore[assignment]
        root: Tensor = self.decoder.root  # type: ignore[assignment]
        prior = Layered(
            {
                "z1": lambda z2: _FAMILIES[self.families["z1"]](between(z2)),
                "z2": _FAMILIES[self.families["z2"]](root),
            }
        )

        def log_likelihood(z1: Tensor) -> Tensor:
            lower: nn.Module = self.decoder.lower  # type: ignore[assignment]
            residual = (x - lower(z1)) / _NOISE
            return -0.5 * residual.square().sum(-1) - _DATA_DIM * math.log(_NOISE * math.sqrt(2 * math.pi))

        return Target(reading(prior, log_likelihood), prior, features=x)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over a split, x (B, 2)."""
        check_split(split)
        return serve(self.data[split], batch_size, generator)


class _Recognition(nn.Module):
    """Holds φ: x to eta, and what the latent that is drawn first says of the other."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.lower = nn.Sequential(nn.Linear(_DATA_DIM, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 2 * _NUMBERS))
        self.between = nn.Sequential(nn.Linear(first, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, _NUMBERS))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, 2) to eta (B, 4)."""
        eta: Tensor = self.lower(x)
        return eta


class _Generation(nn.Module):
    """Holds θ: how z² is distributed, what it says of z¹, and z¹ to the mean of x."""

    def __init__(self, lower: int, upper: int) -> None:
        super().__init__()
        self.root = nn.Parameter(0.4 * torch.randn(_NUMBERS))
        self.between = nn.Sequential(nn.Linear(upper, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, _NUMBERS))
        self.lower = nn.Sequential(nn.Linear(lower, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, _DATA_DIM))


def _gaussian(numbers: Tensor) -> Distribution:
    loc, log_scale = numbers.chunk(2, -1)
    return td.Independent(td.Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)


def _bits(numbers: Tensor) -> Distribution:
    return td.Independent(td.Bernoulli(logits=numbers, validate_args=False), 1, validate_args=False)


_FAMILIES = {"gaussian": _gaussian, "bernoulli": _bits}

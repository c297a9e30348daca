"""A VAE so small that its ELBO is known by quadrature or enumeration, under several posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.kl_weight import weight_or_free_bits
from ...estimators.pieces.arguments import one_of
from .data import SPLITS, check_split, serve
from .families import bernoulli, categorical, full_gaussian, gaussian
from .layers import Constants, check_sizes, weights_from

_DATA = 300  # data in each split
_DATA_DIM = 2
_HIDDEN = 6
_NOISE = 0.7
_CATEGORIES = 3
_LATENTS = {
    "gaussian": 2,
    "full-gaussian": 2,
    "flow": 2,
    "beta": 2,
    "von-mises": 2,
    "bernoulli": 3,
    "categorical": 2,
}


class SmallVAE:
    """x in R², an MLP decoder with Gaussian noise, a learned prior, and one of seven posteriors.

    Its log-likelihoods are of the order of one nat, so that even the score function shows its mean; its
    prior is not standard, so that a KL against N(0, I) shows.

    Args:
        posterior: "gaussian" (D = 2, diagonal), "full-gaussian" (D = 2, Cholesky factor), "flow"
            (D = 2, two affine couplings of a diagonal Gaussian; the prior is one without couplings),
            "beta" (D = 2), "von-mises" (D = 2 angles, decoded from cosine and sine), "bernoulli" (D = 3)
            or "categorical" (D = 2 variables of 3 values, one-hot).
        seed: of the data and of the initial weights.
        kl_weight: what the KL is multiplied by.
        free_bits: nats of the KL that each latent has free, in place of kl_weight; None for none.

    Raises:
        UsageError: an unknown posterior, a weight below 0.
    """

    default_batch_size = 3

    def __init__(
        self,
        posterior: str = "gaussian",
        seed: int = 0,
        kl_weight: float = 1.0,
        free_bits: float | None = None,
    ) -> None:
        self.kl_weight = weight_or_free_bits(kl_weight, free_bits)
        self.kind = one_of("posterior", posterior, tuple(_LATENTS))
        check_sizes(seed=seed + 1)
        self.latent_dim = _LATENTS[self.kind]
        codes = self.latent_dim * {"categorical": _CATEGORIES, "von-mises": 2}.get(self.kind, 1)
        prior_width = 2 * self.latent_dim if self.kind == "flow" else self._width
        with weights_from(seed):
            angle = 6.3 * torch.rand(len(SPLITS), _DATA)
            ring = torch.stack((angle.cos(), 0.6 * angle.sin()), -1)
            noisy = ring + 0.3 * torch.randn(*ring.shape)
            self.data = dict(zip(SPLITS, noisy, strict=True))
            self.encoder: nn.Module = nn.Sequential(
                nn.Linear(_DATA_DIM, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, self._width)
            )
            self.decoder: nn.Module = nn.ModuleDict(
                {
                    "net": nn.Sequential(nn.Linear(codes, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, _DATA_DIM)),
                    "prior": Constants(0.4 * torch.randn(prior_width)),
                }
            )

    @property
    def _width(self) -> int:
        d = self.latent_dim
        widths = {"full-gaussian": d + d * (d + 1) // 2, "flow": 4 * d, "bernoulli": d}
        widths |= dict.fromkeys(("gaussian", "beta", "von-mises"), 2 * d)
        return widths.get(self.kind, d * _CATEGORIES)

    @property
    def eta_parts(self) -> Mapping[str, slice]:
        """What the coordinates of eta are; one part where they are all logits."""
        d = self.latent_dim
        parts = {
            "gaussian": {"mean": slice(0, d), "log_scale": slice(d, None)},
            "full-gaussian": {"mean": slice(0, d), "log_scale": slice(d, 2 * d), "tril": slice(2 * d, None)},
            "flow": {
                "mean": slice(0, d),
                "log_scale": slice(d, 2 * d),
                "couplings": slice(2 * d, None),
            },
            "beta": {"log_excess1": slice(0, d), "log_excess0": slice(d, None)},
            "von-mises": {"mean": slice(0, d), "log_concentration": slice(d, None)},
        }
        return parts.get(self.kind, {"logits": slice(0, None)})

    def posterior(self, eta: Tensor) -> Distribution:
        """q for eta (*batch, P)."""
        return _FAMILIES[self.kind](eta, self.latent_dim)

    def target(self, x: Tensor) -> Target:
        """log p(x|z) for x (B, 2), and the learned prior."""
        family = gaussian if self.kind == "flow" else _FAMILIES[self.kind]
        prior = family(self.decoder["prior"](), self.latent_dim)  # type: ignore[index]
        return Target(partial(self._log_likelihood, x), prior, features=x, kl_weight=self.kl_weight)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over a split, x (B, 2)."""
        check_split(split)
        return serve(self.data[split], batch_size, generator)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        codes = z
        if self.kind == "categorical":
            codes = z.flatten(-2)
        elif self.kind == "von-mises":
            codes = torch.cat((z.cos(), z.sin()), -1)
        residual = (x - self.decoder["net"](codes)) / _NOISE  # type: ignore[index]
        return -0.5 * residual.square().sum(-1) - _DATA_DIM * math.log(_NOISE * math.sqrt(2 * math.pi))


class Coupling(td.Transform):
    """y_j = x_j exp(a sin x_i) + b sin x_i, y_i = x_i, for i, j = 0, 1 or 1, 0: an affine coupling in R².

    Args:
        kept: i.
        a, b: (*batch).
    """

    domain = td.constraints.real_vector
    codomain = td.constraints.real_vector
    bijective = True

    def __init__(self, kept: int, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.kept, self.a, self.b = kept, a, b

    def _call(self, x: Tensor) -> Tensor:
        fixed = x[..., self.kept]
        return self._pair(fixed, x[..., 1 - self.kept] * self._log_scale(x).exp() + self.b * fixed.sin())

    def _inverse(self, y: Tensor) -> Tensor:
        fixed = y[..., self.kept]
        return self._pair(fixed, (y[..., 1 - self.kept] - self.b * fixed.sin()) * (-self._log_scale(y)).exp())

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._log_scale(x)

    def _log_scale(self, x: Tensor) -> Tensor:
        return self.a * x[..., self.kept].sin()

    def _pair(self, fixed: Tensor, moved: Tensor) -> Tensor:
        return torch.stack((fixed, moved) if self.kept == 0 else (moved, fixed), -1)


def _flow(eta: Tensor, d: int) -> Distribution:
    a, b = eta[..., 2 * d : 3 * d], eta[..., 3 * d :]
    couplings: list[td.Transform] = [Coupling(i, a[..., i], b[..., i]) for i in range(d)]
    return td.TransformedDistribution(gaussian(eta[..., : 2 * d], d), couplings, validate_args=False)


def _beta(eta: Tensor, d: int) -> Distribution:
    concentrations = 1 + eta.exp()
    return td.Independent(
        td.Beta(concentrations[..., :d], concentrations[..., d:], validate_args=False), 1, validate_args=False
    )


def _von_mises(eta: Tensor, d: int) -> Distribution:
    return td.Independent(
        td.VonMises(eta[..., :d], eta[..., d:].exp(), validate_args=False), 1, validate_args=False
    )


_FAMILIES: dict[str, Callable[[Tensor, int], Distribution]] = {
    "gaussian": gaussian,
    "full-gaussian": full_gaussian,
    "flow": _flow,
    "beta": _beta,
    "von-mises": _von_mises,
    "bernoulli": bernoulli,
    "categorical": categorical,
}

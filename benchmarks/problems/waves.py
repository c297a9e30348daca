"""A VAE whose ELBO is known in closed form in any dimension, where quadrature and enumeration cannot go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from ...estimators.base import Target
from ...estimators.errors import UsageError
from ...estimators.pieces.arguments import integer_from, number, one_of, positive_number
from .data import SPLITS, check_split, serve
from .families import bernoulli, categorical, full_gaussian, gaussian
from .layers import Constants, check_sizes, weights_from

_DATA = 300  # data in each split
_DATA_DIM = 2
_HIDDEN = 6
_WAVES = 6
_STATES = 4
_MOVED = 0.15  # by which x moves a logarithm of a scale, at most
_PRIOR = {"gaussian": 0.4, "full-gaussian": 0.4}  # standard deviation of its parameters
_LOW, _HIGH = (0.3, 0.5), (1.4, 1.9)  # scales at first, in turn: with what x moves still far from 1/√2 and 1

_FAMILIES: dict[str, Callable[[Tensor, int], Distribution]] = {
    "gaussian": gaussian,
    "full-gaussian": full_gaussian,
    "bernoulli": bernoulli,
    "categorical": categorical,
}


class Waves:
    """log p(x|z) of sines of linear functions of z, less a quadratic: E_q is known, whatever D is.

    With v = z, of one-hot variables their codes in a row,

        log p(x|z) = offset + scale · Σ_k a_k sin(w_k·v + b_k + u_k·x) − ½ (v − M x)ᵀ A (v − M x),

    where a, b and the prior's parameters are θ, and u, w, M and A are drawn once; no two coordinates are
    alike. The mean of e^{i w·v} is q's characteristic function, exp(i w·μ − ½ wᵀΣw) of a Gaussian and
    Π_d Σ_j p_dj e^{i w_dj} of independent variables, and that of the quadratic takes two moments; the KL
    against a learned prior of q's family is in closed form. The scales of a Gaussian begin far from 1 and
    1/√2, where slips hide.

    Args:
        posterior: "gaussian" (diagonal), "full-gaussian" (Cholesky factor), "bernoulli" or "categorical"
            (one-hot).
        latent_dim: D.
        states: K of each categorical variable, 2 or more; 4 unless told.
        scale: of the waves, whose sum alone has a standard deviation of about 1, in nats.
        offset: added to log p(x|z), in nats: −500 makes costs of the size of a real model's.
        seed: of the data and of all that is drawn.

    Raises:
        UsageError: an unknown posterior, a size or a scale that is not positive, states of what is not
            categorical.

    References:
        Lukacs, Characteristic Functions, 1970, chapter 1.
    """

    default_batch_size = 3

    def __init__(
        self,
        posterior: str = "gaussian",
        latent_dim: int = 4,
        states: int | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.kind = one_of("posterior", posterior, tuple(_FAMILIES))
        check_sizes(latent_dim=latent_dim)
        integer_from(0, "seed", seed)
        self.latent_dim, self.states = latent_dim, _states_of(self.kind, states)
        self.scale, self.offset = positive_number("scale", scale), number("offset", offset)
        codes = latent_dim * self.states
        with weights_from(seed):
            self.data = {split: torch.randn(_DATA, _DATA_DIM) for split in SPLITS}
            self.encoder: nn.Module = nn.Sequential(
                nn.Linear(_DATA_DIM, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, self._width)
            )
            self._spread(self.encoder[2])  # type: ignore[arg-type]
            prior = _PRIOR.get(self.kind, 1.0) * torch.randn(self._width)
            prior[self._tril] /= math.sqrt(latent_dim)
            # One bit has a quarter of the variance of a number of scale 1.
            reach = 2.0 if self.kind == "bernoulli" else 1.0
            self.decoder = _Decoder(latent_dim, codes, reach, prior)

    @property
    def _width(self) -> int:
        d = self.latent_dim
        widths = {"gaussian": 2 * d, "full-gaussian": d + d * (d + 1) // 2, "bernoulli": d}
        return widths.get(self.kind, d * self.states)

    @property
    def _tril(self) -> slice:
        """Where eta holds what is below the diagonal of a Cholesky factor; empty of other posteriors."""
        return slice(2 * self.latent_dim if self.kind == "full-gaussian" else self._width, None)

    @property
    def eta_parts(self) -> Mapping[str, slice]:
        """What the coordinates of eta are; one part where they are all logits."""
        d = self.latent_dim
        if self.kind not in ("gaussian", "full-gaussian"):
            return {"logits": slice(0, None)}
        parts = {"mean": slice(0, d), "log_scale": slice(d, 2 * d)}
        return parts | {"tril": self._tril} if self._width > 2 * d else parts

    def posterior(self, eta: Tensor) -> Distribution:
        """q for eta (*batch, P)."""
        return _FAMILIES[self.kind](eta, self.latent_dim)

    def target(self, x: Tensor) -> Target:
        """log p(x|z) for x (B, 2), the learned prior, and the closed-form expectation under q's family."""
        prior = self.posterior(self.decoder.prior())
        return Target(
            partial(self._log_likelihood, x), prior, features=x, expectation=partial(self._expectation, x)
        )

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over a split, x (B, 2)."""
        check_split(split)
        return serve(self.data[split], batch_size, generator)

    @torch.no_grad()
    def _spread(self, last: nn.Linear) -> None:
        """Move the encoder's last layer to where scales, and probabilities, are all different."""
        d = self.latent_dim
        last.bias.add_(2 * torch.rand(len(last.bias)) - 1)  # stretched, no state becomes all but impossible
        if self.kind not in ("gaussian", "full-gaussian"):
            return
        log_scales = slice(d, 2 * d)
        low, high = (torch.linspace(math.log(a), math.log(b), d) for a, b in (_LOW, _HIGH))
        last.bias[log_scales] = torch.where(torch.arange(d) % 2 == 0, low, high)
        last.weight[log_scales] *= _MOVED / last.weight[log_scales].abs().sum(1, keepdim=True)
        last.weight[self._tril] /= math.sqrt(d)
        last.bias[self._tril] /= math.sqrt(d)

    def _codes(self, z: Tensor) -> Tensor:
        """v (..., N) of z (..., *event)."""
        return z.flatten(-2) if self.kind == "categorical" else z

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        d, v = self.decoder, self._codes(z)
        waves = (v @ d.frequencies.T + d.phases_at(x)).sin() @ d.amplitudes
        return self.offset + self.scale * waves - d.bowl(v, x)

    def _expectation(self, x: Tensor, q: Distribution) -> Tensor:
        d = self.decoder
        cosine, sine = _MEAN_WAVES[self.kind](q, d.frequencies)
        phases = d.phases_at(x)
        waves = (sine * phases.cos() + cosine * phases.sin()) @ d.amplitudes
        spread = 0.5 * _TRACES[self.kind](q, d.curvature)
        return self.offset + self.scale * waves - d.bowl(self._codes(q.mean), x) - spread


class _Decoder(nn.Module):
    """θ (amplitudes a, phases b, the prior's parameters) and what is fixed, of one size whatever D is.

    Args:
        latent_dim: D.
        codes: N, numbers in v.
        reach: standard deviation of a coordinate of w_k times √D, on average over k.
        prior: parameters (P,) that the prior begins with.
    """

    frequencies: Tensor
    tilts: Tensor
    centres: Tensor
    curvature: Tensor

    def __init__(self, latent_dim: int, codes: int, reach: float, prior: Tensor) -> None:
        super().__init__()
        self.amplitudes = nn.Parameter(math.sqrt(2 / _WAVES) * torch.linspace(0.7, 1.3, _WAVES))
        self.phases = nn.Parameter(math.pi * (2 * torch.rand(_WAVES) - 1))
        self.prior = Constants(prior)
        lengths = reach / math.sqrt(latent_dim) * torch.linspace(0.5, 1.5, _WAVES).unsqueeze(1)
        self.register_buffer("frequencies", lengths * torch.randn(_WAVES, codes))
        self.register_buffer("tilts", 0.5 * torch.randn(_WAVES, _DATA_DIM))
        self.register_buffer("centres", 0.5 * torch.randn(codes, _DATA_DIM))
        factor = torch.randn(codes, codes) / math.sqrt(codes)
        curvature = 0.5 * factor @ factor.T + torch.linspace(0.2, 0.8, codes).diag()
        self.register_buffer("curvature", curvature / math.sqrt(latent_dim))

    def phases_at(self, x: Tensor) -> Tensor:
        """b_k + u_k·x, (B, _WAVES)."""
        return self.phases + x @ self.tilts.T

    def bowl(self, v: Tensor, x: Tensor) -> Tensor:
        """½ (v − M x)ᵀ A (v − M x), (*batch), for v (*batch, N)."""
        off = v - x @ self.centres.T
        return 0.5 * ((off @ self.curvature) * off).sum(-1)


def _states_of(kind: str, states: int | None) -> int:
    """K, or 1 where v has one number a latent."""
    if kind == "categorical":
        return integer_from(2, "states", _STATES if states is None else states)
    if states is not None:
        raise UsageError(f"states={states!r} is of posterior=categorical, not of {kind}")
    return 1


#: Of q and w (W, N) the means of cos(w_k·v) and of sin(w_k·v), each (*batch, W).
_Means = tuple[Tensor, Tensor]


def _gaussian_waves(q: Distribution, w: Tensor) -> _Means:
    return _damped(q.mean @ w.T, q.variance @ w.T.square())


def _full_gaussian_waves(q: Distribution, w: Tensor) -> _Means:
    assert isinstance(q, MultivariateNormal)
    return _damped(q.loc @ w.T, (w @ q.scale_tril).square().sum(-1))


def _damped(angle: Tensor, variance: Tensor) -> _Means:
    damping = (-0.5 * variance).exp()
    return damping * angle.cos(), damping * angle.sin()


def _bernoulli_waves(q: Distribution, w: Tensor) -> _Means:
    p = q.mean.unsqueeze(-2)
    return _product(1 + p * (w.cos() - 1), p * w.sin())


def _categorical_waves(q: Distribution, w: Tensor) -> _Means:
    p, each = q.mean.unsqueeze(-3), w.unflatten(-1, q.event_shape)
    return _product((p * each.cos()).sum(-1), (p * each.sin()).sum(-1))


def _product(real: Tensor, imaginary: Tensor) -> _Means:
    """Of the variables' own characteristic functions (*batch, W, D)."""
    whole = torch.complex(real, imaginary).prod(-1)
    return whole.real, whole.imag


def _gaussian_trace(q: Distribution, a: Tensor) -> Tensor:
    return q.variance @ a.diagonal()


def _full_gaussian_trace(q: Distribution, a: Tensor) -> Tensor:
    assert isinstance(q, MultivariateNormal)
    return ((a @ q.scale_tril) * q.scale_tril).sum((-1, -2))


def _categorical_trace(q: Distribution, a: Tensor) -> Tensor:
    p, shape = q.mean, tuple(q.event_shape)
    blocks = a.reshape(shape + shape).diagonal(dim1=0, dim2=2)  # (K, K, D)
    return p.flatten(-2) @ a.diagonal() - torch.einsum("...dj,jkd,...dk->...", p, blocks, p)


#: Of q and w (W, N): the means of cos(w_k·v) and of sin(w_k·v), each (*batch, W).
_MEAN_WAVES: dict[str, Callable[[Distribution, Tensor], _Means]] = {
    "gaussian": _gaussian_waves,
    "full-gaussian": _full_gaussian_waves,
    "bernoulli": _bernoulli_waves,
    "categorical": _categorical_waves,
}
#: Of q and A (N, N): tr(A Cov(v)), (*batch).
_TRACES: dict[str, Callable[[Distribution, Tensor], Tensor]] = {
    "gaussian": _gaussian_trace,
    "full-gaussian": _full_gaussian_trace,
    "bernoulli": _gaussian_trace,
    "categorical": _categorical_trace,
}

"""The true gradient against the noise about it: norm, signal-to-noise ratio, cosine of one estimate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..jacobians.encoder import plain_operations, push_forward, trainable
from ..statistics.intervals import Moments, signal_to_noise
from .factorized import FactorizedRoute
from .full import FullRoute
from .moments import in_float64, times, trace_of_square

_ESTIMATES = 256
_ELEMENTS = 2**24
_BLOCK_ELEMENTS = 2**21
_Z = 1.959964


@dataclass(frozen=True)
class Interval:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Signal:
    """What one estimate ĝ tells about the true gradient g.

    Attributes:
        norm: ‖g‖, debiased.
        snr: ‖g‖ / √tr Cov(ĝ), debiased.
        cosine: mean of ĝᵀg / (‖ĝ‖ ‖g‖); None when g cannot be told from zero.
    """

    norm: Interval
    snr: Interval
    cosine: Interval | None

    def named(self) -> list[tuple[str, Interval]]:
        """As results call them."""
        found = [("snr", self.snr), ("gradient_norm", self.norm)]
        return found if self.cosine is None else [*found, ("cosine", self.cosine)]


def measure_signal(route: FactorizedRoute | FullRoute, total: Moments) -> Signal:
    """Norm, signal-to-noise ratio and cosine, each with an interval by the delta method.

    ‖ḡ‖² of the mean ḡ of n replicates exceeds ‖g‖² by tr Cov(ĝ)/n, which is taken off; without that
    pure noise would show a signal-to-noise ratio of 1/√n.
    """
    mean = _flat(route.mean())
    sample = _sample(route, total)
    n, squared = total.n, float(mean.square().sum())
    of_square = float(trace_of_square(sample.estimates - mean))
    along = max(sample.variance_along(mean) - of_square / n, 0.0)
    error = math.sqrt(4 * along / n + 2 * of_square / n**2)
    signal = squared - total.mean / n
    shared = 2 * sample.covariance_along(mean) / n - 2 * of_square / n**2
    norm = _root(signal, error)
    return Signal(norm, _snr(signal, error, shared, total), _cosine(mean, sample, norm, total))


def _snr(signal: float, error: float, shared: float, total: Moments) -> Interval:
    """Of ‖g‖² with its error, and of the variance; ``shared`` is the covariance of the two estimates.

    For a skew ĝ they are far from independent: what moves the mean is what makes the variance. Both are
    U-statistics, so their covariance is known: 2 gᵀCov(ĝ, u)/n − 2 tr C²/(n(n − 1)), u = ‖ĝ − g‖².
    """
    value = signal_to_noise(signal + total.mean / total.n, total.mean, total.n)
    if not total.mean > 0:
        return Interval(value, value, value)
    ratio = signal / total.mean
    most = error * total.stderr  # Cauchy-Schwarz, which estimates from different replicates need not keep
    shared = min(max(shared, -most), most)
    squared = error**2 - 2 * ratio * shared + (ratio * total.stderr) ** 2
    return _root(ratio, math.sqrt(max(squared, 0.0)) / total.mean)


def _root(squared: float, error: float) -> Interval:
    return Interval(*(math.sqrt(max(squared + z * error, 0.0)) for z in (0, -_Z, _Z)))


def _cosine(
    mean: Tensor,
    sample: _Sample,
    norm: Interval,
    total: Moments,
) -> Interval | None:
    """The mean cosine over the estimates kept, each against the mean of all the others."""
    if norm.low <= 0:
        return None
    n, estimates = total.n, sample.estimates
    lengths = estimates.square().sum(-1)
    products = estimates @ mean
    if total.mean > 0:
        products = (n * products - lengths) / (n - 1)
    cosines = products / lengths.sqrt().clamp_min(1e-300) / norm.value
    value = float(cosines.mean())
    unit = (estimates / lengths.sqrt().clamp_min(1e-300).unsqueeze(-1)).mean(0)
    # d(uᵀg/‖g‖) = wᵀ dg
    w = unit / norm.value - float(unit @ mean) * mean / norm.value**3
    error = math.sqrt(float(cosines.var()) / len(cosines) + max(sample.variance_along(w), 0.0) / n)
    return Interval(*(min(max(value + z * error, -1.0), 1.0) for z in (0, -_Z, _Z)))


class _Sample(NamedTuple):
    """What is known of ĝ beyond its mean and total variance.

    Attributes:
        estimates: a few ĝ (N, |φ|), float64.
        variance_along: of ĝᵀw, as a function of w.
        covariance_along: of ĝᵀw with the contribution ‖ĝ − g‖² to the variance.
    """

    estimates: Tensor
    variance_along: Callable[[Tensor], float]
    covariance_along: Callable[[Tensor], float]


def _sample(route: FactorizedRoute | FullRoute, total: Moments) -> _Sample:
    if isinstance(route, FullRoute):
        # What few replicates were kept tell the direction of the noise; its size is known from all.
        size = total.mean / max(float(route.kept.var(0).sum()), 1e-300)
        return _Sample(
            route.kept[:_ESTIMATES],
            lambda w: float((route.kept @ w).var()) * size,
            lambda w: float(route.cross_covariance() @ w),
        )
    encoder, x, batch = route.problem.encoder, route.x, len(route.eta)
    size = sum(p.numel() for p in trainable(encoder).values())
    number = max(8, min(_ESTIMATES, _ELEMENTS // size))
    vectors = route.kept[:, :number].transpose(0, 1) / batch

    def reached(w: Tensor) -> Tensor:
        return in_float64(push_forward(encoder, x, _unflat(w, encoder)))

    def variance_along(w: Tensor) -> float:
        v = reached(w)
        return float((v * times(route.eta_covariance(), v)).sum()) / batch**2

    def covariance_along(w: Tensor) -> float:
        # The data are independent: of the variance, datum i moves its own share u_i/B².
        return float((reached(w) * route.eta_cross_covariance()).sum()) / batch**3

    return _Sample(_pull_back_each(encoder, x, vectors), variance_along, covariance_along)


def _pull_back_each(encoder: torch.nn.Module, x: Tensor, vectors: Tensor) -> Tensor:
    """Σ_i J_iᵀ v_i for each of v (N, B, P), as (N, |φ|) float64."""
    phi = list(trainable(encoder).values())
    with plain_operations():  # a compiled module allows one backward pass
        eta = encoder(x)
    block = max(1, _BLOCK_ELEMENTS // sum(p.numel() for p in phi))

    def pull(v: Tensor, batched: bool) -> Tensor:
        grads = torch.autograd.grad(
            eta, phi, v, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )
        rows = len(v) if batched else 1
        flat = [
            in_float64(p.new_zeros(rows, p.numel()) if g is None else g.to_dense().reshape(rows, -1))
            for g, p in zip(grads, phi, strict=True)
        ]
        return torch.cat(flat, 1)

    try:
        return torch.cat([pull(part, True) for part in vectors.split(block)])
    except RuntimeError:  # an operation without a batching rule
        return torch.cat([pull(v, False) for v in vectors])


def _flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([in_float64(g).flatten() for g in gradient.values()])


def _unflat(flat: Tensor, encoder: torch.nn.Module) -> dict[str, Tensor]:
    phi = trainable(encoder)
    parts = flat.split([p.numel() for p in phi.values()])
    return {n: v.view_as(p).to(p.dtype) for (n, p), v in zip(phi.items(), parts, strict=True)}

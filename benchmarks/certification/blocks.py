"""What is tested of the draws: columns that should have mean zero, and how to speak of one that has not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.posteriors.distributions import reparameterizable
from ..rows.certificate_checks import BiasBound
from ..statistics.bias import bias_bound, bias_floor
from .integrand_features import explicit
from .moments import ColumnSums
from .oracle import Draws, GroupMeans, Oracle
from .sequential import MeanTest, Rejection

_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5}  # of the exact answers as well
_QUADRATURE = 1e-4  # of an estimate that draws nothing, where that is more
#: Relative error of torch's derivatives of what is drawn from a Gamma distribution, or from its like.
IMPLICIT = 1e-4
_CERTAIN = 30  # floors: how far off a mean without noise is wrong
_NOTHING = 1e-10  # a relative bias that is rounding error
_SMALL_GRADIENT = 0.25  # of the RMS over points: what a bias is relative to where the gradient vanishes


class Chunk(NamedTuple):
    """Deviations from the exact answers, of some estimates or of the mean over some.

    Attributes:
        raw: as they are; None of a mean.
        adjusted: less what features of the noise explain of them; of the same mean.
        means: None but of a mean.
    """

    raw: Draws | None = None
    adjusted: Draws | None = None
    means: GroupMeans | None = None


class Block:
    """Columns of one claim, tested look by look.

    Args:
        name: of the check.
        columns: of a chunk of draws, or None where it is of another kind.
        exact: the answer of every column, for messages; (K,).
        floor: smallest standard error that is believed of each column, (K,).
        joint: columns tested jointly as well.
        where: column -> the words that say which it is.
        confirm_level, copies: see `MeanTest`.
        part: which of what means may be off by for other reasons than noise, (B, P + 1), goes on top of the
            floor of each column.
    """

    def __init__(
        self,
        name: str,
        columns: Callable[[Chunk], Tensor | None],
        exact: Tensor,
        floor: Tensor,
        joint: int,
        where: Callable[[int], str],
        confirm_level: float,
        copies: int = 1,
        part: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.name, self.columns, self.exact, self.where = name, columns, exact, where
        self._floor, self._part = floor.cpu(), part
        self.test = MeanTest(self._floor, joint, confirm_level, copies)
        self.pooled = ColumnSums(joint)

    def allow(self, errors: Tensor) -> None:
        """Let the means of the next look be off by as much, (B, P + 1)."""
        if self._part is not None:
            self.test.floor = self._floor + self._part(errors).cpu()

    def reason(self, found: Rejection) -> str:
        """What is wrong, in one line."""
        truth = float(self.exact[found.column])
        if found.draws == 0:
            return (
                f"{self.where(found.column)} is {truth + found.deviation:.6g}, exactly {truth:.6g} (a proof)"
            )
        return (
            f"{self.where(found.column)} is {truth + found.deviation:.4g} ± {found.stderr:.2g}, exactly "
            f"{truth:.4g} ({found.draws:,} draws)"
        )


def error_of_gradient(oracle: Oracle, estimator: Estimator) -> float:
    """As `error_of`, of a gradient; that along a path that torch knows by a series has the series' error."""
    series = IMPLICIT if by_series(oracle, estimator) else 0.0
    return max(error_of(oracle, estimator.deterministic), series)


def by_series(oracle: Oracle, estimator: Estimator) -> bool:
    """Whether the estimator differentiates draws whose derivatives torch knows by a series alone."""
    q = oracle.problem.posterior(oracle.eta)
    return bool(estimator.derivatives) and reparameterizable(q) and not explicit(q)


def error_of(oracle: Oracle, deterministic: bool) -> float:
    """The least standard error that is believed of an estimate, relative to the exact answer.

    Noise hides the error of quadrature. An estimate that draws nothing but integrates by its own rule has
    none, and its bias is reported to the last digit, so it need not be zero to rounding.
    """
    return max(_rounding(oracle), _QUADRATURE) if deterministic else _rounding(oracle)


def gradient_block(oracle: Oracle, confirm_level: float, error: float) -> Block:
    """Every coordinate of the gradient in η, and its projection on the exact one."""
    exact = oracle.eta_grad.flatten()
    unit = (exact / exact.norm().clamp_min(1e-300)).unsqueeze(1)
    floor = _with_norm(torch.full_like(exact, error * _rms(exact) + _cancelled(oracle)))

    def columns(chunk: Chunk) -> Tensor | None:
        if chunk.adjusted is None:
            return None
        flat = chunk.adjusted.gradient.flatten(1)
        return torch.cat((flat, flat @ unit), 1)

    def where(column: int) -> str:
        if column == len(exact):
            return "gradient along the exact one"
        return f"gradient {_entry(column, oracle.eta_grad.shape[1])}"

    def part(errors: Tensor) -> Tensor:
        return _with_norm(errors[:, :-1].flatten())

    truth = torch.cat((exact, exact @ unit))
    return Block("gradient", columns, truth, floor, len(exact), where, confirm_level, oracle.copies, part)


def _with_norm(values: Tensor) -> Tensor:
    return torch.cat((values, values.norm().unsqueeze(0)))


def mean_block(oracle: Oracle, mean: Tensor, confirm_level: float, error: float) -> Block:
    """Every coordinate of a biased gradient, against the mean that its formula has."""
    bias = (mean - oracle.eta_grad).flatten()
    floor = torch.full_like(bias, error * (_rms(mean) + _rms(oracle.eta_grad)) + _cancelled(oracle))

    def where(column: int) -> str:
        return f"mean gradient {_entry(column, mean.shape[1])}"

    def columns(chunk: Chunk) -> Tensor | None:
        return None if chunk.adjusted is None else chunk.adjusted.gradient.flatten(1) - bias

    def part(errors: Tensor) -> Tensor:
        return errors[:, :-1].flatten()

    return Block("mean", columns, mean.flatten(), floor, len(bias), where, confirm_level, oracle.copies, part)


def value_block(oracle: Oracle, confirm_level: float, error: float) -> Block:
    """The value of every datum."""
    floor = torch.full_like(oracle.value, error * max(_rms(oracle.value), 1.0) + _cancelled(oracle))
    return Block(
        "value",
        lambda chunk: None if chunk.adjusted is None else chunk.adjusted.value,
        oracle.value,
        floor,
        len(floor),
        lambda column: f"value {_entry(column, 1)}",
        confirm_level,
        oracle.copies,
        lambda errors: errors[:, -1],
    )


def theta_block(oracle: Oracle, confirm_level: float, error: float) -> Block:
    """Every coordinate of value's gradient in θ."""
    floor = torch.full_like(oracle.theta_grad, error * max(_rms(oracle.theta_grad), 1e-30))
    floor += _cancelled(oracle)
    return Block(
        "theta",
        lambda chunk: None if chunk.means is None else chunk.means.theta,
        oracle.theta_grad,
        floor,
        0,
        lambda column: f"value's gradient in θ, coordinate {column},",
        confirm_level,
    )


def phi_block(oracle: Oracle, confirm_level: float, error: float) -> Block:
    """Every coordinate of the gradient in what the posterior holds of φ itself."""
    floor = torch.full_like(oracle.phi_grad, error * max(_rms(oracle.phi_grad), 1e-30))
    floor += _cancelled(oracle)
    names = [f"{name}[{i}]" for name, size in oracle.phi.items() for i in range(size)]
    return Block(
        "phi",
        lambda chunk: None if chunk.means is None else chunk.means.phi,
        oracle.phi_grad,
        floor,
        0,
        lambda column: f"gradient in {names[column]}, which the posterior holds,",
        confirm_level,
    )


_CANCELLED = 500  # units of rounding error where terms of order 1 cancel
_NEVER_SEEN = 1e6  # times that: the standard deviation of what has a probability of 1e-14


def variance_block(
    oracle: Oracle, variance: Tensor, mean: Tensor, confirm_level: float, error: float
) -> Block | None:
    """The variance of every coordinate about the exact mean, as a multiple of the exact one.

    None where it is that of events too rare to be drawn, which would be missed.
    """
    largest, unit = float(variance.max().sqrt()), _cancelled(oracle)
    if unit < largest < _NEVER_SEEN * unit:
        return None
    bias = mean - oracle.eta_grad
    # A variance of zero is measured to the rounding error of terms that cancel, which the others tell, and an
    # estimate without noise is off the exact mean by as much in all draws alike.
    terms = _rms(oracle.eta_grad) + float(variance.max().sqrt())
    rounding = (error * terms + unit) ** 2
    scale = variance + rounding
    ones, floor = torch.ones(variance.numel(), dtype=torch.float64), 1e-6 + rounding / scale.flatten()

    def columns(chunk: Chunk) -> Tensor | None:
        if chunk.raw is None:
            return None
        return (((chunk.raw.gradient - bias).square() - variance) / scale).flatten(1)

    def where(column: int) -> str:
        entry = _entry(column, variance.shape[1]).removesuffix(",")
        return f"variance of the gradient {entry}, over the exact one,"

    return Block("variance", columns, ones, floor, 0, where, confirm_level)


def proven(block: Block, mean: Tensor) -> Rejection | None:
    """What is wrong with a mean without noise: the column that is furthest off, if it is by many floors."""
    off = mean.abs() / block.test.floor.clamp_min(1e-300)
    worst = int(off.argmax()) if off.numel() else 0
    if not off.numel() or bool(off[worst] <= _CERTAIN):
        return None
    return Rejection(worst, float(mean[worst]), 0.0, 0)


def bias_of(
    oracle: Oracle, sums: ColumnSums, confidence: float, typical_norm: float, error: float = 0.0
) -> BiasBound:
    """The bias with its interval, from all draws so far.

    Args:
        oracle: where.
        sums: of a `gradient_block`.
        confidence: one-sided, of each end.
        typical_norm: RMS over points of the exact norm; where that vanishes, a quarter of this is what a
            bias is relative to.
        error: how far the mean may be off for other reasons, as a norm.
    """
    size = oracle.eta_grad.numel()
    mean, covariance = sums.central[0][:size], sums.covariance / sums.n
    squared, trace = float(mean.square().sum()), float(covariance.trace())
    largest = max(float(torch.linalg.eigvalsh(covariance)[-1]), 0.0)
    squares = float(covariance.square().sum())
    scale = _scale(oracle, typical_norm)
    high = bias_bound(squared, trace, largest, confidence, squares) + error
    low = max(bias_floor(squared, trace, largest, confidence, squares) - error, 0.0)
    estimate = max(squared - trace, 0.0) ** 0.5 / scale
    return BiasBound(estimate if estimate > _NOTHING else 0.0, low / scale, high / scale, high)


def exact_bias(oracle: Oracle, mean: Tensor, typical_norm: float) -> BiasBound:
    """The bias of an estimate whose mean is known: both ends of its interval are the estimate."""
    bias = float((mean - oracle.eta_grad).norm())
    relative = bias / _scale(oracle, typical_norm)
    if relative < _NOTHING:
        return BiasBound(0.0, 0.0, 0.0, 0.0)
    return BiasBound(relative, relative, relative, bias)


def _scale(oracle: Oracle, typical_norm: float) -> float:
    """What a bias is relative to."""
    return max(oracle.norm, _SMALL_GRADIENT * typical_norm, 1e-300)


def _entry(column: int, width: int) -> str:
    datum, coordinate = divmod(column, width)
    return f"of datum {datum}, coordinate {coordinate}," if width > 1 else f"of datum {datum}"


def _cancelled(oracle: Oracle) -> float:
    """Rounding error where terms as large as the value cancel."""
    return _CANCELLED * torch.finfo(oracle.eta.dtype).eps * max(_rms(oracle.value), 1.0)


def _rounding(oracle: Oracle) -> float:
    return _ROUNDING.get(oracle.eta.dtype, 1e-2)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt()) if values.numel() else 0.0

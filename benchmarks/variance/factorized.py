"""The factorized route: replicates in η-space, the encoder's Jacobian once.

Given η the data of a batch are independent, so tr Cov(ĝ) = (1/B²) Σ_i tr(C_i K_i), C_i = Cov(h_i)
and K_i = J_i J_iᵀ. Each replicate gives each datum one contribution (h − a)ᵀ K_i (h − a).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import EstimatorError, UsageError
from ..gradients import check_estimate, count_evaluations, eta_gradients
from ..jacobians.encoder import Jacobian, encoder_jacobian, pull_back
from ..problems.protocol import Problem
from ..statistics.intervals import NOT_FINITE, Moments
from .chunks import chunk_size, keep_heap
from .moments import Shares, Sums, bessel, in_float64, square_root, square_trace, times

_PILOT = 512  # replicates whose mean becomes the centre
_PILOT_ELEMENTS = 2**23
_KEPT_ELEMENTS = 2**21


class FactorizedRoute:
    """Streams replicates of h and keeps sums alone; memory does not depend on their number.

    Args:
        problem: θ frozen.
        estimator: prepared, couples no data.
        x: (B, ...).
        num_samples: S.
        chunk: replicates at a time; None to choose from the sizes at hand.
        like: another route on the same problem and x, whose Jacobian is used again.

    Attributes:
        sums: of all replicates.
        kept: (B, R', P), the first replicates themselves, for what needs no more than a sample.
        shares: parameter name -> its share of K (B, P, P), float64.

    Raises:
        UsageError: the encoder does not treat each datum alone, or is of half precision.
        DirectPathError: the surrogate reaches φ other than through eta.
    """

    name = "factorized"

    def __init__(
        self,
        problem: Problem,
        estimator: Estimator,
        x: Tensor,
        num_samples: int,
        chunk: int | None,
        like: FactorizedRoute | None = None,
    ) -> None:
        self.problem, self.estimator, self.x, self.num_samples = problem, estimator, x, num_samples
        self.target = problem.target(x)
        with torch.no_grad():
            self.eta = problem.encoder(x)
        self._check_eta_is_the_only_path()
        _check_precision(self.eta)
        self.jacobian: Jacobian = encoder_jacobian(problem.encoder, x) if like is None else like.jacobian
        self.shares: dict[str, Tensor] = self.jacobian.gram() if like is None else like.shares
        self.gram = torch.stack(list(self.shares.values())).sum(0)
        self._root = square_root(self.gram).to(self.eta.dtype)
        self.evaluations = count_evaluations(problem, estimator, self.target, self.eta, num_samples)
        self.chunk = chunk or chunk_size(problem, x, self.evaluations)
        self.sums: Sums | None = None
        self.kept = self.eta.new_empty(len(self.eta), 0, self.eta.shape[-1])

    @property
    def n(self) -> int:
        """Replicates so far."""
        return 0 if self.sums is None else self.sums.n

    def choose_centre(self) -> None:
        """Centre the sums at the mean of a pilot, which is not counted itself.

        For streams to be merged, which must all have the same centre.
        """
        self.sums = self._about_the_mean_of(self._pilot(_PILOT))

    def add(self, replicates: int) -> None:
        """Draw more replicates."""
        keep_heap()
        if self.sums is None:
            h = self._pilot(replicates)
            self.sums = self._about_the_mean_of(h)
            self._add(self.sums, h)
            replicates -= len(h)
        for size in _split(replicates, self.chunk):
            self._add(self.sums, self._draw(size))

    @staticmethod
    def repeats() -> bool:
        """Whether nothing but the estimator draws: `check_model` lets no other model through."""
        return True

    def _pilot(self, replicates: int) -> Tensor:
        """The first replicates (R, B, P)."""
        limit = max(self.chunk, min(_PILOT, _PILOT_ELEMENTS // self.eta.numel()))
        return torch.cat([self._draw(n) for n in _split(min(replicates, limit), self.chunk)])

    def _draw(self, replicates: int) -> Tensor:
        return eta_gradients(
            self.problem, self.estimator, self.target, self.eta, replicates, self.num_samples
        )

    def _about_the_mean_of(self, h: Tensor) -> Sums:
        centre = h.mean(0)
        shift = self._contributions(self._centred(h, centre)).mean(-1)
        return Sums.about(in_float64(centre), shift)

    def _add(self, sums: Sums, h: Tensor) -> None:
        room = min(len(h), _KEPT_ELEMENTS // self.eta.numel() + 2 - self.kept.shape[1])
        if room > 0:
            self.kept = torch.cat((self.kept, h[:room].transpose(0, 1)), 1)
        centred = self._centred(h, sums.centre.to(h.dtype))
        sums.add(centred, self._contributions(centred))

    @staticmethod
    def _centred(h: Tensor, centre: Tensor) -> Tensor:
        """Put data first, h − a (B, R, P): the products that follow are batched over data."""
        size = h.shape[1], h.shape[0], h.shape[2]
        return torch.sub(h.transpose(0, 1), centre.unsqueeze(1), out=h.new_empty(size))

    def _contributions(self, centred: Tensor) -> Tensor:
        """Each (h − a)ᵀ K (h − a), (B, R), float64."""
        return (centred @ self._root).square_().sum(-1, dtype=torch.float64)

    def contributions_kept(self) -> Tensor:
        """Those of the replicates kept, (B, R'), about the mean of all."""
        return self._contributions(self.kept - self.eta_mean().unsqueeze(1).to(self.kept.dtype))

    def total(self) -> Moments:
        """The total variance with what its interval needs."""
        sums = self._checked_sums()
        n, drift = sums.n, sums.drift()
        pulled = times(self.gram, drift)  # K δ
        value = (sums.contributions.mean() - (pulled * drift).sum(-1)).clamp_min(0) * bessel(n)
        spread, third, fourth = sums.contributions.central()
        spread = spread - 4 * (pulled * sums.cross_covariance()).sum(-1)
        covariance = sums.covariance()
        spread = spread + 4 * (pulled * times(covariance, pulled)).sum(-1)
        shares = Shares(value, spread, third, fourth, square_trace(self.gram @ covariance))
        return shares.over(len(self.eta) ** 2).summarize(n)

    def kurtosis(self) -> float:
        """Kurtosis of a replicate's contribution to the total; 3 for a Gaussian, NaN when it is constant.

        The data are independent, so their cumulants add.
        """
        variance, _, fourth = self._checked_sums().contributions.central()
        excess = float((fourth - 3 * variance.square()).sum())
        squared = float(variance.sum()) ** 2
        return 3 + excess / squared if squared > 0 else math.nan

    def eta_mean(self) -> Tensor:
        """E h, (B, P)."""
        return self._checked_sums().mean()

    def eta_covariance(self) -> Tensor:
        """Cov(h_i), (B, P, P)."""
        return self._checked_sums().covariance()

    def eta_cross_covariance(self) -> Tensor:
        """Cov(h_i, u_i), (B, P), u about E h: what u is about the centre adds 2 C K δ."""
        sums = self._checked_sums()
        return sums.cross_covariance() - 2 * times(sums.covariance(), times(self.gram, sums.drift()))

    def mean(self) -> dict[str, Tensor]:
        """E ĝ by parameter."""
        return pull_back(self.problem.encoder, self.x, self.eta_mean() / len(self.eta))

    def per_parameter(self) -> dict[str, Tensor]:
        """Var ĝ, coordinate by coordinate."""
        diagonal = self.jacobian.diagonal(self.eta_covariance())
        return {name: value / len(self.eta) ** 2 for name, value in diagonal.items()}

    def _checked_sums(self) -> Sums:
        assert self.sums is not None
        if not self.sums.are_finite():
            raise EstimatorError(NOT_FINITE.format(str(self.eta.dtype).removeprefix("torch.")))
        return self.sums

    def _check_eta_is_the_only_path(self) -> None:
        phi = [p for p in self.problem.encoder.parameters() if p.requires_grad]
        leaf = self.eta.detach().requires_grad_()
        estimate = self.estimator(self.problem.posterior(leaf), self.target, self.num_samples)
        check_estimate(estimate, leaf.shape[:-1])
        grads = torch.autograd.grad(estimate.surrogate.sum(), phi, allow_unused=True)
        if any(g is not None for g in grads):
            raise DirectPathError(
                "the posterior or the target uses encoder parameters directly, not only through eta: "
                "use route='full'"
            )


class DirectPathError(UsageError):
    """The factorized route does not apply: φ enters other than through eta."""


def _check_precision(eta: Tensor) -> None:
    if torch.finfo(eta.dtype).bits < 32:
        name = str(eta.dtype).removeprefix("torch.")
        raise UsageError(
            f"{name} is too coarse for the products of the factorized route: "
            "use float32, float64, or route='full'"
        )


def _split(total: int, size: int) -> list[int]:
    return [size] * (total // size) + ([total % size] if total % size else [])

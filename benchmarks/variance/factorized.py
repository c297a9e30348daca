"""The factorized route: replicates in η-space, the encoder's Jacobian once.

Given η the data of a batch are independent, so tr Cov(ĝ) = (1/B²) Σ_i tr(C_i K_i), C_i = Cov(h_i)
and K_i = J_i J_iᵀ. Each replicate gives each datum one contribution (h − a)ᵀ K_i (h − a).

Shapes: R replicates, K of them kept, B data, P coordinates of η.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ..gradients import check_estimate, count_evaluations, eta_gradients
from ..jacobians.encoder import Jacobian, encoder_jacobian
from ..jacobians.products import pull_back, pull_back_each, push_forward, shaped, trainable
from ..linalg import in_float64, square_root, square_trace, times
from ..problems.as_trained import eta_of
from ..problems.datum_index import target_of
from ..problems.parts import eta_parts
from ..problems.protocol import Problem
from ..statistics.moments import Moments, NotFiniteError
from .breakdown import Breakdown, Replicates, by_datum, by_eta, by_layer, by_parameter
from .chunks import chunk_size, keep_heap, split
from .finite import data_chosen_from
from .minibatch import minibatch_variance
from .moments import Shares, Sums, bessel
from .signal import Sample

_PILOT = 512  # replicates whose mean becomes the centre
_PILOT_ELEMENTS = 2**23
_KEPT_ELEMENTS = 2**21
_ESTIMATES = 256  # in φ-space
_ESTIMATES_ELEMENTS = 2**24


class FactorizedRoute:
    """Streams replicates of h and keeps sums alone; memory does not depend on their number.

    Args:
        problem: θ frozen.
        estimator: prepared, couples no data.
        x: (B, ...).
        num_samples: S.
        chunk: replicates at a time; None to choose from the sizes at hand.
        jacobian: of the encoder at x, where it is known.

    Attributes:
        sums: of all replicates.
        kept: (B, K, P), the first replicates themselves, for what needs no more than a sample.
        gram: K (B, P, P), float64.

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
        jacobian: Jacobian | None = None,
    ) -> None:
        self.problem, self.estimator, self.x, self.num_samples = problem, estimator, x, num_samples
        self.target = target_of(problem, x)
        self.eta = eta_of(problem, x)
        self._check_eta_is_the_only_path()
        _check_precision(self.eta)
        self.jacobian = jacobian or encoder_jacobian(problem.encoder, x)
        self.gram = torch.stack(list(self.jacobian.gram().values())).sum(0)
        self._root = square_root(self.gram).to(self.eta.dtype)
        self.evaluations = count_evaluations(problem, estimator, self.target, self.eta, num_samples)
        self.chunk = chunk or chunk_size(problem, x, self.evaluations)
        self.sums: Sums | None = None
        self.kept = self.eta.new_empty(len(self.eta), 0, self.eta.shape[-1])

    @property
    def n(self) -> int:
        """Replicates so far."""
        return 0 if self.sums is None else self.sums.n

    def join(self, stream: int, merge: Sequence[Sums] = ()) -> None:
        """Become one of several streams, which all have the centre of one pilot, not counted itself."""
        self.sums = self._about_the_mean_of(self._pilot(_PILOT))
        self.sums.streams.add(stream)
        for sums in merge:
            self.sums.merge(sums)

    def add(self, replicates: int) -> None:
        """Draw more replicates."""
        keep_heap()
        if self.sums is None:
            h = self._pilot(replicates)
            self.sums = self._about_the_mean_of(h)
            self._add(self.sums, h)
            replicates -= len(h)
        for size in split(replicates, self.chunk):
            self._add(self.sums, self._draw(size))

    @staticmethod
    def repeats() -> bool:
        """Whether nothing but the estimator draws: `check_model` lets no other model through."""
        return True

    def _pilot(self, replicates: int) -> Float[Tensor, "R B P"]:
        """The first replicates."""
        limit = max(self.chunk, min(_PILOT, _PILOT_ELEMENTS // self.eta.numel()))
        return torch.cat([self._draw(n) for n in split(min(replicates, limit), self.chunk)])

    def _draw(self, replicates: int) -> Float[Tensor, "{replicates} B P"]:
        return eta_gradients(
            self.problem, self.estimator, self.target, self.eta, replicates, self.num_samples
        )

    def _about_the_mean_of(self, h: Float[Tensor, "R B P"]) -> Sums:
        centre = h.mean(0)
        shift = self._contributions(self._centred(h, centre)).mean(-1)
        return Sums.about(in_float64(centre), shift)

    def _add(self, sums: Sums, h: Float[Tensor, "R B P"]) -> None:
        room = min(len(h), _KEPT_ELEMENTS // self.eta.numel() + 2 - self.kept.shape[1])
        if room > 0:
            self.kept = torch.cat((self.kept, h[:room].transpose(0, 1)), 1)
        centred = self._centred(h, sums.centre.to(h.dtype))
        sums.add(centred, self._contributions(centred))

    @staticmethod
    def _centred(h: Float[Tensor, "R B P"], centre: Float[Tensor, "B P"]) -> Float[Tensor, "B R P"]:
        """Put data first, h − a: the products that follow are batched over data."""
        size = h.shape[1], h.shape[0], h.shape[2]
        return torch.sub(h.transpose(0, 1), centre.unsqueeze(1), out=h.new_empty(size))

    def _contributions(self, centred: Float[Tensor, "B R P"]) -> Float64[Tensor, "B R"]:
        """Each (h − a)ᵀ K (h − a)."""
        return (centred @ self._root).square_().sum(-1, dtype=torch.float64)

    def contributions_kept(self) -> Float64[Tensor, "B K"]:
        """Those of the replicates kept, about the mean of all."""
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

    def eta_mean(self) -> Float64[Tensor, "B P"]:
        """E h."""
        return self._checked_sums().mean()

    def eta_covariance(self) -> Float64[Tensor, "B P P"]:
        """Cov(h_i)."""
        return self._checked_sums().covariance()

    def _eta_cross_covariance(self) -> Float64[Tensor, "B P"]:
        """Cov(h_i, u_i), u about E h: what u is about the centre adds 2 C K δ."""
        sums = self._checked_sums()
        return sums.cross_covariance() - 2 * times(sums.covariance(), times(self.gram, sums.drift()))

    def mean(self) -> dict[str, Tensor]:
        """E ĝ by parameter."""
        return pull_back(self.problem.encoder, self.x, self.eta_mean() / len(self.eta))

    def per_parameter(self) -> dict[str, Tensor]:
        """Var ĝ, coordinate by coordinate."""
        diagonal = self.jacobian.diagonal(self.eta_covariance())
        return {name: value / len(self.eta) ** 2 for name, value in diagonal.items()}

    def breakdown(self) -> Breakdown:
        """Shares of the total, by all that is known here."""
        h = Replicates(self.n, self.eta_mean(), self.eta_covariance(), self.kept)
        grams, gradient = self.jacobian.gram(), self.mean()
        return Breakdown(
            by_parameter(h, grams),
            by_layer(h, grams),
            by_datum(h, self.gram),
            by_eta(h, eta_parts(self.problem, self.eta.shape[-1])),
            minibatch_variance(
                self.problem, self.x, h, self.gram, gradient, data_chosen_from(self.problem, self.x)
            ),
        )

    def sample(self) -> Sample:
        """A few estimates in φ-space, and what is known through η-space of all."""
        encoder, batch = self.problem.encoder, len(self.eta)
        phi = trainable(encoder)
        size = sum(p.numel() for p in phi.values())
        number = max(8, min(_ESTIMATES, _ESTIMATES_ELEMENTS // size))
        vectors = self.kept[:, :number].transpose(0, 1) / batch

        def variance_along(w: Float64[Tensor, " phi"]) -> float:
            v = in_float64(self._reached(shaped(w, phi)))
            return float((v * times(self.eta_covariance(), v)).sum()) / batch**2

        def covariance_along(w: Float64[Tensor, " phi"]) -> float:
            # The data are independent: of the variance, datum i moves its own share u_i/B².
            v = in_float64(self._reached(shaped(w, phi)))
            return float((v * self._eta_cross_covariance()).sum()) / batch**3

        def parts_along(w: Float64[Tensor, " phi"]) -> tuple[Tensor, Tensor]:
            v = in_float64(self._reached(shaped(w, phi)))
            return (in_float64(self.kept) * v.unsqueeze(1)).sum(
                -1
            ) / batch, self.contributions_kept() / batch**2

        estimates = pull_back_each(encoder, self.x, vectors)
        return Sample(estimates, variance_along, covariance_along, parts_along)

    def _reached(self, direction: dict[str, Tensor]) -> Float[Tensor, "B P"]:
        """J_i v."""
        return push_forward(self.problem.encoder, self.x, direction)

    def _checked_sums(self) -> Sums:
        assert self.sums is not None
        if not self.sums.are_finite():
            raise NotFiniteError(str(self.eta.dtype).removeprefix("torch."))
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


def _check_precision(eta: Float[Tensor, "B P"]) -> None:
    if torch.finfo(eta.dtype).bits < 32:
        name = str(eta.dtype).removeprefix("torch.")
        raise UsageError(
            f"{name} is too coarse for the products of the factorized route: "
            "use float32, float64, or route='full'"
        )

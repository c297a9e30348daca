"""The general route: one full φ-gradient a replicate, as a training loop would compute it.

Shapes: R replicates, B data, ``phi`` parameters, G groups of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ..gradients import count_evaluations
from ..jacobians.products import shaped
from ..linalg import all_finite, in_float64, trace_of_square
from ..problems.as_trained import eta_of
from ..problems.datum_index import target_of
from ..problems.parts import layers_of
from ..problems.protocol import Problem
from ..statistics.moments import Moments, NotFiniteError
from .breakdown import Breakdown
from .moments import PowerSums, Shares, Sums, bessel
from .one_by_one import Subject
from .signal import Sample
from .whole_gradients import WholeGradients

_ESTIMATES = 256  # shown of the replicates kept
_PILOT = 256
_PILOT_ELEMENTS = 2**25


class FullRoute:
    """Right for every estimator and problem, and for θ; each replicate is a backward pass through everything.

    Many replicates take it at once where a pilot shows that they may: see `whole_gradients`.

    Args:
        problem: differentiated with respect to φ, or to θ.
        estimator: prepared.
        x: (B, ...).
        num_samples: S.
        wrt: "phi" (from surrogate) or "theta" (from value).

    Attributes:
        kept: (R', |φ|), float64, the first replicates of ĝ themselves.
    """

    name = "full"
    chunk = None
    jacobian = None
    sums = None

    def __init__(self, problem: Problem, estimator: Estimator, x: Tensor, num_samples: int, wrt: str) -> None:
        self.problem, self.estimator, self.x, self.num_samples = problem, estimator, x, num_samples
        self.wrt = wrt
        subject = Subject(problem, estimator, x, num_samples, wrt)
        self.parameters, self.sizes = subject.parameters, subject.sizes
        self._gradients = WholeGradients(subject)
        eta = eta_of(problem, x)
        self.evaluations = count_evaluations(problem, estimator, target_of(problem, x), eta, num_samples)
        self._members = self._membership().to(x.device)
        self.kept = in_float64(torch.zeros(0, sum(self.sizes)))
        self._sums: PowerSums | None = None

    def _membership(self) -> Float64[Tensor, "G names"]:
        """Which parameters belong to each group: themselves, layers, all."""
        names = list(self.parameters)
        groups = [[name] for name in names] + list(layers_of(names).values()) + [names]
        return in_float64(torch.tensor([[name in group for name in names] for group in groups]))

    @property
    def n(self) -> int:
        """Replicates so far."""
        return 0 if self._sums is None else self._sums.n

    def join(self, stream: int, merge: Sequence[Sums] = ()) -> None:
        """Refuse: what is kept here is not made to be merged."""
        raise UsageError("stream needs the factorized route")

    def add(self, replicates: int) -> None:
        """Draw more replicates."""
        if self._sums is None:
            pilot = min(replicates, max(2, min(_PILOT, _PILOT_ELEMENTS // max(1, sum(self.sizes)))))
            self._sums = self._start(torch.cat(list(self._gradients.chunks(pilot))))
            replicates -= pilot
        for gradients in self._gradients.chunks(replicates):
            self._add(self._sums, gradients)

    def repeats(self) -> bool:
        """Whether two more replicates, which are not counted, are the same and nothing was drawn for them.

        The generators are looked at too: dropout of a few units often leaves two replicates alike.
        """
        before = self._generators()
        one = self._gradients.one
        same = torch.equal(one(1), one(1))
        return same and all(map(torch.equal, before, self._generators()))

    def _generators(self) -> list[Tensor]:
        device = self.x.device
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states

    def _start(self, gradients: Float64[Tensor, "R phi"]) -> PowerSums:
        self.kept = gradients
        self._centre = gradients.mean(0)
        self._first, self._second = torch.zeros_like(self._centre), torch.zeros_like(self._centre)
        self._cross = self._centre.new_zeros(len(self._members), len(self._centre))
        sums = PowerSums.about(self._contributions(gradients - self._centre).mean(-1))
        self._add(sums, gradients)
        return sums

    def _add(self, sums: PowerSums, gradients: Float64[Tensor, "R phi"]) -> None:
        centred = gradients - self._centre
        contributions = sums.add(self._contributions(centred))
        self._first += centred.sum(0)
        self._second += centred.square().sum(0)
        self._cross += contributions @ centred

    def _contributions(self, centred: Float64[Tensor, "R phi"]) -> Float64[Tensor, "G R"]:
        """‖ĝ − a‖² by parameter, by layer and in total."""
        parts = torch.stack([part.square().sum(-1) for part in centred.split(self.sizes, dim=-1)])
        return self._members @ parts

    def total(self) -> Moments:
        """The total variance with what its interval needs."""
        return self._moments(len(self._members) - 1)

    def breakdown(self) -> Breakdown:
        """Shares of the total by parameter and layer; nothing is known of single data."""
        names = [*self.parameters, *layers_of(self.parameters)]
        shares = [self._moments(group) for group in range(len(names))]
        first = len(self.parameters)
        return Breakdown(
            dict(zip(names[:first], shares[:first], strict=True)),
            dict(zip(names[first:], shares[first:], strict=True)),
        )

    def sample(self) -> Sample:
        """The first replicates, which tell the direction of the noise; its size is known from all."""
        size = float(self._variance(-1, self._first / self.n)) / max(float(self.kept.var(0).sum()), 1e-300)
        return Sample(
            self.kept[:_ESTIMATES],
            lambda w: float((self.kept @ w).var()) * size,
            lambda w: float(self._cross_covariance() @ w),
            self._parts_along,
        )

    def _parts_along(self, w: Float64[Tensor, " phi"]) -> tuple[Tensor, Tensor]:
        """Each replicate kept is one part: what its data give is not known."""
        squares = (self.kept - self._centre - self._first / self.n).square().sum(-1)
        return (self.kept @ w).unsqueeze(0), squares.unsqueeze(0)

    def kurtosis(self) -> float:
        """Kurtosis of the contributions ‖ĝ − a‖²; 3 for a Gaussian, NaN when they are constant."""
        assert self._sums is not None
        variance, _, fourth = (float(m[-1]) for m in self._sums.central())
        return fourth / variance**2 if variance > 0 else math.nan

    def _variance(self, group: int, drift: Float64[Tensor, " phi"]) -> Float64[Tensor, ""]:
        """Of a group, within which the mean drifted from the centre."""
        assert self._sums is not None
        return (self._sums.mean()[group] - drift.square().sum()).clamp_min(0) * bessel(self.n)

    def _moments(self, group: int) -> Moments:
        assert self._sums is not None
        n = self.n
        inside = self._members[group].repeat_interleave(torch.tensor(self.sizes, device=self._members.device))
        drift = self._first / n
        if not all_finite(drift, self._second, self._cross, self._sums.shift, self._sums.powers):
            raise NotFiniteError()
        spread, third, fourth = (m[group] for m in self._sums.central())
        delta = drift * inside
        value = self._variance(group, delta)
        cross = (self._cross[group] / n - drift * self._sums.powers[0, group] / n) @ delta
        # The first replicates stand in for Cov(ĝ), which is too large to keep.
        centred = self.kept - self._centre
        spread = spread - 4 * cross + 4 * (centred @ delta).square().mean()
        tau = trace_of_square((self.kept - self.kept.mean(0)) * inside)
        tau = tau + (value**2 + tau) / max(n - 1, 1)  # as if from the covariance of all n
        return Shares(*(part.reshape(1) for part in (value, spread, third, fourth, tau))).summarize(n)

    def _cross_covariance(self) -> Float64[Tensor, " phi"]:
        """Cov(ĝ, u) of the total, u = ‖ĝ − E ĝ‖²; Cov(ĝ) is that of the first replicates."""
        assert self._sums is not None
        n, drift = self.n, self._first / self.n
        about_centre = (self._cross[-1] / n - drift * self._sums.powers[0, -1] / n) * bessel(n)
        rest = self.kept - self.kept.mean(0)
        return about_centre - 2 * (rest @ drift) @ rest / max(len(rest) - 1, 1)

    def eta_mean(self) -> None:
        """E h is not known: ĝ is drawn whole."""

    def eta_covariance(self) -> None:
        """Neither is Cov(h)."""

    def contributions_kept(self) -> None:
        """Nor what each datum contributes."""

    def mean(self) -> dict[str, Tensor]:
        """E ĝ by parameter."""
        return shaped(self._centre + self._first / self.n, self.parameters)

    def per_parameter(self) -> dict[str, Tensor]:
        """Var ĝ, coordinate by coordinate."""
        drift = self._first / self.n
        return shaped((self._second / self.n - drift**2) * bessel(self.n), self.parameters)

"""The general route: one full φ-gradient a replicate, as a training loop would compute it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..estimators.base import Estimator
from ..estimators.errors import EstimatorError
from .evaluation import check_estimate, count_evaluations
from .jacobians import trainable
from .moments import ContributionSums, in_float64
from .problems.protocol import Problem
from .statistics import Moments

_PILOT = 256
_PILOT_ELEMENTS = 2**25


class FullRoute:
    """Right for every estimator and problem, and for θ; R backward passes through everything.

    Args:
        problem: differentiated with respect to φ, or to θ.
        estimator: prepared.
        x: (B, ...).
        num_samples: S.
        wrt: "phi" (from surrogate) or "theta" (from value).
    """

    name = "full"

    def __init__(self, problem: Problem, estimator: Estimator, x: Tensor, num_samples: int, wrt: str) -> None:
        self.problem, self.estimator, self.x, self.num_samples = problem, estimator, x, num_samples
        self.wrt = wrt
        self.parameters = trainable(problem.encoder if wrt == "phi" else problem.decoder)
        self.sizes = [p.numel() for p in self.parameters.values()]
        with torch.no_grad():
            eta = problem.encoder(x)
        self.evaluations = count_evaluations(problem, estimator, problem.target(x), eta, num_samples)
        self.centre: Tensor | None = None
        self._pilot = torch.empty(0)
        self._sums: ContributionSums | None = None

    @property
    def n(self) -> int:
        """Replicates so far."""
        return 0 if self._sums is None else self._sums.n

    def add(self, replicates: int) -> None:
        """Draw more replicates."""
        if self.centre is None:
            pilot = min(replicates, max(2, min(_PILOT, _PILOT_ELEMENTS // max(1, sum(self.sizes)))))
            self._start(torch.stack([self._gradient() for _ in range(pilot)]))
            replicates -= pilot
        for _ in range(replicates):
            self._add(self._gradient().unsqueeze(0))

    def _gradient(self) -> Tensor:
        """One estimate ĝ, flattened, float64."""
        q = self.problem.posterior(self.problem.encoder(self.x))
        estimate = self.estimator(q, self.problem.target(self.x), self.num_samples)
        check_estimate(estimate, self.x.shape[:1])
        chosen = estimate.surrogate if self.wrt == "phi" else estimate.value
        if not chosen.requires_grad:
            raise EstimatorError("value has no gradient: it must be differentiable in θ")
        grads = torch.autograd.grad(chosen.mean(), list(self.parameters.values()), allow_unused=True)
        flat = [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for g, p in zip(grads, self.parameters.values(), strict=True)
        ]
        return in_float64(torch.cat(flat))

    def _start(self, gradients: Tensor) -> None:
        self.centre = gradients.mean(0)
        self._pilot = gradients - self.centre
        groups = len(self.sizes) + 1
        self._first, self._second = torch.zeros_like(self.centre), torch.zeros_like(self.centre)
        self._cross = self.centre.new_zeros(groups, len(self.centre))
        self._sums = ContributionSums.starting_at(self._contributions(self._pilot))
        self._add(gradients)

    def _add(self, gradients: Tensor) -> None:
        assert self._sums is not None
        assert self.centre is not None
        centred = gradients - self.centre
        contributions = self._sums.add(self._contributions(centred)).squeeze(-1)
        self._first += centred.sum(0)
        self._second += centred.square().sum(0)
        self._cross += contributions.T @ centred

    def _contributions(self, centred: Tensor) -> Tensor:
        """‖ĝ − a‖² by parameter and in total, (R, G, 1)."""
        parts = [part.square().sum(-1) for part in centred.split(self.sizes, dim=-1)]
        return torch.stack([*parts, sum(parts, torch.zeros(len(centred)).to(centred))], -1).unsqueeze(-1)

    def moments(self) -> dict[str, Moments]:
        """The variance by parameter, and under "" the total, each with what its interval needs."""
        assert self._sums is not None
        n = self.n
        drift = self._first / n
        if not bool(torch.isfinite(drift).all()):
            raise EstimatorError("the gradient is not finite (NaN or infinity)")
        spread, third, _ = self._sums.central()
        contributions = self._sums.mean()
        result = {}
        for group, name in enumerate([*self.parameters, ""]):
            inside = self._mask(group)
            delta = drift * inside
            value = (float(contributions[group]) - float(delta.square().sum())) * n / max(n - 1, 1)
            cross = (self._cross[group] / n - drift * self._sums.powers[0][group] / n) @ delta
            # The pilot stands in for Cov(ĝ), which is too large to keep.
            projected = (self._pilot @ delta).square().mean()
            variance = (float(spread[group]) - 4 * float(cross) + 4 * float(projected)) / n
            squared = max(variance, 0.0) + self._light_tails(inside, n)
            skewness = float(third[group]) / n**2 / max(squared**1.5, 1e-300)
            result[name] = Moments(max(value, 0.0), squared**0.5, skewness, n)
        return result

    def _light_tails(self, inside: Tensor, n: int) -> float:
        """2 tr(C²)/(n(n − 1)), tr C² from the pilot's products of different replicates."""
        pilot = self._pilot * inside
        if len(pilot) < 2:
            return 0.0
        squares = (pilot @ pilot.T).square()
        trace = float(squares.sum() - squares.diagonal().sum()) / (len(pilot) * (len(pilot) - 1))
        return 2 * trace / (n * max(n - 1, 1))

    def _mask(self, group: int) -> Tensor:
        assert self.centre is not None
        if group == len(self.sizes):
            return torch.ones_like(self.centre)
        mask = torch.zeros_like(self.centre)
        start = sum(self.sizes[:group])
        mask[start : start + self.sizes[group]] = 1
        return mask

    def mean(self) -> dict[str, Tensor]:
        """E ĝ by parameter."""
        assert self.centre is not None
        return self._shaped(self.centre + self._first / self.n)

    def per_parameter(self) -> dict[str, Tensor]:
        """Var ĝ, coordinate by coordinate."""
        drift = self._first / self.n
        return self._shaped((self._second / self.n - drift**2) * (self.n / max(self.n - 1, 1)))

    def _shaped(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split(self.sizes)
        return {n: v.view_as(p) for (n, p), v in zip(self.parameters.items(), parts, strict=True)}

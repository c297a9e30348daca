"""An estimator at a place where exact answers are known: what it claims there, and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ...estimators.base import Estimate, Estimator
from ...estimators.support import refusal
from ...estimators.testing.random_operations import Drawn, RandomOperations
from ..gradients import StateStep, frozen, has_moving_state, reseed
from ..seeds import derived
from .blocks import (
    Block,
    error_of,
    error_of_gradient,
    gradient_block,
    mean_block,
    phi_block,
    theta_block,
    value_block,
    variance_block,
)
from .corners import Corner
from .integrand_features import Known, theta_controls
from .levels import Settings
from .noise import noise_of
from .oracle import Draws, GroupMeans, Oracle

_WARMUP_STEPS = 200
_FEW_SAMPLES = 4
_NUMBERS_AN_EVALUATION = 32  # that are drawn, and made something of, in the time of one


class NotFinite(Exception):
    """Estimates are NaN or infinite.

    Attributes:
        name: of the check that fails.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class OtherDraws(Exception):
    """What is drawn differs from call to call: its distribution given how it differs is not known."""


class Subject:
    """A warmed estimator at a corner of a place.

    Args:
        estimator: warmed, of its own.
        oracle: exact answers for the data of the corner.
        corner: S, B, the type and the mode.
        typical_norm: see `blocks.bias_of`.
        settings: of the tests.
        claims: whether the oracle's objective is the estimator's.
    """

    def __init__(
        self,
        estimator: Estimator,
        oracle: Oracle,
        corner: Corner,
        typical_norm: float,
        settings: Settings,
        claims: bool,
    ) -> None:
        self.oracle, self.corner, self.settings = oracle, corner, settings
        self.typical_norm, self.claims, self.num_samples = typical_norm, claims, corner.num_samples
        self._target = oracle.target
        self.estimator = estimator.to(device=oracle.eta.device, dtype=oracle.eta.dtype).train(corner.training)
        self.unbiased = claims and self.estimator.unbiased
        self.mean = None if self.unbiased else oracle.mean(self.estimator, corner.num_samples)

    @cached_property
    def known(self) -> Known | None:
        """What features of its noise have their means from."""
        return self.oracle.known(self.num_samples, self.estimator.draws)

    def seed(self, purpose: Literal["look", "pilot"], index: int = 0) -> None:
        """The random state of a part of the work."""
        reseed(derived(self.settings.seed, purpose, index), self.oracle.eta.device)

    @cached_property
    def evaluations(self) -> int:
        """The work of an estimate of a datum: evaluations of log p(x|z), S at least, or what drawing takes.

        Dozens of numbers are drawn in the time of an evaluation; some estimators draw thousands for one.
        """
        rows: list[int] = []

        def counted(z: Tensor) -> Tensor:
            rows.append(len(z))
            return self._target.log_likelihood(z)

        self.seed("pilot")
        target = replace(self._target, log_likelihood=counted)
        with RandomOperations() as seen:
            self.oracle.estimate(self.estimator, target, self.num_samples, 1)
        numbers = sum(one.output.numel() for one in seen.drawn) // len(self.oracle.eta)
        return max(sum(rows), self.num_samples, numbers // _NUMBERS_AN_EVALUATION)

    def asking(self) -> AbstractContextManager[None]:
        """Inside, θ requires a gradient or none, as the corner has it."""
        return frozen(self.oracle.problem.decoder) if self.corner.frozen else nullcontext()

    def refusal(self) -> str | None:
        """Why the estimator cannot be used here, or None."""
        q = self.oracle.problem.posterior(self.oracle.eta)
        return refusal(self.estimator, q, self._target, self.num_samples)

    def estimates(self, replicates: int | None) -> tuple[Estimate, Tensor]:
        """R estimates, or a batch (B,) alone, and the η (R, B, P) or (B, P) that they are attached to."""
        return self.oracle.estimate(self.estimator, self._target, self.num_samples, replicates)

    def draw(self, replicates: int) -> tuple[Draws, list[Drawn]]:
        """R estimates less the exact answers, and all that torch drew for them.

        Raises:
            NotFinite: some are not.
        """
        with RandomOperations() as seen:
            estimate, leaf = self.estimates(replicates)
        return self._deviations(estimate, leaf), seen.drawn

    def draw_unseen(self, replicates: int) -> Draws:
        """The same estimates alone, which takes less time.

        Raises:
            NotFinite: some are not.
        """
        return self._deviations(*self.estimates(replicates))

    def _deviations(self, estimate: Estimate, leaf: Tensor) -> Draws:
        draws = self.oracle.gradients(estimate, leaf)
        require_finite(draws._asdict())
        return draws

    def draw_means(self, replicates: int, control: int | None = None) -> GroupMeans:
        """Means over R estimates and the data, less the exact answers and one of `theta_controls`.

        Raises:
            OtherDraws: the control is not known here.
        """
        if control is None:
            return self._means(self.estimates(replicates)[0], replicates)
        means, controls = self.draw_controlled(replicates, control)
        if not controls:
            raise OtherDraws
        return means._replace(theta=means.theta - controls[0])

    def draw_controlled(self, replicates: int, only: int | None = None) -> tuple[GroupMeans, list[Tensor]]:
        """Means over R estimates and the data, less the exact answers, and all `theta_controls`, or one."""
        with RandomOperations() as seen:
            estimate, _ = self.estimates(replicates)
        means = self._means(estimate, replicates)
        if not means.theta.numel():
            return means, []
        found = (noise_of(one, replicates, len(self.oracle.eta)) for one in seen.drawn)
        noise = [one for one in found if one is not None]
        return means, theta_controls(noise, self.known, replicates, only)

    def _means(self, estimate: Estimate, replicates: int) -> GroupMeans:
        require_finite({"value": estimate.value.detach()})
        count = replicates * len(self.oracle.eta)
        return self.deviations(self.oracle.of_parameters(estimate.value / count, estimate.surrogate / count))

    def deviations(self, means: GroupMeans) -> GroupMeans:
        """Less the exact answers.

        Raises:
            NotFinite: they are not.
        """
        for name, part, what in (
            ("theta", means.theta, "value's gradient in θ"),
            ("phi", means.phi, "gradient in what the posterior holds"),
        ):
            if not part.isfinite().all():
                raise NotFinite(name, f"{what} is {_word(part)}")
        return GroupMeans(means.theta - self._theta_grad(means), means.phi - self.oracle.phi_grad)

    def _theta_grad(self, means: GroupMeans) -> Tensor:
        return self.oracle.theta_grad if means.theta.numel() else self.oracle.theta_grad[:0]

    def blocks(self) -> tuple[list[Block], Block]:
        """What is claimed here, and the gradient's block, which may claim nothing and be measured alone."""
        oracle, level, found = self.oracle, self.settings.confirm_level, []
        error = error_of(oracle, self.estimator.deterministic)
        of_gradient = error_of_gradient(oracle, self.estimator)
        gradient = gradient_block(oracle, level, of_gradient)
        if not self.claims:
            return [], gradient
        if self.unbiased:
            found.append(gradient)
            if oracle.phi_grad.numel():
                found.append(phi_block(oracle, level, of_gradient))
        if self.mean is not None:
            found.append(mean_block(oracle, self.mean, level, of_gradient))
        if self.estimator.unbiased_value:
            found.append(value_block(oracle, level, error))
            if oracle.theta_grad.numel() and not self.corner.frozen:
                found.append(theta_block(oracle, level, error))
        # Elsewhere its closed form would be wanted at many S, and few draws are taken.
        usual = self.corner == Corner(self.num_samples, oracle.rows) and self.num_samples <= _FEW_SAMPLES
        variance = oracle.variance(self.estimator, self.num_samples) if usual else None
        if variance is not None:
            centre = oracle.eta_grad if self.mean is None else self.mean
            of_variance = variance_block(oracle, variance, centre, level, error)
            found += [] if of_variance is None else [of_variance]
        return found, gradient


def warmed(build: Callable[[], Estimator], oracle: Oracle, num_samples: int, seed: int) -> Estimator:
    """An estimator whose state has seen the point at S: its claims are to hold for any state."""
    reseed(seed, oracle.eta.device)
    estimator, target = build(), oracle.target
    estimator.init(oracle.problem.posterior(oracle.eta), target)
    estimator.to(device=oracle.eta.device, dtype=oracle.eta.dtype)
    step = StateStep(oracle.problem, estimator, num_samples)
    for _ in range(_WARMUP_STEPS if has_moving_state(estimator) else 0):
        step.at(oracle.eta, target)
    return estimator.eval()


def require_finite(parts: dict[str, Tensor]) -> None:
    """Raise `NotFinite` where estimates (R, B, ...) are not, saying how many are and where the first is."""
    for name, part in parts.items():
        good = part.isfinite().flatten(1).all(1)
        if good.all():
            continue
        first = int((~good).nonzero()[0, 0])
        place = (~part[first].isfinite()).nonzero()[0].tolist()
        where = f"datum {place[0]}" + (f", coordinate {place[1]}" if len(place) > 1 else "")
        count = f"{int((~good).sum()):,} of {len(good):,} estimates"
        raise NotFinite(name, f"{name} is {_word(part[first])} in {count} (first at {where})")


def _word(values: Tensor) -> str:
    if values.isnan().any():
        return "NaN"
    return "-inf" if (values == -torch.inf).any() else "inf"

"""Certifying one estimator on one oracle problem: sampling until the answer is clear or the budget ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...estimators.base import Estimator, Target
from ...estimators.text import one_line
from ..gradients import StateStep, has_moving_state, reseed
from ..rows.certificate_checks import BiasBound, Check
from ..seeds import derived
from .blocks import (
    Block,
    bias_of,
    error_of,
    exact_bias,
    gradient_block,
    mean_block,
    phi_block,
    theta_block,
    value_block,
    variance_block,
)
from .levels import LOOKS
from .oracle import Draws, Oracle

_FIRST_LOOK = 4096
_GROWTH = 4
_GROUPS = 64  # of a look, at least: θ's gradient is averaged over each, and a group is drawn at once
_LARGEST_GROUP = 16_384
_WARMUP_STEPS = 200
_LEAST_WORK = 4096 * 64  # evaluations that are spent whatever the budget


@dataclass(frozen=True)
class Settings:
    """How certain, how precise, and for how long.

    Attributes:
        confidence: of the bias bound.
        tolerance: relative bias at which it is tight.
        confirm_level: of a confirmation, see `sequential`.
        seed: of all draws.
        max_evaluations: of log p(x|z), roughly, after which no further look is begun.
        seconds: that a problem may take, after which none is begun either.
    """

    confidence: float = 0.99
    tolerance: float = 0.02
    confirm_level: float = 1e-3
    seed: int = 0
    max_evaluations: float = 4e7
    seconds: float = float("inf")


def certify_cell(
    build: Callable[[], Estimator],
    oracle: Oracle,
    num_samples: int,
    label: str,
    typical_norm: float,
    settings: Settings,
    deadline: float = float("inf"),
    claims: bool = True,
) -> list[Check]:
    """The checks of one estimator at one S, at one point of a problem.

    Of a gradient that is biased as declared the bias is measured, or exact where the mean is known, which the
    draws are then held against.

    Args:
        build: returns a fresh estimator.
        oracle: the problem there.
        num_samples: S.
        label: the problem's name, for the checks.
        typical_norm: see `bias_of`.
        settings: see there.
        deadline: `time.monotonic()` after which no further look is begun.
        claims: whether the oracle's objective is the estimator's. Else nothing is claimed of it, and how far
            the gradient is from that of this objective is a check called "elbo-bias".
    """
    here = partial(Check, problem=label, point=oracle.point, num_samples=num_samples)
    try:
        cell = _Cell(build, oracle, num_samples, typical_norm, settings, deadline, claims)
        bias, draws = cell.run()
    except Exception as error:  # a plugin may raise anything
        return [here("gradient", False, f"raises {type(error).__name__}: {one_line(error)}")]
    checks = [_judge(block, here, draws, bias) for block in cell.blocks]
    if not cell.unbiased:
        checks.append(here("bias" if claims else "elbo-bias", True, draws=draws, bias=bias))
    return checks


class _Cell:
    """The draws of a cell, look after look."""

    def __init__(
        self,
        build: Callable[[], Estimator],
        oracle: Oracle,
        num_samples: int,
        typical_norm: float,
        settings: Settings,
        deadline: float,
        claims: bool,
    ) -> None:
        self.oracle, self.num_samples, self.settings = oracle, num_samples, settings
        self.typical_norm, self.deadline = typical_norm, deadline
        self.target = oracle.target
        reseed(settings.seed, oracle.eta.device)
        self.estimator = _warmed(build, oracle, self.target, num_samples)
        self.unbiased = claims and self.estimator.unbiased
        self.mean = None if self.unbiased else oracle.mean(self.estimator, num_samples)
        level, error = settings.confirm_level, error_of(oracle, self.estimator.deterministic)
        self.blocks = _blocks(self.estimator, oracle, num_samples, self.mean, level) if claims else []
        # For a biased estimator the gradient is measured, and nothing is claimed of it.
        self.bounded = self.blocks[0] if self.unbiased else gradient_block(oracle, level, error)

    def run(self) -> tuple[BiasBound, int]:
        """The bias at the end, and the estimates drawn."""
        n, total, screen = _FIRST_LOOK, 0, True
        for look in range(LOOKS + 1):
            self._look(n, look, screen)
            total += n
            bias = self._bias()
            if any(block.test.rejection for block in self.blocks):
                break
            waiting = any(block.test.waiting for block in self.blocks)
            clear = all(block.test.settled for block in self.blocks) and self._tight(bias)
            if not waiting and (clear or not screen):
                break
            if look < LOOKS - 1 and self._affordable(_GROWTH * n):
                n *= _GROWTH
            elif waiting:
                screen = False  # one look more of the same size, for the alarm that waits
            else:
                break
        return bias if self.mean is None else exact_bias(self.oracle, self.mean, self.typical_norm), total

    def _look(self, n: int, look: int, screen: bool) -> None:
        blocks = self.blocks if self.bounded in self.blocks else [*self.blocks, self.bounded]
        sums = [block.test.sums() for block in blocks]
        reseed(derived(self.settings.seed, "look", look), self.oracle.eta.device)
        for draws, times in self._draws(n):
            for block, one in zip(blocks, sums, strict=True):
                one.add(block.columns(draws), times)
        for block, one in zip(blocks, sums, strict=True):
            block.pooled = block.pooled.pooled(one)
            if block in self.blocks:
                block.test.take(one, screen)

    def _draws(self, n: int) -> Iterator[tuple[Draws, int]]:
        """n estimates, a group at a time, each with how often it counts."""
        arguments = (self.estimator, self.target, self.num_samples)
        if self.estimator.deterministic:
            first, second = (self.oracle.draw(*arguments, 1) for _ in range(2))
            same = torch.equal(first.gradient, second.gradient)
            assert same, "declares deterministic = True, but two calls differ"
            yield first, n
            return
        groups = max(_GROUPS, n // _LARGEST_GROUP)
        for _ in range(groups):
            yield self.oracle.draw(*arguments, n // groups), 1

    def _bias(self) -> BiasBound:
        # The bound that is reported is chosen among those of all looks.
        confidence = 1 - (1 - self.settings.confidence) / LOOKS
        return bias_of(self.oracle, self.bounded.pooled, confidence, self.typical_norm)

    def _tight(self, bias: BiasBound) -> bool:
        tolerance = self.settings.tolerance
        if self.unbiased:
            return bias.high <= tolerance
        return bias.high - bias.low <= max(tolerance, 0.1 * bias.estimate)

    def _affordable(self, n: int) -> bool:
        work = n * len(self.oracle.eta) * self.num_samples
        in_time = time.monotonic() < self.deadline
        return work <= _LEAST_WORK or (in_time and work <= self.settings.max_evaluations)


def _warmed(build: Callable[[], Estimator], oracle: Oracle, target: Target, num_samples: int) -> Estimator:
    """An estimator whose state has seen the point, in eval mode: its claims are to hold for any state."""
    estimator = build()
    estimator.init(oracle.problem.posterior(oracle.eta), target)
    estimator.to(device=oracle.eta.device, dtype=oracle.eta.dtype)
    step = StateStep(oracle.problem, estimator, num_samples)
    for _ in range(_WARMUP_STEPS if has_moving_state(estimator) else 0):
        step.at(oracle.eta, oracle.target)
    return estimator.eval()


def _blocks(
    estimator: Estimator, oracle: Oracle, num_samples: int, mean: Tensor | None, level: float
) -> list[Block]:
    error = error_of(oracle, estimator.deterministic)
    blocks = [gradient_block(oracle, level, error)] if estimator.unbiased else []
    if estimator.unbiased and oracle.phi_grad.numel():
        blocks.append(phi_block(oracle, level, error))
    if mean is not None:
        blocks.append(mean_block(oracle, mean, level, error))
    if estimator.unbiased_value:
        blocks.append(value_block(oracle, level, error))
        if oracle.theta_grad.numel():
            blocks.append(theta_block(oracle, level, error))
    variance = oracle.variance(estimator, num_samples)
    if variance is not None:
        centre = oracle.eta_grad if mean is None else mean
        of_variance = variance_block(oracle, variance, centre, level, error)
        blocks += [] if of_variance is None else [of_variance]
    return blocks


def _judge(block: Block, here: Callable[..., Check], draws: int, bias: BiasBound) -> Check:
    own = bias if block.name == "gradient" else None
    rejection = block.test.rejection
    if rejection is not None:
        return here(block.name, False, block.reason(rejection), draws=rejection.draws, bias=own)
    if not block.test.settled:
        reason = f"the estimates are too skewed for a verdict at {draws} draws"
        return here(block.name, None, reason, draws=draws, bias=own)
    return here(block.name, True, draws=draws, bias=own)

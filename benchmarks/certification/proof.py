"""Claims proven or refuted by going through all that an estimator can draw."""

from __future__ import annotations

import torch
from torch import Tensor

from ...estimators.testing.random_operations import RandomOperations
from .blocks import Chunk, exact_bias, proven
from .forced import MOST_ROWS, AnotherDraw, Forced, numbers_of
from .oracle import Draws, GroupMeans
from .outcome import Outcome
from .subject import Subject, require_finite

_ROWS_TRIED = 64


def prove(subject: Subject, most: int = MOST_ROWS) -> Outcome | None:
    """Every claim at the place, exactly.

    None where more can be drawn than a few bits or states, or where data are not estimated one by one.

    Args:
        subject: what is to be proven.
        most: combinations of states that are gone through.
    """
    estimator, data = subject.estimator, len(subject.oracle.eta)
    if estimator.couples_batch or estimator.deterministic:
        return None
    subject.seed("pilot")
    replicates = data + 1  # not B, so that no dimension is taken for another
    with RandomOperations() as seen:
        subject.estimates(replicates)
    numbers = numbers_of(seen.drawn, replicates, data, most)
    if numbers is None or seen.unseen:
        return None
    try:
        forced = Forced(numbers, data)
        return _judged(subject, _Sums(subject, forced)) if _decides_all(subject, forced) else None
    except AnotherDraw:
        return None


def _decides_all(subject: Subject, forced: Forced) -> bool:
    """Whether an estimate is what its own numbers make it: the same in another order, and asked again."""
    rows = torch.arange(min(forced.total, _ROWS_TRIED))
    answers = []
    for order in (rows, rows.flip(0)):
        forced.run(order, lambda replicates: answers.append(subject.estimates(replicates)))
    (one, other) = (subject.oracle.gradients(*answer) for answer in answers)
    near = 1e-9 if subject.corner.dtype == "float64" else 1e-3  # rounding depends on the place in the batch
    for a, b in zip(one, other, strict=True):
        a, b = a.nan_to_num(), b.flip(0).nan_to_num()
        if float((a - b).abs().max()) > near * max(float(a.abs().max()), 1.0):
            return False
    return True


class _Sums:
    """Over all combinations, each weighed with its probability."""

    def __init__(self, subject: Subject, forced: Forced) -> None:
        self.subject, self.rows = subject, forced.total
        data, width = subject.oracle.eta_grad.shape
        like = subject.oracle.eta_grad
        self.weights, self.gradient = like.new_zeros(data), like.new_zeros(data, width)
        self.square, self.value = like.new_zeros(data, width), like.new_zeros(data)
        self.theta, self.phi = like.new_zeros(1), like.new_zeros(1)
        subject.seed("pilot")
        for rows in forced.chunks():
            weights = forced.run(rows, self._call).to(like)
            self._add(weights)
        if float((self.weights - 1).abs().max()) > 1e-6:
            raise AnotherDraw

    def _call(self, replicates: int) -> None:
        self._estimate, self._leaf = self.subject.estimates(replicates)

    def _add(self, weights: Tensor) -> None:
        oracle, estimate = self.subject.oracle, self._estimate
        draws = oracle.gradients(estimate, self._leaf)
        possible = weights > 0  # an estimate from what is never drawn may be anything
        draws = Draws(_where(possible.unsqueeze(-1), draws.gradient), _where(possible, draws.value))
        require_finite(draws._asdict())
        w = weights.unsqueeze(-1)
        self.weights += weights.sum(0)
        self.gradient += (w * draws.gradient).sum(0)
        self.square += (w * draws.gradient.square()).sum(0)
        self.value += (weights * draws.value).sum(0)
        share = (weights / len(oracle.eta)).to(estimate.value)
        summed = (_where(possible, share * part) for part in (estimate.value, estimate.surrogate))
        means = oracle.of_parameters(*summed)
        self.theta, self.phi = self.theta + means.theta, self.phi + means.phi


def _where(condition: Tensor, values: Tensor) -> Tensor:
    return torch.where(condition, values, torch.zeros_like(values))


def _judged(subject: Subject, sums: _Sums) -> Outcome:
    oracle = subject.oracle
    blocks, _ = subject.blocks()
    draws = Draws(sums.gradient.unsqueeze(0), sums.value.unsqueeze(0))
    centre = 0.0 if subject.mean is None else subject.mean - oracle.eta_grad
    spread = (sums.square - sums.gradient.square()).clamp_min(0).sqrt()
    chunk = Chunk(
        # A deviation of one standard deviation has the variance for its square.
        raw=Draws((spread + centre).unsqueeze(0), draws.value),
        adjusted=draws,
        means=subject.deviations(GroupMeans(sums.theta, sums.phi)),
    )
    verdicts: dict[str, tuple[bool | None, str]] = {}
    for block in blocks:
        columns = block.columns(chunk)
        assert columns is not None
        wrong = proven(block, columns[0])
        verdicts[block.name] = (wrong is None, "" if wrong is None else block.reason(wrong))
    bias = exact_bias(oracle, oracle.eta_grad + sums.gradient, subject.typical_norm)
    return Outcome(blocks, verdicts, bias, sums.rows, exact=True)

"""Ranking measurements: who is best, who cannot be told from the best, who is biased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...estimators.kl_weight import is_elbo
from ..oracles.references import RELAXED
from .measured import Interval, Measured, compare

FAMILY_CONFIDENCE = 0.95
#: A ratio of work that is not shown to be above this is not worth a choice: a tie.
LEAST_MARGIN = 1.05
#: Objectives that are the same whatever S is, so that S may be chosen; others are ranked at each S apart.
SAME_AT_EVERY_S = frozenset({"elbo", "inclusive-kl", RELAXED})

Group = tuple[int, str, int | None]


@dataclass(frozen=True)
class Entry:
    """One row of a ranking.

    Attributes:
        measured: what was measured.
        work: mean squared error × seconds with its own 95% interval; of an unbiased one variance × seconds.
        to_first: the same over that of the ranking's first, at the corrected confidence; None of a
            deterministic one, and where nothing sound was measured.
    """

    measured: Measured
    work: Interval
    to_first: Interval | None


@dataclass(frozen=True)
class Ranking:
    """Estimators of one objective at one point, the lowest mean squared error × seconds first.

    Attributes:
        step: of training.
        objective: what they estimate the gradient of.
        num_samples: S where the objective depends on it, else None.
        entries: in order; biased ones whose bias is known among them, deterministic ones apart.
        unknown: biased ones whose bias is not known, which cannot be ranked; the least noisy first.
        noiseless: deterministic ones, fastest first.
        tied: sound entries that no other was shown to beat: with the confidence of the whole advice the best
            sound one is among them.
        ahead: biased entries shown to have a lower mean squared error × seconds than the first of ``tied``.
        comparisons: pairs of estimators that the confidence is corrected for, over all rankings.
        confidence: of each comparison, so that all hold together at 95%.
    """

    step: int
    objective: str
    num_samples: int | None
    entries: tuple[Entry, ...]
    unknown: tuple[Entry, ...]
    noiseless: tuple[Measured, ...]
    tied: tuple[Entry, ...]
    ahead: tuple[Entry, ...]
    comparisons: int
    confidence: float

    @property
    def unranked(self) -> tuple[Entry, ...]:
        """Those of ``tied`` above the first by their interval, which has not the replicates to beat them."""
        return tuple(e for e in self.tied if e.to_first is not None and e.to_first.low > LEAST_MARGIN)

    @property
    def biased(self) -> tuple[Entry, ...]:
        """Those of ``entries`` that are biased."""
        return tuple(e for e in self.entries if e.measured.biased)

    @property
    def group(self) -> Group:
        """What makes this ranking one of its own."""
        return self.step, self.objective, self.num_samples


def group_of(step: int, objective: str, num_samples: int) -> Group:
    """Measurements are ranked within one group: step, objective, and S where the objective depends on it."""
    return step, objective, None if same_at_every_s(objective) else num_samples


def same_at_every_s(objective: str) -> bool:
    """Whether S is the estimator's alone."""
    return objective.partition("[")[0] in SAME_AT_EVERY_S


def rank_all(measured: Sequence[Measured]) -> list[Ranking]:
    """One ranking for each point and objective, the ELBO's first.

    Every statement is about pairs of estimators of one ranking. With m pairs in all, each is compared at
    confidence 1 − 0.05/m (Bonferroni), so that all comparisons hold together with 95%, whichever of them the
    data then single out. The best is not beaten by any other where its intervals hold, hence it is among
    those that nobody was shown to beat (Gupta's subset selection).

    Which S stands for an estimator must not come from these measurements, nor how many replicates there are
    from their comparison.

    References:
        Gupta, On Some Multiple Decision (Selection and Ranking) Rules, 1965.
    """
    groups: dict[Group, list[Measured]] = {}
    for one in measured:
        groups.setdefault(group_of(one.step, one.group, one.num_samples), []).append(one)
    noisy = {group: [m for m in ms if not m.deterministic] for group, ms in groups.items()}
    ranked = [sum(m.rankable for m in ms) for ms in noisy.values()]
    comparisons = sum(k * (k - 1) // 2 for k in ranked)
    confidence = 1 - (1 - FAMILY_CONFIDENCE) / max(comparisons, 1)
    return [
        _rank(group, noisy[group], [m for m in groups[group] if m.deterministic], comparisons, confidence)
        for group in sorted(groups, key=lambda g: (g[0], not is_elbo(g[1]), g[1], g[2] or 0))
    ]


def _rank(
    group: Group, noisy: list[Measured], noiseless: list[Measured], comparisons: int, confidence: float
) -> Ranking:
    ordered = sorted(noisy, key=lambda m: (m.work().value, m.cost().value))
    unknown = tuple(Entry(m, m.work(), None) for m in ordered if not m.rankable)
    ordered = [m for m in ordered if m.rankable]
    sound = [m for m in ordered if not m.biased]
    tied = [m for m in sound if not any(_beats(other, m, confidence) for other in sound if other is not m)]
    first = tied[0] if tied else None
    entries = {id(m): Entry(m, m.work(), _to_first(m, first, confidence)) for m in ordered}
    ahead = [m for m in ordered if m.biased and first is not None and _beats(m, first, confidence)]
    return Ranking(
        *group,
        tuple(entries.values()),
        unknown,
        tuple(sorted(noiseless, key=lambda m: m.cost().value)),
        tuple(entries[id(m)] for m in tied),
        tuple(entries[id(m)] for m in ahead),
        comparisons,
        confidence,
    )


def _to_first(measured: Measured, first: Measured | None, confidence: float) -> Interval | None:
    if first is None:
        return None
    return Interval(1.0, 1.0, 1.0) if measured is first else compare(measured, first, confidence)


def _beats(one: Measured, other: Measured, confidence: float) -> bool:
    """Whether one was shown to be below the other, by 5% at the least.

    Too few replicates of a heavy tail make a variance look too low: such a one beats nobody. It can be
    beaten, for what is missing from its estimate makes it worse.
    """
    return one.few is None and compare(other, one, confidence).low > LEAST_MARGIN

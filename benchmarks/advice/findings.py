"""What `advise` measured, in order, and the sentences that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .candidates import LeftOut
from .rank import Ranking
from .sentence import NOTHING, advice_on, advice_over


@dataclass(frozen=True)
class Findings:
    """What was measured on a model, ranked, and what is to be said of it.

    Attributes:
        problem: its label.
        rankings: one a point and objective.
        left_out: step of the point -> what was not measured there, and why.
        batch_size: B.
        device: where it was measured.
        dtype: floating-point type.
        seconds: that measuring took.
        interrupted: whether the user stopped it before its time.
        screened_only: whether there was but a first look, so that there is no advice.
    """

    problem: str
    rankings: tuple[Ranking, ...]
    left_out: dict[int, tuple[LeftOut, ...]]
    batch_size: int
    device: str
    dtype: str
    seconds: float
    interrupted: bool = False
    screened_only: bool = False
    case: dict[str, Any] = field(default_factory=dict)

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence of advice for each ranking, and one over training where there are several points."""
        if self.screened_only:
            return (NOTHING[self.interrupted],)
        return (*(advice_on(ranking) for ranking in self.rankings), *self.over_training)

    @property
    def over_training(self) -> tuple[str, ...]:
        """What the points together say, for each objective."""
        if self.screened_only:
            return ()
        groups: dict[tuple[str, int | None], list[Ranking]] = {}
        for ranking in self.rankings:
            groups.setdefault((ranking.objective, ranking.num_samples), []).append(ranking)
        return tuple(filter(None, map(advice_over, groups.values())))

"""The first look: every estimator at every S, briefly, to choose what is measured in earnest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...estimators.text import one_line
from .budget import Budget
from .candidates import Candidate, LeftOut
from .contender import Contender, Point
from .pilot import why_too_slow
from .rank import Group, group_of

_SHARE = 0.3  # of the budget, until which every S is looked at
_LAST_CALL = 0.6  # of the budget, until which estimators are looked at for the first time
_BLOCKS = 3
_FIRST_DRAWS, _MAX_DRAWS = 8, 512
_MAX_LOOK = 1.0  # seconds of drawing


@dataclass
class Screening:
    """What the first look found.

    Attributes:
        looks: contenders drawn and timed a little, in the order looked at.
        left_out: what failed, or was not reached in time.
    """

    looks: list[Contender] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def best(self) -> list[Contender]:
        """Of each estimator in each ranking the S of the lowest mean squared error × seconds."""
        found: dict[tuple[Group, str], Contender] = {}
        for look in self.looks:
            group = group_of(look.point.step, look.group, look.num_samples)
            key = (group, look.candidate.label)
            if key not in found or look.work < found[key].work:
                found[key] = look
        return list(found.values())


def screen(point: Point, candidates: Sequence[Candidate], budget: Budget, into: Screening) -> None:
    """Look at every estimator at its smallest S, then, while time lasts, at its other S, the best ones first.

    Args:
        point: where.
        candidates: what.
        budget: of the point.
        into: filled along the way, so that what was found survives an interrupt.
    """
    count = sum(len(c.sizes) for c in candidates)
    each = min(_MAX_LOOK, _SHARE * budget.seconds / count / 2)
    seen: dict[str, Contender] = {}

    def look(candidate: Candidate, num_samples: int) -> Contender | None:
        budget.tell(f"first look {len(into.looks) + 1}/{count}: {candidate.label}, S = {num_samples}")
        try:
            reason = why_too_slow(point, candidate, num_samples, budget.seconds)
            if reason is not None:
                into.left_out.append(LeftOut(candidate.label, reason))
                return None
            earlier = seen.get(candidate.label) or next(iter(seen.values()), None)
            contender = _look(point, candidate, num_samples, earlier, each)
        except Exception as error:  # a plugin may raise anything
            what = f"failed at S = {num_samples}: {type(error).__name__}: {one_line(error)}"
            into.left_out.append(LeftOut(candidate.label, what))
            return None
        into.looks.append(contender)
        return contender

    for candidate in candidates:
        if budget.spent > _LAST_CALL * budget.seconds:
            into.left_out.append(LeftOut(candidate.label, "not reached within the budget"))
        elif (contender := look(candidate, candidate.sizes[0])) is not None:
            seen[candidate.label] = contender
    unseen: dict[int, list[str]] = defaultdict(list)
    for first in sorted(seen.values(), key=lambda c: c.work):
        for num_samples in first.candidate.sizes[1:]:
            if budget.spent > _SHARE * budget.seconds:
                unseen[num_samples].append(first.candidate.label)
            else:
                look(first.candidate, num_samples)
    for num_samples, labels in sorted(unseen.items()):
        what = labels[0] if len(labels) == 1 else f"{len(labels)} estimators"
        into.left_out.append(LeftOut(f"S = {num_samples}", f"not tried within the budget, of {what}"))


def _look(
    point: Point, candidate: Candidate, num_samples: int, earlier: Contender | None, seconds: float
) -> Contender:
    contender = Contender(point, candidate, num_samples, earlier, 2 * seconds)
    draws = _FIRST_DRAWS
    while contender.replicates < _MAX_DRAWS and contender.draw_seconds < seconds / 2:
        before = contender.replicates
        contender.draw(draws)
        if contender.replicates == before:  # deterministic
            break
        draws = contender.replicates
    contender.route.total()  # moments that overflow are told now
    for _ in range(_BLOCKS):
        contender.blocks.append(contender.time_one_block())
    return contender

"""Measuring in earnest: fresh draws and fresh timings of what the first look chose, in turns."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...estimators.text import one_line
from ..oracles.references import compared_objective
from .bias import References, compared_with, judge_bias, squared_bias
from .budget import Budget
from .candidates import Candidate, LeftOut
from .contender import Contender, Point
from .groups import Group, groups_of
from .measured import BiasVerdict, Measured, with_floor
from .rank import group_of
from .screen import Screening, screen

_ROUNDS = 40  # aimed at: of timing everyone, and drawing from those in front
_BRIEF_ROUNDS = 20  # those far behind are measured in so many
_BRIEF_DRAWS = 640  # replicates of those far behind, in all, at least
_BRIEF_DRAWING = 0.25  # of the time left, for more of them
_BEHIND = 4.0  # times the work of the best at first look: far behind
_BRIEF_SHARE = 0.5  # of the time left, for those far behind at most
_REFERENCE_SHARE = 0.2
_KEPT_BACK = 0.05  # of the budget, for what comes after the last draw
_KNOWN_WELL = 0.002  # relative standard error at which more draws are pointless
_BLOCK_SECONDS = 3e-3
_TIMING, _MOST_REPEATS = 0.4, 8  # share of a round that is spent timing, and how often each at most


@dataclass
class Outcome:
    """What was found at one point.

    Attributes:
        measured: in no order.
        left_out: what is not among it, and why.
        interrupted: whether the user stopped it before its time.
        screened_only: whether this was before anything was measured in earnest.
    """

    measured: list[Measured] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    interrupted: bool = False
    screened_only: bool = False


def measure_point(point: Point, candidates: Sequence[Candidate], budget: Budget) -> Outcome:
    """Measure every candidate at one point within a budget.

    The first look chooses: S of each estimator, who is far behind, how many replicates each gets. What is
    reported is drawn and timed afresh, so that none of these choices biases it. An interrupt ends the
    measuring; what there is by then is reported.
    """
    screening, finalists = Screening(), _Finalists()
    interrupted = False
    biases: dict[int, BiasVerdict | str] = {}
    try:
        screen(point, candidates, budget, screening)
        budget.tell("reference gradients")
        references = References(point, min(_REFERENCE_SHARE * budget.seconds, budget.left / 2))
        keys = {_reference_key(c) for c in screening.best()}
        found = {key: references.find(*key, screening.looks) for key in sorted(keys)}
        budget.tell("bias at first look")
        for one in screening.looks:
            one.compared = compared_with(one, found)
            one.squared_bias = squared_bias(one, found.get(_reference_key(one), ""))
        finalists.choose(screening, budget.left - _KEPT_BACK * budget.seconds, point.step)
        finalists.run(budget)
        budget.tell("bias")
        for one in finalists.everyone:
            biases[id(one)] = judge_bias(one, found[_reference_key(one)], len(finalists.everyone))
    except KeyboardInterrupt:
        interrupted = True
    left_out = [*screening.left_out, *finalists.left_out]
    done = [c for c in finalists.everyone if c.blocks and c.replicates > 1 and c not in finalists.failed]
    if done:
        measured = with_floor([c.measured(biases.get(id(c), "")) for c in done], [c.control for c in done])
        return Outcome(measured, left_out, interrupted)
    looked = [c.measured() for c in screening.looks]
    return Outcome(looked, left_out, interrupted, screened_only=True)


def _reference_key(contender: Contender) -> tuple[str, int]:
    """Whose gradient its mean is held against: an objective, and S where that depends on it, else 1."""
    objective = compared_objective(contender.candidate.objective)
    return objective, group_of(contender.point.step, objective, contender.num_samples)[2] or 1


class _Finalists:
    """Those that are measured in earnest."""

    def __init__(self) -> None:
        self.front: list[Contender] = []
        self.behind: list[Contender] = []
        self.left_out: list[LeftOut] = []
        self.failed: list[Contender] = []
        self._groups: list[Group] = []
        self._repeats = 1
        self._order = random.Random(0)  # apart from all draws

    @property
    def everyone(self) -> list[Contender]:
        return [*self.front, *self.behind]

    def choose(self, screening: Screening, seconds: float, step: int) -> None:
        """Split what the first look found, and leave out of those far behind what does not fit."""
        groups: dict[object, list[Contender]] = defaultdict(list)
        for one in screening.best():
            groups[group_of(step, one.group, one.num_samples)].append(one)
        for group in groups.values():
            group.sort(key=lambda c: c.work)
            noisy = [c for c in group if c.work > 0 and c.squared_bias is not None]
            limit = _BEHIND * noisy[0].work if noisy else 0.0
            few = sum(c.work == 0 for c in group) + 2
            self.front += [c for k, c in enumerate(group) if k < few or c.work <= limit]
            self.behind += [c for k, c in enumerate(group) if k >= few and c.work > limit]
        self._leave_out(seconds)
        self._plan(seconds)
        for one in self.everyone:
            one.start_afresh()

    def _leave_out(self, seconds: float) -> None:
        """Keep those far behind that fit into their share of the time, the better ones first."""
        room = _BRIEF_SHARE * seconds - sum(_BRIEF_ROUNDS * _block(c) for c in self.front)
        kept = []
        for one in sorted(self.behind, key=_brief_seconds):
            room -= _brief_seconds(one)
            if room > 0:
                kept.append(one)
            else:
                reason = "far behind at first look, no time in the budget to measure it"
                self.left_out.append(LeftOut(_name(one), reason))
        self.behind = kept

    def _plan(self, seconds: float) -> None:
        """Share out the time of a round: timing, those far behind, and the rest for those in front."""
        each_round = seconds / _ROUNDS
        blocks = sum(map(_block, self.everyone))
        self._repeats = min(_MOST_REPEATS, max(1, int(_TIMING * each_round / max(blocks, 1e-9))))
        brief = _BRIEF_DRAWING * seconds / _BRIEF_ROUNDS / max(len(self.behind), 1)
        least = _BRIEF_DRAWS // _BRIEF_ROUNDS
        self._groups = [Group([one], brief, least=least) for one in self.behind]
        share = max((1 - _BRIEF_DRAWING) * each_round - self._repeats * blocks, 0.1 * each_round)
        self._groups += groups_of(self.front, share / max(len(self.front), 1))

    def run(self, budget: Budget) -> None:
        """Take turns until the time is up; those far behind sit out once they have had theirs."""
        end = budget.seconds * (1 - _KEPT_BACK)
        rounds = 0
        while not rounds or (budget.spent < end and not self._settled(rounds)):
            budget.tell(f"comparing {len(self.everyone)}, round {rounds + 1}")
            everyone = self.everyone if rounds < _BRIEF_ROUNDS else self.front
            turn = [one for one in everyone if one not in self.failed]
            self._time(turn)
            for group in self._groups:
                self._draw(group, turn)
            rounds += 1

    def _draw(self, group: Group, turn: Sequence[Contender]) -> None:
        members = [one for one in group.members if one in turn and one not in self.failed]
        before = sum(one.draw_seconds for one in members)
        for one in members:
            with self._guarded(one):
                one.draw(group.draws, group.chunk(one))
        group.adapt(sum(one.draw_seconds for one in members) - before)

    def _time(self, turn: Sequence[Contender]) -> None:
        """A block of each in random order, several times over; the mean of each one's blocks counts once.

        What slows the machine for a while meets all alike; blocks so close together are not independent.
        """
        blocks: dict[int, list[float]] = defaultdict(list)
        for _ in range(self._repeats):
            for one in self._order.sample(turn, len(turn)):
                with self._guarded(one):
                    blocks[id(one)].append(one.time_one_block())
        for one in turn:
            if blocks[id(one)]:
                one.blocks.append(sum(blocks[id(one)]) / len(blocks[id(one)]))

    @contextmanager
    def _guarded(self, one: Contender) -> Iterator[None]:
        """What a plugin raises puts it out of the running."""
        try:
            yield
        except Exception as error:
            if one not in self.failed:
                self.failed.append(one)
                what = f"failed: {type(error).__name__}: {one_line(error)}"
                self.left_out.append(LeftOut(_name(one), what))

    def _settled(self, rounds: int) -> bool:
        if rounds < max(_ROUNDS, _BRIEF_ROUNDS):
            return False
        totals = [c.route.total() for c in self.front if c not in self.failed]
        return all(t.stderr <= _KNOWN_WELL * t.mean for t in totals)


def _name(contender: Contender) -> str:
    return f"{contender.candidate.label}, S = {contender.num_samples}"


def _block(contender: Contender) -> float:
    """Seconds that timing it once takes, about: two instances."""
    return 2 * max(_BLOCK_SECONDS, max(contender.blocks))


def _brief_seconds(contender: Contender) -> float:
    return _BRIEF_DRAWS * contender.seconds_per_replicate + _BRIEF_ROUNDS * _block(contender)

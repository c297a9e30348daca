"""How many replicates each contender draws in a round: as many as its share of the time allows."""

from __future__ import annotations

from dataclasses import dataclass

from .contender import Contender

_FIRST = 8  # replicates in the first round, where the first look tells of no more
_MOST = 2**16  # of one contender in one round


@dataclass
class Group:
    """Contenders that draw the same number of replicates, from common random numbers where there are several.

    The number doubles from round to round until the time is used: it follows the clock and nothing that was
    measured, so it biases nothing.

    Attributes:
        members: of one S and chunk; or a single one.
        seconds: a round, for each member.
        draws: replicates in the next round.
        least: replicates in any round.
    """

    members: list[Contender]
    seconds: float
    draws: int = 0
    least: int = 2

    def __post_init__(self) -> None:
        """Begin with what the first look says can be had."""
        each = sum(c.seconds_per_replicate for c in self.members) / len(self.members)
        fits = int(self.seconds / each) if each > 0 else _MOST
        # A power of two, so that chunks divide it.
        self.draws = 1 << (min(_MOST, max(fits, self.least, _FIRST)).bit_length() - 1)
        self.draws = max(self.draws, self.least)
        for one in self.members:
            one.stream = (one.num_samples, one.route.chunk) if len(self.members) > 1 else None

    def chunk(self, one: Contender) -> int | None:
        """Replicates drawn from one seed: the same for all members."""
        limit = one.route.chunk
        return None if limit is None else min(limit, self.draws)

    def adapt(self, spent: float) -> None:
        """Double the draws where the last round's took less than half of the time.

        Args:
            spent: seconds that all members drew for.
        """
        if spent < self.seconds * len(self.members) / 2 and self.draws < _MOST:
            self.draws *= 2


def groups_of(contenders: list[Contender], seconds: float) -> list[Group]:
    """Those that can share draws in one group, every other alone."""
    shared: dict[tuple[int, int], list[Contender]] = {}
    groups = []
    for one in contenders:
        chunk = one.route.chunk
        if chunk is None or one.constant:
            groups.append(Group([one], seconds))
        else:
            shared.setdefault((one.num_samples, chunk), []).append(one)
    return groups + [Group(members, seconds) for members in shared.values()]

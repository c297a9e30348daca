"""What a reproduction found: claims that hold or fail, and curves to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One published statement held against our numbers.

    Attributes:
        what: the statement.
        ours: our number, with its interval where it has one.
        expected: what the publication's law or formula gives, or the tolerance.
        holds: whether they agree.
    """

    what: str
    ours: str
    expected: str
    holds: bool


@dataclass(frozen=True)
class Curve:
    """Points with intervals (``low`` and ``high`` given), or a line of exact values."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    exact: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel of the figure."""

    title: str
    xlabel: str
    ylabel: str
    curves: list[Curve]
    log_x: bool = True
    log_y: bool = True


@dataclass(frozen=True)
class Reproduction:
    """A published result, rerun.

    Attributes:
        name: in the catalogue.
        source: the publication.
        setting: ours.
        claims: in the publication's order.
        panels: of the figure.
        remark: where our setting or number differs from the publication's, and why.
        lines: what the lines of the figure are.
    """

    name: str
    source: str
    setting: str
    claims: list[Claim]
    panels: list[Panel]
    remark: str = ""
    lines: str = "closed form"

    @property
    def holds(self) -> bool:
        """Whether every claim does."""
        return all(claim.holds for claim in self.claims)

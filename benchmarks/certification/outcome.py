"""What certifying at one place came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..rows.certificate_checks import BiasBound
from .blocks import Block


@dataclass(frozen=True)
class Outcome:
    """Verdicts on the claims at a place.

    Attributes:
        blocks: the claims, in the order of the checks.
        verdicts: of each whether it holds, None where that is not known, and why it does not.
        bias: of the gradient.
        draws: estimates drawn, or gone through.
        exact: whether all that can be drawn was gone through.
    """

    blocks: Sequence[Block]
    verdicts: dict[str, tuple[bool | None, str]]
    bias: BiasBound
    draws: int
    exact: bool = False

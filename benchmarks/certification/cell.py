"""Certifying one estimator at one place: by a proof where all that can be drawn is little, else by draws.

Where draws do not answer in the work that is allowed, a longer proof is tried.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from ...estimators.base import Estimator
from ...estimators.text import one_line
from ..rows.certificate_checks import Check
from .blocks import exact_bias
from .corners import Corner
from .levels import Settings
from .looks import Looks
from .oracle import Oracle
from .outcome import Outcome
from .proof import prove
from .shapes import plain_batch
from .subject import NotFinite, OtherDraws, Subject

#: Times the tolerance, that is aimed at where the tolerance is out of reach.
WORSE = 30
_HOPE = 1.5  # times as low as is expected, a bound may come to be
_SLOWER = 4  # times the time of an estimate, that a combination takes
_PROOF = 2  # times the evaluations of the longest look, that a proof may take which replaces it


def certify_cell(
    estimator: Callable[[], Estimator],
    oracle: Oracle,
    corner: Corner,
    label: str,
    typical_norm: float,
    settings: Settings,
    claims: bool = True,
) -> list[Check] | str:
    """The checks of one estimator at one point of a problem, in one corner, or why it refuses that.

    Args: see `Cell`.
    """
    cell = Cell(estimator, oracle, corner, label, typical_norm, settings, claims)
    cell.begin(math.inf)
    while cell.excess > settings.tolerance and cell.can(math.inf):
        cell.go_on(math.inf)
    return cell.checks() if cell.refused is None else cell.refused


class Cell:
    """One estimator at one point of a problem, in one corner.

    Of a gradient that is biased as declared the bias is measured, or exact where the mean is known, which the
    draws are then held against.

    Args:
        estimator: returns one of its own that has seen the place, see `subject.warmed`.
        oracle: the problem there, in float64.
        corner: S, B, floating-point type and mode.
        label: the problem's name, for the checks.
        typical_norm: see `blocks.bias_of`; for the data of the oracle.
        settings: of the tests.
        claims: whether the oracle's objective is the estimator's. Else nothing is claimed of it, and how far
            the gradient is from that of this objective is a check called "elbo-bias".

    Attributes:
        refused: why the estimator cannot be used there; None where it can.
    """

    def __init__(
        self,
        estimator: Callable[[], Estimator],
        oracle: Oracle,
        corner: Corner,
        label: str,
        typical_norm: float,
        settings: Settings,
        claims: bool = True,
    ) -> None:
        self._estimator, self._oracle, self._corner = estimator, oracle, corner
        self._typical = typical_norm * (corner.batch_size / len(oracle.eta)) ** 0.5
        self._settings, self._claims = settings, claims
        self._here = partial(Check, problem=label, point=oracle.point, **vars(corner))
        self.refused: str | None = None
        self._subject: Subject | None = None
        self._looks: Looks | None = None
        self._proof: Outcome | None = None
        self._last_resort = True  # whether a longer proof was not tried yet
        self._broken: Check | None = None
        self._seconds = 0.0

    def begin(self, deadline: float) -> None:
        """Prove the claims, or draw until each has a verdict.

        Args:
            deadline: `time.monotonic()` after which no further look is begun.
        """
        with self._told():
            moved = self._oracle.at(self._corner.batch_size, self._corner.dtype)
            arguments = (moved, self._corner, self._typical, self._settings, self._claims)
            subject = Subject(self._estimator(), *arguments)
            self.refused = subject.refusal()
            if self.refused is not None:
                return
            self._subject = subject
            with subject.asking():
                self._proof = prove(subject)
                if self._proof is None:
                    self._draw(deadline, lambda looks: looks.clear)
                if self._looks is not None and not (self._looks.clear or self._looks.rejected):
                    self._prove_after_all(deadline)

    def can(self, deadline: float) -> bool:
        """Whether more work is allowed, is worth it, and ends in time."""
        if self._broken is not None or self._proof is not None or self._looks is None:
            return False
        return self._worth_a_look(deadline) or self._combinations(deadline) > 0

    def _worth_a_look(self, deadline: float) -> bool:
        """Whether a look is allowed; where no goal is in reach, not the last, which is most of the work."""
        assert self._looks is not None
        worth = self._looks.promise(deadline) <= _HOPE * WORSE * self._settings.tolerance
        return self._looks.can(deadline, ahead=1 if worth else 2)

    def go_on(self, deadline: float) -> None:
        """One look more, or a proof where no look is allowed."""
        assert self._subject is not None and self._looks is not None
        with self._told(), self._subject.asking():
            if self._worth_a_look(deadline) and not self.in_want_of_proof(deadline):
                self._draw(deadline, lambda looks: True)
            else:
                self._prove_after_all(deadline)

    def goal(self, deadline: float) -> float:
        """What the excess is to be brought down to.

        The tolerance; thirty times that where it is out of reach.
        """
        tolerance = self._settings.tolerance
        if self._looks is None or self.excess <= tolerance:
            return tolerance
        return tolerance if self._looks.promise(deadline) <= _HOPE * tolerance else WORSE * tolerance

    def in_want_of_proof(self, deadline: float) -> bool:
        """Whether draws will not do, and a longer proof was not tried yet."""
        tolerance = self._settings.tolerance
        out_of_reach = self.excess > tolerance and self.goal(deadline) > tolerance
        return out_of_reach and self._combinations(deadline) > 0

    @property
    def excess(self) -> float:
        """See `Looks.excess`; zero where more work would bring nothing down."""
        if self._looks is None or self._broken is not None or self._proof is not None:
            return 0.0
        return self._looks.excess

    @property
    def bounded(self) -> bool:
        """Whether the excess is a bound that the verdict is about."""
        return self._subject is not None and self._subject.unbiased

    @property
    def failed(self) -> bool:
        """Whether a claim is known to be wrong."""
        return self._broken is not None or any(check.holds is False for check in self._found())

    def checks(self) -> list[Check]:
        """All that is known so far."""
        found = self._found()
        if self._broken is None and self._subject is not None and self._claims:
            with self._told(), self._subject.asking():
                found = found + _shape(self._subject, self._here)
        if self._broken is not None:
            found = [self._broken]
        return [replace(found[0], seconds=self._seconds), *found[1:]] if found else []

    def _draw(self, deadline: float, enough: Callable[[Looks], bool]) -> None:
        assert self._subject is not None
        try:
            self._looks = self._looks or Looks(self._subject, followed=True)
            self._looks.look_on(deadline)
            while not enough(self._looks) and self._looks.can(deadline):
                self._looks.look_on(deadline)
        except OtherDraws:
            self._looks = Looks(self._subject, followed=False)
            self._draw(deadline, lambda looks: looks.clear)

    def _combinations(self, deadline: float) -> int:
        """That a proof may go through after all draws; 0 where none is left to be tried."""
        if not self._last_resort or self._looks is None:
            return 0
        return self._looks.as_many_as(_PROOF * self._settings.max_evaluations, deadline, _SLOWER)

    def _prove_after_all(self, deadline: float) -> None:
        assert self._subject is not None
        most = self._combinations(deadline)
        self._last_resort = False
        if most > 0:
            self._proof = prove(self._subject, most)

    def _found(self) -> list[Check]:
        if self._proof is not None:
            outcome = self._proof
        elif self._looks is not None and self._looks.bias is not None:
            outcome = self._looks.outcome()
        else:
            return []
        assert self._subject is not None
        return _checks(self._subject, outcome, self._here)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What is raised inside becomes a check that fails; the time is added."""
        start = time.monotonic()
        try:
            yield
        except NotFinite as error:
            self._broken = self._here(name=error.name, holds=False, reason=str(error))
        except Exception as error:  # a plugin may raise anything
            reason = f"raises {type(error).__name__}: {one_line(error)}"
            self._broken = self._here(name="gradient", holds=False, reason=reason)
        self._seconds += time.monotonic() - start


def _checks(subject: Subject, outcome: Outcome, here: Callable[..., Check]) -> list[Check]:
    known = subject.mean is not None
    bias = exact_bias(subject.oracle, subject.mean, subject.typical_norm) if known else outcome.bias  # type: ignore[arg-type]
    found = []
    for block in outcome.blocks:
        holds, reason = outcome.verdicts[block.name]
        own = bias if block.name == "gradient" else None
        found.append(
            here(
                name=block.name,
                holds=holds,
                reason=reason,
                draws=outcome.draws,
                bias=own,
                exact=outcome.exact,
            )
        )
    if not subject.unbiased:
        name = "bias" if subject.claims else "elbo-bias"
        found.append(here(name=name, holds=True, draws=outcome.draws, bias=bias, exact=outcome.exact))
    return found


def _shape(subject: Subject, here: Callable[..., Check]) -> list[Check]:
    """Whether a batch (B,) gives what one replicate of it does; nothing where it draws otherwise."""
    reason = plain_batch(subject)
    return [] if reason is None else [here(name="shape", holds=not reason, reason=reason)]

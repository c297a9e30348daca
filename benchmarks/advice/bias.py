"""Bias of what is about to be ranked: against an exact gradient, or a long gated run where there is time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...estimators.kl_weight import split_objective
from ..oracles.bias import AnyReference, Bias, measure_bias
from ..oracles.clock import Clock
from ..oracles.references import (
    LONG_RUN,
    LONG_RUNS,
    Reference,
    compared_objective,
    exact_reference,
    long_run,
    only_through_eta,
    whole_of,
    whole_reference,
)
from ..problems.as_trained import eta_of
from ..variance.route import by_datum
from .contender import Contender, Point
from .measured import BiasVerdict

_FALSE_ALARMS = 1e-3  # over all estimators of an advice
_SHORTEST = LONG_RUN // 16  # of a long run's halves that is worth its time
_EXACT = 1.0  # second that an exact gradient may take, however small the budget
_NO_TIME = "no time in the budget for a reference"


@dataclass
class References:
    """References at one point, found once an objective.

    Args:
        point: where.
        seconds: that they may take.
    """

    point: Point
    seconds: float

    def find(self, objective: str, num_samples: int, screened: list[Contender]) -> AnyReference | str:
        """The reference for an objective at S, or why there is none in time.

        Args:
            objective: "elbo", "iwae", ...
            num_samples: S, which the IWAE's bound depends on.
            screened: which tell how long a long run takes.
        """
        clock = Clock(max(self.seconds / 2, _EXACT), option="a larger budget")
        point = self.point
        if not self._by_eta():
            return whole_reference(point.problem, point.x, point.seed, objective, num_samples, clock=clock)
        exact = exact_reference(self.point.problem, self.point.x, objective, num_samples, clock)
        self.seconds -= clock.spent
        runs = {"elbo": LONG_RUNS, "iwae": (("dreg", num_samples), ("vimco", num_samples))}.get(
            split_objective(objective)[0], ()
        )
        if isinstance(exact, Reference) or not runs:
            return exact
        length = self._affordable(runs, screened)
        if length < _SHORTEST:
            return f"{exact}; {_NO_TIME}"
        clock = Clock(2 * max(self.seconds, _EXACT), option="a larger budget")
        found = long_run(self.point.problem, self.point.x, self.point.seed, runs, length=length, clock=clock)
        self.seconds -= clock.spent
        return found if isinstance(found, Reference) else f"{exact}; {found}"

    def _by_eta(self) -> bool:
        """Whether gradients in η-space are all there is, and few enough to be kept."""
        problem, x = self.point.problem, self.point.x
        try:
            return only_through_eta(problem, x) and by_datum(problem, eta_of(problem, x))
        except Exception:  # a user's problem may raise anything
            return True

    def _affordable(self, runs: Sequence[tuple[str, int]], screened: list[Contender]) -> int:
        """How long each half of the first of the runs that was looked at may be; draws from it some more."""
        for name, samples in runs:
            looks = [c for c in screened if c.candidate.label == name]
            if not looks:
                continue
            one = min(looks, key=lambda c: abs(c.num_samples - samples))
            pilot = min(LONG_RUN // 16, one.route.chunk or 1)
            if pilot * one.seconds_per_replicate < self.seconds / 8:
                one.draw(pilot)  # the rate of few at a time says little
            # Drawing costs no more than in proportion to S.
            each = one.seconds_per_replicate * max(1, samples / one.num_samples)
            return min(LONG_RUN, int(self.seconds / (2 * max(each, 1e-9))))
        return 0


def compared_with(contender: Contender, references: dict[tuple[str, int], AnyReference | str]) -> str:
    """The objective that a contender of relaxed latents is ranked under: the ELBO if that is known."""
    other = compared_objective(contender.candidate.objective)
    known = other != contender.candidate.objective and isinstance(references.get((other, 1)), AnyReference)
    return other if known else ""


def judge_bias(contender: Contender, reference: AnyReference | str, estimators: int) -> BiasVerdict | str:
    """Hold an estimator's mean against a reference; or why that cannot be done, in one line.

    Args:
        contender: drawn.
        reference: of the objective that it is ranked under, or why there is none.
        estimators: that are judged, all together with 0.1% of false alarms.
    """
    if isinstance(reference, str):
        return reference
    result = contender.result()
    point = contender.point
    held: AnyReference | str = reference
    if result.eta_mean is None and isinstance(reference, Reference):
        held = whole_of(point.problem, point.x, reference)
    bias = measure_bias(point.problem, point.x, result, held)
    if not isinstance(bias, Bias):
        return bias
    shown = bias.p_value < _FALSE_ALARMS / max(estimators, 1) and not result.warning
    return BiasVerdict(bias.relative, bias.bound, shown, bias.reference, bias.squared)


def squared_bias(contender: Contender, reference: AnyReference | str) -> float | None:
    """At first look, of what is biased by its own word; None where it is not known."""
    if contender.estimator.unbiased and not contender.compared:
        return 0.0
    verdict = judge_bias(contender, reference, 1)
    return None if isinstance(verdict, str) else verdict.squared.value

"""Bias of what is about to be ranked: against an exact gradient, or a long gated run where there is time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..oracles.bias import Bias, measure_bias
from ..oracles.references import LONG_RUN, LONG_RUNS, Reference, exact_reference, long_run
from .contender import Contender, Point
from .measured import BiasVerdict

_FALSE_ALARMS = 1e-3  # over all estimators of an advice


@dataclass
class References:
    """References at one point, found once an objective.

    Args:
        point: where.
        seconds: that long runs may take.
    """

    point: Point
    seconds: float

    def find(self, objective: str, num_samples: int, screened: list[Contender]) -> Reference | str:
        """The reference for an objective at S, or why there is none in time.

        Args:
            objective: "elbo", "iwae", ...
            num_samples: S, which the IWAE's bound depends on.
            screened: which tell how long a long run takes.
        """
        exact = exact_reference(self.point.problem, self.point.x, objective, num_samples)
        runs = {"elbo": LONG_RUNS, "iwae": (("dreg", num_samples), ("vimco", num_samples))}.get(objective, ())
        if isinstance(exact, Reference) or not self._is_affordable(runs, screened):
            return exact
        return long_run(self.point.problem, self.point.x, self.point.seed, runs)

    def _is_affordable(self, runs: Sequence[tuple[str, int]], screened: list[Contender]) -> bool:
        """Whether there is time for the first of the runs that was looked at; draws from it some more."""
        for name, samples in runs:
            looks = [c for c in screened if c.candidate.label == name]
            if not looks:
                continue
            one = min(looks, key=lambda c: abs(c.num_samples - samples))
            pilot = min(LONG_RUN // 16, one.route.chunk or 1)
            if pilot * one.seconds_per_replicate < self.seconds / 8:
                one.draw(pilot)  # the rate of few at a time says little
            # Drawing costs no more than in proportion to S.
            needed = 2 * LONG_RUN * one.seconds_per_replicate * max(1, samples / one.num_samples)
            affordable = needed <= self.seconds
            self.seconds -= needed if affordable else 0.0
            return affordable
        return False


def judge_bias(contender: Contender, reference: Reference | str, estimators: int) -> BiasVerdict | None:
    """Hold an estimator's mean against a reference; None without one, on the full route, or where that fails.

    Args:
        contender: drawn.
        reference: of its objective, or why there is none.
        estimators: that are judged, all together with 0.1% of false alarms.
    """
    if isinstance(reference, str):
        return None
    result = contender.result()
    bias = measure_bias(contender.point.problem, contender.point.x, result, reference)
    if not isinstance(bias, Bias):
        return None
    shown = bias.p_value < _FALSE_ALARMS / max(estimators, 1) and not result.warning
    return BiasVerdict(bias.relative, bias.bound, shown, bias.reference)

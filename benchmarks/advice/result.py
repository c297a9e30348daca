"""What `advise` found: rankings, sentences, rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..rows.schema import row
from .candidates import LeftOut
from .measured import Measured
from .page import NOTHING, page
from .rank import Ranking
from .sentence import advice_on, advice_over

RELATIVE = "work_normalized_variance_ratio"


@dataclass(frozen=True)
class Advice:
    """Which estimators to use on a model; ``print`` shows it all.

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

    def __str__(self) -> str:
        """Rankings with intervals and biases, what was left out, and the advice, 80 columns wide."""
        return page(self)

    def rows(self) -> list[dict[str, Any]]:
        """Long rows, as the variance benchmark has them, with the ratio to each ranking's first."""
        rows = []
        for ranking in self.rankings:
            for entry in ranking.entries:
                rows += self._rows_of(entry.measured)
                first = ranking.tied[0].measured if ranking.tied else None
                if entry.to_first is not None and first is not None:
                    value, low, high = entry.to_first
                    common = {**self._common(entry.measured), "parameters": _json(ranking)}
                    interval = {"ci_low": low, "ci_high": high}
                    other = f"{first.estimator}, S={first.num_samples}"
                    rows.append(row(**common, metric=RELATIVE, value=value, parameter=other, **interval))
            for one in ranking.noiseless:
                rows += self._rows_of(one)
        return rows

    def _common(self, measured: Measured) -> dict[str, Any]:
        return {
            "benchmark": "variance",
            "problem": self.problem,
            "estimator": measured.estimator,
            "num_samples": measured.num_samples,
            "batch_size": self.batch_size,
            "step": measured.step,
            "device": self.device,
            "dtype": self.dtype,
            "n": measured.total.n,
            **self.case,
        }

    def _rows_of(self, measured: Measured) -> list[dict[str, Any]]:
        common, total = self._common(measured), measured.total
        low, high = total.interval()
        few = "" if measured.few is None else f"not enough replicates (at least {measured.few})"
        other = "" if measured.objective == "elbo" else f"of the objective {measured.objective}"
        seconds, work = measured.cost(), measured.work()
        rows = [
            row(**common, metric="variance", value=total.mean, stderr=total.stderr, ci_low=low, ci_high=high)
            | {"reason": "; ".join(filter(None, [other, few]))},
            row(**common, metric="evaluations", value=float(measured.evaluations)),
            row(**common, metric="seconds", value=seconds.value, ci_low=seconds.low, ci_high=seconds.high)
            | {"n": len(measured.seconds), "unit": "s"},
            row(**common, metric="work_normalized_variance", value=work.value, ci_low=work.low)
            | {"ci_high": work.high, "unit": "s", "reason": few},
        ]
        if measured.bias is not None:
            against = json.dumps({"reference": measured.bias.reference})
            rows += [
                row(**common, metric=metric, value=value, parameters=against)
                for metric, value in (("bias", measured.bias.relative), ("bias_bound", measured.bias.bound))
            ]
        return rows


def _json(ranking: Ranking) -> str:
    return json.dumps({"comparisons": ranking.comparisons, "confidence": ranking.confidence})

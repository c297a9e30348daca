"""What `advise` found: rankings, sentences, rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..rows.schema import row
from ..statistics.intervals import product_interval
from .findings import Findings
from .measured import Interval, Measured, pays_until
from .page import page
from .rank import Ranking

RELATIVE = {False: "work_normalized_variance_ratio", True: "work_normalized_error_ratio"}  # of biased ones


@dataclass(frozen=True)
class Advice(Findings):
    """Which estimators to use on a model; ``print`` shows it all."""

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
                    metric = RELATIVE[entry.measured.biased]
                    rows.append(row(**common, metric=metric, value=value, parameter=other, **interval))
                    if entry.measured.biased:
                        value, low, high = pays_until(entry.measured, first)
                        interval = {"ci_low": low, "ci_high": high}
                        rows.append(
                            row(**common, metric="pays_until", value=value, parameter=other, **interval)
                        )
            for one in (*(entry.measured for entry in ranking.unknown), *ranking.noiseless):
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
        seconds = measured.cost()
        work = Interval(*product_interval(measured.variance(), seconds))
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
            if measured.biased:
                parts = {
                    "squared_bias": measured.squared_bias(),
                    "mean_squared_error": measured.error(),
                    "work_normalized_error": measured.work(),
                }
                rows += [
                    row(**common, metric=metric, value=value, ci_low=low, ci_high=high, parameters=against)
                    for metric, (value, low, high) in parts.items()
                ]
        return rows


def _json(ranking: Ranking) -> str:
    return json.dumps({"comparisons": ranking.comparisons, "confidence": ranking.confidence})

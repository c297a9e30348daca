"""What a certification found: checks, bounds, and the verdict that they add up to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .certificate_checks import BiasBound, Check
from .schema import row

#: Probability that a whole run over correct estimators raises any alarm, at most.
ALARM_RATE = 1e-3


@dataclass(frozen=True)
class Certificate:
    """The verdict on one estimator's claims.

    Attributes:
        estimator: its label.
        objective: what it differentiates.
        unbiased: whether it claims to be.
        checks: all that applied, those without a verdict included.
        confidence: of the bias bound.
        tolerance: what the bound had to reach.
        alarm_rate: probability that any check of the whole run fails for a correct estimator.
        skipped: problems, or points of problems, that were not tested, with the reason.
    """

    estimator: str
    objective: str
    unbiased: bool
    checks: tuple[Check, ...]
    confidence: float
    tolerance: float
    alarm_rate: float
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Every claim holds; False: one does not; None: not shown."""
        if self.failures:
            return False
        shown = self.ran == len(self.counted) and (not self.unbiased or self._bound_reached)
        return True if shown and self.counted else None

    @property
    def bias_bound(self) -> float | None:
        """Upper bound of the relative bias of the gradient at the worst of all points; None: not measured."""
        return None if self.bias is None else self.bias.high

    @property
    def bias(self) -> BiasBound | None:
        """The largest relative bias measured, with its interval; None: not measured."""
        return max(self.biases("gradient", "bias"), key=lambda b: b.high, default=None)

    def biases(self, *names: str) -> list[BiasBound]:
        """Of the checks of these names, one a point and S."""
        return [c.bias for c in self.checks if c.bias and c.name in names]

    @property
    def counted(self) -> tuple[Check, ...]:
        """The checks of what the estimator claims.

        A closed form of the variance is the suite's own knowledge: where the estimates are too skewed to
        test it, it is left out like a point without exact answers.
        """
        return tuple(c for c in self.checks if c.holds is not None or c.name != "variance")

    @property
    def left_out(self) -> dict[str, str]:
        """What was not tested, with the reason: problems, points, and variances too skewed to test."""
        skewed = {str(c): c.reason for c in self.checks if c.holds is None and c.name == "variance"}
        return {**self.skipped, **skewed}

    @property
    def ran(self) -> int:
        """Checks that reached a verdict."""
        return sum(check.holds is not None for check in self.checks)

    @property
    def failures(self) -> list[str]:
        """What did not hold, a line each."""
        return [f"{check}: {check.reason}" for check in self.checks if check.holds is False]

    @property
    def open_questions(self) -> list[str]:
        """What was not shown, a line each."""
        lines = [f"{check}: {check.reason}" for check in self.counted if check.holds is None]
        if self.unbiased and self.bias is None:
            reasons = "; ".join(f"{where}: {why}" for where, why in list(self.skipped.items())[:2])
            lines.append(f"no exact gradient to hold it against ({reasons or 'no problem was tried'})")
        return lines

    @property
    def draws(self) -> int:
        """Estimates drawn on oracle problems."""
        return sum(check.draws for check in self.checks if check.name in ("gradient", "bias"))

    @property
    def verdict(self) -> str:
        """In one line: holds, fails or not shown; the bias bound; how many checks ran."""
        word = {True: "holds", False: "fails", None: "not shown"}[self.holds]
        return f"{word}: {self.bias_text}{self.ran} of {len(self.counted)} checks ran"

    @property
    def bias_text(self) -> str:
        """What is known of the bias, ending in a comma."""
        beside = self.biases("elbo-bias")
        relaxed = f"{span(beside)} off the gradient of the ELBO, " if beside else ""
        worst = self.bias
        if worst is None:
            return relaxed
        at = f"at {100 * self.confidence:g}% confidence"
        if self.unbiased:
            return f"relative bias ≤ {percent(worst.high)} {at}, {relaxed}"
        ends = "exact" if worst.exact else f"at worst {percent(worst.low)} to {percent(worst.high)} {at}"
        return f"relative bias {span(self.biases('bias'))} (declared; {ends}), {relaxed}"

    def rows(self) -> list[dict[str, Any]]:
        """All checks and bounds as long rows, what was skipped, and what is claimed."""
        common = {"benchmark": "certify", "estimator": self.estimator}
        rows = [r for check in self.checks for r in check.rows(**common, problem=check.problem)]
        for where, reason in self.skipped.items():
            rows.append(row(**common, metric="check", parameter=where, status="skipped", reason=reason))
        claims = json.dumps({"objective": self.objective})
        rows.append(row(**common, metric="unbiased", value=float(self.unbiased), parameters=claims))
        return rows

    def __str__(self) -> str:
        return f"{self.estimator}: {self.verdict}"

    @property
    def _bound_reached(self) -> bool:
        bound = self.bias_bound
        return bound is not None and bound <= self.tolerance


def span(biases: Sequence[BiasBound]) -> str:
    """From the least to the largest of the estimates, over the points where they were found.

    >>> span([BiasBound(0.12, 0.11, 0.13, 1.0), BiasBound(0.031, 0.02, 0.04, 1.0)])
    '3.1% … 12%'
    """
    ends = [percent(pick(b.estimate for b in biases)) for pick in (min, max)]
    return " … ".join(dict.fromkeys(ends))


def percent(share: float) -> str:
    """A share in percent, with two significant digits.

    >>> percent(0.00314), percent(0.5), percent(2e-9), percent(0.998)
    ('0.31%', '50%', '2e-07%', '100%')
    """
    value = 100 * share
    return f"{value:.2g}%" if value < 99 else f"{value:.0f}%"


def merge(certificates: Sequence[Certificate]) -> Certificate:
    """One certificate of several of the same estimator: on other problems, or of other checks."""
    first = certificates[0]
    return Certificate(
        first.estimator,
        first.objective,
        first.unbiased,
        tuple(check for c in certificates for check in c.checks),
        first.confidence,
        first.tolerance,
        first.alarm_rate,
        {name: reason for c in certificates for name, reason in c.skipped.items()},
    )


def outcome(rows: Sequence[Mapping[str, Any]]) -> str:
    """A few words on the rows of one case in which nothing failed."""
    checks = [r for r in rows if r["metric"] == "check" and r["status"] != "skipped"]
    if not checks:
        return f"skipped: {next(r['reason'] for r in rows if r['status'] == 'skipped')}"
    ran = sum(r["value"] is not None for r in checks)
    found: dict[str, list[BiasBound]] = {}
    for r in (r for r in rows if r["metric"] == "relative_bias"):
        bound = BiasBound(r["value"], r["ci_low"], r["ci_high"], math.nan)
        found.setdefault(r["parameter"], []).append(bound)
    said = [f"{ran} of {len(checks)} checks hold"]
    if "gradient" in found:
        said.append(f"relative bias ≤ {percent(max(b.high for b in found['gradient']))}")
    if "bias" in found:
        said.append(f"relative bias {span(found['bias'])} (declared)")
    if "elbo-bias" in found:
        said.append(f"{span(found['elbo-bias'])} off the gradient of the ELBO")
    return ", ".join(said)

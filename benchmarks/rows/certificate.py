"""What a certification found: checks, bounds, and the verdict that they add up to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .certificate_badge import Badge, badge_of
from .certificate_checks import BiasBound, Check, finite
from .certificate_text import at_least, at_most, percent, span, with_interval
from .certificate_untried import enumerated, never_tried
from .durations import duration
from .schema import row

#: Probability that a whole run over correct estimators raises any alarm, at most.
ALARM_RATE = 1e-3
_OF_CLAIMS = ("gradient", "bias")  # checks of the gradient in η that is claimed, or declared to be biased


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
        skipped: problems, or places of problems (see `place_of`), that were not tested, with the reason.
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
    def word(self) -> str:
        """The verdict in a word or two."""
        return {True: "holds", False: "fails", None: "not shown"}[self.holds]

    @property
    def bias_bound(self) -> float | None:
        """Upper bound of the relative bias of the gradient at the worst of all points; None: not measured."""
        return max(map(_end, self.biases(*_OF_CLAIMS)), default=None)

    @property
    def bias(self) -> BiasBound | None:
        """The relative bias at the worst place, with its interval; None: not measured."""
        return None if self.worst is None else self.worst.bias

    @property
    def worst(self) -> Check | None:
        """The check whose bias may be largest: its problem, point, S, B, type and mode.

        Of a gradient that fails it is the one whose bias is the largest for sure.
        """
        biased = [c for c in self.checks if c.bias is not None and c.name in _OF_CLAIMS]
        wrong = [c for c in biased if c.holds is False and c.bias and c.bias.low > 0]
        if wrong:
            return max(wrong, key=lambda c: c.bias.low if c.bias else 0.0)
        return max(biased, key=lambda c: _end(c.bias) if c.bias else 0.0, default=None)

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
    def never_tried(self) -> dict[str, str]:
        """Kinds of latents, sizes, types and modes of which no check ran -> why: refused, or left out."""
        return never_tried(self.checks, self.skipped)

    @property
    def ran(self) -> int:
        """Checks that reached a verdict."""
        return sum(check.holds is not None for check in self.checks)

    @property
    def proofs(self) -> int:
        """Checks that hold by going through all that can be drawn."""
        return sum(c.exact and c.holds is True and c.name != "elbo-bias" for c in self.checks)

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
        return sum(check.draws for check in self.checks if check.name in _OF_CLAIMS)

    @property
    def seconds(self) -> float:
        """That all checks took, one after another; 0 where that is not known."""
        return sum(check.seconds for check in self.checks)

    @property
    def verdict(self) -> str:
        """In one line: holds, fails or not shown; the bias and where it is worst; how many checks ran."""
        return f"{self.word}: {self.bias_text}{self.count_text}"

    @property
    def count_text(self) -> str:
        """How many checks ran, were proofs and failed."""
        parts = [f"{self.ran} of {len(self.counted)} checks ran"]
        parts += [f"{self.proofs} of them {'a proof' if self.proofs == 1 else 'proofs'}"] * (self.proofs > 0)
        return ", ".join([*parts, *([f"{len(self.failures)} failed"] if self.failures else [])])

    @property
    def bias_text(self) -> str:
        """What is known of the bias, ending in a comma."""
        beside = self.biases("elbo-bias")
        relaxed = f"{span(beside)} off the gradient of the ELBO, " if beside else ""
        worst = self.worst
        if worst is None or worst.bias is None:
            return relaxed
        if self.unbiased:
            return f"{self._of_claim(worst.bias, worst.place)}, {relaxed}"
        bias, at = worst.bias, self._at
        ends = "exact" if bias.exact else f"at worst {percent(bias.low)} to {percent(bias.high)} {at}"
        return f"relative bias {span(self.biases('bias'))} (declared; {ends}), {relaxed}"

    @property
    def bias_in_short(self) -> str:
        """The bound; where that is wrong or declared, how large the bias is; "": not measured."""
        bias = self.bias
        if bias is None:
            return ""
        if not self.unbiased:
            return span(self.biases("bias"))
        wrong = self.worst is not None and self.worst.holds is False and bias.low > 0
        return f"≥ {at_least(bias.low)}" if wrong else f"≤ {at_most(_end(bias))}"

    @property
    def badge(self) -> Badge:
        """The verdict for a README, with ``svg()`` and ``endpoint()``."""
        return badge_of(self.holds, self.unbiased, self.bias_in_short)

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values under stable keys; docs/certification.md says what they mean."""
        bias, worst = self.bias, self.worst
        return {
            "estimator": self.estimator,
            "objective": self.objective,
            "claims_unbiased": self.unbiased,
            "verdict": self.word,
            "bias_bound": None if self.bias_bound is None else finite(self.bias_bound),
            "bias_estimate": None if bias is None else finite(bias.estimate),
            "bias_low": None if bias is None else finite(bias.low),
            "bias_high": None if bias is None else finite(bias.high),
            "bias_is_exact": None if bias is None else bias.exact,
            "confidence": self.confidence,
            "tolerance": self.tolerance,
            "alarm_rate": self.alarm_rate,
            "worst": None if worst is None else _corner(worst),
            "checks": {
                "counted": len(self.counted),
                "ran": self.ran,
                "failed": len(self.failures),
                "exact": self.proofs,
            },
            "failures": self.failures,
            "open_questions": self.open_questions,
            "problems": list(dict.fromkeys(c.problem for c in self.checks if c.problem)),
            "never_tried": self.never_tried,
            "seconds": round(self.seconds, 3) or None,
        }

    def rows(self) -> list[dict[str, Any]]:
        """All checks and bounds as long rows, what was skipped, and what is claimed."""
        common = {"benchmark": "certify", "estimator": self.estimator}
        rows = [r for check in self.checks for r in check.rows(**common, problem=check.problem)]
        for where, reason in self.skipped.items():
            rows.append(row(**common, metric="check", parameter=where, status="skipped", reason=reason))
        claims = {"objective": self.objective, "confidence": self.confidence, "tolerance": self.tolerance}
        claimed = {"value": float(self.unbiased), "parameters": json.dumps(claims)}
        rows.append(row(**common, metric="unbiased", **claimed))
        return rows

    def __str__(self) -> str:
        took = f", in {duration(self.seconds)}" if self.seconds > 0 else ""
        gaps = enumerated(self.never_tried)
        return f"{self.estimator}: {self.verdict}{took}" + (f"; never tried: {gaps}" if gaps else "")

    def _of_claim(self, bias: BiasBound, place: str) -> str:
        """The bound of what is claimed to be zero; where that is wrong, what it is."""
        wrong = self.bias_in_short.startswith("≥")
        if bias.exact:
            said = percent(bias.estimate) if wrong else f"≤ {at_most(bias.high)}"
            return f"relative bias {said} (exact, on {place})"
        if wrong:
            return f"relative bias {with_interval(bias)} {self._at} (on {place})"
        estimate = f"estimate {with_interval(bias)} on {place}"
        return f"relative bias ≤ {at_most(bias.high)} {self._at} ({estimate})"

    @property
    def _at(self) -> str:
        return f"at {100 * self.confidence:g}% confidence"

    @property
    def _bound_reached(self) -> bool:
        bound = self.bias_bound
        return bound is not None and bound <= self.tolerance


def _end(bias: BiasBound) -> float:
    """The upper end of its interval."""
    return math.inf if math.isnan(bias.high) else bias.high


def _corner(check: Check) -> dict[str, Any]:
    """Where a check was made, as JSON-ready values."""
    names = ("problem", "point", "num_samples", "batch_size", "dtype", "mode")
    return {name: getattr(check, name) for name in names}


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
    claimed = [r for r in checks if r["parameter"] != "elbo-bias"]
    proofs = sum(json.loads(r["parameters"]).get("exact", False) for r in claimed)
    said = [f"{ran} of {len(checks)} checks hold" + (f" ({proofs} by proof)" if proofs else "")]
    if "gradient" in found:
        said.append(f"relative bias ≤ {at_most(max(b.high for b in found['gradient']))}")
    if "bias" in found:
        said.append(f"relative bias {span(found['bias'])} (declared)")
    if "elbo-bias" in found:
        said.append(f"{span(found['elbo-bias'])} off the gradient of the ELBO")
    return ", ".join(said)

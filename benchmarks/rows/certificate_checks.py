"""One check of one claim: what held or did not, where, and how far the bias can be."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from .schema import row

#: How an estimate is asked for -> in words. Frozen: θ requires no gradient, as where variances are measured.
MODES = {
    "eval": "eval mode",
    "train": "train mode",
    "eval-frozen": "eval mode, θ frozen",
    "train-frozen": "train mode, θ frozen",
}


@dataclass(frozen=True)
class BiasBound:
    """How far the mean gradient can be from the exact one, relative to the exact one's norm.

    Attributes:
        estimate: ‖bias‖, debiased: 0 where noise explains all that was measured.
        low: lower end of its interval.
        high: upper end: the bound.
        absolute: the bound, not divided.

    Where the mean is known exactly, both ends are the estimate.
    """

    estimate: float
    low: float
    high: float
    absolute: float

    @property
    def exact(self) -> bool:
        """Whether nothing of it was measured."""
        return self.low == self.estimate == self.high


def finite(value: float) -> float | None:
    """The value where JSON has it: neither infinity nor NaN."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Check:
    """One check of one claim.

    Attributes:
        name: "gradient", "value", "theta", "variance"; of a biased gradient "bias" and, where its mean is
            known, "mean"; "elbo-bias" of what relaxes the ELBO; or of the conformance suite, e.g.
            "finite[gaussian]".
        holds: None where no verdict was reached.
        reason: what is wrong, or why there is no verdict.
        problem: label of the oracle problem; "" for the conformance suite.
        point: where in η-space.
        num_samples: S; None for the conformance suite.
        draws: estimates drawn.
        bias: of the gradient, with its bound.
        batch_size: B; None for the conformance suite.
        dtype: floating-point type of the estimates; the exact answers are in float64 throughout.
        mode: of the estimator and of θ, one of `MODES`.
        exact: all that can be drawn was gone through: a proof and no test.
        seconds: that it took; of the checks of one place the first has the time of all.
    """

    name: str
    holds: bool | None
    reason: str = ""
    problem: str = ""
    point: str = ""
    num_samples: int | None = None
    draws: int = 0
    bias: BiasBound | None = None
    batch_size: int | None = None
    dtype: str = "float64"
    mode: str = "eval"
    exact: bool = False
    seconds: float = field(default=0.0, compare=False)

    @property
    def corner(self) -> str:
        """S, B, the floating-point type and the mode; those that are usual are left out.

        >>> Check("gradient", True, num_samples=5, batch_size=9, dtype="float32", mode="train-frozen").corner
        'S = 5, B = 9, float32, train mode, θ frozen'
        """
        parts = [] if self.num_samples is None else [f"S = {self.num_samples}"]
        if self.batch_size is not None:
            parts.append(f"B = {self.batch_size}")
        if self.dtype != "float64":
            parts.append(self.dtype)
        return ", ".join([*parts, *([MODES[self.mode]] if self.mode != "eval" else [])])

    @property
    def place(self) -> str:
        """Problem, point and corner."""
        at = f" at {self.point}" if self.point else ""
        return f"{self.problem}{at}" + (f", {self.corner}" if self.corner else "")

    def __str__(self) -> str:
        return f"{self.name} on {self.place}" if self.problem else self.name

    def rows(self, **case: Any) -> list[dict[str, Any]]:
        """Long rows: the check (1 holds, 0 fails, no value: not shown), and the bias at each point."""
        common = {**case, "n": self.draws or None}
        if self.num_samples is not None:
            common |= {"num_samples": self.num_samples, "batch_size": self.batch_size}
        value = None if self.holds is None else float(self.holds)
        status = "failed" if self.holds is False else "done"
        where = {"point": self.point, "mode": self.mode, "exact": self.exact, "seconds": self.seconds}
        common |= {"parameter": self.name, "parameters": json.dumps(where), "dtype": self.dtype}
        rows = [row(**common, metric="check", value=value, status=status, reason=self.reason)]
        if self.bias is not None:
            ends = {"ci_low": self.bias.low, "ci_high": self.bias.high}
            common["parameters"] = json.dumps({**where, "absolute": finite(self.bias.absolute)})
            rows.append(row(**common, metric="relative_bias", value=self.bias.estimate, **ends))
        return rows

"""Certificates made by hand, for tests of what is said and shown of them."""

from __future__ import annotations

from typing import Any

import pandas as pd
from elbograd.benchmarks.rows.certificate import ALARM_RATE, Certificate
from elbograd.benchmarks.rows.certificate_checks import BiasBound, Check

QUADRATIC, BITS = "quadratic[loc=0.7,scale=0.6,k=1.5]", "small-vae[posterior=bernoulli]"


def bound(high: float, estimate: float = 0.0, low: float = 0.0) -> BiasBound:
    return BiasBound(estimate, low, high, 3 * high)


def check(name: str = "gradient", holds: bool | None = True, **given: Any) -> Check:
    """A check at a usual place, and what is given of it."""
    usual = {"problem": QUADRATIC, "point": "initial", "num_samples": 1, "batch_size": 3, "draws": 4096}
    return Check(name, holds, **{**usual, **given})


def certificate(
    *checks: Check, estimator: str = "mine", unbiased: bool = True, skipped: dict[str, str] | None = None
) -> Certificate:
    return Certificate(estimator, "elbo", unbiased, checks, 0.99, 0.003, ALARM_RATE, skipped or {})


def rows_of(*certificates: Certificate) -> pd.DataFrame:
    return pd.DataFrame([{**r, "case": c.estimator} for c in certificates for r in c.rows()])


def right(estimator: str = "mine") -> Certificate:
    """Holds, with a proof, at several corners."""
    return certificate(
        Check("finite[gaussian]", True, seconds=0.5),
        check(bias=bound(0.0012), seconds=4.0),
        check("value"),
        check(point="scales", num_samples=5, batch_size=9, bias=bound(0.00281, 0.0005), seconds=9.0),
        check(point="middle", dtype="float32", mode="train", bias=bound(0.0021), seconds=2.0),
        check(problem=BITS, exact=True, bias=bound(0.0), seconds=0.1, draws=0),
        estimator=estimator,
        skipped={
            "small-vae[posterior=flow]": "no closed-form KL of a flow: use kl=sampled",
            "gamma-poisson": "needs a Gaussian posterior, not a Gamma",
            "small-vae[posterior=beta]": "needs a Gaussian posterior, not a Beta",
        },
    )


def wrong(estimator: str = "wrong") -> Certificate:
    """One check of five failed."""
    off = "gradient of datum 0, coordinate 1, is 0.3 ± 0.01, exactly 0.4 (20480 draws)"
    return certificate(
        *(check(point=point, bias=bound(0.001), seconds=3.0) for point in ("initial", "middle")),
        check("value"),
        check("value", point="middle"),
        check(holds=False, reason=off, point="scales", bias=bound(0.13, 0.12, 0.11), seconds=1.0),
        estimator=estimator,
    )


def open_(estimator: str = "slow") -> Certificate:
    """The bound was not reached."""
    return certificate(check(bias=bound(0.02, 0.001), seconds=300.0), estimator=estimator)


def declared(estimator: str = "straight-through") -> Certificate:
    """Biased as it says."""
    biases = bound(0.04, 0.031, 0.02), bound(0.12, 0.12, 0.12)
    points = ("initial", "middle")
    return certificate(
        *(
            check("bias", problem=BITS, point=p, bias=b, seconds=2.0)
            for p, b in zip(points, biases, strict=True)
        ),
        estimator=estimator,
        unbiased=False,
    )

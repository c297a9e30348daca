"""Certificates, read back from the rows that they were stored as."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from .certificate import ALARM_RATE, Certificate
from .certificate_checks import BiasBound, Check
from .wide import normalized


def certificates(rows: pd.DataFrame) -> list[Certificate]:
    """One certificate for each estimator that was certified, in the order of the rows."""
    frame = normalized(rows)
    frame = frame[frame["benchmark"] == "certify"]
    return [
        _certificate(str(name), part.to_dict("records"))
        for name, part in frame.groupby("estimator", sort=False)
    ]


def _certificate(name: str, rows: list[dict[str, Any]]) -> Certificate:
    settings = [json.loads(r["parameters"]) for r in rows]
    claims = [(r, s) for r, s in zip(rows, settings, strict=True) if r["metric"] == "unbiased"]
    biases = {_key(r, s): r for r, s in zip(rows, settings, strict=True) if r["metric"] == "relative_bias"}
    checks, skipped = [], {}
    for r, s in zip(rows, settings, strict=True):
        if r["metric"] != "check":
            continue
        if r["status"] == "skipped":
            skipped[r["parameter"] or r["problem"]] = r["reason"]
            continue
        checks.append(_check(r, s, biases.get(_key(r, s))))
    given: dict[str, Any] = next((s for s in settings if "confidence" in s), {})
    return Certificate(
        name,
        next((s["objective"] for _, s in claims), "elbo"),
        any(r["value"] == 1 for r, _ in claims) or not claims,
        tuple(checks),
        given.get("confidence", 0.99),
        given.get("tolerance", 0.01),
        ALARM_RATE,
        skipped,
    )


def _key(r: dict[str, Any], settings: dict[str, Any]) -> tuple[Any, ...]:
    places = r["problem"], settings.get("point", ""), r["num_samples"], r["batch_size"], r["dtype"]
    return (*(None if pd.isna(place) else place for place in places), settings.get("mode"), r["parameter"])


def _check(r: dict[str, Any], settings: dict[str, Any], bias: dict[str, Any] | None) -> Check:
    holds = None if pd.isna(r["value"]) else bool(r["value"])
    if r["status"] == "failed":
        holds = False
    return Check(
        r["parameter"] or "run",
        holds,
        r["reason"],
        r["problem"],
        settings.get("point", ""),
        None if pd.isna(r["num_samples"]) else int(r["num_samples"]),
        0 if pd.isna(r["n"]) else int(r["n"]),
        None if bias is None else BiasBound(bias["value"], bias["ci_low"], bias["ci_high"], float("nan")),
        None if pd.isna(r["batch_size"]) else int(r["batch_size"]),
        r["dtype"],
        settings.get("mode", "eval"),
        settings.get("exact", False),
        settings.get("seconds", 0.0),
    )

"""Certificates, read back from the rows that they were stored as."""

from __future__ import annotations

import json
from dataclasses import replace
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
    if not r["parameter"]:  # a case that never came to its checks
        return Check("run", holds, r["reason"], r["problem"])
    check = Check(
        name=r["parameter"],
        holds=holds,
        reason=r["reason"],
        problem=r["problem"],
        point=settings.get("point", ""),
        num_samples=_whole(r["num_samples"]),
        draws=_whole(r["n"]) or 0,
        bias=None if bias is None else _bound(bias),
        batch_size=_whole(r["batch_size"]),
    )
    if "mode" not in settings:  # of a time when all was in float64, in eval mode, and no time was taken
        return check
    corner = {name: settings[name] for name in ("mode", "exact", "seconds") if name in settings}
    return replace(check, dtype=r["dtype"], **corner)


def _bound(r: dict[str, Any]) -> BiasBound:
    absolute = json.loads(r["parameters"]).get("absolute")
    return BiasBound(r["value"], r["ci_low"], r["ci_high"], float("nan") if absolute is None else absolute)


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)

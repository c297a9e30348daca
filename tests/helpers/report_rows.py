"""A run with everything that a report can show, and names that break out where they can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elbograd.benchmarks.rows.schema import row
from elbograd.benchmarks.store.lines import sealed

SCRIPT = "<script>alert(1)</script>"
BREAKOUT = '</script><img src=x onerror="alert(2)">.py:Mine[a=%{x}]'
#: name -> variance at S = 1 at the initialization, milliseconds.
MODEL = {
    "reparameterization": (0.5, 1.0),
    "leave-one-out": (10.0, 0.5),
    "score-function": (400.0, 0.4),
    SCRIPT: (60.0, 2.0),
    BREAKOUT: (80.0, 2.5),
}
DATA = "data & <b>more</b>"


def case(benchmark: str, estimator: str, **settings: Any) -> dict[str, Any]:
    usual = {
        "problem": "vae",
        "num_samples": 2,
        "batch_size": 64,
        "latent_dim": 8,
        "objective": "elbo" if benchmark == "variance" else "",
        "case": f"{benchmark}-{estimator}-{settings}",
    }
    return {"benchmark": benchmark, "estimator": estimator, **usual, **settings}


def variance_rows(estimator: str, **settings: Any) -> list[dict[str, Any]]:
    common = case("variance", estimator, n=4000, **settings)
    total, milliseconds = MODEL[estimator]
    value = total * common["latent_dim"] / 8 / common["num_samples"]
    warning = "not enough replicates (at least 52000)" if estimator == "score-function" else ""
    ends = {"ci_low": 0.95 * value, "ci_high": 1.06 * value}
    seconds = 1e-3 * milliseconds
    spread = {"ci_low": 0.97 * seconds, "ci_high": 1.04 * seconds}
    work = seconds * value
    about = {"ci_low": 0.93 * work, "ci_high": 1.08 * work}
    return [
        row(**common, metric="variance", value=value, reason=warning, **ends),
        row(**common, metric="bias_bound", value=0.0042),
        row(**common, metric="seconds", value=seconds, unit="s", **spread),
        row(**common, metric="work_normalized_variance", value=work, reason=warning, **about),
        row(**common, metric="evaluations", value=2.0),
    ]


def training_rows(estimator: str, **settings: Any) -> list[dict[str, Any]]:
    rows = []
    end = -20.0 - MODEL[estimator][0] ** 0.5 / 4
    for seed in range(2):
        for step in range(0, 501, 100):
            common = case("convergence", estimator, seed=seed, step=step, **settings)
            value = end + 0.01 * seed - 8 * 0.5 ** (step / 100)
            rows.append(row(**common, metric="heldout_objective", value=value, unit="nat"))
            rows.append(row(**common, metric="seconds", value=step * 1e-3 * MODEL[estimator][1], unit="s"))
    return rows


def throughput_rows(estimator: str) -> list[dict[str, Any]]:
    common = case("throughput", estimator, n=20)
    rate = 900 / MODEL[estimator][1]
    return [
        row(**common, metric="steps_per_second", value=rate, ci_low=0.9 * rate, ci_high=1.1 * rate),
        row(**common, metric="peak_memory", value=2.0**20, unit="B"),
    ]


def certify_rows(estimator: str, holds: bool) -> list[dict[str, Any]]:
    common = {
        "benchmark": "certify",
        "estimator": estimator,
        "problem": "quadratic",
        "case": f"c-{estimator}",
    }
    point = json.dumps({"point": "initial", "confidence": 0.99, "tolerance": 0.01, "objective": "elbo"})
    ends = {"ci_low": 0.0, "ci_high": 0.004 if holds else 0.3}
    return [
        row(**common, metric="unbiased", value=1.0, parameters=point),
        row(
            **common,
            metric="check",
            parameter="gradient",
            num_samples=1,
            n=4096,
            value=float(holds),
            status="done" if holds else "failed",
            reason="" if holds else f"off by 12 {SCRIPT}",
            parameters=point,
        ),
        row(
            **common,
            metric="relative_bias",
            parameter="gradient",
            num_samples=1,
            value=0.001,
            parameters=point,
            **ends,
        ),
    ]


def claim_rows() -> list[dict[str, Any]]:
    common = {"benchmark": "reproduce", "problem": "vargrad", "case": "vargrad", "metric": "claim"}
    return [
        row(**common, parameter="variance falls", value=1.0, reason="-0.99; expected -1"),
        row(
            **common,
            parameter=f"never {SCRIPT}",
            value=0.0,
            status="failed",
            reason="0.4; expected below 0.1",
        ),
    ]


def lost_rows() -> list[dict[str, Any]]:
    why = {"metric": "variance", "status": "skipped", "reason": "needs num_samples of at least 2, not 1"}
    broke = {"metric": "variance", "status": "failed", "reason": f"ValueError: {DATA} {SCRIPT}"}
    return [
        row(**case("variance", "leave-one-out", num_samples=1, step=0), **why),
        row(**case("variance", "broken", step=0), **broke),
    ]


def everything() -> list[dict[str, Any]]:
    rows = []
    for name in MODEL:
        for s in (1, 2, 4):
            if name != "leave-one-out" or s > 1:
                rows += variance_rows(name, num_samples=s, step=0)
        for d in (2, 32):
            rows += variance_rows(name, problem=f"vae[latent_dim={d}]", latent_dim=d, step=0)
        rows += training_rows(name)
        rows += throughput_rows(name)
    return [
        *rows,
        *certify_rows("reparameterization", True),
        *certify_rows(SCRIPT, False),
        *claim_rows(),
        *lost_rows(),
    ]


ENVIRONMENT = {
    "command": f"elbograd bench -e '{SCRIPT}' -o run",
    "commit": "0123456789ab",
    "python": "3.11.7",
    "platform": f"Linux {SCRIPT}",
    "cpu": "some CPU",
    "threads": 1,
    "packages": {"torch": "2.13.0", "numpy": "2.4.6", SCRIPT: "1"},
}


def write_run(
    folder: Path, rows: list[dict[str, Any]] | None = None, environment: dict[str, Any] | None = None
) -> Path:
    """A run folder with these rows, or with everything."""
    folder.mkdir(parents=True)
    lines = everything() if rows is None else rows
    cases: dict[str, list[dict[str, Any]]] = {}
    for r in lines:
        cases.setdefault(r["case"], []).append({**r, "run": folder.name})
    (folder / "rows.jsonl").write_bytes(b"".join(map(sealed, cases.values())))
    (folder / "environment.json").write_text(json.dumps(environment or ENVIRONMENT), encoding="utf-8")
    (folder / "config.toml").write_text(f'[variance]\nestimator = ["{SCRIPT}"]\nseed = 7\n', encoding="utf-8")
    return folder

"""Measure and tell how fast the suite itself is: ``python -m elbograd.benchmarks.studies.speed``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ...store.environment import describe_environment
from .by_hand import STEPS
from .many import ManyRate, many_rates
from .models import SIZES, SizedVAE
from .rate import PASSES, engine_rate
from .steps import step_cost
from .whole import WholeRate, whole_rates

_SAMPLES = (1, 4)
Row = dict[str, Any]


def main(
    rounds: Annotated[int, typer.Option(min=6, help="Rounds of each comparison.")] = 20,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="For speed.json and speed.md."),
    ] = None,
) -> None:
    """Time both routes against a matrix product and a loop, and training steps by hand and of many runs."""
    rates, steps, whole, many = [], [], [], []
    print(f"{torch.get_num_threads()} threads", flush=True)
    for row in _rates(rounds):
        rates.append(row)
        print(f"{row['model']}, {row['estimator']}: {row['fraction']:.2f} of the matrix product", flush=True)
    for row in _steps(rounds):
        steps.append(row)
        low, high = row["ratio_low"], row["ratio_high"]
        print(
            f"{row['model']}, {row['estimator']}, S={row['num_samples']}: "
            f"{row['ratio']:.3f} [{low:.3f}, {high:.3f}] of a step by hand",
            flush=True,
        )
    for found in whole_rates(rounds):
        whole.append(found)
        print(f"{_case(found)}: {_ratio(found.ratio)} times as many replicates as a loop", flush=True)
    for together in many_rates(rounds):
        many.append(together)
        print(
            f"{together.estimator}, S={together.num_samples}, {together.runs} runs: {_ratio(together.ratio)} "
            f"times as many steps as a loop, two processes {_ratio(together.processes)}",
            flush=True,
        )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        environment = describe_environment("cpu")
        environment["command"] = shlex.join(["python", "-m", __package__, *sys.argv[1:]])
        rows = {
            "rates": rates,
            "steps": steps,
            "whole": [asdict(found) for found in whole],
            "many": [asdict(found) for found in many],
        }
        text = json.dumps({"environment": environment, **rows}, indent=1, ensure_ascii=False)
        (output / "speed.json").write_text(text, encoding="utf-8")
        (output / "speed.md").write_text(_page(environment, rates, steps, whole, many), encoding="utf-8")


def _rates(rounds: int) -> Iterator[Row]:
    for model, size in SIZES.items():
        for name in PASSES:
            rate = engine_rate(SizedVAE(*size), name, rounds)
            yield {
                "model": model,
                "estimator": name,
                "engine_gflops": rate.engine / 1e9,
                "machine_gflops": rate.machine / 1e9,
                "fraction": rate.fraction,
                "replicates_per_second": rate.replicates,
            }


def _steps(rounds: int) -> Iterator[Row]:
    for model in list(SIZES)[:2]:
        for name in STEPS:
            for samples in _SAMPLES:
                cost = step_cost(SIZES[model], name, samples, rounds)
                ratio, low, high = cost.ratio
                yield {
                    "model": model,
                    "estimator": name,
                    "num_samples": samples,
                    "suite_us": cost.suite * 1e6,
                    "by_hand_us": cost.by_hand * 1e6,
                    "ratio": ratio,
                    "ratio_low": low,
                    "ratio_high": high,
                }


def _case(found: WholeRate) -> str:
    return f"{found.model}, B={found.batch_size}, {found.estimator}, S={found.num_samples}"


def _ratio(found: tuple[float, float, float]) -> str:
    ratio, low, high = found
    return f"{ratio:.1f} [{low:.1f}, {high:.1f}]"


def _page(
    environment: dict[str, Any],
    rates: list[Row],
    steps: list[Row],
    whole: list[WholeRate],
    many: list[ManyRate],
) -> str:
    lines = [
        "# How fast the suite is",
        "",
        f"{environment['cpu']}, {environment['threads']} threads, torch {environment['packages']['torch']}, "
        f"commit {environment['commit']}; made by `tox -e speed`. B = 64.",
        "",
        "The factorized route while it streams replicates (S = 1), counted on the decoder's matrix products "
        "alone: forward, and for the pathwise gradient backward to z; beside one product of two 2048 × 2048 "
        "matrices in the same rounds.",
        "",
        "| model | estimator | replicates/s | decoder, GFLOP/s | matrix product, GFLOP/s | fraction |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {r['model']} | `{r['estimator']}` | {r['replicates_per_second']:,.0f} "
            f"| {r['engine_gflops']:.0f} | {r['machine_gflops']:.0f} | {r['fraction']:.2f} |"
            for r in rates
        ),
        "",
        "A training step through the suite beside the same step written by hand in plain PyTorch, in turns.",
        "",
        "| model | estimator | S | suite, µs a step | by hand, µs a step | ratio |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {r['model']} | `{r['estimator']}` | {r['num_samples']} | {r['suite_us']:.0f} "
            f"| {r['by_hand_us']:.0f} | {r['ratio']:.3f} [{r['ratio_low']:.3f}, {r['ratio_high']:.3f}] |"
            for r in steps
        ),
        "",
        "The full route: whole gradients drawn many at once beside a loop that draws one at a time, in "
        "turns, on one thread.",
        "",
        "| model | B | estimator | S | way | loop, µs a replicate | at once, µs | ratio |",
        "|---|---:|---|---:|---|---:|---:|---:|",
        *(
            f"| {w.model} | {w.batch_size} | `{w.estimator}` | {w.num_samples} | {w.way} "
            f"| {w.loop * 1e6:.0f} | {w.together * 1e6:.1f} | {_ratio(w.ratio)} |"
            for w in whole
        ),
        "",
        "Training runs at once (`train_many`) beside one run alone, with the data they are shown, in turns, "
        "on one thread; and what two processes gain that each train a run.",
        "",
        "| model | estimator | S | runs | alone, µs a step | at once, µs a step and run | ratio "
        "| two processes |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| vae | `{m.estimator}` | {m.num_samples} | {m.runs} | {m.alone * 1e6:.0f} "
            f"| {m.stacked * 1e6:.0f} | {_ratio(m.ratio)} | {_ratio(m.processes)} |"
            for m in many
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    typer.run(main)

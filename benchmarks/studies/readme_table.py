"""The table at the top of the README, from the rows of the run it is about.

    python -m elbograd.benchmarks.studies.readme_table [FOLDER]

Every pair of brackets is a 95% interval: of a variance over its replicates, of an objective Student's t over
the seeds of the training runs. Nothing in it is a range.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ...estimators.errors import UsageError
from ..rows.text import interval, number
from ..store.loading import load_results
from ..tables.cases import convergence_cases, variance_cases

PROBLEM, NUM_SAMPLES = "vae", 4
_HEADINGS = (
    "estimator",
    "variance at the start",
    "variance after {steps:,.0f} steps",
    "cosine then",
    "ms a gradient",
    "variance × ms",
    "held-out ELBO (nats)",
)


def table(rows: pd.DataFrame) -> str:
    """Markdown: one line an estimator, the least variance after training first.

    Raises:
        UsageError: the shared problem was not measured both at the start and later.
    """
    cases = variance_cases(rows)
    wanted = (cases["problem"] == PROBLEM) & (cases["num_samples"] == NUM_SAMPLES)
    cases = cases[wanted & cases["variance"].notna()]
    if cases.empty or cases["step"].min() == cases["step"].max():
        raise UsageError(f"no variances of {PROBLEM} at S = {NUM_SAMPLES} at the start and after training")
    sizes = cases["batch_size"].value_counts()
    cases = cases[cases["batch_size"] == sizes.index[0]]
    start, end = (cases[cases["step"] == step] for step in (cases["step"].min(), cases["step"].max()))
    trained = convergence_cases(rows)
    lines = [
        "| " + " | ".join(heading.format(steps=cases["step"].max()) for heading in _HEADINGS) + " |",
        "|---|" + "---:|" * (len(_HEADINGS) - 1),
    ]
    for _, case in end.sort_values("variance", kind="stable").iterrows():
        before = start[start["estimator"] == case["estimator"]]
        after = trained[(trained["problem"] == PROBLEM) & (trained["estimator"] == case["estimator"])]
        cells = [
            f"`{case['estimator']}`",
            _interval(before, "variance"),
            _interval(case.to_frame().T, "variance"),
            f"{case['cosine']:.2f}" if pd.notna(case["cosine"]) else "",
            number(1000 * case["seconds"]),
            number(1000 * case["work_normalized_variance"]),
            _interval(after, "heldout_objective"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(cases: pd.DataFrame, metric: str) -> str:
    """Of the first of these cases, "" where there is none."""
    if cases.empty:
        return ""
    value, low, high = (float(cases[f"{metric}{end}"].iloc[0]) for end in ("", "_low", "_high"))
    return interval(value, low, high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        print(table(load_results(Path(given[0] if given else "results/published"))))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

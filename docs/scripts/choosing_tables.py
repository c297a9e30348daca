"""Writes the tables of docs/choosing-an-estimator.md from the published comparison of the whole catalogue.

python docs/scripts/choosing_tables.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from discrete_tables import TABLES as DISCRETE_TABLES
from elbograd.benchmarks import load_results
from elbograd.benchmarks.rows.text import interval, number
from elbograd.benchmarks.tables.cases import variance_cases

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "choosing-an-estimator.md"
RESULTS = ROOT / "results" / "published" / "catalogue"
STEPS = (0, 500, 10_000)


def cases(run: str) -> pd.DataFrame:
    """The measured cases of a run, one a line."""
    table = variance_cases(load_results(RESULTS / run / "rows.parquet"))
    return table[table["variance"].notna() & ~table["estimator"].str.startswith("exact")]


def along_training(objectives: tuple[str, ...], num_samples: int) -> str:
    """Variance at each step, with intervals, and variance × ms at the last; the least noisy at last first."""
    table = cases("training")
    table = table[table["objective"].str.partition("[")[0].isin(objectives)]
    table = table[table["num_samples"] == num_samples]
    several = len(objectives) > 1
    head = ["estimator", *(["objective"] if several else [])]
    head += ["start", "after 500 steps", "after 10,000 steps", "evaluations", "variance × ms then"]
    lines = []
    for name, of_one in table.groupby("estimator", sort=False):
        at = of_one.set_index("step")
        last = at.loc[STEPS[-1]]
        cells = [interval(*at.loc[s, ["variance", "variance_low", "variance_high"]]) for s in STEPS]
        marks = [_mark(at.loc[s]) for s in STEPS]
        objective = [str(last["objective"]).partition("[")[0]] if several else []
        lines.append(
            (
                last["variance"],
                [
                    f"`{name}`",
                    *objective,
                    *(cell + mark for cell, mark in zip(cells, marks, strict=True)),
                    f"{last['evaluations']:.0f}",
                    number(1000 * last["work_normalized_variance"]),
                ],
            )
        )
    return _grid(head, [line for _, line in sorted(lines)])


def bought_by_samples(objectives: tuple[str, ...]) -> str:
    """Variance × evaluations after training at each S, over that of the smallest S measured of all."""
    table = cases("training")
    table = table[table["objective"].str.partition("[")[0].isin(objectives) & (table["step"] == STEPS[-1])]
    samples = sorted(int(s) for s in table["num_samples"].unique())
    lines = []
    for name, of_one in table.groupby("estimator", sort=False):
        at = of_one.set_index("num_samples")
        product = at["variance"] * at["evaluations"]
        cells = [number(product[s]) if s in product else "" for s in samples]
        lines.append((product.iloc[-1], [f"`{name}`", *cells]))
    return _grid(["estimator", *(f"S = {s}" for s in samples)], [line for _, line in sorted(lines)])


def swept(run: str, problem: str, key: str, names: tuple[str, ...]) -> str:
    """Variance at each value of a parameter of the problem."""
    table = cases(run)
    table = table[table["problem"].str.startswith(problem)]
    table = table.assign(at=table["problem"].str.extract(rf"{key}=([\d.e+-]+)")[0].astype(float))
    values = sorted(table["at"].unique())
    lines = []
    for name in names:
        at = table[table["estimator"] == name].set_index("at")
        cells = [number(at.loc[value, "variance"]) + _mark(at.loc[value]) for value in values]
        lines.append([f"`{name}`", *cells])
    return _grid(["estimator", *(f"{key} = {value:g}" for value in values)], lines)


def _mark(case: pd.Series) -> str:
    return "\\*" if "enough replicates" in case["note"] else ""


def _grid(head: list[str], lines: list[list[str]]) -> str:
    rules = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rules, *lines])


ROUGH = (
    "reparameterization",
    "reparameterization[draws=sobol]",
    "score-function",
    "leave-one-out",
    "optimal-baseline",
    "measure-valued",
    "mixed",
    "linearized-hessian",
    "delta-method",
    "quadratic-control-variate",
)
NEAR = ("reparameterization", "sticking-the-landing", "iwae", "dreg", "vimco", "ovis")
TABLES = {
    "elbo": lambda: along_training(("elbo",), 4),
    "bounds": lambda: along_training(("iwae", "inclusive-kl", "thermodynamic"), 16),
    "samples": lambda: bought_by_samples(("elbo",)),
    "samples of bounds": lambda: bought_by_samples(("iwae",)),
    "exponential": lambda: swept("roughness", "exponential", "k", ROUGH),
    "cosine": lambda: swept("roughness", "cosine", "k", ROUGH),
    "distance": lambda: swept("distance", "conjugate", "distance", NEAR),
    **DISCRETE_TABLES,
}


def page_with_tables(text: str) -> str:
    """The page, each table between its markers made anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- table: {name} -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table()}\n\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""The tables of docs/choosing-an-estimator.md about discrete latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from elbograd.benchmarks import load_results
from elbograd.benchmarks.rows.text import interval, number, percent
from elbograd.benchmarks.studies.discrete.points import pays_until, points_of
from elbograd.benchmarks.studies.discrete.runs import COST

RESULTS = Path(__file__).parents[2] / "results" / "published" / "catalogue"
BUDGET = 16
FAMILIES = {"bernoulli": "Bernoulli", "categorical": "categorical"}


def points(run: str) -> pd.DataFrame:
    """The cases of a run, one a line; objectives of several samples apart from their own run left out."""
    costs = load_results(RESULTS / COST / "rows.parquet")
    found = points_of(load_results(RESULTS / run / "rows.parquet"), costs)
    return found if run == "discrete-bounds" else found[found["objective"].isin(["elbo", "relaxed"])]


def unbiased() -> str:
    """Variance at 16 evaluations at each step of both VAEs, and variance × ms at the last."""
    table = points("discrete-training")
    table = table[(table["budget"] == BUDGET) & ~table["biased"]]
    steps = sorted(int(s) for s in table["step"].unique())
    head = ["estimator", "evaluations"]
    for family in FAMILIES.values():
        head += [f"{family}, start", *(f"after {step:,}" for step in steps[1:]), "variance × ms then"]
    lines = []
    for name, of_one in table.groupby("estimator", sort=False):
        cells, order = [], []
        for family in FAMILIES:
            at = of_one[of_one["family"] == family].set_index("step")
            if at.empty:
                cells += [""] * (len(steps) + 1)
                order.append(np.inf)
                continue
            cells += [interval(*at.loc[s, list(_ends("variance"))]) + _few(at.loc[s]) for s in steps]
            cells.append(number(at.loc[steps[-1], "variance"] * at.loc[steps[-1], "milliseconds"]))
            order.append(at.loc[steps[-1], "variance"])
        counts = [
            f"{of_one.loc[of_one['family'] == f, 'evaluations'].iloc[0]:.0f}"
            for f in FAMILIES
            if (of_one["family"] == f).any()
        ]
        lines.append((min(order), [f"`{name}`", "; ".join(dict.fromkeys(counts)), *cells]))
    return _grid(head, [line for _, line in sorted(lines)])


def biased(family: str) -> str:
    """Bias and variance at 16 evaluations at each step, and up to how many averaged estimates that pays.

    Against the least noisy unbiased estimator, and against leave-one-out.
    """
    table = points("discrete-training")
    table = table[(table["budget"] == BUDGET) & (table["family"] == family)]
    steps = sorted(int(s) for s in table["step"].unique())
    names = {0: "start", **{s: f"after {s:,}" for s in steps[1:]}}
    head = ["estimator"]
    for step in steps:
        head += [f"{names[step]}: variance", "bias", "pays up to"]
    first = {s: _quietest(table[table["step"] == s]) for s in steps}
    usual = table[table["estimator"] == "leave-one-out"].set_index("step")
    lines = []
    for name, of_one in table[table["biased"]].groupby("estimator", sort=False):
        at = of_one.set_index("step")
        cells = []
        for step in steps:
            one = at.loc[step]
            cells += [
                number(one["variance"]) + _few(one),
                _bias(one),
                "; ".join(_averages(pays_until(one, other)) for other in (first[step], usual.loc[step])),
            ]
        lines.append((at.loc[steps[-1], "error"], [f"`{name}`", *cells]))
    quiet = [cell for s in steps for cell in (number(first[s]["variance"]), f"`{first[s]['estimator']}`", "")]
    return _grid(head, [["*least noisy unbiased*", *quiet], *(line for _, line in sorted(lines))])


def bought_by_evaluations(family: str) -> str:
    """Mean squared error × evaluations at the last step, at each number of evaluations."""
    table = points("discrete-training")
    table = table[(table["family"] == family) & (table["step"] == table["step"].max())]
    budgets = sorted(int(b) for b in table["budget"].dropna().unique())
    lines = []
    for name, of_one in table.groupby("estimator", sort=False):
        at = of_one.set_index("budget")
        if len(at) < 2:
            continue
        product = at["error"] * at["evaluations"]
        cells = [number(product[b]) + _other(at.loc[b], b) if b in product else "" for b in budgets]
        lines.append((product.iloc[-1], [f"`{name}`" + (" (b)" if at["biased"].iloc[0] else ""), *cells]))
    return _grid(["estimator", *(f"{b} evaluations" for b in budgets)], [line for _, line in sorted(lines)])


def temperature(family: str) -> str:
    """Variance and relative bias at each temperature."""
    table = points("discrete-temperature")
    table = table[table["family"] == family]
    values = sorted(table["temperature"].unique())
    lines = []
    for name, of_one in table.groupby("base", sort=False):
        at = of_one.set_index("temperature")
        lines.append([f"`{name}`", *(f"{number(at.loc[t, 'variance'])}; {_bias(at.loc[t])}" for t in values)])
    return _grid(["variance; bias", *(f"τ = {value:g}" for value in values)], lines)


def size(family: str, column: str, symbol: str) -> str:
    """Variance over the squared norm of the gradient at each D or K, and the bias of the biased."""
    table = points("discrete-size")
    table = table[table["family"] == family]
    values = sorted(int(v) for v in table[column].unique())
    lines = []
    for name, of_one in table.groupby("estimator", sort=False):
        at = of_one.set_index(column)
        cells = []
        for value in values:
            if value not in at.index:
                cells.append("")
                continue
            one = at.loc[value]
            bias = f"; {_bias(one)}" if one["biased"] else ""
            cells.append(_relative(one) + bias)
        lines.append((at["error"].iloc[-1] / at["squared_norm"].iloc[-1], [f"`{name}`", *cells]))
    head = ["variance / ‖∇‖²; bias", *(f"{symbol} = {value}" for value in values)]
    return _grid(head, [line for _, line in sorted(lines)])


def bounds() -> str:
    """Variance of the IWAE bound's gradient, S = 16, at each step of both VAEs."""
    table = points("discrete-bounds")
    steps = sorted(int(s) for s in table["step"].unique())
    head = ["estimator", "evaluations"]
    for family in FAMILIES.values():
        head += [f"{family}, start", *(f"after {step:,}" for step in steps[1:])]
    lines = []
    for name, of_one in table.groupby("estimator", sort=False):
        cells = []
        for family in FAMILIES:
            at = of_one[of_one["family"] == family].set_index("step")
            cells += [interval(*at.loc[s, list(_ends("variance"))]) + _few(at.loc[s]) for s in steps]
        last = float(of_one.loc[of_one["step"] == steps[-1], "variance"].iloc[0])
        lines.append((last, [f"`{name}`", f"{of_one['evaluations'].iloc[0]:.0f}", *cells]))
    return _grid(head, [line for _, line in sorted(lines)])


TABLES = {
    "discrete": unbiased,
    "discrete biased, Bernoulli": lambda: biased("bernoulli"),
    "discrete biased, categorical": lambda: biased("categorical"),
    "discrete evaluations, Bernoulli": lambda: bought_by_evaluations("bernoulli"),
    "temperature, Bernoulli": lambda: temperature("bernoulli"),
    "temperature, categorical": lambda: temperature("categorical"),
    "variables": lambda: size("bernoulli", "variables", "D"),
    "states": lambda: size("categorical", "states", "K"),
    "discrete bounds": bounds,
}


def _ends(metric: str) -> tuple[str, str, str]:
    return metric, f"{metric}_low", f"{metric}_high"


def _quietest(table: pd.DataFrame) -> pd.Series:
    sound = table[~table["biased"]]
    return sound.loc[sound["variance"].idxmin()]


def _few(case: pd.Series) -> str:
    return "\\*" if "enough replicates" in case["variance_reason"] else ""


def _bias(case: pd.Series) -> str:
    """Relative to the gradient; its bound where noise explains it."""
    if np.isnan(case["bias"]):
        return "?"
    return percent(case["bias"]) if case["bias_low"] > 0 else f"≤ {percent(case['bias_bound'])}"


def _averages(n: float) -> str:
    if n < 1:
        return "never"
    return "∞" if n == np.inf else f"{n:,.0f}"


def _other(case: pd.Series, budget: int) -> str:
    """The evaluations where they are fewer than allowed."""
    return f" ({case['evaluations']:.0f})" if case["evaluations"] < budget else ""


def _relative(case: pd.Series) -> str:
    return number(case["variance"] / case["squared_norm"]) + _few(case)


def _grid(head: list[str], lines: list[list[str]]) -> str:
    rules = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rules, *lines])

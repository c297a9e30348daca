"""The verdicts of certification, from rows alone."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from ..rows.certificate import ALARM_RATE, Certificate, percent, span
from ..rows.certificates import certificates
from ..rows.text import clean, shorten
from .columns import Column, word
from .layout import Layout
from .markdown import code, plain

_WORDS = {True: "holds", False: "fails", None: "not shown"}
_STYLES = {True: "green", False: "bold red", None: "yellow"}
_COLUMNS = ("estimator", "verdict", "relative bias", "worst at", "checks ran", "estimates drawn")
_MOST = 4  # failures printed of one estimator
_NUMBERS = ("checks ran", "estimates drawn")


def verdict_cases(rows: pd.DataFrame) -> pd.DataFrame:
    """One line an estimator, unrounded: its verdict, bias with interval, and checks."""
    lines = []
    for c in certificates(rows):
        bias = c.bias
        lines.append(
            {
                "estimator": c.estimator,
                "objective": c.objective,
                "claims_unbiased": c.unbiased,
                "verdict": _WORDS[c.holds],
                "relative_bias": None if bias is None else bias.estimate,
                "relative_bias_low": None if bias is None else bias.low,
                "relative_bias_high": None if bias is None else bias.high,
                "confidence": c.confidence,
                "worst_at": _worst(c),
                "checks_ran": c.ran,
                "checks": len(c.counted),
                "failed": len(c.failures),
                "estimates": c.draws,
                "note": "; ".join([*c.failures, *c.open_questions]),
            }
        )
    return pd.DataFrame(lines)


def verdict_table(rows: pd.DataFrame) -> Table | None:
    """The same to print; None where nothing was certified."""
    found = certificates(rows)
    if not found:
        return None
    table = Table(
        title=Text("Certification", style="bold not italic"),
        title_justify="left",
        caption=Text("\n".join([_statement(found), *map(clean, _open(found))])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        expand=False,
    )
    for name in ("estimator", "verdict", "relative bias", "worst at"):
        table.add_column(name, overflow="fold", ratio=1 if name == "worst at" else None)
    table.add_column("checks", justify="right", no_wrap=True)
    for c in found:
        name, verdict, bias, worst, _, _ = _cells(c)
        style = _STYLES[c.holds]
        ran = f"{c.ran}/{len(c.counted)}"
        table.add_row(Text(shorten(name, 26)), Text(verdict, style), Text(bias), Text(worst), Text(ran))
    return table


def failures(rows: pd.DataFrame) -> list[str]:
    """What did not hold, a line each: of an estimator the first few, those on oracle problems first."""
    lines = []
    for c in certificates(rows):
        failed = [k for k in c.checks if k.holds is False]
        failed.sort(key=lambda check: not check.problem)
        lines += [f"{c.estimator}: {check}: {check.reason}" for check in failed[:_MOST]]
        if len(failed) > _MOST:
            lines.append(f"{c.estimator}: and {len(failed) - _MOST} more, see tables.md")
    return lines


def verdict_section(rows: pd.DataFrame) -> str:
    """The same as a section of a Markdown page; "" where nothing was certified."""
    found = certificates(rows)
    if not found:
        return ""
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'|'.join('---:' if name in _NUMBERS else '---' for name in _COLUMNS)}|",
    ]
    for c in found:
        name, *others = _cells(c)
        lines.append(f"| {' | '.join([code(name), *map(plain, others)])} |")
    notes = [f"- {plain(line)}" for line in _open(found)]
    failures = [f"- {code(c.estimator)} fails {plain(line)}" for c in found for line in c.failures]
    return "\n".join(
        ["## Certification", "", plain(_statement(found)), "", *lines, "", *failures, *notes, ""]
    )


def verdict_layout(rows: pd.DataFrame) -> Layout:
    """The same, laid out for other pages."""
    columns = [Column(name, word(name), number=name in _NUMBERS) for name in _COLUMNS]
    return Layout("", columns, [_cells(c) for c in certificates(rows)])


def verdict_notes(rows: pd.DataFrame) -> list[str]:
    """How certain the table is, what failed, and why a verdict was not reached; a sentence each."""
    found = certificates(rows)
    failed = [f"{c.estimator} fails {line}" for c in found for line in c.failures]
    return [_statement(found), *failed, *_open(found)] if found else []


def _cells(c: Certificate) -> list[str]:
    return [
        shorten(c.estimator, 40),
        _WORDS[c.holds],
        _bias(c),
        _worst(c),
        f"{c.ran} of {len(c.counted)}",
        f"{c.draws:,}",
    ]


def _bias(c: Certificate) -> str:
    beside = c.biases("elbo-bias")
    found = [f"ELBO: {span(beside)}"] if beside else []
    if c.bias is not None:
        found.insert(0, f"≤ {percent(c.bias.high)}" if c.unbiased else f"{span(c.biases('bias'))} (declared)")
    return "; ".join(found)


def _worst(c: Certificate) -> str:
    """Where the bias may be largest."""
    biased = [k for k in c.checks if k.bias and k.name != "elbo-bias"]
    found = max(biased, key=lambda k: k.bias.high if k.bias else 0.0, default=None)
    return "" if found is None else f"{shorten(found.problem, 40)} at {found.point}, S = {found.num_samples}"


def _statement(found: list[Certificate]) -> str:
    """How certain the table is."""
    first = found[0]
    return (
        f"Bias: upper bound at {100 * first.confidence:g}% confidence at the worst of all points, "
        "relative to the norm of the exact gradient; where a bias is declared, from the least to the largest "
        "over all points. "
        f"Holds: every check ran, and the bound is at most {percent(first.tolerance)}. The chance that a "
        f"whole run over correct estimators fails any of them is at most {ALARM_RATE:g}."
    )


def _open(found: list[Certificate]) -> list[str]:
    """Why a verdict was not reached, a line an estimator."""
    lines = []
    for c in found:
        points = [(where, why) for where, why in c.left_out.items() if " at " in where]
        if points:
            where, why = points[0]
            count = f" (and {len(points) - 1} more)" if len(points) > 1 else ""
            lines.append(f"{shorten(c.estimator, 30)}: not tested: {where}{count}: {why}")
        if c.holds is not None:
            continue
        questions = c.open_questions
        if questions:
            more = f" (and {len(questions) - 1} more)" if len(questions) > 1 else ""
            lines.append(f"{shorten(c.estimator, 30)}: not shown: {questions[0]}{more}")
        else:
            lines.append(
                f"{shorten(c.estimator, 30)}: not shown: the bound is above {percent(c.tolerance)} "
                f"with the work allowed (see --budget)"
            )
    return lines

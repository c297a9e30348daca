"""The verdicts of certification, from rows alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from ..rows.certificate import ALARM_RATE, Certificate
from ..rows.certificate_text import percent, span, with_interval
from ..rows.certificate_untried import in_words
from ..rows.certificates import certificates
from ..rows.durations import duration
from ..rows.text import clean, shorten
from .columns import Column, word
from .layout import Layout
from .markdown import code, plain

_STYLES = {"holds": "green", "fails": "bold red", "not shown": "yellow"}
_COLUMNS = (
    "estimator", "verdict", "relative bias", "estimate", "worst at", "checks", "proofs", "draws", "time",
)  # fmt: skip
_NUMBERS = ("proofs", "draws")
_MOST = 4  # failures printed of one estimator
_SET = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"
_WIDTH, _NAME, _GAP = 80, 16, 2  # of the printed table, of its narrowest names, between its columns


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
                "verdict": c.word,
                "relative_bias": None if bias is None else bias.estimate,
                "relative_bias_low": None if bias is None else bias.low,
                "relative_bias_high": None if bias is None else bias.high,
                "confidence": c.confidence,
                "worst_at": _worst(c),
                "checks_ran": c.ran,
                "checks": len(c.counted),
                "failed": len(c.failures),
                "proofs": c.proofs,
                "estimates": c.draws,
                "seconds": c.seconds or None,
                "never_tried": in_words(c.never_tried),
                "note": "; ".join([*c.failures, *c.open_questions]),
            }
        )
    return pd.DataFrame(lines)


def verdict_table(rows: pd.DataFrame) -> Table | None:
    """The same to print in 80 columns, two lines an estimator; None where nothing was certified."""
    found = certificates(rows)
    if not found:
        return None
    lines = [_printed(c) for c in found]
    shown = [column for column in lines[0] if any(line[column] for line in lines)]
    widths = {column: max(len(column), *(len(line[column]) for line in lines)) for column in shown}
    others = sum(widths.values()) - widths["estimator"] + _GAP * (len(shown) - 1)
    widths["estimator"] = min(widths["estimator"], max(_NAME, _WIDTH - others))
    table = Table(
        title=Text("Certification", style="bold not italic"),
        title_justify="left",
        caption=Text("\n".join([_statement(found), *map(clean, _told(found))])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column(_aligned({column: column for column in shown}, widths), no_wrap=True)
    for c, line in zip(found, lines, strict=True):
        table.add_row(Text("\n").join([_aligned(line, widths, _STYLES[c.word]), *_below(c)]))
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
    notes = [f"- {plain(line)}" for line in _told(found)]
    failures = [f"- {code(c.estimator)} fails {plain(line)}" for c in found for line in c.failures]
    return "\n".join(
        ["## Certification", "", plain(_statement(found)), "", *lines, "", *failures, *notes, ""]
    )


def verdict_layout(rows: pd.DataFrame) -> Layout:
    """The same, laid out for other pages."""
    columns = [Column(name, word(name), number=name in _NUMBERS) for name in _COLUMNS]
    return Layout("", columns, [_cells(c) for c in certificates(rows)])


def verdict_notes(rows: pd.DataFrame) -> list[str]:
    """How certain the table is, what failed, was never tried or not shown, and why; a sentence each."""
    found = certificates(rows)
    failed = [f"{c.estimator} fails {line}" for c in found for line in c.failures]
    return [_statement(found), *failed, *_told(found)] if found else []


def _cells(c: Certificate) -> list[str]:
    beside = c.biases("elbo-bias")
    bias = [c.bias_in_short, f"ELBO: {span(beside)}" if beside else ""]
    return [
        shorten(c.estimator, 40),
        c.word,
        "; ".join(filter(None, bias)),
        "" if c.bias is None else with_interval(c.bias),
        _worst(c),
        f"{c.ran} of {len(c.counted)} ran{_failed(c)}",
        f"{c.proofs:,}",
        f"{c.draws:,}",
        duration(c.seconds) if c.seconds else "",
    ]


def _printed(c: Certificate) -> dict[str, str]:
    """Heading -> what the first line of an estimator says."""
    return {
        "estimator": clean(c.estimator),
        "verdict": c.word,
        "bias": c.bias_in_short,
        "checks ran": f"{c.ran} of {len(c.counted)}",
        "failed": str(len(c.failures) or ""),
        "proofs": str(c.proofs or ""),
        "time": duration(c.seconds) if c.seconds else "",
    }


def _aligned(line: dict[str, str], widths: dict[str, int], style: str = "") -> Text:
    """The cells of a line under their headings, the verdict in its style."""
    cells = []
    for column, width in widths.items():
        text = shorten(line[column], width)
        padded = text.ljust(width) if column in ("estimator", "verdict") else text.rjust(width)
        cells.append(Text(padded, style if column == "verdict" else ""))
    return Text(" " * _GAP).join(cells)


def _below(c: Certificate) -> list[Text]:
    """What the bias was found to be, and where it may be largest."""
    said = [] if c.bias is None else [f"{with_interval(c.bias)} on {_worst(c)}"]
    if beside := c.biases("elbo-bias"):
        said.append(f"{span(beside)} off the gradient of the ELBO")
    # A line ends before "B = 3", not within it.
    wrapped = textwrap.wrap(
        "; ".join(said).replace(" = ", _SET),
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    return [Text(line.replace(_SET, " = "), "dim") for line in wrapped]


def _failed(c: Certificate) -> str:
    return f", {len(c.failures)} failed" if c.failures else ""


def _worst(c: Certificate) -> str:
    """Where the bias may be largest."""
    return "" if c.worst is None else clean(c.worst.place)


def _statement(found: list[Certificate]) -> str:
    """How certain the table is."""
    first = found[0]
    wrong = "" if all(c.holds is not False for c in found) else "Where the claim fails, what it is at least. "
    declared = (
        ""
        if all(c.unbiased for c in found)
        else ("Where a bias is declared, the estimates from the least to the largest over all places. ")
    )
    proofs = "Proofs went through all that can be drawn. " if any(c.proofs for c in found) else ""
    return (
        f"Relative bias: upper bound at {100 * first.confidence:g}% confidence, relative to the norm of the "
        "exact gradient, at the worst of all places; with it the estimate there and its interval. "
        f"{wrong}{declared}{proofs}Holds: every check ran, none failed, and the bound is at most "
        f"{percent(first.tolerance)}. The chance that a whole run over correct estimators fails any of them "
        f"is at most {ALARM_RATE:g}."
    )


def _told(found: list[Certificate]) -> list[str]:
    """What was never tried, and why a verdict was not reached: a line for all of whom the same is true."""
    groups: dict[str, list[str]] = {}
    for c in found:
        for line in _gaps(c):
            groups.setdefault(line, []).append(shorten(c.estimator, 30))
    return [f"{', '.join(names)}: {line}" for line, names in groups.items()]


def _gaps(c: Certificate) -> list[str]:
    """The same of one estimator, less its name."""
    untried = c.never_tried
    lines = [f"never tried: {in_words(untried)}"] if untried else []
    told = untried.values()
    points = [(where, why) for where, why in c.left_out.items() if " at " in where and why not in told]
    if points:
        where, why = points[0]
        lines.append(f"not tested: {where}{_more(points)}: {why}")
    if c.holds is None and (questions := c.open_questions):
        lines.append(f"not shown: {questions[0]}{_more(questions)}")
    elif c.holds is None:
        lines.append(
            f"not shown: the bound is above {percent(c.tolerance)} with the work allowed (see --budget)"
        )
    return lines


def _more(several: Sequence[object]) -> str:
    return f" (and {len(several) - 1} more)" if len(several) > 1 else ""

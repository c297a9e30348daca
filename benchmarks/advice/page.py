"""An advice as text, 80 columns wide."""

from __future__ import annotations

import math
import re
import textwrap

from ...estimators.kl_weight import split_objective
from ...estimators.text import printable
from ..oracles.references import RELAXED
from ..rows.text import short_names
from .findings import Findings
from .measured import Interval, Measured, pays_until
from .rank import Entry, Ranking
from .sentence import NOTHING, advice_on, limit_as_text, name_of

_WIDTH, _NARROWEST = 80, 8
_MARKS = {
    "=": "not shown to be worse than the first",
    "~": "not ranked: the first has not enough replicates to say that this is worse",
    "*": "not enough replicates: its interval is not to be trusted",
    "!": "biased: by mean squared error, variance + squared bias",
    "?": "not ranked: biased by how much is not known",
}


def page(advice: Findings) -> str:
    """All that was found."""
    parts = [_head(advice)]
    steps = list(dict.fromkeys([*(r.step for r in advice.rankings), *advice.left_out]))
    for step in steps:
        parts += [_ranking(r, advice) for r in advice.rankings if r.step == step]
        parts.append(_left_out(advice, step, len(steps) > 1))
    parts += [_wrapped(sentence) for sentence in advice.over_training]
    if advice.screened_only:
        parts.append(NOTHING[advice.interrupted])
    elif advice.interrupted:
        parts.append("Stopped before its time: from what was measured by then.")
    # What a plugin raises or declares may hold anything.
    text = "\n\n".join(filter(None, parts))
    return printable(text, lines=True)


def _head(advice: Findings) -> str:
    where = f"B = {advice.batch_size}, {advice.dtype}, {advice.device}"
    return f"{advice.problem} ({where}): measured for {advice.seconds:.0f} s"


def _ranking(ranking: Ranking, advice: Findings) -> str:
    title = f"step {ranking.step}, gradient of the {_objective(ranking)}"
    what = "mean squared error" if ranking.biased else "variance"
    lines = [_wrapped(f"{title}: {what} × seconds of one training-step gradient")]
    unit = _unit(ranking)
    rows = [_cells(entry, ranking, unit) for entry in (*ranking.entries, *ranking.unknown)]
    if advice.screened_only:  # nothing was compared
        rows = [[row[0].strip("=~"), *row[1:]] for row in rows]
    if rows:
        product = "mse × s" if ranking.biased else "var × s"
        head = f"{product} / {unit:.0e} [95%]" if unit != 1 else f"{product} [95%]"
        lines += _table(["", "estimator", "S", head, "to the first", "bias"], rows)
    for one in ranking.noiseless:
        lines.append(f"  {one.estimator}: no noise of its own, {one.cost().value * 1e3:.3g} ms a gradient")
    used = "".join(row[0] for row in rows)
    lines += [f"  {mark} {meaning}" for mark, meaning in _MARKS.items() if mark in used]
    lines += _references(ranking)
    lines += _limits(ranking)
    if not advice.screened_only:
        lines.append(_wrapped(advice_on(ranking)))
    return "\n".join(lines)


def _objective(ranking: Ranking) -> str:
    names = {"elbo": "ELBO", "iwae": "IWAE bound", RELAXED: "ELBO of relaxed latents, not the ELBO's"}
    whole, weight = split_objective(ranking.objective)
    name = names.get(whole, f"objective {whole}")
    name = f"{name} with {weight}" if weight else name
    return name if ranking.num_samples is None else f"{name}, S = {ranking.num_samples}"


def _unit(ranking: Ranking) -> float:
    """The power of ten of the smallest value."""
    works = [e.work.value for e in (ranking.entries or ranking.unknown)]
    positive = [work for work in works if 0 < work < math.inf]
    return float(10.0 ** math.floor(math.log10(min(positive)))) if positive else 1.0


def _cells(entry: Entry, ranking: Ranking, unit: float) -> list[str]:
    measured = entry.measured
    few = "*" if measured.few is not None else ""
    biased = ("?" if entry in ranking.unknown else "!") if measured.biased else ""
    marks = _place(entry, ranking) + few + biased
    value, low, high = (_short(number / unit) for number in entry.work)
    return [
        marks,
        measured.estimator,
        str(measured.num_samples),
        f"{value} [{low}, {high}]",
        _ratio(entry.to_first),
        _bias(measured),
    ]


def _place(entry: Entry, ranking: Ranking) -> str:
    if entry in ranking.unranked:
        return "~"
    equals = [e for e in ranking.tied if e not in ranking.unranked]
    return "=" if entry in equals and len(equals) > 1 else ""


def _ratio(ratio: Interval | None) -> str:
    if ratio is None:
        return "-"
    if ratio == (1.0, 1.0, 1.0):
        return "1"
    ends = [_short(end) for end in ratio]
    return f"{ends[0]} [{ends[1]}, {ends[2]}]"


def _short(value: float) -> str:
    """Two digits, more where they are before the point; exponents take as little room as they can.

    >>> [_short(v) for v in (math.inf, 1234.0, 0.0123, 3.1e6, 2.9e-5)]
    ['∞', '1234', '0.012', '3.1e6', '2.9e-5']
    """
    if value == math.inf:
        return "∞"
    text = f"{value:.0f}" if 10 <= value < 1e4 else f"{value:.2g}"
    return re.sub(r"e([+-])0*", lambda e: "e" + e[1].strip("+"), text)


def _bias(measured: Measured) -> str:
    if measured.bias is None:
        return "declared" if not measured.claims_unbiased else "?"
    if measured.bias.shown:
        return f"{measured.bias.relative:.1%}"
    return f"≤ {measured.bias.bound:.1%}"


def _references(ranking: Ranking) -> list[str]:
    """What the biases were held against."""
    measured = [e.measured for e in (*ranking.entries, *ranking.unknown)]
    biases = [m.bias for m in measured]
    against = list(dict.fromkeys(b.reference for b in biases if b is not None))
    lines = [f"  bias: relative, against {reference}" for reference in against]
    unknown = [m.why_no_bias for m in measured if m.bias is None]
    for reason in dict.fromkeys(unknown):
        lines.append(_item(f"bias not measured: {reason or 'no reference in time'}"))
    return lines


def _limits(ranking: Ranking) -> list[str]:
    """What the biased ones' errors consist of, and until when they pay."""
    if not (ranking.biased and ranking.tied):
        return []
    first = ranking.tied[0].measured
    rows = []
    for one in (entry.measured for entry in ranking.biased):
        squared, low, high = (_short(end) for end in one.squared_bias())
        variance = _short(one.variance().value)
        limit = limit_as_text(pays_until(one, first))
        rows.append(["!", one.estimator, str(one.num_samples), f"{squared} [{low}, {high}]", variance, limit])
    head = ["", "estimator", "S", "squared bias [95%]", "variance", "pays up to n"]
    what = (
        "biased: averaged over n estimates the error is squared bias + variance/n; up to which n that is "
        f"below the variance of {name_of(first, ranking)} in the same seconds"
    )
    return ["", _wrapped(what), *_table(head, rows)]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    spare = _WIDTH - sum(widths) - 2 * (len(widths) - 1)
    if spare < 0:  # long specifications are cut, numbers never
        widths[1] = max(_NARROWEST, widths[1] + spare)
        names = short_names([row[1] for row in rows], widths[1])
        rows = [[row[0], names[row[1]], *row[2:]] for row in rows]
    return [
        "  ".join(_cut(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def _cut(text: str, width: int) -> str:
    return f"{text if len(text) <= width else text[: width - 1] + '…':<{width}}"


def _left_out(advice: Findings, step: int, several: bool) -> str:
    items = advice.left_out.get(step, ())
    if not items:
        return ""
    title = f"left out at step {step}:" if several else "left out:"
    labels: dict[str, list[str]] = {}
    for label, reason in items:
        labels.setdefault(reason, []).append(label)
    return "\n".join([title, *(_item(f"{'; '.join(who)}: {reason}") for reason, who in labels.items())])


def _item(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH)

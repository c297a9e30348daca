"""The comparison as a Markdown page: one line a case, then one line a contender."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from .agreement import FAMILY_LEVEL
from .rows import Row

_LOOP, _PYRO, _STORCH = "torch", "pyro", "storch"


def page(rows: list[Row], settings: dict[str, Any], environment: dict[str, Any]) -> str:
    """The whole page.

    Args:
        rows: of `compare`.
        settings: as they were.
        environment: versions and machine.
    """
    target = f"±{100 * settings['precision']:g}%"
    parts = [
        "# The suite and its peers",
        _where(environment),
        f"## Seconds until the total variance is known to {target}",
        summary(rows),
        _SUMMARY_CAPTION,
        "## Every contender",
        _table(_HEADINGS, (_line(row) for row in rows)),
        _caption(settings, target, rows),
    ]
    return "\n\n".join(parts) + "\n"


def summary(rows: list[Row]) -> str:
    """A line a case: the suite's seconds, and each library's fastest contender with its ratio."""
    lines = []
    for (problem, estimator, num_samples), group in groupby(rows, _case):
        members = list(group)
        suite = next((row for row in members if row.library == "elbograd"), None)
        cells = [f"`{problem}`", f"`{estimator}`", str(num_samples), _seconds(suite)]
        for library in (_LOOP, _PYRO, _STORCH):
            done = [row for row in members if row.library == library and row.status == "done"]
            cells.append(_versus(min(done, key=lambda row: row.seconds)) if done else "")
        lines.append(cells)
    return _table(["problem", "estimator", "S", "elbograd", "PyTorch loop", "Pyro", "Storchastic"], lines, 2)


def _case(row: Row) -> tuple[str, str, int]:
    return row.problem, row.estimator, row.num_samples


def _seconds(row: Row | None) -> str:
    return f"{_number(row.seconds)} s" if row is not None and row.status == "done" else ""


def _versus(row: Row) -> str:
    return f"{_number(row.seconds)} s ({_number(row.ratio)}×){'' if row.same else ' †'}"


_SUMMARY_CAPTION = (
    "In brackets: how many times as long as elbograd. Pyro is its fastest ELBO class for the case. † A "
    "different estimator of that name, so not the same variance: see the note below."
)

_HEADINGS = [
    "problem",
    "estimator",
    "S",
    "contender",
    "ms a replicate",
    "replicates",
    "seconds",
    "drawn out",
    "times elbograd's",
    "variance",
    "variance / elbograd's",
    "check",
    "note",
]


def _line(row: Row) -> list[str]:
    start = [f"`{row.problem}`", f"`{row.estimator}`", str(row.num_samples), row.contender]
    if row.status != "done":
        return [*start, *[""] * 7, row.status, _plain(row.note)]
    loop = row.library != "elbograd"
    return [
        *start,
        _number(1e3 * row.replicate_seconds) if loop else "",
        f"{row.replicates:,.0f}",
        _interval(row.seconds, row.seconds_low, row.seconds_high),
        f"{_number(row.ran_out)} s, ±{100 * row.ran_out_half_width:.2f}%" if row.ran_out > 0 else "",
        _interval(row.ratio, row.ratio_low, row.ratio_high) if loop else "",
        _interval(row.variance, row.variance_low, row.variance_high),
        _interval(row.variance_ratio, row.variance_ratio_low, row.variance_ratio_high) if loop else "",
        row.agreement,
        _plain(row.note),
    ]


def _caption(settings: dict[str, Any], target: str, rows: list[Row]) -> str:
    tests = sum(p == p for row in rows for p in (row.mean_p, row.variance_p))
    seconds = (
        f"*Replicates* and *seconds* to {target} at 95%: for elbograd the median of {settings['rounds']} "
        "full calls of `measure_variance(details=False)`, which gives the total and the mean as a loop does, "
        "with its set-up. For a loop "
        f"(1.96 CV / {settings['precision']:g})² replicates, CV being that of its own contributions "
        "‖ĝ − E ĝ‖², times its median seconds a replicate, in which the gradient alone is counted, not what "
        "the loop keeps of it. *Drawn out*: the loop really drew that many; its seconds, and the half-width "
        "it reached."
    )
    return "\n\n".join(
        (
            f"The model is the suite's VAE after {settings['steps']} training steps, with θ frozen; weights, "
            "batch (64) and, where a peer can take it, the warmed-up state of a baseline are the same in "
            f"all. Contenders took turns in {settings['rounds']} rounds, each in a process of its own with "
            f"{settings['threads']} thread(s), one working at a time. Intervals are 95%.",
            seconds,
            "*Check*: everyone's mean gradient is held against one reference (exact for Bernoulli latents), "
            "and the total variance, where the estimator is the same, against elbograd's. All "
            f"{tests} tests together raise a false alarm with probability {FAMILY_LEVEL:g}.",
            "Neither peer documents a way to draw many independent φ-gradients in one call: vectorized "
            "samples are averaged into one gradient, and are used so where S > 1. Pyro's "
            "JitTraceMeanField_ELBO is left out: it traces anew on every call.",
        )
    )


def _where(environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return (
        f"{environment['cpu']}, {environment['threads']} thread(s), Python {environment['python']}, "
        f"commit {environment['commit']}: {versions}."
    )


def _table(headings: list[str], lines: Iterable[list[str]], words: int = 4) -> str:
    left = {*headings[:words], "check", "note"}
    rules = ["---" if name in left and name != "S" else "---:" for name in headings]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rules, *lines))


def _interval(value: float, low: float, high: float) -> str:
    return "" if value != value else f"{_number(value)} ({_number(low)}–{_number(high)})"


def _number(value: float) -> str:
    """Three significant digits, never in exponents where plain digits are short."""
    if value != value:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("_", "\\_")

"""Publishes a run of `elbograd certify`: its verdicts in a folder, and some of them in the README.

    python -m elbograd.benchmarks.studies.published_certificates FOLDER [-o PUBLISHED] [--readme README.md]

Made anew from the rows: certification.md and certify.csv; the rows themselves, config.toml, environment.json,
less the folder of its command, and the figures are copied. The README's table is the one that begins with
"| estimator | verdict |".
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ...estimators.errors import UsageError
from ..rows.certificate import Certificate
from ..rows.certificates import certificates
from ..rows.durations import duration
from ..store.loading import load_results
from ..tables.markdown import code, plain
from ..tables.verdicts import verdict_cases, verdict_section
from .published import ROWS, copy_run

#: In the README, in this order.
SHOWN = (
    "reparameterization",
    "sticking-the-landing",
    "iwae",
    "measure-valued",
    "leave-one-out",
    "vargrad",
    "score-function",
)
_PUBLISHED = Path("results/published/certification")
_FIGURES = ("verdicts.svg", "bias-bound-vs-time.svg")
_HEADINGS = ("estimator", "verdict", "relative bias", "worst at", "checks ran", "proofs", "time")
_TABLE = re.compile(r"^\| estimator \| verdict \|.*\n(?:\|.*\n)+", re.MULTILINE)


def table(rows: pd.DataFrame, shown: Sequence[str] = SHOWN) -> str:
    """Markdown: a line an estimator that was certified, of those that are shown.

    Raises:
        UsageError: none of them was.
    """
    found = {c.estimator: c for c in certificates(rows)}
    lines = [_line(found[name]) for name in shown if name in found]
    if not lines:
        raise UsageError(f"none of {', '.join(shown)} was certified there")
    return "\n".join([f"| {' | '.join(_HEADINGS)} |", "|---|---|---|---|---:|---:|---:|", *lines])


def _line(c: Certificate) -> str:
    worst = c.worst
    where = ""
    if worst is not None:
        where = ", ".join(filter(None, (code(worst.problem), plain(worst.point), plain(worst.corner))))
    cells = [
        code(c.estimator),
        c.word,
        plain(c.bias_in_short),
        where,
        f"{c.ran} of {len(c.counted)}",
        str(c.proofs),
        duration(c.seconds) if c.seconds else "",
    ]
    return f"| {' | '.join(cells)} |"


def publish(run: Path, published: Path, readme: Path) -> None:
    """See the module.

    Raises:
        UsageError: there is nothing to publish, or a file cannot be read or written.
    """
    rows = load_results(run)
    if not (run / ROWS).exists():
        raise UsageError(f"{run} is not finished: it has no {ROWS}")
    made = table(rows)
    try:
        before = readme.read_text(encoding="utf-8")
        after, places = _TABLE.subn(lambda _: made + "\n", before)
        if places != 1:
            raise UsageError(f"{readme} has {places} tables of verdicts, not one")
        copy_run(run, published, _FIGURES)
        (published / "certification.md").write_text(verdict_section(rows), encoding="utf-8")
        verdict_cases(rows).to_csv(published / "certify.csv", index=False)
        readme.write_text(after, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m elbograd.benchmarks.studies.published_certificates",
        description="Publish the verdicts of a run of `elbograd certify`.",
    )
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("-o", "--output", type=Path, default=_PUBLISHED, help=f"by default {_PUBLISHED}")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="whose table is made anew")
    given = parser.parse_args(arguments)
    try:
        publish(given.folder, given.output, given.readme)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"published in {given.output}, and the table of {given.readme}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

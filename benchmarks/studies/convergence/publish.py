"""Publishes the study: ``python -m elbograd.benchmarks.studies.convergence.publish FOLDER [-o PUBLISHED]``.

Of each finished workload the rows, the settings, where it was made, and its figures; a performance profile
over the workloads of a kind of latents that have all its estimators; and convergence.md, which shows them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ....estimators.errors import UsageError
from ...plots.style import save
from ...plots.training_profile import draw
from ...store.atomic import write_atomically
from ...store.loading import load_results
from ..published import ROWS, copy_run
from .page import page
from .workloads import WORKLOADS

_PUBLISHED = Path("results/published/convergence")
_FIGURES = ("convergence.png", "tuning.png", "time-to-target.png")
_PROFILES = "figures"


def publish(folder: Path, published: Path) -> list[str]:
    """See the module; the names of the workloads that are published.

    Raises:
        UsageError: none is finished, or a file cannot be read or written.
    """
    there = [one for one in WORKLOADS if (folder / one.name / ROWS).exists()]
    if not there:
        raise UsageError(f"{folder} has no finished workload of the study")
    found = {one.name: load_results(folder / one.name) for one in there}
    kinds = {one.name: one.kind for one in there if one.whole}
    try:
        for name in found:
            copy_run(folder / name, published / name, _FIGURES)
        shown = {name: _files(published, name) for name in found}
        shown |= _profiles(found, kinds, published)
        write_atomically(published / "convergence.md", page(found, shown))
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    return list(found)


def _files(published: Path, name: str) -> list[str]:
    files = (f"{name}/figures/{figure}" for figure in _FIGURES)
    return [file for file in files if (published / file).exists()]


def _profiles(
    found: Mapping[str, pd.DataFrame], kinds: Mapping[str, str], published: Path
) -> dict[str, list[str]]:
    """kind -> the profile over its workloads, where there are instances enough."""
    made = {}
    for kind in dict.fromkeys(kinds.values()):
        rows = pd.concat([found[name] for name in kinds if kinds[name] == kind], ignore_index=True)
        figure = draw(rows)
        if figure is not None:
            file = f"{_PROFILES}/training-profile-{kind}.png"
            save(figure, published / file)
            made[kind] = [file]
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m elbograd.benchmarks.studies.convergence.publish",
        description="Publish a run of the study of convergence.",
    )
    parser.add_argument("folder", type=Path, help="of the study")
    parser.add_argument("-o", "--output", type=Path, default=_PUBLISHED, help=f"by default {_PUBLISHED}")
    given = parser.parse_args(arguments)
    try:
        names = publish(given.folder, given.output)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"published in {given.output}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`elbograd reproduce`: run, print, keep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ....estimators.errors import UsageError
from ...rows.schema import row
from ...store import RunFolder, default_folder
from ...store.environment import describe_environment
from .catalogue import REPRODUCTIONS
from .result import Claim, Reproduction

_WIDTH = 100


def reproduce(name: str, *, quick: bool = False, seed: int = 0) -> Reproduction:
    """Rerun a published result.

    Args:
        name: in the catalogue.
        quick: with few replicates, to see that it works.
        seed: of all draws.

    Raises:
        UsageError: no such name.
    """
    module = import_module(f".{REPRODUCTIONS[checked([name])[0]][0]}", __package__)
    found: Reproduction = module.reproduce(quick, seed)
    return found


def checked(names: Sequence[str]) -> list[str]:
    """The names, each once.

    Raises:
        UsageError: one that is not in the catalogue.
    """
    for name in names:
        if name not in REPRODUCTIONS:
            raise UsageError(f"unknown reproduction {name!r}: choose from {', '.join(REPRODUCTIONS)}")
    return list(dict.fromkeys(names))


def run_reproductions(
    names: Sequence[str], output: Path | None, quick: bool = False, force: bool = False, seed: int = 0
) -> bool:
    """Rerun some, print a table of claims for each, draw its figure; whether every claim holds.

    Raises:
        UsageError: no such name, or a folder that cannot be used.
    """
    from ...plots.style import save
    from .figure import draw

    names = checked(names)
    settings = {"reproduce": {"name": names, "quick": quick, "seed": seed}}
    folder = RunFolder(output or default_folder("reproduce"), settings, describe_environment("cpu"), force)
    finished = folder.finished()
    console, good = Console(width=max(Console().width, _WIDTH)), True
    for name in names:
        if name in finished:
            console.print(f"{name}: done before, see {folder.path}", markup=False, highlight=False)
            continue
        folder.forget({name})
        start = time.monotonic()
        result = reproduce(name, quick=quick, seed=seed)
        figure = draw(result)
        assert figure is not None
        save(figure, folder.path / "figures" / f"{name}.png")
        folder.append(_row(name, claim, seed) for claim in result.claims)  # last: it is finished with these
        console.print(_table(result))
        console.print(
            f"{'pass' if result.holds else 'FAIL'}: {name} ({time.monotonic() - start:.0f} s)",
            style="green" if result.holds else "bold red",
        )
        console.print()
        good &= result.holds
    folder.finish()
    print(f"figures and rows in {folder.path}")
    return good


def _row(name: str, claim: Claim, seed: int) -> dict[str, Any]:
    return row(
        case=name,
        benchmark="reproduce",
        problem=name,
        seed=seed,
        metric="claim",
        parameter=claim.what,
        value=float(claim.holds),
        status="done" if claim.holds else "failed",
        reason=f"{claim.ours}; expected {claim.expected}",
    )


def _table(result: Reproduction) -> Table:
    table = Table(
        title=Text.assemble(
            (f"{result.name}\n", "bold not italic"),
            (f"{result.source}\n{result.setting}", "dim not italic"),
        ),
        title_justify="left",
        caption=Text(result.remark),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for heading in ("claim", "here", "expected", ""):
        table.add_column(heading, overflow="fold")
    for claim in result.claims:
        mark = Text("holds", "green") if claim.holds else Text("FAILS", "bold red")
        table.add_row(Text(claim.what), Text(claim.ours), Text(claim.expected), mark)
    return table

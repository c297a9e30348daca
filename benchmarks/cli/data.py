"""`elbograd data`: which data sets there are, and downloading them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ...estimators.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..problems.datasets.catalogue import Download


def add_data(app: typer.Typer) -> None:
    """Give the application its commands on data."""
    commands = typer.Typer(
        help="Data sets of images: which there are, and downloading them.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    commands.command("list")(list_)
    commands.command()(get)
    app.add_typer(commands, name="data")


def list_() -> None:
    """List the data sets, and whether each can be had here."""
    from ..problems.datasets.folder import data_folder
    from ..problems.datasets.getting import where_data_are

    entries = where_data_are()
    width = max(map(len, entries))
    typer.echo(printable(f"data sets, files in {data_folder()}:"))
    for name, line in entries.items():
        typer.echo(printable(f"  {name:<{width}}  {line}"))


def get(
    name: Annotated[list[str], typer.Argument(metavar="NAME...", help="Of `elbograd data list`.")],
) -> None:
    """Download data sets, going on where it stopped, and check them; what is there is checked alone.

    They go to the folder that the environment variable ELBOGRAD_DATA names, else to the user's cache.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from ..problems.datasets.catalogue import data_set
    from ..problems.datasets.getting import get_data
    from ..running.progress import is_live

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    console, quiet = Console(stderr=True), not is_live()
    for each in [data_set(each).name for each in name]:  # a wrong name is told before anything is fetched
        with Progress(*columns, console=console, transient=True, disable=quiet) as display:
            got = get_data(each, partial(_bar, display))
        typer.echo(printable(f"{each} is there{''.join(f'; wrote {path}' for path in got)}"))


def _bar(display: Progress, file: Download) -> Callable[[int, int | None], None]:
    """What moves a bar for a file."""
    task = display.add_task(file.file, total=file.size)
    return lambda done, total: display.update(task, completed=done, total=total)

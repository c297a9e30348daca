"""The commands that do not measure cases: lists, reports, comparisons, published results, scaffolds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ...estimators.errors import UsageError
from ...estimators.text import printable
from .parameters import DRY_RUN, FORCE, OUTPUT, PLUGIN, QUICK, SEED


def add_commands(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command()(reproduce)
    app.command("list")(list_)
    app.command("check-problem")(check_problem)
    app.command("new-problem")(new_problem)
    app.command("new-estimator")(new_estimator)
    for command in (report, compare, doctor):
        app.command()(command)


def reproduce(
    name: Annotated[
        list[str] | None, typer.Argument(help="Published results; without any they are listed.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every one of them.")] = False,
    output: OUTPUT = None,
    seed: SEED = 0,
    force: FORCE = False,
    quick: QUICK = False,
    dry_run: DRY_RUN = False,
) -> None:
    """Rerun published results: pass or fail, with numbers and a figure."""
    from ..studies.reproductions.catalogue import REPRODUCTIONS

    if not name and not everything:
        _print_entries("reproductions", {key: summary for key, (_, summary) in REPRODUCTIONS.items()})
        return
    from ..studies.reproductions.command import checked, run_reproductions

    names = list(REPRODUCTIONS) if everything else checked(name or ())
    if dry_run:
        _print_entries("reproductions", {key: REPRODUCTIONS[key][1] for key in names})
        return
    raise typer.Exit(0 if run_reproductions(names, output, quick, force, seed) else 1)


def list_(
    long: Annotated[
        bool, typer.Option("--long", help="Claims, cost and reference of each estimator, counted and read.")
    ] = False,
    estimator: Annotated[
        list[str] | None,
        typer.Option("--estimator", "-e", metavar="NAME", help="With --long: these alone; repeatable."),
    ] = None,
    plugin: PLUGIN = None,
) -> None:
    """List estimators and problems."""
    from ...estimators.plugins.finding import load_plugin
    from ...estimators.plugins.registry import catalogue
    from ..problems.registry import problem_catalogue

    for place in plugin or ():
        load_plugin(place)
    if long:
        from .listing import describe_estimators

        for paragraph in describe_estimators(estimator or ()):
            typer.echo(f"{paragraph}\n")
        return
    if estimator:
        raise UsageError("-e chooses what --long shows: give both")
    for title, entries in (("estimators", catalogue()), ("problems", problem_catalogue())):
        _print_entries(title, entries)


def _print_entries(title: str, entries: Mapping[str, str]) -> None:
    width = max(map(len, entries))
    typer.echo(f"{title}:")
    for name, summary in entries.items():
        line = f"  {name:<{width}}  {summary}"
        typer.echo(printable(line))


def check_problem(
    problem: Annotated[
        str, typer.Argument(metavar="PROBLEM", help="FILE.py, FILE.py:NAME, module:NAME, or one of the list.")
    ],
    route: Annotated[
        str,
        typer.Option(
            "--route",
            metavar="NAME",
            help="factorized, or full: for a model that is to be measured as it is, in train mode say.",
        ),
    ] = "factorized",
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="N", help="B; the default is the problem's.")
    ] = None,
    seed: SEED = 0,
    plugin: PLUGIN = None,
) -> None:
    """Say all that is wrong with a problem of your own at once; of a sound one, what was found."""
    from ...estimators.plugins.finding import load_plugin
    from ..examination.examine import examine_problem

    for place in plugin or ():
        load_plugin(place)
    found = examine_problem(problem, route=route, batch_size=batch_size, seed=seed)
    typer.echo(printable(str(found), lines=True))
    raise typer.Exit(0 if found.sound else 1)


def new_problem(
    name: Annotated[str, typer.Argument(help="kebab-case, e.g. my-model")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")
    ] = Path(),
) -> None:
    """Write a file with a VAE of your own to start from, as a problem, and its test."""
    from .scaffold_problem import write_problem

    source, test = write_problem(name, output)
    typer.echo(f"wrote {source} and {test}")
    typer.echo(f"what is wrong with it:  elbograd check-problem {source}")
    typer.echo(f"measure it:             elbograd variance -p {source} -e leave-one-out -s 2 --quick")
    typer.echo(f"test it:                python -m pytest {test}")


def new_estimator(
    name: Annotated[str, typer.Argument(help="kebab-case, e.g. my-idea")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")
    ] = Path(),
) -> None:
    """Write a file with an estimator to start from, and its test."""
    from .scaffold import write_estimator

    source, test = write_estimator(name, output)
    typer.echo(f"wrote {source} and {test}")
    typer.echo(f"measure it:  elbograd variance -e {source} -e leave-one-out -s 2 --quick")
    typer.echo(f"check it:    python -m pytest {test}")


def report(
    run: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where to write; the run's own folder without it, the current one for several runs.",
        ),
    ] = None,
    formats: Annotated[
        str, typer.Option("--formats", metavar="NAME[,NAME]", help="Of the figures: png, svg, pdf.")
    ] = "png,svg,pdf",
) -> None:
    """Write report.html, and a run's figures and tables anew."""
    from ..report.command import write

    write(run, output, formats)


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="Run folder, or JSON of a throughput run.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The same, later.")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", metavar="NAME", help="What to compare; repeatable.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="CONDITION",
            help="Exit with 1 where the whole interval of B / A is beyond a limit, e.g. 'variance>1.1', or "
            "cannot be had any more; repeatable. Of objectives the change is B - A, in nats.",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Print what shows no change, too.")] = False,
) -> None:
    """Say what changed between two runs, with intervals; a guard for continuous integration."""
    from ..comparison.command import run_comparison

    passed = run_comparison(before, after, metric or (), fail_if or (), every)
    raise typer.Exit(0 if passed else 1)


def doctor() -> None:
    """Show versions, machine and devices: what to put into a bug report."""
    import torch

    from ..store.environment import describe_environment

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for key, value in describe_environment(device).items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        typer.echo(f"{key}: {value}")

"""The command line of the peers benchmark."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ....estimators.errors import UsageError
from ...store import default_folder
from .cases import CASES, QUICK
from .compare import Settings, compare
from .rows import Row, read, write

_PROGRAM = f"python -m {__package__}"
_SETTINGS, _ENVIRONMENT, _PAGE, _FIGURE = "settings.json", "environment.json", "peers.md", "peers.png"

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _number(kind: type[int] | type[float], text: str) -> Any:
    """An option that holds a number; the parser's own complaint would not name the value plainly."""

    def parse(value: str | float) -> int | float:
        try:
            return kind(value)
        except ValueError:
            what = "an integer" if kind is int else "a number"
            raise typer.BadParameter(f"{value!r} is not {what}") from None

    return typer.Option(help=text, parser=parse, metavar="INTEGER" if kind is int else "NUMBER")


@app.command()
def peers(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where results go.")
    ] = None,
    rounds: Annotated[int, _number(int, "Turns of every contender.")] = Settings.rounds,
    replicates: Annotated[int, _number(int, "Replicates a loop draws in a turn.")] = Settings.replicates,
    precision: Annotated[float, _number(float, "Relative half-width to reach, at 95%.")] = Settings.precision,
    run_out: Annotated[
        float, _number(float, "Really draw out loops predicted to take at most so many seconds.")
    ] = Settings.run_out,
    threads: Annotated[int, _number(int, "Of torch, in every process.")] = Settings.threads,
    steps: Annotated[int, _number(int, "Training steps before the model is frozen.")] = Settings.steps,
    seed: Annotated[int, _number(int, "Of data, weights and draws.")] = Settings.seed,
    quick: Annotated[bool, typer.Option("--quick", help="A small run, to see that all works.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite results that are there.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only write page and figure of a folder anew.")
    ] = None,
) -> None:
    """Compare this suite with a plain PyTorch loop, Pyro and Storchastic at equal precision."""
    if report is not None:
        present(report)
        return
    settings = Settings(precision, rounds, replicates, run_out, threads, steps, seed=seed)
    _check(settings)
    if quick:
        settings = replace(
            settings, rounds=2, replicates=100, run_out=0.0, steps=0, reference=10_000, suite=4000
        )
    folder = output or default_folder("peers")
    _make(folder, force)
    rows, versions = compare(QUICK if quick else CASES, settings, _say)
    _save(folder, rows, settings, versions)
    present(folder)
    wrong = [row for row in rows if row.status == "failed" or row.agreement not in ("", "agrees")]
    for row in wrong:
        _say(f"{row.problem}, {row.estimator}: {row.contender}: {row.agreement or row.note}")
    raise typer.Exit(1 if wrong else 0)


def present(folder: Path) -> None:
    """Write page and figure from what a folder holds, and print the page's first table.

    Raises:
        UsageError: it holds no comparison.
    """
    from ...plots.style import save
    from . import figure, page

    try:
        rows = read(folder)
        settings, environment = (json.loads((folder / n).read_text()) for n in (_SETTINGS, _ENVIRONMENT))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"no comparison with peers in {folder}: {type(error).__name__}") from error
    (folder / _PAGE).write_text(page.page(rows, settings, environment), encoding="utf-8")
    drawn = figure.draw(rows, settings["precision"], environment["cpu"])
    if drawn is not None:
        save(drawn, folder / _FIGURE)
    print(page.summary(rows))
    print(f"\n{folder}")


def main() -> None:
    """Run; a user's mistake is one line on standard error and exit status 2."""
    try:
        code = app(standalone_mode=False, prog_name=_PROGRAM)
    except UsageError as error:
        code = _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = _complain("stopped", 130)
    except OSError as error:
        code = _complain(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except Exception as error:
        # The parser's own errors are private to typer; they all know how to say what is wrong.
        if not hasattr(error, "format_message"):
            raise
        code = _complain(error.format_message())
    sys.exit(code if isinstance(code, int) else 0)


def _check(settings: Settings) -> None:
    for name, least in (("rounds", 2), ("replicates", 2), ("threads", 1), ("steps", 0), ("seed", 0)):
        value = getattr(settings, name)
        if value < least:
            raise UsageError(f"--{name} {value} is less than {least}")
    if not 0 < settings.precision < 1:
        raise UsageError(f"--precision {settings.precision} is not between 0 and 1")


def _make(folder: Path, force: bool) -> None:
    if folder.exists() and not force and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder: choose another with -o, or give --force")
    folder.mkdir(parents=True, exist_ok=True)


def _save(folder: Path, rows: list[Row], settings: Settings, versions: dict[str, str]) -> None:
    from ...store.environment import describe_environment

    environment: dict[str, Any] = describe_environment("cpu")
    environment["command"] = f"{_PROGRAM} {shlex.join(sys.argv[1:])}".strip()
    environment["packages"] = versions
    write(rows, folder)
    (folder / _SETTINGS).write_text(json.dumps(vars(settings), indent=2) + "\n")
    (folder / _ENVIRONMENT).write_text(json.dumps(environment, indent=2) + "\n")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _complain(message: str, status: int = 2) -> int:
    print(f"{_PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()

"""Options as typer wants them: made from the fields of dataclasses, and those that several commands share."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from ...estimators.errors import UsageError
from ..cases.options import Option, options_of
from ..running.executors.choice import Engine
from .config_file import read_config

Parameters = dict[str, Any]


def parameters_of(options: type) -> Parameters:
    """Field -> annotated type, of each field that is an option of the command line."""
    hints = get_type_hints(options)
    return {name: _annotated(hints[name], option) for name, option in options_of(options)}


def defaults_of(options: type) -> Parameters:
    """Field -> what typer shows as its default; None for what is repeatable."""
    defaults = {f.name: f.default for f in fields(options)}
    return {name: None if isinstance(value, tuple) else value for name, value in defaults.items()}


def read(options: type, name: str, value: Any) -> Any:
    """A field's value from what typer read: a tuple of what was repeated, or separated by commas.

    Raises:
        UsageError: what is no number where one is expected.
    """
    if not isinstance(value, list):
        return value
    kind = get_args(get_type_hints(options)[name])[0]
    return tuple(value) if kind is str else _numbers(value, f"--{name.replace('_', '-')}", kind)


def _annotated(hint: Any, option: Option) -> Any:
    """The field's type with typer's option: repeatable for a tuple, with a parser for a number."""
    settings: dict[str, Any] = {"metavar": option.metavar, "help": option.help}
    kind: Any = hint
    if get_origin(hint) is tuple:
        kind = list[str] | None
    elif hint is bool:
        settings.pop("metavar")
    elif int in (hint, *get_args(hint)):
        settings |= {"parser": _integer, "metavar": option.metavar or "INTEGER"}
    elif float in (hint, *get_args(hint)):
        settings |= {"parser": _float, "metavar": option.metavar or "FLOAT"}
    return Annotated[kind, typer.Option(*option.names, **settings)]


def _integer(text: str | int) -> int:
    """An integer; the parser's own complaint does not name the value."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an integer") from None


def _float(text: str | float) -> float:
    """A number, likewise."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


def _numbers(values: list[str], option: str, kind: type) -> tuple[Any, ...]:
    """Repeated and comma-separated numbers as a tuple."""
    try:
        return tuple(kind(part) for value in values for part in value.split(","))
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise UsageError(
            f"{option} {','.join(values)}: expected {what}, or several separated by commas"
        ) from None


PLUGIN = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="MODULE", help="Module or file to import for what it registers; repeatable."
    ),
]
SEED = Annotated[int, typer.Option("--seed", help="Of all draws.", parser=_integer, metavar="INTEGER")]
OUTPUT = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Run folder; the same command goes on where it stopped."
    ),
]
FORCE = Annotated[bool, typer.Option("--force", help="Begin the run folder anew.")]
QUICK = Annotated[bool, typer.Option("--quick", help="A small run, to see that all works.")]
DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="Print what would be run and stop.")]
_CONFIG = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file of options; the command line wins.",
        callback=read_config,
        is_eager=True,
    ),
]

#: Where and how cases run.
ENGINE = parameters_of(Engine)
#: What every benchmark's command takes besides.
RUN: Parameters = {
    "output": OUTPUT,
    "plugin": PLUGIN,
    "config": _CONFIG,
    "force": FORCE,
    "quick": QUICK,
    "dry_run": DRY_RUN,
}
RUN_DEFAULTS: Parameters = {"force": False, "quick": False, "dry_run": False}

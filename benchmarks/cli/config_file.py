"""``--config FILE.toml``: options from a file, which the command line overrides."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import typer

from ...estimators.errors import UsageError


def read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the command line.

    Raises:
        UsageError: it cannot be read, or names what is no option.
    """
    if file is None:
        return None
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file}: not TOML: {error}") from error
    command = context.info_name or ""
    section = values[command] if isinstance(values.get(command), dict) else values
    # A run's own config.toml has a table a benchmark; `bench` has no table of its own.
    section = {k.replace("_", "-"): v for k, v in section.items() if not isinstance(v, dict)}
    options = {p.opts[0].lstrip("-"): p for p in context.command.params if p.name != "config"}
    defaults = {}
    for key, value in section.items():
        if key not in options:
            raise UsageError(
                f"--config {file}: unknown key {key!r}: choose from {', '.join(sorted(options))}"
            )
        several = getattr(options[key], "multiple", False)
        if isinstance(value, list) and not several:
            raise UsageError(f"--config {file}: {key} takes one value, not {value}")
        defaults[str(options[key].name)] = _as_given(value, several)
    context.default_map = defaults
    return file


def _as_given(value: Any, several: bool) -> Any:
    """A TOML value as the command line would have it: strings, in a list where an option is repeatable."""
    if isinstance(value, bool):
        return value
    if several:
        return [str(v) for v in (value if isinstance(value, list) else [value])]
    return str(value)

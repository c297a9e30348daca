"""The command line. Imports torch only inside the commands that measure."""

from __future__ import annotations

import io
import os
import sys

import typer

from ...estimators.errors import UsageError
from ...estimators.text import clean
from .benchmarks import add_benchmarks, resumable
from .commands import add_commands
from .data import add_data
from .interrupts import ending_interrupts


def application() -> typer.Typer:
    """The command line, with a command for each kind of benchmark that is known by now."""
    app = typer.Typer(
        help="Benchmark Monte Carlo estimators of the ELBO gradient.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    add_benchmarks(app)
    add_commands(app)
    add_data(app)
    return app


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no Greek letters
    try:
        with ending_interrupts():
            code = application()(args=sys.argv[1:] or ["--help"], standalone_mode=False, prog_name="elbograd")
        if code == 130:  # typer turns an interrupt into this status
            raise KeyboardInterrupt
    except UsageError as error:
        code = _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        goes_on = "; the same command with the same -o goes on from here"
        resumed = {"reproduce", *resumable()} & {*sys.argv[1:2]}
        print(f"\nelbograd: stopped{goes_on if resumed else ''}", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a full disk, a folder that has gone: finished cases are in the run folder
        code = _complain(f"{error.filename or 'output'}: {error.strerror or error}", status=1)
    except Exception as error:
        # The parser's own errors are private to typer; they all know how to say what is wrong.
        if not hasattr(error, "format_message"):
            raise
        code = _complain(error.format_message())
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, status: int = 2) -> int:
    print(f"elbograd: error: {clean(message)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()

"""The command line. Imports torch only inside the commands that measure."""

from __future__ import annotations

import io
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from ..estimators.errors import UsageError
from .suite import Benchmark, Convergence, Run, Throughput, Variance, quick, run

app = typer.Typer(
    help="Benchmark Monte Carlo estimators of the ELBO gradient.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the command line."""
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


Estimators = Annotated[
    list[str] | None,
    typer.Option(
        "--estimator",
        "-e",
        metavar="NAME",
        help="Name[key=value], file.py[:Class] or module:Class; repeatable.",
    ),
]
Problems = Annotated[
    list[str] | None,
    typer.Option("--problem", "-p", metavar="NAME", help="Name[key=value] or file.py[:name]; repeatable."),
]
Samples = Annotated[
    list[str] | None,
    typer.Option("--num-samples", "-s", metavar="N[,N]", help="Samples an estimate; repeatable, or 1,4,16."),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Data a batch.", parser=_integer, metavar="INTEGER")
]
Seed = Annotated[
    int, typer.Option("--seed", help="Of data order, weights and draws.", parser=_integer, metavar="INTEGER")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="cpu or cuda.")]
Dtype = Annotated[str, typer.Option("--dtype", metavar="NAME", help="float32 or float64.")]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", help="Processes, one thread each.", parser=_integer, metavar="INTEGER")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Run folder; the same command goes on where it stopped."
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="MODULE", help="Module or file to import for what it registers; repeatable."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file of options; the command line wins.",
        callback=_read_config,
        is_eager=True,
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="A small run, to see that all works.")]
Force = Annotated[bool, typer.Option("--force", help="Begin the run folder anew.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the cases and stop.")]
Replicates = Annotated[
    int,
    typer.Option(
        "--replicates",
        "-r",
        help="Independent estimates behind a variance.",
        parser=_integer,
        metavar="INTEGER",
    ),
]
Precision = Annotated[
    float | None,
    typer.Option(
        "--precision",
        help="Relative half-width to reach, e.g. 0.01, in place of --replicates.",
        parser=_float,
        metavar="FLOAT",
    ),
]


def _tuple(values: list[str] | None, default: tuple[Any, ...], option: str, kind: type) -> tuple[Any, ...]:
    """Repeated and comma-separated numbers as a tuple."""
    if not values:
        return default
    try:
        return tuple(kind(part) for value in values for part in value.split(","))
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise UsageError(
            f"{option} {','.join(values)}: expected {what}, or several separated by commas"
        ) from None


def _finish(request: Run) -> None:
    raise typer.Exit(0 if run(request) else 1)


@app.command()
def bench(
    estimator: Estimators = None,
    problem: Problems = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    replicates: Replicates = Variance.replicates,
    jobs: Jobs = 1,
    output: Output = None,
    plugin: Plugins = None,
    config: Config = None,
    force: Force = False,
    quick_: Quick = False,
    dry_run: DryRun = False,
) -> None:
    """Run variance, convergence and throughput in one run folder, with tables and figures."""
    common: dict[str, Any] = {
        "estimator": tuple(estimator or ()),
        "problem": tuple(problem or ("vae",)),
        "batch_size": batch_size,
        "seed": seed,
        "device": device,
        "dtype": dtype,
    }
    benchmarks: list[Benchmark] = [
        # The sweep over latent dimensions is the default problem's.
        Variance(**common, replicates=replicates, latent_dim=() if problem else Variance.latent_dim),
        Convergence(**common),
        Throughput(**common),
    ]
    _finish(
        Run(
            [quick(b) for b in benchmarks] if quick_ else benchmarks,
            output,
            jobs,
            tuple(plugin or ()),
            force,
            dry_run,
            "bench",
        )
    )


@app.command()
def variance(
    estimator: Estimators = None,
    problem: Problems = None,
    num_samples: Samples = None,
    replicates: Replicates = Variance.replicates,
    precision: Precision = None,
    route: Annotated[
        str, typer.Option("--route", metavar="NAME", help="factorized or full.")
    ] = Variance.route,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step", metavar="N[,N]", help="Training steps of the checkpoints measured at; 0 is the start."
        ),
    ] = None,
    latent_dim: Annotated[
        list[str] | None,
        typer.Option("--latent-dim", metavar="N[,N]", help="Other latent dimensions to measure, e.g. 2,32."),
    ] = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    jobs: Jobs = 1,
    output: Output = None,
    plugin: Plugins = None,
    config: Config = None,
    force: Force = False,
    quick_: Quick = False,
    dry_run: DryRun = False,
) -> None:
    """Measure gradient variance, signal-to-noise, bias and cost."""
    if route not in ("factorized", "full"):
        raise UsageError(f"--route {route!r} is not one of factorized, full")
    if precision is not None and not 0 < precision < 1:
        raise UsageError(f"--precision must be between 0 and 1, not {precision}")
    # The default sweep over dimensions belongs to the default problem.
    options = Variance(
        estimator=tuple(estimator or ()),
        problem=tuple(problem or ("vae",)),
        num_samples=_tuple(num_samples, Variance.num_samples, "--num-samples", int),
        replicates=replicates,
        precision=precision,
        route=route,
        step=_tuple(step, Variance.step if problem is None else (0,), "--step", int),
        latent_dim=_tuple(latent_dim, Variance.latent_dim if problem is None else (), "--latent-dim", int),
        batch_size=batch_size,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    _finish(
        Run(
            [quick(options) if quick_ else options],
            output,
            jobs,
            tuple(plugin or ()),
            force,
            dry_run,
            "variance",
        )
    )


@app.command()
def convergence(
    estimator: Estimators = None,
    problem: Problems = None,
    num_samples: Samples = None,
    steps: Annotated[
        int, typer.Option("--steps", help="Training steps.", parser=_integer, metavar="INTEGER")
    ] = Convergence.steps,
    seeds: Annotated[
        int, typer.Option("--seeds", help="Repetitions.", parser=_integer, metavar="INTEGER")
    ] = Convergence.seeds,
    optimizer: Annotated[
        str, typer.Option("--optimizer", metavar="NAME", help="adam or sgd.")
    ] = Convergence.optimizer,
    learning_rate: Annotated[
        list[str] | None,
        typer.Option(
            "--learning-rate",
            metavar="X[,X]",
            help="Rates to tune over, e.g. 0.001,0.003; one is used as it is.",
        ),
    ] = None,
    tuning_steps: Annotated[
        int,
        typer.Option("--tuning-steps", help="Steps of each tuning run.", parser=_integer, metavar="INTEGER"),
    ] = Convergence.tuning_steps,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    jobs: Jobs = 1,
    output: Output = None,
    plugin: Plugins = None,
    config: Config = None,
    force: Force = False,
    quick_: Quick = False,
    dry_run: DryRun = False,
) -> None:
    """Train with each estimator: the objective against steps and seconds."""
    options = Convergence(
        estimator=tuple(estimator or ()),
        problem=tuple(problem or ("vae",)),
        num_samples=_tuple(num_samples, Convergence.num_samples, "--num-samples", int),
        steps=steps,
        seeds=seeds,
        optimizer=optimizer,
        learning_rate=_tuple(learning_rate, Convergence.learning_rate, "--learning-rate", float),
        tuning_steps=tuning_steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    _finish(
        Run(
            [quick(options) if quick_ else options],
            output,
            jobs,
            tuple(plugin or ()),
            force,
            dry_run,
            "convergence",
        )
    )


@app.command()
def throughput(
    estimator: Estimators = None,
    problem: Problems = None,
    num_samples: Samples = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", help="Time spent on each measurement.", parser=_float, metavar="FLOAT"),
    ] = Throughput.seconds,
    mode: Annotated[
        list[str] | None,
        typer.Option("--mode", metavar="NAME", help="eager, compiled or cuda-graph; repeatable."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="FILE", help="An earlier run's throughput.json to compare with."),
    ] = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    output: Output = None,
    plugin: Plugins = None,
    config: Config = None,
    force: Force = False,
    quick_: Quick = False,
    dry_run: DryRun = False,
) -> None:
    """Time training steps and gradients, through pytest-benchmark."""
    options = Throughput(
        estimator=tuple(estimator or ()),
        problem=tuple(problem or ("vae",)),
        num_samples=_tuple(num_samples, Throughput.num_samples, "--num-samples", int),
        seconds=seconds,
        mode=tuple(mode or Throughput.mode),
        compare=compare,
        batch_size=batch_size,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    _finish(
        Run(
            [quick(options) if quick_ else options],
            output,
            1,
            tuple(plugin or ()),
            force,
            dry_run,
            "throughput",
        )
    )


@app.command("list")
def list_(
    plugin: Plugins = None,
) -> None:
    """List estimators and problems."""
    from ..estimators.plugins import load_plugin
    from ..estimators.registry import catalogue
    from .problems.registry import problem_catalogue

    for place in plugin or ():
        load_plugin(place)
    for title, entries in (("estimators", catalogue()), ("problems", problem_catalogue())):
        width = max(map(len, entries))
        typer.echo(f"{title}:")
        for name, summary in entries.items():
            typer.echo(f"  {name:<{width}}  {summary}")


@app.command("new-estimator")
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


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
) -> None:
    """Draw a run's figures and write its tables anew."""
    from .store import load_results
    from .suite import present

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a run folder")
    rows = load_results(folder)
    if rows.empty:
        raise UsageError(f"no rows in {folder}")
    present(rows, folder)


@app.command()
def doctor() -> None:
    """Show versions, machine and devices: what to put into a bug report."""
    import torch

    from .environment import describe_environment

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for key, value in describe_environment(device).items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        typer.echo(f"{key}: {value}")


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no Greek letters
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False, prog_name="elbograd")
        if code == 130:  # typer turns an interrupt into this status
            raise KeyboardInterrupt
    except UsageError as error:
        code = _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("\nelbograd: stopped; the same command with the same -o goes on from here", file=sys.stderr)
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
    print(f"elbograd: error: {' '.join(message.split())}", file=sys.stderr)
    return status

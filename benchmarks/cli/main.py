"""The command line. Imports torch only inside the commands that measure."""

from __future__ import annotations

import io
import os
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import Parameter, Signature
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_type_hints

import typer

from ...estimators.errors import UsageError
from ...estimators.text import clean, printable
from ..cases.options import Advise, Benchmark, Certify, Common, Convergence, Throughput, Variance, quick
from ..running.executors.choice import Engine
from ..running.suite import Run, run
from .interrupts import ending_interrupts

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


def _repeatable(*names: str, metavar: str, help: str) -> Any:
    return Annotated[list[str] | None, typer.Option(*names, metavar=metavar, help=help)]


def _whole(*names: str, help: str) -> Any:
    return Annotated[int, typer.Option(*names, help=help, parser=_integer, metavar="INTEGER")]


def _real(kind: Any, *names: str, help: str) -> Any:
    return Annotated[kind, typer.Option(*names, help=help, parser=_float, metavar="FLOAT")]


def _text(kind: Any, *names: str, metavar: str, help: str) -> Any:
    return Annotated[kind, typer.Option(*names, metavar=metavar, help=help)]


def _flag(name: str, help: str) -> Any:
    return Annotated[bool, typer.Option(name, help=help)]


_Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="MODULE", help="Module or file to import for what it registers; repeatable."
    ),
]

#: The fields of the benchmarks' options, as the command line calls them.
_OPTIONS = {
    "estimator": _repeatable(
        "--estimator",
        "-e",
        metavar="NAME",
        help="Name[key=value], file.py[:Class] or module:Class; repeatable.",
    ),
    "problem": _repeatable(
        "--problem", "-p", metavar="NAME", help="Name[key=value] or file.py[:name]; repeatable."
    ),
    "num_samples": _repeatable(
        "--num-samples", "-s", metavar="N[,N]", help="Samples an estimate; repeatable, or 1,4,16."
    ),
    "replicates": _whole("--replicates", "-r", help="Independent estimates behind a variance."),
    "precision": _real(
        float | None, "--precision", help="Relative half-width to reach, e.g. 0.01, in place of --replicates."
    ),
    "route": _text(str, "--route", metavar="NAME", help="factorized or full."),
    "step": _repeatable(
        "--step",
        metavar="N[,N]",
        help="Training steps of the checkpoints measured at; 0 is the start. Those between the first and the "
        "last are measured at one S.",
    ),
    "latent_dim": _repeatable(
        "--latent-dim",
        metavar="N[,N]",
        help="Other latent dimensions to measure at the last step and one S, e.g. 2,32.",
    ),
    "trajectory": _text(
        str | None,
        "--trajectory",
        metavar="FOLDER",
        help="Checkpoints STEP.pt of your own, in place of training the problem.",
    ),
    "relative_to": _text(
        str | None, "--relative-to", metavar="NAME", help="Estimator to print ratios of variances to."
    ),
    "chunk": _whole(
        "--chunk",
        help="Replicates drawn at a time; the default follows from the sizes. For the factorized route: "
        "estimators that couple the batch draw one at a time, and ratios of --relative-to ignore it.",
    ),
    "steps": _whole("--steps", help="Training steps."),
    "train_steps": _whole(
        "--train-steps", help="Measure after so many steps of training too; 0 for the weights as they are."
    ),
    "seeds": _whole("--seeds", help="Repetitions."),
    "optimizer": _text(str, "--optimizer", metavar="NAME", help="adam or sgd."),
    "learning_rate": _repeatable(
        "--learning-rate",
        metavar="X[,X]",
        help="Rates to tune over, e.g. 0.001,0.003; one is used as it is.",
    ),
    "tuning_steps": _whole("--tuning-steps", help="Steps of each tuning run."),
    "seconds": _real(float, "--seconds", help="Time spent on each measurement."),
    "mode": _repeatable("--mode", metavar="NAME", help="eager, compiled or cuda-graph; repeatable."),
    "compare": _text(
        str | None, "--compare", metavar="FILE", help="An earlier run's throughput.json to compare with."
    ),
    "confidence": _real(float, "--confidence", help="Of the bias bound."),
    "tolerance": _real(float, "--tolerance", help="Relative bias that the bound must reach, e.g. 0.01."),
    "budget": _real(
        float | None, "--budget", help="Seconds an estimator, in place of a fixed amount of work."
    ),
    "batch_size": _repeatable(
        "--batch-size",
        metavar="N[,N]",
        help="Data a batch. Of several, variance measures the others at the last step and one S.",
    ),
    "seed": _whole("--seed", help="Of data order, weights and draws."),
    "device": _text(str, "--device", metavar="NAME", help="cpu or cuda."),
    "dtype": _text(str, "--dtype", metavar="NAME", help="float32 or float64."),
}

_Names = Annotated[list[str] | None, typer.Argument(help="Published results; without any they are listed.")]
_Everything = Annotated[bool, typer.Option("--all", help="Every one of them.")]
_Seed = Annotated[int, typer.Option("--seed", help="Of all draws.", parser=_integer, metavar="INTEGER")]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Run folder; the same command goes on where it stopped."
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Begin the run folder anew.")]
_Quick = Annotated[bool, typer.Option("--quick", help="A small run, to see that all works.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be run and stop.")]

#: What every benchmark's command takes besides: the fields of `Run`, and how the options are read.
_RUN = {
    "jobs": _whole("--jobs", "-j", help="Cases at a time: processes of this machine, or Slurm jobs."),
    "threads": _whole("--threads", help="That a case computes with, the same wherever it runs."),
    "executor": _text(str, "--executor", metavar="NAME", help="local, dask or slurm."),
    "scheduler": _text(
        str | None, "--scheduler", metavar="ADDRESS", help="Of a running Dask scheduler, for --executor dask."
    ),
    "slurm_option": _repeatable(
        "--slurm-option",
        metavar="KEY=VALUE",
        help="Of sbatch, such as partition=long, time=120 (minutes); repeatable. cluster=local: try it here.",
    ),
    "retries": _whole("--retries", help="How often a case is begun again whose worker vanished."),
    "allow_shared_timings": _flag(
        "--allow-shared-timings", "Measure seconds on a cluster, where others may be computing too."
    ),
    "output": _Output,
    "plugin": _Plugins,
    "config": Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML file of options; the command line wins.",
            callback=_read_config,
            is_eager=True,
        ),
    ],
    "force": _Force,
    "quick": _Quick,
    "dry_run": _DryRun,
}
_ENGINE = tuple(field.name for field in fields(Engine))
_RUN_DEFAULTS: dict[str, Any] = {
    **{name: getattr(Engine, name) for name in _ENGINE if name != "slurm_option"},
    "force": False,
    "quick": False,
    "dry_run": False,
}


def _numbers(values: list[str], option: str, kind: type) -> tuple[Any, ...]:
    """Repeated and comma-separated numbers as a tuple."""
    try:
        return tuple(kind(part) for value in values for part in value.split(","))
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise UsageError(
            f"{option} {','.join(values)}: expected {what}, or several separated by commas"
        ) from None


def _run_advice(request: Run) -> bool:
    from ..advice.command import run_advice

    return run_advice(request)


def _benchmark(
    options: type[Common],
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    instead: Mapping[str, Any] = MappingProxyType({}),
    work: Callable[[Run], bool] = run,
) -> Callable[[Callable[..., Sequence[Benchmark]]], Callable[..., None]]:
    """Make a command of a function from what the user gave (field -> value) to the benchmarks to run.

    The command has an option for each field of ``options``, with the field's default.

    Args:
        options: of the benchmark.
        only: fields, where not all are wanted.
        without: options of `Run` to leave out.
        instead: fields whose option is another than that of `_OPTIONS`.
        work: what does it.
    """
    hints = get_type_hints(options)
    names = only or [field.name for field in fields(options)]
    own = {name: option for name, option in {**_OPTIONS, **instead}.items() if name in names}
    run_options = {name: option for name, option in _RUN.items() if name not in without}

    def default(name: str) -> Any:
        if name in own:
            value = getattr(options, name)
            return None if isinstance(value, tuple) else value
        return _RUN_DEFAULTS.get(name)

    def read(name: str, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        kind = get_args(hints[name])[0]
        return tuple(value) if kind is str else _numbers(value, f"--{name.replace('_', '-')}", kind)

    def decorate(function: Callable[..., Sequence[Benchmark]]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            given = {name: read(name, values[name]) for name in own if values[name] not in (None, [])}
            benchmarks = function(given)
            engine = {name: values[name] for name in _ENGINE if name in values}
            if "slurm_option" in engine:
                engine["slurm_option"] = tuple(engine["slurm_option"] or ())
            request = Run(
                [quick(b) for b in benchmarks] if values["quick"] else benchmarks,
                values["output"],
                Engine(**engine),
                tuple(values["plugin"] or ()),
                values["force"],
                values["dry_run"],
                function.__name__,
            )
            raise typer.Exit(0 if work(request) else 1)

        everything = {**own, **run_options}
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__annotations__ = everything
        command.__signature__ = Signature(  # type: ignore[attr-defined]
            [
                Parameter(name, Parameter.KEYWORD_ONLY, default=default(name), annotation=annotation)
                for name, annotation in everything.items()
            ]
        )
        return app.command()(command)

    return decorate


_Given = dict[str, Any]


@_benchmark(Variance, only=("estimator", "problem", "replicates", "batch_size", "seed", "device", "dtype"))
def bench(given: _Given) -> Sequence[Benchmark]:
    """Run variance, convergence and throughput in one run folder, with tables, figures and a report."""
    shared = {name: value for name, value in given.items() if name != "replicates"}
    shared["batch_size"] = shared.get("batch_size", ())[:1]
    here = {} if "problem" not in given else {"step": Variance.step}
    return [Variance(**_of_own_problem({**here, **given})), Convergence(**shared), Throughput(**shared)]


@_benchmark(Variance)
def variance(given: _Given) -> Sequence[Benchmark]:
    """Measure gradient variance, signal-to-noise, bias and cost."""
    return [Variance(**_of_own_problem(given))]


@_benchmark(Convergence)
def convergence(given: _Given) -> Sequence[Benchmark]:
    """Train with each estimator: the objective against steps and seconds."""
    return [Convergence(**given)]


@_benchmark(Throughput, without=_ENGINE)
def throughput(given: _Given) -> Sequence[Benchmark]:
    """Time training steps and gradients, through pytest-benchmark."""
    return [Throughput(**given)]


@_benchmark(Certify, only=("estimator", "problem", "confidence", "tolerance", "budget", "seed", "device"))
def certify(given: _Given) -> Sequence[Benchmark]:
    """Test estimators' claims against exact answers, and bound their bias."""
    return [Certify(**given)]


@_benchmark(
    Advise,
    without=_ENGINE,
    instead={
        "budget": _real(float, "--budget", help="Seconds of measuring, a problem; training comes on top.")
    },
    work=_run_advice,
)
def advise(given: _Given) -> Sequence[Benchmark]:
    """Say which estimator to use on a model: all are measured and ranked."""
    return [Advise(**given)]


def _of_own_problem(given: _Given) -> _Given:
    """What was given, over the default sweeps; those of the default problem are its own."""
    if "trajectory" in given:
        return {"step": (), "latent_dim": (), **given}
    return {"step": (0,), "latent_dim": (), "batch_size": (), **given} if "problem" in given else given


@app.command()
def reproduce(
    name: _Names = None,
    everything: _Everything = False,
    output: _Output = None,
    seed: _Seed = 0,
    force: _Force = False,
    quick: _Quick = False,
    dry_run: _DryRun = False,
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


@app.command("list")
def list_(
    long: Annotated[
        bool, typer.Option("--long", help="Claims, cost and reference of each estimator, counted and read.")
    ] = False,
    estimator: Annotated[
        list[str] | None,
        typer.Option("--estimator", "-e", metavar="NAME", help="With --long: these alone; repeatable."),
    ] = None,
    plugin: _Plugins = None,
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


@app.command()
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


@app.command()
def doctor() -> None:
    """Show versions, machine and devices: what to put into a bug report."""
    import torch

    from ..store.environment import describe_environment

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for key, value in describe_environment(device).items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        typer.echo(f"{key}: {value}")


#: Commands that a second call begins anew.
_WITHOUT_RUN = {"advise", "list", "report", "compare", "new-estimator", "doctor"}


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no Greek letters
    try:
        with ending_interrupts():
            code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False, prog_name="elbograd")
        if code == 130:  # typer turns an interrupt into this status
            raise KeyboardInterrupt
    except UsageError as error:
        code = _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        goes_on = (
            "" if _WITHOUT_RUN & {*sys.argv[1:2]} else "; the same command with the same -o goes on from here"
        )
        print(f"\nelbograd: stopped{goes_on}", file=sys.stderr)
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

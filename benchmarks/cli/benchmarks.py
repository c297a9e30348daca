"""The commands that measure: one for each kind of benchmark, and ``bench`` for several together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, Signature
from typing import Any

import typer

from ..cases.base import AnyBenchmark
from ..cases.convergence import Convergence
from ..cases.kinds import Kind, kinds
from ..cases.throughput import Throughput
from ..cases.variance import Variance
from ..running.executors.choice import Engine
from ..running.suite import Run, run
from ..running.threads import cores
from .parameters import ENGINE, RUN, RUN_DEFAULTS, Parameters, defaults_of, parameters_of, read

_Given = Mapping[str, Any]
_OF_VARIANCE = ("replicates", "no_bias", "bias_seconds")
_BENCH_TRAINING = {"trials": 10, "seeds": 5}  # half of a convergence run's, since it is one part of three
_BENCH = ("estimator", "problem", *_OF_VARIANCE, "batch_size", "seed", "device", "dtype")


def add_benchmarks(app: typer.Typer) -> None:
    """Give the application a command for each kind of benchmark, and ``bench``."""
    own = {name: option for name, option in parameters_of(Variance).items() if name in _BENCH}
    app.command("bench")(_command("bench", bench.__doc__ or "", Variance, own, bench))
    for kind in kinds().values():
        app.command(kind.name)(_command_of(kind))


def resumable() -> set[str]:
    """Commands that go on where they stopped when they are given again."""
    return {"bench", *(name for name, kind in kinds().items() if kind.text_file is None)}


def bench(given: _Given) -> Sequence[AnyBenchmark]:
    """Run variance, convergence and throughput in one run folder, with tables, figures and a report."""
    shared = {name: value for name, value in given.items() if name not in _OF_VARIANCE}
    shared["batch_size"] = shared.get("batch_size", ())[:1]
    here = {} if "problem" not in given else {"step": Variance.step}
    trained = Convergence.asked({**_BENCH_TRAINING, **shared})
    return [Variance.asked({**here, **given}), trained, Throughput.asked(shared)]


def _command_of(kind: Kind) -> Callable[..., None]:
    summary = (inspect.getdoc(kind) or "").partition("\n")[0]
    return _command(kind.name, summary, kind, parameters_of(kind), lambda given: [kind.asked(given)])


def _command(
    name: str, summary: str, options: Kind, own: Parameters, ask: Callable[[_Given], Sequence[AnyBenchmark]]
) -> Callable[..., None]:
    """A function that typer makes a command of.

    Args:
        name: of the command, and of its dated folders.
        summary: its help.
        options: whose fields the options are.
        own: those fields, annotated.
        ask: from what the user gave (field -> value) to the benchmarks to run.
    """
    everything = {**own, **({} if options.alone else ENGINE), **RUN}
    defaults = {**RUN_DEFAULTS, **defaults_of(Engine), **{k: defaults_of(options)[k] for k in own}}

    def command(**values: Any) -> None:
        given = {k: read(options, k, values[k]) for k in own if values[k] not in (None, [])}
        asked = ask(given)
        engine = Engine(**{k: read(Engine, k, values[k]) for k in ENGINE if values.get(k) not in (None, [])})
        if options.fills_cores and engine.jobs is None and not engine.shared:
            engine = replace(engine, jobs=max(cores() // engine.threads, 1))
        request = Run(
            [benchmark.quick() for benchmark in asked] if values["quick"] else asked,
            values["output"],
            engine,
            tuple(values["plugin"] or ()),
            values["force"],
            values["dry_run"],
            name,
        )
        raise typer.Exit(0 if run(request) else 1)

    command.__name__, command.__doc__ = name, summary
    command.__annotations__ = everything
    command.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(k, Parameter.KEYWORD_ONLY, default=defaults.get(k), annotation=annotation)
            for k, annotation in everything.items()
        ]
    )
    return command

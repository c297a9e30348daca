"""Options of benchmarks: the fields of a dataclass that say how the command line calls them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from ...estimators.errors import UsageError

#: Seeds of repetitions are added to the base seed, and must all fit into 64 bits.
MAX_SEED = 2**32 - 1
_KEY = "option"


@dataclass(frozen=True)
class Option:
    """How the command line calls a field; the field's type and default are the option's.

    Attributes:
        names: "--replicates", "-r".
        help: what it is, as ``--help`` shows it.
        metavar: what stands for the value there; the type's own for numbers.
        last: comes after the options that a kind of benchmark has of its own.
    """

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    last: bool = False

    def default(self, value: Any) -> Any:
        """The field of a dataclass."""
        return field(default=value, metadata={_KEY: self})


def option(default: Any, *names: str, help: str, metavar: str | None = None) -> Any:
    """A field of a dataclass that is an option of the command line.

    Args:
        default: of the field.
        names: "--replicates", "-r".
        help: what it is.
        metavar: what stands for the value in ``--help``.
    """
    return Option(names, help, metavar).default(default)


def options_of(options: type) -> Iterator[tuple[str, Option]]:
    """Field and option, in the order of ``--help``; a field without an option is not on the command line."""
    there = [(f.name, f.metadata[_KEY]) for f in fields(options) if _KEY in f.metadata]
    yield from sorted(there, key=lambda item: item[1].last)


def at_least(name: str, least: int, *values: int | None) -> None:
    """Raise UsageError unless every value given is at least ``least``."""
    for value in values:
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")


ESTIMATOR = Option(
    ("--estimator", "-e"), "Name[key=value], file.py[:Class] or module:Class; repeatable.", "NAME"
)
PROBLEM = Option(("--problem", "-p"), "Name[key=value] or file.py[:name]; repeatable.", "NAME")
NUM_SAMPLES = Option(("--num-samples", "-s"), "Samples an estimate; repeatable, or 1,4,16.", "N[,N]")
BATCH_SIZE = Option(
    ("--batch-size",),
    "Data a batch. Of several, variance measures the others at the last step and one S.",
    "N[,N]",
    last=True,
)
SEED = Option(("--seed",), "Of data order, weights and draws.", last=True)
DEVICE = Option(("--device",), "cpu or cuda.", "NAME", last=True)
DTYPE = Option(("--dtype",), "float32 or float64.", "NAME", last=True)
ROUTE = Option(("--route",), "factorized or full.", "NAME")

"""`examine_problem`: all that is wrong with a model, in one go."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from ...estimators.errors import UsageError
from ..gradients import seeded
from ..problems.arguments import check_choice, checked_seed, optional_counts
from ..problems.as_trained import as_trained
from ..problems.buffers import kept_buffers_of
from ..problems.checks import how_to_wrap, missing_parts, no_problem_faults, part_faults
from ..problems.faults import all_of
from ..problems.forward_checks import what_failed
from ..problems.model_checks import Check, Look
from ..problems.needed import NEEDED
from ..problems.placement import device_of, to_encoder
from ..problems.point import label_of
from .data import Served, data_faults
from .facts import facts, proposed
from .loading import load
from .looks import GIVEN_BY, LOOKS, MODES, in_eval_mode, joined_eta
from .partial import Partial, missing, unusable
from .result import Examination, Finding

_FILE = "the file"
_ROUTES = ("factorized", "full")


@as_trained()
def examine_problem(
    problem: object,
    x: Tensor | None = None,
    *,
    route: str = "factorized",
    batch_size: int | None = None,
    seed: int = 0,
) -> Examination:
    """Everything that is missing or wrong with a problem, at once; and of a sound one what was found.

    Measurements raise the first of these faults. Here all that can still be looked at is: where one part is
    wrong, the others are shown what it should have given, as far as that can be had. Neither weights nor
    buffers nor modes are changed.

    Args:
        problem: a problem, or what is meant to become one; or its specification.
        x: data (B, ...); None for the first training batch under ``seed``.
        route: "factorized", or "full" for what is to be measured by that route: BatchNorm and dropout in
            train mode are no faults then.
        batch_size: B when x is None; None for the problem's default.
        seed: of the data, and of what a specification's code draws.

    Returns:
        The findings: ``print`` shows them, ``.sound`` says whether there is no fault, ``.faults`` has these.

    Raises:
        UsageError: a specification names nothing, or an argument is of no use.

    Example:
        >>> print(examine_problem("quadratic").findings[0])
        data: B = 1 of shape (1,), float32; 1 to train with, 1 held out
    """
    check_choice(_ROUTES, route=route)
    (batch_size,) = optional_counts(batch_size=batch_size)
    seed, name = checked_seed(seed), ""
    if isinstance(problem, str):
        loaded = load(problem, seed)
        if loaded.fault:
            return Examination(loaded.label, (Finding("fault", _FILE, loaded.fault),))
        problem, name = loaded.thing, loaded.specification
        label = loaded.label
    else:
        label = _label(problem)
    usable: list[str] = []
    findings = tuple(_findings(problem, x, route, batch_size, seed, usable))
    command = _command(name, route, proposed(usable)) if name and usable else ""
    return Examination(label, findings, command)


def _label(problem: object) -> str:
    try:
        return label_of(problem)  # type: ignore[arg-type]
    except UsageError:  # a property that fails, which is told
        return type(problem).__name__


def _command(name: str, route: str, estimators: Sequence[str]) -> str:
    words = ["elbograd", "variance", "-p", name]
    for estimator in estimators:
        words += ["-e", estimator]
    return shlex.join([*words, "-s", "4", "-r", "2000", *(["--route", route] if route == "full" else [])])


def _findings(
    problem: object, x: Tensor | None, route: str, batch_size: int | None, seed: int, usable: list[str]
) -> Iterator[Finding]:
    """Everything that can be said, in the order in which it is looked."""
    other = [*no_problem_faults(problem)] or [*_nothing_faults(problem)]
    if other:
        yield from (Finding("fault", "the problem", text) for text in other)
        return
    faults = [
        *(Finding("fault", "the problem", missing(problem, name)) for name in missing_parts(problem)),
        *(Finding("fault", "the problem", text) for text in part_faults(problem)),
    ]
    yield from faults
    without = unusable(problem)
    looked = Partial(problem, without) if without & {"encoder", "decoder"} else problem
    served = Served()
    with seeded(seed, device_of(looked)), torch.enable_grad(), kept_buffers_of(looked):  # type: ignore[arg-type]
        of_data = [*_of_data(looked, x, without, batch_size, seed, served)]
        yield from of_data
        if served.x is None:
            yield Finding("unseen", "the model", "because there are no data to show it")
            return
        look = Look(looked, served.x, route)  # type: ignore[arg-type]
        of_model = [*_of_model(look, without)]
        yield from of_model
        if not any(finding.kind == "fault" for finding in (*faults, *of_data, *of_model)):
            yield from facts(look, served, usable)


def _nothing_faults(problem: object) -> Iterator[str]:
    """Of a thing that has no part of a problem."""
    if len(missing_parts(problem)) == len(NEEDED):
        name = type(problem).__name__
        needed = ", ".join(NEEDED)
        yield f"this is a {name}, with none of {needed}: build a problem, {how_to_wrap(problem)}"


def _of_data(
    problem: object, x: Tensor | None, without: set[str], batch_size: int | None, seed: int, served: Served
) -> Iterator[Finding]:
    if x is not None:
        served.x = to_encoder(problem, x)  # type: ignore[arg-type]
    elif "batches" not in without:
        for text in all_of(data_faults(problem, served, batch_size, seed)):  # type: ignore[arg-type]
            yield Finding("fault", "the data", text)


def _of_model(look: Look, without: set[str]) -> Iterator[Finding]:
    """What each look finds; after modules in train mode were told, the rest is looked at in eval mode."""
    with ExitStack() as stack:
        for check in LOOKS:
            if look.route not in check.routes:
                continue
            if (because := _why_not(check, look, without)) is not None:
                yield Finding("unseen", check.name, because)
                continue
            found = _faults(check, look)
            yield from found
            if check is MODES and found:
                stack.enter_context(in_eval_mode(look.problem))
            if check.name == GIVEN_BY["eta"] and look.eta is None:
                look.eta, without = joined_eta(look), without | {"encoder"}


def _faults(check: Check, look: Look) -> list[Finding]:
    """What a check finds; of code that fails where nobody expects it, how."""
    try:
        return [Finding("fault", check.name, text) for text in all_of(check.faults(look))]
    except Exception as error:  # a user's code may raise anything
        return [Finding("fault", check.name, f"{check.name} cannot be looked at ({what_failed(error)})")]


def _why_not(check: Check, look: Look, without: set[str]) -> str | None:
    """Why a check cannot be made, or None."""
    lacking = [part for part in check.parts if part in without]
    if lacking:
        return f"because of the {lacking[0]}"
    absent = [name for name in check.needs if getattr(look, name) is None]
    return f"because of {GIVEN_BY[absent[0]]}" if absent else None

"""One pass of a batch through a user's model: what fails, or has another shape, is told in one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.errors import UsageError
from ...estimators.text import one_line
from .buffers import kept_buffers
from .datum_index import target_of
from .protocol import Problem
from .unread import check_reads

_A = TypeVar("_A", Tensor, torch.Size)
_T = TypeVar("_T")


def check_forward(problem: Problem, x: Tensor) -> None:
    """Pass x (B, ...) through encoder, posterior and target; the buffers are left as they were.

    Draws from the global generator: call it inside `elbograd.benchmarks.gradients.seeded`.

    Raises:
        UsageError: what is wrong.
    """
    with kept_buffers(problem.encoder), kept_buffers(problem.decoder):
        q, _ = posterior_and_target(problem, x, checked_eta(problem, x))
        check_likelihood(problem, x, q)


def checked_eta(problem: Problem, x: Tensor) -> Tensor:
    """eta (B, P) for x (B, ...).

    Raises:
        UsageError: the encoder fails, or returns what is no finite tensor of that shape.
    """
    eta = _called_encoder(problem.encoder, x)
    if not isinstance(eta, Tensor):
        raise UsageError(
            f"the encoder returns a {type(eta).__name__}, not one tensor: torch.cat(..., -1) joins several"
        )
    if eta.dim() != 2 or len(eta) != len(x):
        raise UsageError(
            f"eta has shape {tuple(eta.shape)} for {len(x)} data, expected (B, P) = ({len(x)}, P)"
        )
    if not bool(torch.isfinite(eta).all()):
        given = f"x holds NaN or infinity, {_finite_data(x)} of {len(x)} data are finite"
        where = "look at the encoder's weights" if bool(torch.isfinite(x).all()) else given
        raise UsageError(f"eta is not finite (NaN or infinity): {where}")
    return eta


def posterior_and_target(problem: Problem, x: Tensor, eta: Tensor) -> tuple[Distribution, Target]:
    """q for eta (B, P), of batch shape (B,), and the integrand for x (B, ...).

    Raises:
        UsageError: the problem's method fails, or returns something else.
    """
    return checked_posterior(problem, x, eta), checked_target(problem, x)


def checked_posterior(problem: Problem, x: Tensor, eta: Tensor) -> Distribution:
    """The first of `posterior_and_target`."""
    q: object = _called("posterior", problem.posterior, eta)
    if not isinstance(q, Distribution):
        raise UsageError(f"posterior returns a {type(q).__name__}, not a torch.distributions.Distribution")
    if q.batch_shape != x.shape[:1]:
        raise UsageError(
            f"the posterior has batch shape {tuple(q.batch_shape)} for {len(x)} data, expected ({len(x)},): "
            f"Independent(q, 1) makes the last batch dimension part of the event"
        )
    return q


def checked_target(problem: Problem, x: Tensor) -> Target:
    """The second of `posterior_and_target`."""
    target: object = _called("target", partial(target_of, problem), x)
    if not isinstance(target, Target):
        raise UsageError(f"target returns a {type(target).__name__}, not an elbograd.estimators.Target")
    return target


def draw_one(q: Distribution) -> Tensor:
    """z (1, *batch, *event).

    Raises:
        UsageError: q cannot be drawn from.
    """
    return _called("the posterior's sample", q.sample, torch.Size((1,)))


def check_likelihood(problem: Problem, x: Tensor, q: Distribution) -> Tensor:
    """Log p(x|z) at one draw of q, which is a number; minus infinity is one, of what cannot be.

    Raises:
        UsageError: q cannot be drawn from; or log_likelihood fails, gives NaN or another shape, or reads
            latents that the target says it does not.
    """
    z = draw_one(q)
    f = log_likelihood(problem, x, z, 2)
    if bool(f.isnan().any()):
        raise UsageError(f"log_likelihood is not finite (NaN) for z of shape {tuple(z.shape)}, drawn from q")
    expected = (1, *q.batch_shape)
    if f.shape != expected:
        raise UsageError(
            f"log_likelihood has shape {tuple(f.shape)} for one sample of {len(x)} data, expected "
            f"(S, *batch) = {expected}: sum over the dimensions of a datum alone, as in .flatten(2).sum(-1)"
        )
    check_reads(problem, x, q)
    return f


def log_likelihood(problem: Problem, x: Tensor, z: Tensor, leading: int) -> Tensor:
    """log p(x|z) of z (S, *batch, *event), which has ``leading`` dimensions before the event's.

    Raises:
        UsageError: it fails, or is no tensor of numbers.
    """
    try:
        f: object = problem.target(x).log_likelihood(z)
    except UsageError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        if "dtype" in str(error) and (types := _differing_types(problem)):
            raise UsageError(f"log_likelihood fails ({one_line(error)}): {types}") from error
        raise UsageError(
            f"log_likelihood fails for z of shape (S, *batch, *event) = {tuple(z.shape)} "
            f"({one_line(error)}); flatten what leads: "
            f"decoder(z.flatten(0, {leading - 1})).unflatten(0, z.shape[:{leading}]) here"
        ) from error
    except Exception as error:  # nothing that another shape would mend
        failed = f"log_likelihood fails for z of shape {tuple(z.shape)} ({what_failed(error)})"
        raise UsageError(failed) from error
    if not isinstance(f, Tensor):
        raise UsageError(f"log_likelihood returns a {type(f).__name__}, not a tensor (S, *batch)")
    if not f.is_floating_point():
        raise UsageError(
            f"log_likelihood returns {str(f.dtype).removeprefix('torch.')}, not floating-point numbers"
        )
    return f


def _differing_types(problem: Problem) -> str:
    """That the encoder computes in another floating-point type than the decoder, or ""."""
    types = [
        sorted({str(p.dtype).removeprefix("torch.") for p in side.parameters() if p.is_floating_point()})
        for side in (problem.encoder, problem.decoder)
    ]
    if types[0] == types[1]:
        return ""
    encoder, decoder = (" and ".join(each) for each in types)
    return f"the encoder is {encoder} and the decoder {decoder}: dtype={types[0][0]!r} makes them one"


def what_failed(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {one_line(error)}"


def _called_encoder(encoder: nn.Module, x: Tensor) -> object:
    try:
        return encoder(x)
    except Exception as error:  # a user's encoder may raise anything
        kind = str(x.dtype).removeprefix("torch.")
        hint = "" if x.is_floating_point() else f"; {kind} is passed as it is, x.float() may be meant"
        raise UsageError(
            f"the encoder fails for x of shape {tuple(x.shape)} and dtype {kind} ({what_failed(error)}){hint}"
        ) from error


def _called(name: str, method: Callable[[_A], _T], argument: _A) -> _T:
    try:
        return method(argument)
    except UsageError:
        raise
    except Exception as error:  # a user's method may raise anything
        raise UsageError(
            f"{name} fails for shape {tuple(getattr(argument, 'shape', argument))} ({what_failed(error)})"
        ) from error


def _finite_data(x: Tensor) -> int:
    return int(torch.isfinite(x).flatten(1).all(1).sum())

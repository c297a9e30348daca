"""Running a user's model once, before it is measured: what would give wrong numbers is told in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.errors import UsageError
from ...estimators.text import one_line
from ..gradients import check_posterior
from .module_modes import check_modes
from .parts import eta_parts
from .protocol import Problem

_T = TypeVar("_T")
_ELSEWHERE = "or use route='full', which takes the model as it is"


def check_model(problem: Problem, x: Tensor, route: str = "factorized") -> None:
    """Pass a batch through the model, and see that what the route assumes holds.

    Draws from the global generator: call it inside `elbograd.benchmarks.gradients.seeded`.

    Args:
        problem: on its device; its buffers are left as they were.
        x: (B, ...).
        route: "factorized" needs a posterior and a log_likelihood that take leading batch dimensions, act on
            each datum alone and give the same value twice; "full" does not.

    Raises:
        UsageError: what is wrong, and what to do.
    """
    check_modes(problem, route)
    with torch.no_grad():
        with _unmoved_buffers("encoder", problem.encoder):
            eta = _checked_eta(problem, x)
        eta_parts(problem, eta.shape[-1])
        q = _called("posterior", problem.posterior, eta)
        check_posterior(q, x)
        _check_target(_called("target", problem.target, x))
        with _unmoved_buffers("decoder", problem.decoder):
            _log_likelihood(problem, x, q.sample(torch.Size((1,))), 2)
        if route == "factorized":
            _check_leading_dimensions(problem, x, eta)


@contextmanager
def _unmoved_buffers(side: str, module: nn.Module) -> Iterator[None]:
    """Put the module's buffers back afterwards, and raise UsageError when they had changed."""
    before = {name: (b, b.clone()) for name, b in module.named_buffers() if not nn.parameter.is_lazy(b)}
    try:
        yield
    finally:
        moved = [name for name, (buffer, copy) in before.items() if not torch.equal(buffer, copy)]
        for name in moved:
            before[name][0].copy_(before[name][1])
    if moved:
        raise UsageError(f"a forward pass changes the buffer {side}.{moved[0]}: call {side}.eval() first")


def _checked_eta(problem: Problem, x: Tensor) -> Tensor:
    with torch.enable_grad():
        eta = _checked_call(problem.encoder, x)
    if not isinstance(eta, Tensor):
        raise UsageError(
            f"the encoder returns a {type(eta).__name__}, not one tensor: torch.cat(..., -1) joins several"
        )
    if eta.dim() != 2 or len(eta) != len(x):
        raise UsageError(
            f"eta has shape {tuple(eta.shape)} for {len(x)} data, expected (B, P) = ({len(x)}, P)"
        )
    if not bool(torch.isfinite(eta).all()):
        raise UsageError("eta is not finite (NaN or infinity): look at the encoder's weights and at x")
    if not eta.requires_grad and _trainable(problem.encoder):
        raise UsageError("eta depends on no trainable parameter (detach, or no_grad, in the encoder?)")
    return eta.detach()


def _checked_call(encoder: nn.Module, x: Tensor) -> object:
    try:
        return encoder(x)
    except Exception as error:  # a user's encoder may raise anything
        kind = str(x.dtype).removeprefix("torch.")
        hint = "" if x.is_floating_point() else f"; {kind} is passed as it is, x.float() may be meant"
        raise UsageError(
            f"the encoder fails for x of shape {tuple(x.shape)} and dtype {kind} ({_told(error)}){hint}"
        ) from error


def _called(name: str, method: Callable[[Tensor], _T], argument: Tensor) -> _T:
    try:
        return method(argument)
    except UsageError:
        raise
    except Exception as error:  # a user's method may raise anything
        raise UsageError(f"{name} fails for shape {tuple(argument.shape)} ({_told(error)})") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _check_target(target: object) -> None:
    if not isinstance(target, Target):
        raise UsageError(f"target returns a {type(target).__name__}, not an elbograd.estimators.Target")


def _trainable(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _check_leading_dimensions(problem: Problem, x: Tensor, eta: Tensor) -> None:
    """Two replicates at once, then with every other datum of each replaced, then once more."""
    data = len(eta)
    stacked = eta.expand(2, *eta.shape)
    q = _posterior(problem, stacked)
    z = q.sample(torch.Size((2,)))  # (2, 2, B, *event)
    f, again = _log_likelihood(problem, x, z, 3), _log_likelihood(problem, x, z, 3)
    if f.shape != z.shape[:3]:
        return  # said by the estimators
    kept = (torch.arange(2, device=z.device).unsqueeze(1) + torch.arange(data, device=z.device)) % 2 == 0
    among = kept.view(2, data, *[1] * len(q.event_shape))
    rolled = z.flatten(1, 2).roll(1, 1).view_as(z)
    replaced = _log_likelihood(problem, x, torch.where(among, z, rolled), 3)
    if _differ(f, again):
        raise UsageError(
            "log_likelihood gives the same z another value each time (dropout, noise of its own?): call "
            "decoder.eval(), or use route='full' to count its noise"
        )
    if _differ(f[:, kept], replaced[:, kept]):
        raise UsageError(
            "log_likelihood of a datum depends on the z of others (batch statistics, a sum over the batch?): "
            f"let it act on each datum and replicate alone, {_ELSEWHERE}"
        )
    _check_posterior_of_each_datum(problem, stacked, z, kept)


def _posterior(problem: Problem, stacked: Tensor) -> Distribution:
    """q for eta (2, B, P)."""
    try:
        q = problem.posterior(stacked)
        what = f"has batch shape {tuple(q.batch_shape)}"
    except Exception as error:  # a user's method may raise anything
        q, what = None, f"fails ({_told(error)})"
    if q is None or q.batch_shape != stacked.shape[:2]:
        raise UsageError(
            f"the posterior {what} for eta {tuple(stacked.shape)}, expected batch shape "
            f"{tuple(stacked.shape[:2])}: index eta from the last dimension (eta[..., :D], "
            f"chunk(2, dim=-1)), {_ELSEWHERE}"
        )
    return q


def _check_posterior_of_each_datum(problem: Problem, stacked: Tensor, z: Tensor, kept: Tensor) -> None:
    rolled = stacked.flatten(0, 1).roll(1, 0).view_as(stacked)
    mixed = problem.posterior(torch.where(kept.unsqueeze(-1), stacked, rolled))
    try:
        here, there = problem.posterior(stacked).log_prob(z), mixed.log_prob(z)
    except (NotImplementedError, ValueError):  # no density, or z outside the replaced posterior's support
        return
    if _differ(here[:, kept], there[:, kept]):
        raise UsageError(
            "the posterior of a datum depends on the eta of others (softmax over the batch dimension?): "
            f"let it act on each datum alone, {_ELSEWHERE}"
        )


def _log_likelihood(problem: Problem, x: Tensor, z: Tensor, leading: int) -> Tensor:
    try:
        f: object = problem.target(x).log_likelihood(z)
    except UsageError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise UsageError(
            f"log_likelihood fails for z of shape (S, *batch, *event) = {tuple(z.shape)} "
            f"({one_line(error)}); flatten what leads: "
            f"decoder(z.flatten(0, {leading - 1})).unflatten(0, z.shape[:{leading}]) here"
        ) from error
    except Exception as error:  # nothing that another shape would mend
        raise UsageError(f"log_likelihood fails for z of shape {tuple(z.shape)} ({_told(error)})") from error
    if not isinstance(f, Tensor):
        raise UsageError(f"log_likelihood returns a {type(f).__name__}, not a tensor (S, *batch)")
    if not f.is_floating_point():
        raise UsageError(
            f"log_likelihood returns {str(f.dtype).removeprefix('torch.')}, not floating-point numbers"
        )
    return f


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors that should be the same are not, beyond rounding."""
    tolerance = max(1e-5, 100 * torch.finfo(a.dtype).eps)
    scale = float(a.double().square().mean().sqrt())
    return bool((a - b).numel()) and float((a - b).abs().max()) > tolerance * scale

"""The checks of a user's model that are run before it is measured: what would give wrong numbers is told.

One list of them: a measurement raises the first fault, `elbograd.benchmarks.examine_problem` collects all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.pieces.objective import unnamed_weights
from ...estimators.posteriors.shared import shares_draws
from .as_trained import without_graph
from .buffers import kept_buffers
from .faults import Faults, raise_first
from .forward_checks import check_likelihood, checked_eta, checked_posterior, checked_target
from .leading_dimensions import leading_faults
from .module_modes import called, couples_data, mode_faults
from .parts import eta_parts
from .protocol import Problem


@dataclass
class Look:
    """A model while it is looked at, and what the checks so far have found of it.

    Attributes:
        problem: on its device; its buffers are left as they were.
        x: (B, ...).
        route: "factorized" needs a posterior and a log_likelihood that take leading batch dimensions, act on
            each datum alone and give the same value twice; "full" does not, and measures BatchNorm in
            train mode too.
        eta: (B, P), detached; None where the encoder gave none.
        q: for eta, batch shape (B,); None likewise.
        target: for x; None likewise.
        f: log p(x|z) of one draw of q, (1, B); None likewise.
    """

    problem: Problem
    x: Tensor
    route: str = "factorized"
    eta: Tensor | None = None
    q: Distribution | None = None
    target: Target | None = None
    f: Tensor | None = None


@dataclass(frozen=True)
class Check:
    """One of the checks.

    Attributes:
        name: what is looked at.
        faults: what is found; may end with a UsageError.
        needs: attributes of `Look` that earlier checks fill.
        parts: of the problem, that it calls.
        routes: on which it is of interest.
    """

    name: str
    faults: Callable[[Look], Faults]
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    routes: tuple[str, ...] = ("factorized", "full")


def check_model(problem: Problem, x: Tensor, route: str = "factorized") -> None:
    """Pass a batch through the model, and see that what the route assumes holds.

    Draws from the global generator: call it inside `elbograd.benchmarks.gradients.seeded`.

    Args:
        problem: see `Look`.
        x: (B, ...).
        route: see `Look`.

    Raises:
        UsageError: what is wrong, and what to do.
    """
    look = Look(problem, x, route)
    for check in CHECKS:
        if route in check.routes:
            raise_first(check.faults(look))


def _modes(look: Look) -> Faults:
    yield from mode_faults(look.problem, look.route)


def _encoder(look: Look) -> Faults:
    encoder = look.problem.encoder
    with kept_buffers(encoder) as moved:
        eta = _attached_eta(look.problem, look.x)
    look.eta = eta.detach()
    yield from _moved_faults(encoder, "encoder", moved)
    if not eta.requires_grad and any(p.requires_grad for p in encoder.parameters()):
        yield "eta depends on no trainable parameter (detach, or no_grad, in the encoder?)"


def _parts(look: Look) -> Faults:
    assert look.eta is not None
    eta_parts(look.problem, look.eta.shape[-1])
    yield from ()


def _posterior(look: Look) -> Faults:
    assert look.eta is not None
    with _quiet(look):
        look.q = checked_posterior(look.problem, look.x, look.eta)
    yield from ()


def _target(look: Look) -> Faults:
    with _quiet(look):
        look.target = checked_target(look.problem, look.x)
    yield from ()


def _weights(look: Look) -> Faults:
    assert look.q is not None
    assert look.target is not None
    if (unnamed := unnamed_weights(look.q, look.target)) is not None:
        yield unnamed


def _likelihood(look: Look) -> Faults:
    assert look.q is not None
    with _quiet(look), kept_buffers(look.problem.decoder) as moved:
        look.f = check_likelihood(look.problem, look.x, look.q)
    yield from _moved_faults(look.problem.decoder, "decoder", moved)


def _leading(look: Look) -> Faults:
    assert look.eta is not None and look.q is not None
    if shares_draws(look.q):
        return  # these take the full route
    with _quiet(look):
        yield from leading_faults(look.problem, look.x, look.eta)


MODES = Check("train mode", _modes)
ENCODER = Check("the encoder", _encoder, parts=("encoder",))
CHECKS = (
    MODES,
    ENCODER,
    Check("eta_parts", _parts, needs=("eta",)),
    Check("the posterior", _posterior, needs=("eta",), parts=("posterior",)),
    Check("the target", _target, parts=("target",)),
    Check("kl_weight", _weights, needs=("q", "target")),
    Check("log_likelihood", _likelihood, needs=("q", "target"), parts=("decoder",)),
    Check("leading dimensions", _leading, needs=("eta", "q", "target", "f"), routes=("factorized",)),
)


def _quiet(look: Look) -> AbstractContextManager[None]:
    return without_graph(look.problem.encoder, look.problem.decoder)


def _moved_faults(module: nn.Module, side: str, moved: list[str]) -> Faults:
    """Of a pass that changes what the next one computes."""
    read = [path for path in moved if not couples_data(module.get_submodule(path.rpartition(".")[0]))]
    if read:
        path, _, buffer = read[0].rpartition(".")
        yield (
            f"a forward pass changes the buffer {called(module, side, path)}.{buffer}: "
            f"call {called(module, side)}.eval() first"
        )


def _attached_eta(problem: Problem, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return checked_eta(problem, x)

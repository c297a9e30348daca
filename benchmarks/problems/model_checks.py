"""Running a user's model once, before it is measured: what would give wrong numbers is told in one line."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...estimators.errors import UsageError
from .as_trained import without_graph
from .buffers import kept_buffers
from .forward_checks import check_likelihood, checked_eta, posterior_and_target
from .leading_dimensions import check_leading_dimensions
from .module_modes import check_modes, couples_data
from .parts import eta_parts
from .protocol import Problem


def check_model(problem: Problem, x: Tensor, route: str = "factorized") -> None:
    """Pass a batch through the model, and see that what the route assumes holds.

    Draws from the global generator: call it inside `elbograd.benchmarks.gradients.seeded`.

    Args:
        problem: on its device; its buffers are left as they were.
        x: (B, ...).
        route: "factorized" needs a posterior and a log_likelihood that take leading batch dimensions, act on
            each datum alone and give the same value twice; "full" does not, and measures BatchNorm in
            train mode too.

    Raises:
        UsageError: what is wrong, and what to do.
    """
    check_modes(problem, route)
    with kept_buffers(problem.encoder) as moved_in_encoder:
        eta = _attached_eta(problem, x)
    _check_unmoved(problem.encoder, "encoder", moved_in_encoder)
    with without_graph(problem.encoder, problem.decoder):
        eta_parts(problem, eta.shape[-1])
        q, _ = posterior_and_target(problem, x, eta)
        with kept_buffers(problem.decoder) as moved_in_decoder:
            check_likelihood(problem, x, q)
        _check_unmoved(problem.decoder, "decoder", moved_in_decoder)
        if route == "factorized":
            check_leading_dimensions(problem, x, eta)


def _check_unmoved(module: nn.Module, side: str, moved: list[str]) -> None:
    """Raise UsageError where a pass changes what the next one computes."""
    read = [path for path in moved if not couples_data(module.get_submodule(path.rpartition(".")[0]))]
    if read:
        raise UsageError(f"a forward pass changes the buffer {side}.{read[0]}: call {side}.eval() first")


def _attached_eta(problem: Problem, x: Tensor) -> Tensor:
    with torch.enable_grad():
        eta = checked_eta(problem, x)
    if not eta.requires_grad and _trainable(problem.encoder):
        raise UsageError("eta depends on no trainable parameter (detach, or no_grad, in the encoder?)")
    return eta.detach()


def _trainable(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())

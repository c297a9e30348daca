"""A user's model in the arithmetic of a training step while it is measured; and while it is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .protocol import Problem


@contextmanager
def as_trained() -> Iterator[None]:
    """Inside, or in a function decorated with it, modules compute what they compute in training.

    Leaves inference mode, where some are called from. Attention and `nn.TransformerEncoder` have a fused path
    for what needs no gradient, which among other things returns zeros at padded positions where training
    sees numbers: it is switched off.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def eta_of(problem: Problem, x: Tensor) -> Tensor:
    """eta (B, P) of x (B, ...), detached, as the encoder gives it while its gradient is taken.

    Under `torch.no_grad` an encoder may take another way.
    """
    return encoded(problem.encoder, x)


def encoded(encoder: nn.Module, x: Tensor) -> Tensor:
    """`eta_of` an encoder alone."""
    with torch.enable_grad():
        eta: Tensor = encoder(x)
        return eta.detach()


@contextmanager
def without_graph(*modules: nn.Module) -> Iterator[None]:
    """Inside, nothing is kept for a backward pass, yet modules see gradients enabled, as in training."""
    learned = {p for module in modules for p in module.parameters() if p.requires_grad}
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


@contextmanager
def as_evaluated(problem: Problem) -> Iterator[None]:
    """Inside, encoder and decoder are in eval mode and no gradients are kept; then each module is as it was.

    So dropout draws nothing, and BatchNorm takes the statistics of training, which stay what they are.
    """
    sides = (problem.encoder, problem.decoder, *([problem] if isinstance(problem, nn.Module) else []))
    in_train_mode = [module for side in sides for module in side.modules() if module.training]
    for module in in_train_mode:
        module.training = False  # `eval` of a module sets those that it holds, which may be frozen by intent
    try:
        with as_trained(), without_graph(*sides):
            yield
    finally:
        for module in in_train_mode:
            module.training = True

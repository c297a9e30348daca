"""Modules whose train mode makes a gradient estimate depend on more than its own draws."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...estimators.errors import UsageError
from ...estimators.text import one_line
from .as_trained import encoded
from .checks import and_more
from .faults import Faults, raise_first
from .protocol import Problem

_COUPLES = nn.modules.batchnorm._BatchNorm
_DRAWS = (nn.modules.dropout._DropoutNd, nn.RReLU)
_TOLERANCE = 1e-3


def check_modes(problem: Problem, route: str = "factorized") -> None:
    """Raise UsageError on the factorized route when BatchNorm or dropout is in train mode.

    The one couples the data of a batch. The other adds noise that is not the estimator's: the full route
    draws it anew for every replicate and so counts it, as a training step has it; the factorized route
    holds η fixed.
    """
    raise_first(mode_faults(problem, route))


def mode_faults(problem: Problem, route: str = "factorized") -> Faults:
    """What `check_modes` raises; modules of one kind are told once a side, by the first of them."""
    if route == "full":
        return
    for side in ("encoder", "decoder"):
        found: dict[tuple[str, str], list[str]] = {}
        whole = getattr(problem, side)
        for name, module in whole.named_modules():
            kind = type(module).__name__, _why_not_factorized(module)
            if kind[1]:
                found.setdefault(kind, []).append(called(whole, side, name))
        for (kind_name, why), names in found.items():
            yield f"{why.format(what=f'{names[0]} ({kind_name})', side=called(whole, side))}{and_more(names)}"


def _why_not_factorized(module: nn.Module) -> str:
    """What a module in its present mode does that the factorized route does not allow, or ""."""
    mode = "{what} is in train mode: call {side}.eval() first, or use route='full' to "
    if couples_data(module):
        return f"{mode}measure with the statistics of the batch"
    if _draws(module):
        return f"{mode}count its noise"
    if getattr(module, "scale_grad_by_freq", False):
        return (
            "{what} scales gradients by frequency in the batch: set scale_grad_by_freq=False, "
            "or use route='full'"
        )
    return ""


def called(whole: nn.Module, side: str, path: str = "") -> str:
    """How the user's code calls a side, or a module in it, where the side knows that; else "encoder.path"."""
    names: Mapping[str, str] = getattr(whole, "_names", {})
    own = getattr(whole, "_called", "") or side
    return names.get(path, f"{own}.{path}") if path else own


def couples_data(module: nn.Module) -> bool:
    """Whether it normalizes with the statistics of the batch, and so never reads the running ones."""
    return module.training and isinstance(module, _COUPLES)


def sides_in_train_mode(problem: Problem) -> tuple[list[str], list[str]]:
    """Of "decoder" and "encoder" those that couple the data of a batch, and those that add noise."""
    modules = [(s, m) for s in ("encoder", "decoder") for m in getattr(problem, s).modules()]
    coupled = sorted({side for side, module in modules if couples_data(module)})
    return coupled, sorted({side for side, module in modules if _draws(module)})


def notes_on_modes(problem: Problem) -> tuple[str, ...]:
    """What is measured of a model with modules in train mode, on the full route."""
    coupled, drawn = sides_in_train_mode(problem)
    notes = []
    if coupled:
        notes.append(f"BatchNorm of the {' and '.join(coupled)} in train mode, statistics of the batch")
    if drawn:
        notes.append(f"noise of the {' and '.join(drawn)}'s own (dropout) is counted")
    return tuple(notes)


def _draws(module: nn.Module) -> bool:
    if not module.training:
        return False
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):  # dropout inside a fused operation
        return module.dropout > 0
    return isinstance(module, _DRAWS) and getattr(module, "p", 1) > 0


def check_acts_on_each_datum(encoder: nn.Module, x: Tensor) -> None:
    """Raise UsageError unless eta is a function of its own datum alone, and always the same.

    The encoder is shown the batch twice, then with every other datum replaced, then one datum alone.
    """
    raise_first(coupling_faults(encoder, x))


def coupling_faults(encoder: nn.Module, x: Tensor) -> Faults:
    """What `check_acts_on_each_datum` raises."""
    together, again, alone = encoded(encoder, x), encoded(encoder, x), _alone(encoder, x[-1:])
    kept = torch.arange(len(x), device=x.device) % 2 == 0
    replaced = encoded(encoder, torch.where(kept.view(-1, *[1] * (x.dim() - 1)), x, x.roll(1, 0)))
    scale = math.sqrt(float(together.square().mean())) + 1e-12
    changed = float((together - again).abs().max())
    of_others = float((together - replaced)[kept].abs().max())
    apart = max(float((together[-1:] - alone).abs().max()), of_others)
    if changed > 1e-5 * scale:
        raise UsageError(
            "the encoder gives the same data another eta each time (dropout in train mode, noise of its "
            f"own?): call {called(encoder, 'encoder')}.eval(), or use route='full' to count its noise"
        )
    if apart > max(_TOLERANCE, 8 * torch.finfo(together.dtype).eps) * scale:
        yield (
            "the encoder gives a datum another eta in a batch than alone "
            f"(BatchNorm or dropout in train mode?): call {called(encoder, 'encoder')}.eval(), "
            f"or use route='full'"
        )


def _alone(encoder: nn.Module, datum: Tensor) -> Tensor:
    try:
        return encoded(encoder, datum)
    except Exception as error:  # a user's encoder may raise anything
        raise UsageError(
            f"the encoder fails for a datum alone ({one_line(error)}): it must act on each datum alone, "
            "or use route='full'"
        ) from error

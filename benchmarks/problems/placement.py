"""Where a measurement runs: a problem's device and dtype, and the batch it is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...estimators.errors import UsageError
from ...estimators.isolation import Draws
from ...estimators.text import one_line
from .arguments import counts, shown
from .checks import attribute
from .copying import deep_copy
from .datum_index import index_of, noted, served
from .protocol import Problem

DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")
}
DEFAULT_BATCH_SIZE = 64
_AHEAD = 2**20  # bytes; entering the draws of a problem costs a tenth of a small model's training step


def check_device(name: str) -> torch.device:
    """The device called ``name``: "cpu", "cuda" or "cuda:0", "cuda:1", ...

    Raises:
        UsageError: there is no such kind of device, or not on this machine.
    """
    if not isinstance(name, str | torch.device) or not re.fullmatch(r"cpu|cuda(:\d+)?", str(name)):
        raise UsageError(f"unknown device {shown(str(name))}: choose from {', '.join(_available())}")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= _cuda_devices():
        raise UsageError(f"device {name} is not available here: choose {' or '.join(_available())}")
    return device


def check_dtype(name: str | torch.dtype) -> torch.dtype:
    """The floating-point dtype called ``name``, or given itself.

    Raises:
        UsageError: an unknown name, or no such dtype.
    """
    if isinstance(name, torch.dtype) and name in DTYPES.values():
        return name
    if not isinstance(name, str) or name not in DTYPES:
        raise UsageError(f"unknown dtype {shown(name)}: choose from {', '.join(DTYPES)}")
    return DTYPES[name]


def device_of(problem: Problem) -> torch.device:
    """Where the problem's parameters are; the CPU when it has none."""
    return _example(problem).device


def dtype_of(problem: Problem) -> torch.dtype:
    """The floating-point type of the problem's parameters."""
    return _example(problem).dtype


def duplicate(problem: Problem) -> Problem:
    """A deep copy, to be trained or moved while the original stays as it is.

    Raises:
        UsageError: the problem cannot be copied (it holds an open file, say).
    """
    return deep_copy(problem)


def move(problem: Problem, device: torch.device, dtype: torch.dtype) -> None:
    """Move the encoder and the decoder, in place; all of a problem that is itself a module."""
    modules = (problem,) if isinstance(problem, nn.Module) else (problem.encoder, problem.decoder)
    for module in modules:
        module.to(device=device, dtype=dtype)


def place(problem: Problem, *, device: str | None = None, dtype: torch.dtype | str | None = None) -> Problem:
    """The problem on a device and in a dtype: itself where nothing needs to move, else a moved deep copy.

    Raises:
        UsageError: the device or the dtype is unknown or absent, or the problem cannot be copied.
    """
    here, now = device_of(problem), dtype_of(problem)
    place_wanted = here if device is None else check_device(device)
    type_wanted = now if dtype is None else check_dtype(dtype)
    parameters = list(_floating(problem))
    there = device is None or all(_same(place_wanted, p.device) for p in parameters)
    if there and (dtype is None or all(p.dtype == type_wanted for p in parameters)):
        return problem
    moved = duplicate(problem)
    move(moved, place_wanted, type_wanted)
    return moved


def default_batch_size(problem: Problem) -> int:
    """B where the user asks for none: the problem's ``default_batch_size``, else 64.

    Raises:
        UsageError: that is no positive integer.
    """
    given = attribute(problem, "default_batch_size", DEFAULT_BATCH_SIZE)
    (size,) = counts(**{f"{type(problem).__name__}.default_batch_size": given})
    return size


def to_encoder(problem: Problem, x: Tensor) -> Tensor:
    """x on the encoder's device, dense, and in its dtype unless x holds integers (tokens, labels)."""
    like = _example(problem)
    dense = x.detach() if x.layout == torch.strided else x.detach().to_dense()
    moved = dense.to(device=like.device, dtype=like.dtype if x.is_floating_point() else x.dtype)
    placed = moved.clone() if moved.is_inference() else moved  # autograd takes none that inference_mode made
    return noted(placed, index_of(x))


def batches_of(
    problem: Problem,
    split: str,
    batch_size: int,
    generator: torch.Generator | None = None,
    draws: Draws | None = None,
    ahead: bool = False,
) -> Iterator[Tensor]:
    """One pass over the data of ``split``, x (B, ...) at a time, where the encoder is.

    A problem that does not ask ``generator`` but the global ones (a DataLoader that shuffles, say) gets the
    same data under the same seed too.

    Args:
        problem: whose data.
        split: "train" or "test".
        batch_size: B.
        generator: for their order; None for the data in order.
        draws: for who asks global generators; None for a new one from the seed of ``generator``, or from 0.
        ahead: take small batches several at a time, each copied; the data are the same.

    Raises:
        UsageError: batches raises, or yields what is no tensor of data.
    """
    draws = draws or Draws(0 if generator is None else generator.initial_seed())
    most = 1  # batches at a time, ever more: a short run asks for few that it does not need
    try:
        with draws.scope():
            passing = iter(served(problem, split, batch_size, generator))
        while True:
            taken: list[Tensor] = []
            failure: Exception | None = None
            try:
                with draws.scope():  # at each step: what is lazy draws while it is asked
                    for x, index in passing:
                        x = to_encoder(problem, _checked(x))
                        taken.append(noted(x.clone() if ahead else x, index))
                        if len(taken) >= most or sum(t.nbytes for t in taken) >= _AHEAD:
                            break
            except Exception as error:
                failure = error
            yield from taken
            if failure is not None:
                raise failure
            if not taken:
                return
            most *= 2 if ahead else 1
    except UsageError:
        raise
    except Exception as error:  # a user's method may raise anything
        what = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"batches({split!r}, {batch_size}, ...) fails ({what})") from error


def _checked(x: object) -> Tensor:
    if isinstance(x, Tensor) and x.dim() > 0:
        return x
    what = "a tensor without dimensions" if isinstance(x, Tensor) else f"a {type(x).__name__}"
    raise UsageError(f"batches yields {what}, not a tensor x (B, ...): of pairs (x, y) yield x alone")


def first_batch(problem: Problem, batch_size: int, seed: int) -> Tensor:
    """The first training batch under ``seed``, x (batch_size, ...), where the encoder is.

    Raises:
        UsageError: fewer training data than ``batch_size``, a batch size that is not positive, or batches
            that are no tensors.
    """
    (batch_size,) = counts(batch_size=batch_size)
    x = next(batches_of(problem, "train", batch_size, torch.Generator().manual_seed(seed)), None)
    if x is None or len(x) < batch_size:
        raise UsageError(f"batch size {batch_size} exceeds the {0 if x is None else len(x)} training data")
    return x


def _example(problem: Problem) -> Tensor:
    """A floating-point parameter, the encoder's first; a CPU tensor where there is none."""
    return next(_floating(problem), torch.empty(0))


def _floating(problem: Problem) -> Iterator[Tensor]:
    for module in (problem.encoder, problem.decoder):
        yield from (p for p in module.parameters() if p.is_floating_point())


def _same(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are one; "cuda" is the current CUDA device."""
    return a.type == b.type and (a.index in (None, b.index) or (b.index is None and a.index == 0))


def _cuda_devices() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _available() -> list[str]:
    return ["cpu", *(f"cuda:{index}" for index in range(_cuda_devices()))]

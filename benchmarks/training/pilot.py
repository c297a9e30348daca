"""Whether runs can be stacked: two steps of each alone, and the same two steps of all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...estimators.text import one_line, shortened
from ..linalg import all_finite
from .begin import Begun
from .stack import Stack, stacked_batches
from .step import out_of_domain
from .tensors import RunTensors, plain_numbers

STEPS = 2  # the second sees what the first has left in the state
_TOLERANCE = 1e-3
_SHOWN = 160  # characters of a reason


class NotStacked(Exception):
    """Why runs cannot be trained at once, in one line."""

    def __init__(self, why: object) -> None:
        super().__init__(shortened(one_line(why) if isinstance(why, Exception) else str(why), _SHOWN))


def stack_of(
    begun: Sequence[Begun], rates: Sequence[float], optimizer: str, batches: Sequence[Sequence[Tensor]]
) -> Stack:
    """The faster stack of runs, or the one that can do more, ready for their first step.

    Args:
        begun: the runs, of which from now on the stack alone has the numbers.
        rates: learning rate of each; equal ones stand together.
        optimizer: one of `OPTIMIZERS`.
        batches: of the first `STEPS` steps those of all runs, to try the stack on.

    Raises:
        NotStacked: there is none.
    """
    why: Exception | str = "its steps move numbers that are neither parameters nor buffers"
    try:
        pilot = Pilot(begun, batches)
    except Exception as error:  # of one run; alone it tells which
        raise NotStacked(error) from error
    for inside in () if pilot.moves_numbers else (False, True):
        try:
            stack = Stack(begun, rates, optimizer, inside)
            why = pilot.fault(stack)
        except Exception as error:  # what cannot be vectorized may raise anything
            why = error
        if not why:
            return stack
    raise NotStacked(why)


class _Alone(NamedTuple):
    """One step of one run, or none where it diverges at once.

    Attributes:
        before: its tensors by name.
        gradients: of its trainable parameters.
        after: its other tensors.
    """

    before: dict[str, Tensor]
    gradients: dict[str, Tensor]
    after: dict[str, Tensor]


class Pilot:
    """Steps of runs one by one, which a `Stack` of them is held to.

    Args:
        begun: the runs; these steps move them, so that they have to be written over.
        batches: of each step those of all runs; `STEPS` of them.

    Attributes:
        moves_numbers: whether the steps move what no stack can hold, numbers that are neither parameters nor
            buffers.

    Raises:
        Exception: whatever a run raises that is alone.
    """

    def __init__(self, begun: Sequence[Begun], batches: Sequence[Sequence[Tensor]]) -> None:
        self._states = [each.generator_states() for each in begun]
        self._batches = batches
        first = begun[0].run
        numbers = plain_numbers(first.problem, first.estimator)
        self._alone = [[_alone(each, x) for each, x in zip(begun, step, strict=True)] for step in batches]
        self.moves_numbers = plain_numbers(first.problem, first.estimator) != numbers

    def fault(self, stack: Stack) -> str:
        """Why the steps of the stack are not these, or ""; it is left where the runs began."""
        for k, (batch, alone) in enumerate(zip(self._batches, self._alone, strict=True)):
            stack.load([each.before for each in alone], self._states if k == 0 else None)
            stack.step(stacked_batches(batch))
            for row, each in enumerate(alone):
                if each.gradients and not _agree(each, stack, row):
                    return "the gradients of all runs at once are not those of separate runs"
        stack.load([each.before for each in self._alone[0]], self._states)
        return ""


def _alone(begun: Begun, x: Tensor) -> _Alone:
    run = begun.run
    tensors = RunTensors(run.problem, run.estimator)
    before = {name: tensor.detach().clone() for name, tensor in tensors.now().items()}
    with begun.draws.scope():
        try:
            run.training_step(x)
        except (ValueError, RuntimeError) as error:
            if not out_of_domain(error):
                raise
            return _Alone(before, {}, {})
    now = tensors.now()
    grads = {name: now[name].grad for name in (*tensors.model, *tensors.own)}
    gradients = {n: torch.zeros_like(now[n]) if g is None else g.to_dense() for n, g in grads.items()}
    return _Alone(before, gradients, {n: t.detach().clone() for n, t in now.items() if n not in grads})


def _agree(alone: _Alone, stack: Stack, row: int) -> bool:
    """Whether gradients and buffers are the same, tensor by tensor, up to rounding."""
    whole = float(torch.stack([g.double().norm() for g in alone.gradients.values()]).norm())
    after = stack.tensors
    # A gradient of zero is known up to rounding of the others; an estimator's own may lack where it has none.
    return all(
        _alike(_row(stack.gradients, n, row, g), g, whole) for n, g in alone.gradients.items()
    ) and all(_alike(after[name][row], tensor, 0.0) for name, tensor in alone.after.items())


def _row(gradients: Mapping[str, Tensor], name: str, row: int, like: Tensor) -> Tensor:
    return gradients[name][row] if name in gradients else torch.zeros_like(like)


def _alike(found: Tensor, alone: Tensor, scale: float) -> bool:
    if not alone.is_floating_point():
        return torch.equal(found, alone)
    if not all_finite(alone):
        return not all_finite(found)
    eps = torch.finfo(alone.dtype).eps
    off = float((found.double() - alone.double()).norm())
    return off <= max(_TOLERANCE, 8 * eps) * float(alone.double().norm()) + 100 * eps * scale

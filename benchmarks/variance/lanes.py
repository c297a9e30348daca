"""Whole gradients in lanes: the pass of one replicate, vectorized over many by `torch.func.vmap`.

The model need know nothing of leading dimensions. Each lane has draws of its own, and copies of the
parameters that its gradient is taken by. Where φ enters through η, η is such a copy, and each lane's gradient
is pulled back through the encoder, which runs once. Meanwhile modules hold the copies in place of their
parameters, wherever model and posterior find them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.distributions import Distribution

from ..jacobians.products import pull_back_each
from ..problems.module_modes import couples_data
from ..problems.protocol import Problem
from ..vmapping import LaneOf, Place, placed, plain_operations
from .one_by_one import Subject

_LANES: ContextVar[int] = ContextVar("lanes", default=1)
_ETA, _ANCHOR = "η", "anchor"  # beside the names of parameters


def lanes() -> int:
    """How many replicates the pass is of that runs now."""
    return _LANES.get()


class Lanes:
    """Replicates side by side, each a pass of its own.

    Args:
        subject: of φ or θ.
        copied: names of the parameters that each lane has its own copy of.
        eta: (B, P), where the encoder gives the same each time; None to run it in each lane.
    """

    name = "in lanes"

    def __init__(self, subject: Subject, copied: list[str], eta: Tensor | None) -> None:
        self.subject, self.copied, self.eta = subject, copied, eta
        self._places = _places(subject.problem, {n: subject.parameters[n] for n in copied})

    def __call__(self, replicates: int) -> Float64[Tensor, "{replicates} phi"]:
        """Independent estimates ĝ, flattened."""
        grads = self._grads(replicates)
        subject = self.subject
        x = subject.x
        if self.eta is not None and subject.wrt == "phi":
            whole = pull_back_each(subject.problem.encoder, x, grads.pop(_ETA))
        else:
            whole = x.new_zeros(replicates, sum(subject.sizes), dtype=torch.float64)
        columns = dict(zip(subject.parameters, whole.split(subject.sizes, -1), strict=True))
        for name in self.copied:
            columns[name] += grads[name].flatten(1)
        return whole

    def _grads(self, replicates: int) -> dict[str, Tensor]:
        """Of each lane, by copy."""
        copies = {name: self.subject.parameters[name] for name in self.copied}
        anchor = self.subject.x.new_zeros((), dtype=self._dtype())
        leaves: dict[str, Tensor] = {**copies, _ANCHOR: anchor}
        if self.eta is not None:
            leaves[_ETA] = self.eta
        stacked = {name: leaf.detach().expand(replicates, *leaf.shape) for name, leaf in leaves.items()}
        token = _LANES.set(replicates)
        try:
            # Nothing outside the lanes is differentiated: without, the estimator's own parameters would be.
            with torch.no_grad(), in_plain_lanes(self.subject.problem):
                lane = torch.func.grad(self._lane, has_aux=True)
                grads: dict[str, Tensor] = torch.vmap(lane, randomness="different")(stacked)[1]
        finally:
            _LANES.reset(token)
        return grads

    def _dtype(self) -> torch.dtype:
        return next(iter(self.subject.parameters.values())).dtype

    def _lane(self, leaves: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Of one lane the gradients at its copies, beside a number that `torch.func.grad` need not look into.

        What it finds itself is the same, but it imports the compiler, which takes seconds.
        """
        anchor = leaves[_ANCHOR]
        with placed(self._places, leaves), LaneOf(anchor):
            eta = leaves[_ETA] if self.eta is not None else self.subject.problem.encoder(self.subject.x)
            objective = self.subject.objective(eta)
        grads = torch.autograd.grad(
            objective, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        return anchor.detach(), dict(zip(leaves, grads, strict=True))


def _places(problem: Problem, parameters: Mapping[str, nn.Parameter]) -> list[tuple[Place, str]]:
    """Wherever in the model these stand, under whatever name."""
    names = {id(p): name for name, p in parameters.items()}
    sides = (problem.encoder, problem.decoder, *([problem] if isinstance(problem, nn.Module) else []))
    modules = {id(module): module for side in sides for module in side.modules()}
    return [
        ((module._parameters, own), names[id(p)])
        for module in modules.values()
        for own, p in module._parameters.items()
        if p is not None and id(p) in names
    ]


@contextmanager
def in_plain_lanes(problem: Problem) -> Iterator[None]:
    """Inside, what asks for a tensor's values or writes to what lanes share does not.

    Distributions do not validate their parameters, which is a question about values. BatchNorm that
    normalizes with the statistics of the batch does not note them down: it never reads them.
    """
    validates = Distribution._validate_args
    sides = (problem.encoder, problem.decoder)
    noting = [m for side in sides for m in side.modules() if couples_data(m) and m.track_running_stats]
    with ExitStack() as stack:
        stack.enter_context(plain_operations())
        stack.callback(Distribution.set_default_validate_args, validates)
        Distribution.set_default_validate_args(False)
        for module in noting:
            stack.callback(setattr, module, "track_running_stats", True)
            module.track_running_stats = False  # type: ignore[assignment]
        yield

"""p(z): the usual one of a posterior's family, a fixed distribution, or one that a module returns."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import Distribution, constraints

from ....estimators.errors import UsageError
from ....estimators.posteriors.distributions import describe
from ....estimators.posteriors.families import innermost
from .callees import Callee


class Prior:
    """p(z) for a batch.

    Args:
        given: None, a distribution, or a module, a method or a function that returns one.
        callee: what is called of these; None where nothing is.
        q: a posterior, for what z is.
        conditional: whether there is a condition, which what takes an argument is then given.

    Raises:
        UsageError: there is no usual prior for q's family, or it is over another event.
    """

    def __init__(self, given: object, callee: Callee | None, q: Distribution, conditional: bool) -> None:
        self.event = q.event_shape
        self.callee = callee
        self.fixed: Distribution | None = None
        self.density: nn.Module | None = None
        if given is None:
            self.fixed = _usual(q)
        elif isinstance(given, Distribution):
            if _learned(given):
                raise UsageError(
                    "prior is a distribution whose parameters require a gradient, and would not be trained: "
                    "give a torch.nn.Module whose forward() returns it"
                )
            self.fixed = self._fitted(given)
        elif isinstance(given, nn.Module) and callable(getattr(given, "log_prob", None)):
            self.density = given
        self.with_condition = conditional and callee is not None and callee.takes(1)

    def __call__(self, like: Tensor, condition: Tensor | None) -> Distribution:
        """p(z), batch shape () or (B,), in the dtype and on the device of ``like``."""
        if self.fixed is not None:
            placed: Distribution = _placed(self.fixed, like)
            return placed
        assert self.callee is not None
        if self.density is not None:
            return _Density(self.density, self.event)
        found = self.callee(condition) if self.with_condition else self.callee()
        if not isinstance(found, Distribution):
            raise UsageError(
                f"prior() returns a {type(found).__name__}, not a torch.distributions.Distribution"
            )
        return self._fitted(found)

    def _fitted(self, prior: Distribution) -> Distribution:
        """The prior over q's event, which may be batch dimensions of it, or given by one number for all."""
        shape = prior.batch_shape + prior.event_shape
        if not shape and self.event:
            return td.Independent(prior.expand(self.event), len(self.event), validate_args=False)
        missing = len(self.event) - len(prior.event_shape)
        if missing > 0 and shape[-len(self.event) :] == self.event:
            return td.Independent(prior, missing, validate_args=False)
        if prior.event_shape != self.event:
            raise UsageError(
                f"the prior is a {describe(prior)} over {tuple(shape)}, and z has event shape "
                f"{tuple(self.event)}"
            )
        return prior


class _Density(Distribution):
    """A module with a method ``log_prob``, as a distribution."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, module: nn.Module, event: torch.Size) -> None:
        self.module = module
        super().__init__(torch.Size(), event, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Distribution:
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        leading = value.shape[: value.dim() - len(self.event_shape)]
        rows = value.reshape(-1, *self.event_shape)
        found: Tensor = self.module.log_prob(rows)  # type: ignore[operator]
        return found.reshape(*leading, -1).sum(-1)


def _usual(q: Distribution) -> Distribution:
    """N(0, I), fair coins or fair dice."""
    base = innermost(q)
    if isinstance(base, td.Bernoulli):
        fair = td.Bernoulli(logits=torch.zeros(q.event_shape), validate_args=False)
        return td.Independent(fair, len(q.event_shape), validate_args=False)
    if isinstance(base, td.OneHotCategorical):
        dice = td.OneHotCategorical(logits=torch.zeros(q.event_shape), validate_args=False)
        extra = len(q.event_shape) - 1
        return td.Independent(dice, extra, validate_args=False) if extra else dice
    if _is_real(q):
        zero = torch.zeros(q.event_shape)
        normal = td.Normal(zero, torch.ones_like(zero), validate_args=False)
        return td.Independent(normal, len(q.event_shape), validate_args=False) if q.event_shape else normal
    raise UsageError(f"there is no usual prior for a {describe(q)} posterior: give one, prior=")


def _is_real(q: Distribution) -> bool:
    if isinstance(q, td.Uniform):
        return False
    try:
        support = q.support
    except NotImplementedError:
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support in (constraints.real, constraints.real_vector)


def _learned(thing: object) -> bool:
    """Whether a distribution holds a tensor, however deep, that requires a gradient."""
    if isinstance(thing, Tensor):
        return thing.requires_grad
    if isinstance(thing, nn.Module):
        return any(p.requires_grad for p in thing.parameters())
    if isinstance(thing, list | tuple):
        return any(map(_learned, thing))
    if isinstance(thing, Distribution | td.Transform):
        return any(map(_learned, vars(thing).values()))
    return False


def _placed(thing: Any, like: Tensor) -> Any:
    """A copy of a distribution whose tensors, however deep, are in the dtype and on the device of another."""
    if isinstance(thing, Tensor):
        return thing.to(like.device, like.dtype if thing.is_floating_point() else thing.dtype)
    if type(thing) in (list, tuple):
        return type(thing)(_placed(item, like) for item in thing)
    if isinstance(thing, Distribution | td.Transform):
        twin = copy.copy(thing)
        for key, value in vars(thing).items():
            twin.__dict__[key] = _placed(value, like)
        return twin
    return thing

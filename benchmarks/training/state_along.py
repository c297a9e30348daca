"""An estimator's own state, trained along the trajectory that all estimators share."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from ...estimators.base import Estimator
from ...estimators.errors import EstimatorError
from ..gradients import StateStep, frozen, make_ready
from ..problems.as_trained import eta_of
from ..problems.fresh_batches import fresh_batches
from ..problems.placement import to_encoder
from ..problems.protocol import Problem
from ..seeds import hashed
from .trajectory import walk

#: Of an estimator.
StateDict = dict[str, Tensor]


def train_state_along(
    problem: Problem, estimator: Estimator, x: Tensor, num_samples: int, steps: Collection[int], seed: int
) -> dict[int, StateDict]:
    """Step -> state dict of an estimator that took one update at each step before it.

    The weights are those of `trajectory.walk`, which the estimator does not move; it sees shuffled training
    batches of its own, of the size of x and without the data of x.

    Args:
        problem: at its initialization; trained in place.
        estimator: fresh; its state is trained in place.
        x: (B, ...), what will be measured.
        num_samples: S.
        steps: at which the state is wanted.
        seed: of the trajectory.

    Raises:
        UsageError: the estimator cannot be used here, or the trajectory has no teacher or diverges.
        EstimatorError: it breaks the protocol.
    """
    follower = _Follower(estimator, x, num_samples, steps, seed)
    walk(problem, steps, seed, follower)
    return follower.states


class _Follower:
    def __init__(
        self, estimator: Estimator, x: Tensor, num_samples: int, steps: Collection[int], seed: int
    ) -> None:
        self.estimator, self.x, self.num_samples, self.steps = estimator, x, num_samples, set(steps)
        self.states: dict[int, StateDict] = {}
        self._batches: Iterator[Tensor]
        self._order = torch.Generator().manual_seed(hashed(seed, "order of the state"))
        self._draws = _Generators(hashed(seed, "draws of the state"), x.device)

    def __call__(self, problem: Problem, done: int) -> None:
        self._draws.swap()
        try:
            if done == 0:
                self._begin(problem)
            if done in self.steps:
                self._check_whole()
                state = self.estimator.state_dict()
                self.states[done] = {name: value.detach().clone() for name, value in state.items()}
            if done < max(self.steps):
                self._step(next(self._batches))
        finally:
            self._draws.swap()

    def _begin(self, problem: Problem) -> None:
        x = to_encoder(problem, self.x)
        served = fresh_batches(problem, x, self._order, without=not self.estimator.per_datum)
        self._batches = itertools.repeat(x) if served is None else served  # training, too, has no others
        with frozen(problem.decoder):
            make_ready(problem, self.estimator, x, eta_of(problem, x), self.num_samples)
        self._step = StateStep(problem, self.estimator, self.num_samples)
        self._plain = _plain_attributes(self.estimator)

    def _check_whole(self) -> None:
        """See that what is kept, the state dict, is all of the state."""
        now = _plain_attributes(self.estimator)
        moved = sorted(name for name in {**self._plain, **now} if self._plain.get(name) != now.get(name))
        if moved:
            raise EstimatorError(
                f"{self.estimator.label} keeps state in {', '.join(moved)}, which its state_dict lacks: "
                "make it a buffer (register_buffer) or a parameter"
            )


def _plain_attributes(estimator: Estimator) -> dict[str, object]:
    """What modules hold besides parameters, buffers in the state dict and submodules, to be compared."""
    saved, every_module_has = estimator.state_dict(), vars(nn.Module()).keys()
    found: dict[str, object] = {
        name: _comparable(buffer) for name, buffer in estimator.named_buffers() if name not in saved
    }
    for place, module in estimator.named_modules():
        for name in vars(module).keys() - every_module_has:
            found[f"{place}.{name}".lstrip(".")] = _comparable(vars(module)[name])
    return found


def _comparable(value: object) -> object:
    """What tells whether a value has moved; objects of other types are told apart by identity alone."""
    if isinstance(value, Tensor):
        return tuple(value.shape), repr(value.detach().flatten().tolist())  # NaN is NaN
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(map(_comparable, value))
    if isinstance(value, dict):
        return tuple((key, _comparable(item)) for key, item in value.items())
    return repr(value) if isinstance(value, bool | int | float | complex | str | bytes | None) else id(value)


class _Generators:
    """The state of torch's generators, to be exchanged for another and back."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        with torch.random.fork_rng(devices=[self._device] if self._device else []):
            torch.manual_seed(seed)
            self._other = self._now()

    def swap(self) -> None:
        now = self._now()
        torch.set_rng_state(self._other[0])
        if self._device:
            torch.cuda.set_rng_state(self._other[1], self._device)
        self._other = now

    def _now(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self._device)] if self._device else states

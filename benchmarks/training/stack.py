"""Training runs side by side: one more batch dimension, and one step for all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...estimators.base import Estimate, Estimator
from ..gradients import STATE_LEARNING_RATE
from ..problems.copying import deep_copy
from ..problems.datum_index import index_of, noted
from ..vmapping import placed, plain_operations
from .begin import Begun
from .lane import TrainingLane
from .own_draws import OwnDraws, generators
from .run import OPTIMIZERS
from .step import estimate_gradient
from .tensors import RunTensors
from .trained import Trained

_ANCHOR = "anchor"  # beside the names of parameters

#: Tensors of every run, (R, *shape), by name.
Stacked = dict[str, Tensor]


@dataclass(frozen=True)
class Data:
    """A batch of every run.

    Attributes:
        x: (R, B, ...).
        index: (R, B), which data of the data set they are, where that is known.
    """

    x: Tensor
    index: Tensor | None = None


class Stack:
    """The state of R runs, of which each step is one pass in the lanes of `torch.vmap`.

    Each run has its own parameters, buffers, state of the estimator and of the optimizers, data and random
    numbers. What the estimator and the model remember in buffers may be written in place.

    Args:
        begun: the runs, alike but in what their tensors hold; equal learning rates stand together.
        rates: learning rate of each.
        optimizer: one of `OPTIMIZERS`.
        inside: differentiate within each lane, as estimators need that differentiate themselves; else
            through all lanes at once, which is faster.

    Attributes:
        gradients: of the last step, what the optimizers followed.
        refused_at: (R,), int64, the first step that a run could not have taken alone, since a distribution
            refuses what it is given; 0 where there is none.
    """

    def __init__(self, begun: Sequence[Begun], rates: Sequence[float], optimizer: str, inside: bool) -> None:
        runs = [each.run for each in begun]
        each = [RunTensors(run.problem, run.estimator) for run in runs]
        if any(tensors.shapes != each[0].shapes for tensors in each):
            raise ValueError("the models of the runs have other parameters or buffers than one another")
        rows = [tensors.named for tensors in each]
        self._inside, self._num_samples = inside, runs[0].num_samples
        self._problem, self._estimator = deep_copy(runs[0].problem), deep_copy(runs[0].estimator)
        self._tensors = RunTensors(self._problem, self._estimator)
        own = [STATE_LEARNING_RATE] * len(rows)
        self._model = Trained(rows, self._tensors.model, OPTIMIZERS[optimizer], rates)
        self._own = Trained(rows, self._tensors.own, torch.optim.Adam, own) if self._tensors.own else None
        trained = {*self._tensors.model, *self._tensors.own}
        self._held = {name: _stacked(rows, name) for name in self._tensors.named if name not in trained}
        self._device = begun[0].first.device
        self._draws = self._drawing([run.generator_states() for run in begun])
        self._updates = type(self._estimator).update is not Estimator.update
        self.gradients: Stacked = {}
        self._begin()

    def load(
        self, rows: Sequence[Mapping[str, Tensor]], states: Sequence[Mapping[str, Tensor]] | None
    ) -> None:
        """Go on from other tensors, by name, and from other states of the generators, or those there are."""
        self._model.load(rows)
        if self._own is not None:
            self._own.load(rows)
        self._held = {name: _stacked(rows, name) for name in self._held}
        if states is not None:
            self._draws = self._drawing(states)
        self._begin()

    def _begin(self) -> None:
        self._done = 0
        self.refused_at = torch.zeros(len(self._draws.generators), dtype=torch.int64, device=self._device)

    def _drawing(self, states: Sequence[Mapping[str, Tensor]]) -> OwnDraws:
        return OwnDraws([generators(each, self._device) for each in states])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the runs; what they draw stays what it would be."""
        self._model.keep(rows)
        if self._own is not None:
            self._own.keep(rows)
        self._held = {name: tensor[list(rows)] for name, tensor in self._held.items()}
        self._draws = OwnDraws([self._draws.generators[row] for row in rows])
        self.refused_at = self.refused_at[list(rows)]

    @torch.no_grad()
    def write(self, row: int, to: RunTensors) -> None:
        """Put a run's numbers into its own problem and estimator."""
        tensors = self.tensors
        for name, tensor in to.now().items():
            tensor.copy_(tensors[name][row])

    @property
    def tensors(self) -> Stacked:
        """All there are."""
        return {**self._model.stacked, **self._leaves_of_own(), **self._held}

    def step(self, data: Data) -> None:
        """Take one step of every run."""
        with _quiet(), plain_operations():
            estimate = self._differentiate(data)
            self._model.step(self.gradients)
            if self._own is not None and estimate.aux_loss is not None:
                self._own.step(self.gradients)
            if self._updates:
                self._update(estimate)
        self._done += 1

    def _leaves_of_own(self) -> Stacked:
        return {} if self._own is None else self._own.stacked

    def _differentiate(self, data: Data) -> Estimate:
        """Fill `gradients`; keep what the pass has left in buffers."""
        leaves = {**self._model.stacked, **self._leaves_of_own()}
        anchors = data.x.new_zeros(len(data.x), dtype=next(iter(leaves.values())).dtype)
        shown = {"x": data.x, **({} if data.index is None else {"index": data.index})}
        if self._inside:
            # Nothing outside the lanes is differentiated.
            with torch.no_grad():
                lane = torch.func.grad(self._differentiated_lane, has_aux=True)
                outcome = torch.vmap(lane, randomness="different")(
                    {**leaves, _ANCHOR: anchors}, self._held, shown
                )[1]
        else:
            leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
            outcome = torch.vmap(self._lane, randomness="different")(
                {**leaves, _ANCHOR: anchors}, self._held, shown
            )
            outcome["gradients"] = self._gradients(leaves, outcome)
        self.gradients = outcome["gradients"]
        self._note_refused(outcome.get("refused"))
        self._held = {name: tensor.detach() for name, tensor in outcome["held"].items()}
        parts = {k: outcome[k].detach() for k in ("surrogate", "value", "aux_loss") if k in outcome}
        parts.setdefault("value", parts["surrogate"])
        return Estimate(**parts, info=outcome["info"])

    def _note_refused(self, refused: Tensor | None) -> None:
        rows = sorted(self._draws.refused)
        if rows:
            of_draws = torch.zeros_like(self.refused_at, dtype=torch.bool)
            of_draws[rows] = True
            refused = of_draws if refused is None else refused | of_draws
            self._draws.refused.clear()
        if refused is not None:
            first = refused & (self.refused_at == 0)
            self.refused_at = torch.where(first, self._done + 1, self.refused_at)

    def _lane(self, leaves: Stacked, held: Stacked, shown: Stacked) -> dict[str, Any]:
        """One run's estimate by its parts, as `torch.vmap` returns tensors alone.

        Value is left out where it is the surrogate.
        """
        x = noted(shown["x"], shown.get("index"))
        lane = TrainingLane(leaves[_ANCHOR], self._draws)
        with placed(self._tensors.places, {**leaves, **held}), lane:
            estimate = estimate_gradient(self._problem, self._estimator, x, self._num_samples)
            now = self._tensors.now()
        outcome: dict[str, Any] = {
            "surrogate": estimate.surrogate,
            "held": {name: now[name] for name in held},
        }
        if estimate.value is not estimate.surrogate:
            outcome["value"] = estimate.value
        if estimate.aux_loss is not None:
            outcome["aux_loss"] = estimate.aux_loss
        if lane.refused is not None:
            outcome["refused"] = lane.refused
        outcome["info"] = dict(estimate.info) if self._updates else {}
        return outcome

    def _differentiated_lane(
        self, leaves: Stacked, held: Stacked, shown: Stacked
    ) -> tuple[Tensor, dict[str, Any]]:
        """With its gradients, beside a number that `torch.func.grad` need not look into."""
        outcome = self._lane(leaves, held, shown)
        outcome["gradients"] = self._gradients(leaves, outcome)
        return leaves[_ANCHOR].detach(), outcome

    def _gradients(self, leaves: Stacked, outcome: Mapping[str, Any]) -> Stacked:
        """As `step.backward` fills them in each run: all of minus the batch's mean, but of ``aux_loss``."""
        model, phi = self._tensors.model, self._tensors.phi
        theta = model[len(phi) :]
        surrogate, value, aux = (outcome.get(name) for name in ("surrogate", "value", "aux_loss"))
        gradients: Stacked = {}

        def differentiate(objective: Tensor, names: Sequence[str], retain: bool = False) -> None:
            if names:
                # Runs do not meet, so that the gradient of their sum is that of each.
                total = objective.mean(-1).sum()
                wrt = [leaves[name] for name in names]
                found = torch.autograd.grad(
                    total, wrt, retain_graph=retain, materialize_grads=True, allow_unused=True
                )
                gradients.update(zip(names, found, strict=True))

        assert surrogate is not None
        if value is None:
            differentiate(-surrogate, model)
        else:
            differentiate(-surrogate, phi, retain=True)
            differentiate(-value, theta)
        if aux is not None:
            differentiate(aux, self._tensors.own)
        return gradients

    def _update(self, estimate: Estimate) -> None:
        """`Estimator.update` of each run, after the optimizers have moved."""
        own = self._leaves_of_own()
        parts = {key: part for key, part in estimate._asdict().items() if part is not None}

        def lane(own: Stacked, held: Stacked, parts: dict[str, Any], anchor: Tensor) -> Stacked:
            values = {**self._tensors.named, **own, **held}
            with placed(self._tensors.places, values), TrainingLane(anchor, self._draws):
                self._estimator.update(Estimate(**parts))
                now = self._tensors.now()
            return {name: now[name] for name in held}

        anchors = estimate.surrogate.new_zeros(len(estimate.surrogate))
        self._held = torch.vmap(lane, randomness="different")(own, self._held, parts, anchors)


def stacked_batches(batches: Sequence[Tensor]) -> Data:
    """A batch of every run, x (B, ...) each.

    Raises:
        RuntimeError: they are not of one shape.
    """
    indices = [index_of(x) for x in batches]
    known = [index for index in indices if index is not None]
    return Data(torch.stack(list(batches)), torch.stack(known) if len(known) == len(indices) else None)


def _stacked(rows: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    return torch.stack([row[name].detach() for row in rows])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of operations that are vectorized by a loop: they are right, if slower."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield

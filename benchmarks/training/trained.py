"""The trainable parameters of many runs, one row a run, under one optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor


class Trained:
    """Parameters of all runs in one tensor (R, N) of each dtype, so that a step is a few operations.

    Args:
        rows: of each run its parameters by name.
        names: of those that are trained.
        optimizer: one that treats every number by itself.
        rates: learning rate of each run; equal ones stand together.

    Attributes:
        stacked: name -> (R, *shape), what the optimizer moves.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Tensor]],
        names: Sequence[str],
        optimizer: type[torch.optim.Optimizer],
        rates: Sequence[float],
    ) -> None:
        self._kind, self._rates = optimizer, list(rates)
        self._names: dict[torch.dtype, list[str]] = {}
        for name in names:
            self._names.setdefault(rows[0][name].dtype, []).append(name)
        self._shapes = {name: rows[0][name].shape for name in names}
        self._flat = {
            dtype: torch.stack([torch.cat([row[n].detach().flatten() for n in of]) for row in rows])
            for dtype, of in self._names.items()
        }
        self._arrange()

    def load(self, rows: Sequence[Mapping[str, Tensor]]) -> None:
        """Put in other values; the optimizer starts anew."""
        for name, stacked in self.stacked.items():
            stacked.copy_(torch.stack([row[name].detach() for row in rows]))
        self._arrange()

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """Take a step along name -> (R, *shape), of all names."""
        for dtype, names in self._names.items():
            whole = torch.cat([gradients[n].reshape(len(self._rates), -1) for n in names], 1)
            for part, gradient in zip(self._parts[dtype], whole.split(self._counts), strict=True):
                part.grad = gradient
        self._optimizer.step()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the runs, in order."""
        before, counts = self._states(), self._counts
        chosen = [[row - start for row in rows if 0 <= row - start < n] for start, n in _spans(counts)]
        self._rates = [self._rates[row] for row in rows]
        self._flat = {dtype: flat[list(rows)] for dtype, flat in self._flat.items()}
        self._arrange()
        left = [(states, own) for states, own in zip(before, chosen, strict=True) if own]
        for group, (states, own) in zip(self._optimizer.param_groups, left, strict=True):
            for part, state in zip(group["params"], states, strict=True):
                self._optimizer.state[part] = {
                    key: value[own] if isinstance(value, Tensor) and value.dim() else value
                    for key, value in state.items()
                }

    def _states(self) -> list[list[dict[str, object]]]:
        """Of each learning rate and dtype."""
        groups = self._optimizer.param_groups
        return [[self._optimizer.state[part] for part in group["params"]] for group in groups]

    def _arrange(self) -> None:
        """Views of the parameters, and an optimizer of those of each learning rate."""
        each = [(rate, len(list(equal))) for rate, equal in groupby(self._rates)]
        self._counts = [count for _, count in each]
        self._parts = {dtype: flat.split(self._counts) for dtype, flat in self._flat.items()}
        groups = [
            {"params": [parts[k] for parts in self._parts.values()], "lr": rate}
            for k, (rate, _) in enumerate(each)
        ]
        self._optimizer = self._kind(groups, fused=True)  # type: ignore[call-arg]
        self.stacked = {
            name: part.view(len(self._rates), *self._shapes[name])
            for dtype, names in self._names.items()
            for name, part in zip(
                names, self._flat[dtype].split([self._shapes[n].numel() for n in names], 1), strict=True
            )
        }


def _spans(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Where each begins, and how many it has."""
    starts = [sum(counts[:k]) for k in range(len(counts))]
    return list(zip(starts, counts, strict=True))

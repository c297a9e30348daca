"""Rows of the encoder's Jacobian, for parameters of which nothing better is known."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ..linalg import in_float64
from .factors import MAX_ELEMENTS, Dense


class RowsJacobian:
    """Any encoder that acts on each datum alone: J_i written out, a few data and parameters at a time.

    Args:
        encoder: maps x to eta (B, P).
        x: (B, ...).
        parameters: name -> those to differentiate by.
        outputs: P.
    """

    def __init__(
        self, encoder: nn.Module, x: Tensor, parameters: dict[str, nn.Parameter], outputs: int
    ) -> None:
        self.encoder, self.x, self.parameters, self.outputs = encoder, x, parameters, outputs
        names = [name for name, _ in encoder.named_parameters(remove_duplicate=False)]
        # functional_call leaves its own tensors behind in a module that has two names.
        self._vectorizes = len(names) == len(list(encoder.parameters()))

    def gram(self) -> dict[str, Float64[Tensor, "B P P"]]:
        """See `elbograd.benchmarks.jacobians.encoder.Jacobian`."""
        shares: dict[str, list[Tensor]] = {name: [] for name in self.parameters}
        for _, name, rows in self._rows():
            shares[name].append(rows.gram())
        return {name: torch.cat(parts) for name, parts in shares.items()}

    def diagonal(self, root: Float[Tensor, "B P P"]) -> dict[str, Float64[Tensor, "..."]]:
        """The diagonal of Σ_i J_iᵀ L_i L_iᵀ J_i by parameter, each of its shape."""
        result = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in self.parameters.items()}
        for run, name, rows in self._rows():
            result[name] += rows.mixed(root[run]).squares()
        return result

    def push_forward(self, direction: dict[str, Tensor]) -> Float64[Tensor, "B P"]:
        """J_i v for every datum."""
        result = self.x.new_zeros(len(self.x), self.outputs, dtype=torch.float64)
        for run, name, rows in self._rows():
            result[run] += in_float64(rows.rows) @ in_float64(direction[name].flatten())
        return result

    def _rows(self) -> Iterator[tuple[slice, str, Dense]]:
        for names in self._groups():
            numel = sum(self.parameters[name].numel() for name in names)
            size = max(1, MAX_ELEMENTS // (self.outputs * numel))
            for start in range(0, len(self.x), size):
                run = slice(start, start + size)
                for name, rows in self._rows_of(self.x[run], names).items():
                    yield (
                        run,
                        name,
                        Dense(rows.flatten(2) if rows.dim() > 2 else rows.unsqueeze(2), rows.shape[2:]),
                    )

    def _groups(self) -> list[list[str]]:
        """The parameters in runs whose rows for one datum are few enough."""
        groups: list[list[str]] = []
        room = 0
        for name, parameter in self.parameters.items():
            need = self.outputs * parameter.numel()
            if need > room:
                groups.append([])
                room = MAX_ELEMENTS
            groups[-1].append(name)
            room -= need
        return groups

    def _rows_of(self, x: Tensor, names: list[str]) -> dict[str, Float[Tensor, "b P ..."]]:
        """Parameter name -> rows, each of its shape."""
        if self._vectorizes:
            try:
                with warnings.catch_warnings():  # that a batching rule is missing and a loop stands in
                    warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                    return self._rows_at_once(x, names)
            except Exception:  # some operations have no batching rule, and a user's may raise anything
                self._vectorizes = False
        each = [self._rows_of_one(datum, names) for datum in x.split(1)]
        return {name: torch.stack([rows[name] for rows in each]) for name in names}

    def _rows_at_once(self, x: Tensor, names: list[str]) -> dict[str, Float[Tensor, "b P ..."]]:
        held = {name: p.detach() for name, p in self.encoder.named_parameters() if name not in names}
        chosen = {name: self.parameters[name].detach() for name in names}

        def alone(parameters: dict[str, Tensor], datum: Tensor) -> Tensor:
            eta: Tensor = torch.func.functional_call(self.encoder, {**held, **parameters}, datum.unsqueeze(0))
            return eta.squeeze(0)

        rows: dict[str, Tensor] = torch.func.vmap(torch.func.jacrev(alone), in_dims=(None, 0))(chosen, x)
        return rows

    def _rows_of_one(self, x: Tensor, names: list[str]) -> dict[str, Float[Tensor, "P ..."]]:
        chosen = [self.parameters[name] for name in names]
        eta = self.encoder(x).squeeze(0)
        rows = [
            torch.autograd.grad(value, chosen, retain_graph=True, allow_unused=True, materialize_grads=True)
            for value in eta.unbind()
        ]
        dense = [[g.to_dense() if g.is_sparse else g for g in row] for row in rows]
        return {name: torch.stack([row[k] for row in dense]) for k, name in enumerate(names)}

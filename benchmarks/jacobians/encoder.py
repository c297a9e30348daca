"""The encoder's Jacobians J_i = ∂η_i/∂φ, never all held at once.

Beside products with a vector (`products`) two things are needed of them: K_i = J_i J_iᵀ by parameter
tensor, and the diagonal of Σ_i J_iᵀ C_i J_i. Layers whose gradient is known in factors give both from one
batched pass per η-coordinate; what is left is written out, a few data at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ..linalg import in_float64, square_root
from ..problems.module_modes import check_acts_on_each_datum
from ..vmapping import plain_operations
from .factors import MAX_ELEMENTS, ParameterGradient
from .products import trainable
from .recording import Recording, known_layers, record
from .rows import RowsJacobian

_TOLERANCE = 1e-3


def encoder_jacobian(encoder: nn.Module, x: Tensor) -> Jacobian:
    """The encoder's Jacobian at a batch x (B, ...).

    Raises:
        UsageError: the encoder treats a datum differently in a batch than alone, or draws.
    """
    check_acts_on_each_datum(encoder, x)
    return Jacobian(encoder, x)


class Jacobian:
    """J_i (P, |φ|) for each of B data.

    A layer's rule is used for a parameter when it explains the whole of its gradient: not where the
    parameter is also used outside the layer, or where the layer's inputs are not ordered by datum.

    Args:
        encoder: acts on each datum alone.
        x: (B, ...).

    Attributes:
        by_rule: names of the parameters whose rows are kept in factors.
    """

    def __init__(self, encoder: nn.Module, x: Tensor) -> None:
        self.encoder, self.x = encoder, x
        self.phi = trainable(encoder)
        self._held: dict[str, ParameterGradient] | None = None
        self._gram: dict[str, Tensor] = {}
        with plain_operations():
            self._layers = known_layers(encoder)
            first = record(encoder, x[:1], self._layers)
            self._size = max(1, MAX_ELEMENTS // max(1, first.elements()))
            self.outputs = first.eta.shape[-1]
            self.by_rule, used = self._probe()
        self._names = {id(self.phi[name]): name for name in self.by_rule}
        self._layers = [m for m in self._layers if any(id(p) in self._names for p in m.parameters(False))]
        rest = {name: p for name, p in self.phi.items() if name in used and name not in self.by_rule}
        self._rest = RowsJacobian(encoder, x, rest, self.outputs)

    def gram(self) -> dict[str, Float64[Tensor, "B P P"]]:
        """Parameter name -> its share of K_i = J_i J_iᵀ; the shares add up to K. Kept once it is known."""
        self._gram = self._gram or self._new_gram()
        return self._gram

    def _new_gram(self) -> dict[str, Float64[Tensor, "B P P"]]:
        shares: dict[str, list[Tensor]] = {name: [] for name in self.by_rule}
        with plain_operations():
            for _, gradients in self._runs():
                for name, gradient in gradients.items():
                    shares[name].append(gradient.gram())
            result = {name: torch.cat(parts) for name, parts in shares.items()} | self._rest.gram()
        zero = self.x.new_zeros(len(self.x), self.outputs, self.outputs, dtype=torch.float64)
        return {name: result.get(name, zero) for name in self.phi}

    def diagonal(self, covariance: Float[Tensor, "B P P"]) -> dict[str, Float64[Tensor, ...]]:
        """Diagonal of Σ_i J_iᵀ C_i J_i by parameter, each of its shape."""
        root = square_root(in_float64(covariance))
        result = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in self.phi.items()}
        with plain_operations():
            for run, gradients in self._runs():
                for name, gradient in gradients.items():
                    result[name] += gradient.mixed(root[run]).squares()
            return result | self._rest.diagonal(root)

    def _runs(self) -> Iterator[tuple[slice, dict[str, ParameterGradient]]]:
        """Gradients by rule, for successive runs of data; kept when there is one run alone."""
        if not self.by_rule:
            return
        for start in range(0, len(self.x), self._size):
            run = slice(start, start + self._size)
            yield run, self._held or self._gradients(self.x[run])

    def _gradients(self, x: Tensor) -> dict[str, ParameterGradient]:
        recording = record(self.encoder, x, self._layers)
        found = recording.gradients(self._names, recording.deltas(recording.columns()))
        gradients = {name: gradient for name, gradient in found.items() if gradient is not None}
        if len(x) == len(self.x):
            self._held = gradients
        return gradients

    def _probe(self) -> tuple[list[str], set[str]]:
        """Names whose gradient the rules explain, and names that η depends on at all."""
        explained, used = set(self.phi), set()
        generator = torch.Generator().manual_seed(0)
        for part in self.x.split(self._size):
            recording = record(self.encoder, part, self._layers)
            eta = recording.eta
            if not eta.requires_grad:
                continue
            vectors = torch.randn(eta.shape, generator=generator).to(eta)
            exact = _gradients_by_autograd(eta, self.phi, vectors)
            found = self._totals(recording, vectors)
            used |= set(exact)
            explained -= _differing(exact, found) | self._out_of_order(recording, vectors)
        return [name for name in self.phi if name in explained and name in used], used

    def _totals(self, recording: Recording, vectors: Float[Tensor, "b P"]) -> dict[str, Tensor]:
        names = {id(p): name for name, p in self.phi.items()}
        found = recording.gradients(names, recording.deltas([vectors]))
        return {name: gradient.total() for name, gradient in found.items() if gradient is not None}

    def _out_of_order(self, recording: Recording, vectors: Float[Tensor, "b P"]) -> set[str]:
        """Parameters of layers whose inputs are not ordered by datum: another datum's η reaches them."""
        last = torch.zeros_like(vectors)
        last[-1] = vectors[-1]
        names = {id(p): name for name, p in self.phi.items()}
        wrong: set[str] = set()
        for call, delta in zip(recording.calls, recording.deltas([last]), strict=True):
            others = delta[0].unflatten(0, (len(last), -1))[:-1]
            if bool(others.any()):
                wrong |= {names[id(p)] for p in call.layer.parameters(recurse=False) if id(p) in names}
        return wrong


def _gradients_by_autograd(
    eta: Float[Tensor, "b P"], phi: dict[str, nn.Parameter], vectors: Float[Tensor, "b P"]
) -> dict[str, Tensor]:
    """Σ_i J_iᵀ v_i of the parameters that eta depends on."""
    grads = torch.autograd.grad(eta, list(phi.values()), vectors, retain_graph=True, allow_unused=True)
    return {
        name: in_float64(g.to_dense() if g.is_sparse else g)
        for name, g in zip(phi, grads, strict=True)
        if g is not None
    }


def _differing(exact: dict[str, Tensor], found: dict[str, Tensor]) -> set[str]:
    """Names whose gradient is not what the rules say, beyond rounding."""
    floor = 0.0
    if exact:
        floor = 1e-6 * max(float(g.norm()) for g in exact.values())  # the rounding of a gradient of zero
    return {
        name
        for name, g in exact.items()
        if name not in found
        or float((in_float64(found[name]) - g).norm()) > _TOLERANCE * float(g.norm()) + floor
    }

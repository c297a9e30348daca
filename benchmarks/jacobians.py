"""How η-space reaches φ-space: the encoder's Jacobians J_i = ∂η_i/∂φ, never all held at once.

Three things are needed of them: K_i = J_i J_iᵀ by parameter tensor, Σ_i J_iᵀ v_i, and the diagonal
of Σ_i J_iᵀ C_i J_i. Encoders made of linear layers give them from one batched pass per η-coordinate
(a weight's gradient for one datum is the outer product δ aᵀ); any other encoder goes datum by datum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from ..estimators.errors import UsageError
from .moments import in_float64

_MAX_ELEMENTS = 2**24  # of the Jacobian rows held at once


class Jacobian(Protocol):
    """The encoder's Jacobian at a batch x, one J_i (P, |φ|) a datum."""

    def gram(self) -> dict[str, Tensor]:
        """Parameter name -> its share of K_i = J_i J_iᵀ, (B, P, P), float64; the shares add up to K."""
        ...

    def diagonal(self, covariance: Tensor) -> dict[str, Tensor]:
        """Diagonal of Σ_i J_iᵀ C_i J_i by parameter, each of its shape, for C (B, P, P)."""
        ...


def encoder_jacobian(encoder: nn.Module, x: Tensor) -> Jacobian:
    """Choose the fastest way that is right for this encoder.

    Raises:
        UsageError: the encoder treats a datum differently in a batch than alone.
    """
    _check_acts_on_each_datum(encoder, x)
    linear = LinearLayersJacobian.of(encoder, x)
    return linear if linear is not None else GeneralJacobian(encoder, x)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require a gradient, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def pull_back(encoder: nn.Module, x: Tensor, vectors: Tensor) -> dict[str, Tensor]:
    """Σ_i J_iᵀ v_i by parameter, for v (B, P): one vector-Jacobian product."""
    phi = trainable(encoder)
    eta = encoder(x)
    grads = torch.autograd.grad(eta, list(phi.values()), vectors.to(eta.dtype), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(phi.items(), grads, strict=True)
    }


def push_forward(encoder: nn.Module, x: Tensor, direction: dict[str, Tensor]) -> Tensor:
    """J_i v for every datum, (B, P): the transpose of `pull_back`, by differentiating it."""
    phi = trainable(encoder)
    eta = encoder(x)
    vectors = torch.zeros_like(eta, requires_grad=True)
    grads = torch.autograd.grad(eta, list(phi.values()), vectors, create_graph=True, allow_unused=True)
    total = sum((g * direction[n]).sum() for n, g in zip(phi, grads, strict=True) if g is not None)
    if not isinstance(total, Tensor):
        return torch.zeros_like(eta)
    return torch.autograd.grad(total, vectors)[0]


class LinearLayersJacobian:
    """Encoders whose parameters all sit in `nn.Linear` layers that see each datum once."""

    def __init__(self, inputs: dict[str, Tensor], deltas: dict[str, Tensor], layers: dict[str, nn.Linear]):
        self.inputs = inputs  # layer -> a (B, in)
        self.deltas = deltas  # layer -> ∂η_p/∂(layer's output), (B, P, out)
        self.layers = layers

    @classmethod
    def of(cls, encoder: nn.Module, x: Tensor) -> LinearLayersJacobian | None:
        """The Jacobian of such an encoder, or None when this is another kind."""
        layers = _linear_layers(encoder)
        if layers is None:
            return None
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
        handles = [
            layer.register_forward_hook(
                lambda _module, args, output, name=name: seen[name].append((args[0], output))
            )
            for name, layer in layers.items()
        ]
        try:
            with torch.enable_grad():
                eta = encoder(x)
        finally:
            for handle in handles:
                handle.remove()
        if any(len(calls) != 1 or calls[0][0].shape[:-1] != x.shape[:1] for calls in seen.values()):
            return None
        outputs = [seen[name][0][1] for name in layers]
        columns = [torch.autograd.grad(column.sum(), outputs, retain_graph=True) for column in eta.unbind(-1)]
        deltas = {name: in_float64(torch.stack([c[k] for c in columns], 1)) for k, name in enumerate(layers)}
        inputs = {name: in_float64(seen[name][0][0].detach()) for name in layers}
        jacobian = cls(inputs, deltas, layers)
        return jacobian if jacobian._agrees_with_autograd(encoder, x, eta) else None

    def gram(self) -> dict[str, Tensor]:
        shares = {}
        for name, layer in self.layers.items():
            products = self.deltas[name] @ self.deltas[name].transpose(1, 2)
            for kind in _trainable_kinds(layer):
                squares = self.inputs[name].square().sum(-1)[:, None, None] if kind == "weight" else 1
                shares[_join(name, kind)] = products * squares
        return shares

    def diagonal(self, covariance: Tensor) -> dict[str, Tensor]:
        root = _square_root(covariance)
        result = {}
        for name, layer in self.layers.items():
            squares = (root.transpose(1, 2) @ self.deltas[name]).square().sum(1)  # (B, out)
            for kind in _trainable_kinds(layer):
                value = squares.T @ self.inputs[name].square() if kind == "weight" else squares.sum(0)
                result[_join(name, kind)] = value
        return result

    def _agrees_with_autograd(self, encoder: nn.Module, x: Tensor, eta: Tensor) -> bool:
        """Whether the layers' calls explain the whole gradient (a weight may also be used elsewhere)."""
        vectors = torch.linspace(-1, 1, eta.numel(), dtype=eta.dtype, device=eta.device).view_as(eta)
        exact = pull_back(encoder, x, vectors)
        for name, layer in self.layers.items():
            delta = (in_float64(vectors).unsqueeze(1) @ self.deltas[name]).squeeze(1)
            for kind in _trainable_kinds(layer):
                ours = delta.T @ self.inputs[name] if kind == "weight" else delta.sum(0)
                theirs = in_float64(exact[_join(name, kind)])
                if (ours - theirs).norm() > 1e-3 * theirs.norm() + 1e-12:
                    return False
        return True


class GeneralJacobian:
    """Any encoder that acts on each datum alone: rows of J_i a few data at a time."""

    def __init__(self, encoder: nn.Module, x: Tensor) -> None:
        self.encoder, self.x = encoder, x
        self.phi = trainable(encoder)
        names = [name for name, _ in encoder.named_parameters(remove_duplicate=False)]
        # functional_call leaves its own tensors behind in a module that has two names.
        self.shares_parameters = len(names) > len(list(encoder.parameters()))

    def gram(self) -> dict[str, Tensor]:
        shares: dict[str, list[Tensor]] = {name: [] for name in self.phi}
        for rows in self._rows():
            for name, row in rows.items():
                flat = in_float64(row.reshape(*row.shape[:2], -1))
                shares[name].append(flat @ flat.transpose(1, 2))
        return {name: torch.cat(parts) for name, parts in shares.items()}

    def diagonal(self, covariance: Tensor) -> dict[str, Tensor]:
        result = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in self.phi.items()}
        roots = _square_root(covariance)
        start = 0
        for rows in self._rows():
            size = len(next(iter(rows.values())))
            root = roots[start : start + size].transpose(1, 2)
            start += size
            for name, row in rows.items():
                product = root @ in_float64(row.reshape(*row.shape[:2], -1))
                result[name] += product.square().sum((0, 1)).view_as(result[name])
        return result

    def _rows(self) -> Iterator[dict[str, Tensor]]:
        """Parameter name -> rows (b, P, *shape), for successive runs of b data."""
        size = max(1, _MAX_ELEMENTS // max(1, self._outputs() * sum(p.numel() for p in self.phi.values())))
        for part in self.x.split(size):
            yield self._rows_of(part)

    def _outputs(self) -> int:
        with torch.no_grad():
            return int(self.encoder(self.x[:1]).shape[-1])

    def _rows_of(self, x: Tensor) -> dict[str, Tensor]:
        if self.shares_parameters:
            return self._rows_of_each(x)
        phi = {name: p.detach() for name, p in self.phi.items()}

        def alone(parameters: dict[str, Tensor], datum: Tensor) -> Tensor:
            eta: Tensor = torch.func.functional_call(self.encoder, parameters, (datum.unsqueeze(0),))
            return eta.squeeze(0)

        try:
            rows: dict[str, Tensor] = torch.func.vmap(torch.func.jacrev(alone), in_dims=(None, 0))(phi, x)
        except (RuntimeError, ValueError, TypeError):  # some operations have no batching rule
            return self._rows_of_each(x)
        return rows

    def _rows_of_each(self, x: Tensor) -> dict[str, Tensor]:
        each = [self._rows_of_one(datum) for datum in x.split(1)]
        return {name: torch.stack([r[name] for r in each]) for name in self.phi}

    def _rows_of_one(self, x: Tensor) -> dict[str, Tensor]:
        eta = self.encoder(x).squeeze(0)
        rows = [
            torch.autograd.grad(value, list(self.phi.values()), retain_graph=True, allow_unused=True)
            for value in eta.unbind()
        ]
        return {
            name: torch.stack([torch.zeros_like(p) if row[k] is None else row[k] for row in rows])
            for k, (name, p) in enumerate(self.phi.items())
        }


def _check_acts_on_each_datum(encoder: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        together, alone = encoder(x)[-1:], encoder(x[-1:])
    scale = math.sqrt(float(together.square().mean())) + 1e-12
    if float((together - alone).abs().max()) > 1e-3 * scale:
        raise UsageError(
            "the encoder gives a datum another eta in a batch than alone "
            "(BatchNorm or dropout in train mode?): call encoder.eval(), or use route='full'"
        )


def _linear_layers(encoder: nn.Module) -> dict[str, nn.Linear] | None:
    """The linear layers, if they hold every trainable parameter and share none; else None."""
    layers = {name: m for name, m in encoder.named_modules() if type(m) is nn.Linear and _trainable_kinds(m)}
    owners = [id(getattr(m, kind)) for m in layers.values() for kind in _trainable_kinds(m)]
    everything = [id(p) for p in encoder.parameters() if p.requires_grad]
    return layers if layers and sorted(owners) == sorted(everything) else None


def _trainable_kinds(layer: nn.Linear) -> list[str]:
    return [kind for kind, p in layer.named_parameters(recurse=False) if p.requires_grad]


def _join(module: str, parameter: str) -> str:
    return f"{module}.{parameter}" if module else parameter


def _square_root(covariance: Tensor) -> Tensor:
    """L with L Lᵀ = C for positive semi-definite C (B, P, P); rounding may make C slightly indefinite."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)

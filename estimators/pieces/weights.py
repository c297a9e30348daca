"""What estimators for a network's weights have in common: whose weights, and how layers are applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..errors import UsageError
from ..network import Linear, Network
from ..posteriors.distributions import describe, parameters_of
from ..posteriors.gaussians import is_diagonal_gaussian
from ..posteriors.layered import Layered
from ..posteriors.noise import rsample
from ..posteriors.shared import SharedDraws
from .objective import analytic_kl, unsupported_kl


class LayerWeights(NamedTuple):
    """The mean-field Gaussian over one layer's weights; (*lead, 1, ·) where the data share them.

    Attributes:
        layer: what is made of them.
        loc: μ (*batch, size).
        scale: σ (*batch, size).
        together: whether one row is for all data.
    """

    layer: Linear
    loc: Tensor
    scale: Tensor
    together: bool


#: How an estimator makes a layer's outputs (S, *batch, out) of inputs that broadcast to (S, *batch, in).
Draw = Callable[[LayerWeights, Tensor, torch.Size], Tensor]


class DrawnByLayer(Estimator):
    """The reparameterized gradient with what comes out of each layer drawn, and the KL in closed form.

    Subclasses implement `outputs`.
    """

    derivatives = 1
    weighs_kl = True

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples) or unknown_network(q, target)
        return refused or unsupported_kl(q, target, "analytic")

    @staticmethod
    def outputs(weights: LayerWeights, inputs: Tensor, rows: torch.Size) -> Tensor:
        """b (S, *batch, out) of inputs that broadcast to (S, *batch, in), rows = (S, *batch)."""
        raise NotImplementedError

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        assert target.network is not None
        f = through_layers(q, target.network, num_samples, self.outputs)
        elbo = f.mean(0) - analytic_kl(q, target)
        return Estimate(surrogate=elbo, value=elbo)


def unknown_network(q: Distribution, target: Target) -> str | None:
    """Why the layers of a network cannot be drawn one by one, or None."""
    network = target.network
    if network is None:
        return "needs a target that says how its layers use the weights (Target.network)"
    if isinstance(q, Layered) and (given := [name for name, parents in q.parents.items() if parents]):
        parent = q.parents[given[0]][0]
        return f"needs latents that depend on none of the others, and {given[0]} depends on {parent}"
    weights, others = _latents(q, network)
    base = weights.base if isinstance(weights, SharedDraws) else weights
    if base is None or not is_diagonal_gaussian(base) or len(base.event_shape) != 1:
        return (
            "needs a mean-field Gaussian over the weights, Independent(Normal(loc, scale), 1), not a "
            f"{describe(q if weights is None else weights)}"
        )
    if base.event_shape.numel() != network.size:
        return f"the network has {network.size} weights, the posterior {base.event_shape.numel()}"
    fixed = [name for name, latent in others.items() if not latent.has_rsample]
    return f"needs a reparameterizable {fixed[0]}, not a {describe(others[fixed[0]])}" if fixed else None


def through_layers(q: Distribution, network: Network, num_samples: int, draw: Draw) -> Tensor:
    """log p(x|w), (S, *batch), with the outputs of each layer drawn by ``draw`` in place of the weights.

    Raises:
        UsageError: the network applies a layer twice, or one that it has not, or to inputs of another shape.
    """
    weights, others = _latents(q, network)
    assert weights is not None
    together = isinstance(weights, SharedDraws)
    parameters = parameters_of(weights)
    loc, scale = network.parts(parameters["loc"]), network.parts(parameters["scale"])
    rows = torch.Size((num_samples, *q.batch_shape))
    waiting = set(network.layers)

    def apply(name: str, inputs: Tensor) -> Tensor:
        layer = network.layers.get(name)
        if layer is None or name not in waiting:
            why = (
                "is none of its layers" if layer is None else "is applied twice, with one draw of its weights"
            )
            raise UsageError(f"the target's network cannot be drawn layer by layer: {name!r} {why}")
        waiting.remove(name)
        _check_inputs(name, layer, inputs, rows)
        return draw(LayerWeights(layer, loc[name], scale[name], together), inputs, rows)

    drawn = {name: rsample(latent, num_samples)[0] for name, latent in others.items()}
    f: Tensor = network.log_likelihood(apply, **drawn)
    return f


def _latents(q: Distribution, network: Network) -> tuple[Distribution | None, dict[str, Distribution]]:
    """The distribution of the weights, and of the latents beside them, none of which depends on another."""
    if network.latent is None:
        return q, {}
    layers = q.layers if isinstance(q, Layered) else {}
    known = {name: layer for name, layer in layers.items() if isinstance(layer, Distribution)}
    weights = known.pop(network.latent, None)
    return (weights, known) if len(known) == len(layers) - 1 else (None, {})


def _check_inputs(name: str, layer: Linear, inputs: Tensor, rows: torch.Size) -> None:
    wanted = (*rows, layer.inputs)
    try:
        fits = torch.broadcast_shapes(inputs.shape, wanted) == wanted
    except RuntimeError:
        fits = False
    if not fits or inputs.shape[-1] != layer.inputs:
        raise UsageError(
            f"layer {name!r} is applied to inputs of shape {tuple(inputs.shape)}, expected (S, *batch, in) = "
            f"{wanted}: one vector a sample and datum"
        )

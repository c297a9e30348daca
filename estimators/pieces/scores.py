"""The score of every sample in every parameter that q is built from."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..posteriors.distributions import describe, parameters_of, with_parameters
from ..posteriors.layered import Layered
from ..posteriors.noise import Noise, log_prob
from ..posteriors.shared import shares_draws


def shared_parameters(q: Distribution) -> str | None:
    """Why the parameters of q do not go with its data one by one, or None; of layers, those of each."""
    if isinstance(q, Layered):
        return next((why for why in map(shared_parameters, q.examples.values()) if why), None)
    try:
        parameters = parameters_of(q)
    except TypeError as error:
        return str(error)
    if shares_draws(q):
        return f"needs a draw of its own for each datum; that of this {describe(q)} is one for all"
    rows = len(q.batch_shape)
    for name, value in parameters.items():
        # A number for a whole vector would be taken for one of its coordinates' when there are S of it.
        lone = value.dim() == 0 and len(q.event_shape) > 0
        if lone or value.shape[:rows] != q.batch_shape:
            shapes = f"{tuple(value.shape)} for the batch shape {tuple(q.batch_shape)}"
            return f"needs parameters of its own for each datum; {name} of this flow has shape {shapes}"
    return None


def per_sample(parameters: dict[str, Tensor], num_samples: int) -> dict[str, Tensor]:
    """A leaf for each parameter, one copy a sample, (S, *parameter shape): gradients in it stay apart."""
    return {
        name: value.detach().expand(num_samples, *value.shape).requires_grad_()
        for name, value in parameters.items()
    }


def scores(
    q: Distribution,
    parameters: dict[str, Tensor],
    z: Shaped[Tensor, "S *batch_event"],
    noise: Noise | None,
) -> dict[str, Tensor]:
    """∇ log q(z_s) for every sample and parameter coordinate, (S, *parameter shape)."""
    leaves = per_sample(parameters, len(z))
    with torch.enable_grad():
        log_q = log_prob(with_parameters(q, leaves), z, noise).sum()
    return dict(zip(leaves, torch.autograd.grad(log_q, tuple(leaves.values())), strict=True))


def layer_scores(
    layer: Distribution, z: Shaped[Tensor, "S *batch_event"], noise: Noise | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The parameters of one latent's distribution at each sample, and ∇ log q(z_s) in them.

    Both (S, *parameter shape): of a latent that is drawn given others the parameters differ between samples.
    """
    rows = z.shape[: z.dim() - len(layer.event_shape)]
    each = layer if layer.batch_shape == rows else layer.expand(rows)
    parameters = parameters_of(each)
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    with torch.enable_grad():
        log_q = log_prob(with_parameters(each, leaves), z, noise).sum()
    return parameters, dict(zip(leaves, torch.autograd.grad(log_q, tuple(leaves.values())), strict=True))


def align(f: Tensor, other: Tensor) -> Tensor:
    """f (..., *batch) with trailing ones up to other's dimension."""
    return f.reshape(*f.shape, *(1,) * (other.dim() - f.dim()))


def inner(
    parameter: Float[Tensor, "*batch_rest"], gradient: Float[Tensor, "*batch_rest"], batch_shape: torch.Size
) -> Float[Tensor, "*batch"]:
    """⟨parameter, gradient⟩ of each datum, (*batch): its derivative in the parameter is the gradient."""
    # A logit of −∞ times the gradient of 0 that it has is no number.
    parameter = parameter.clamp_min(torch.finfo(parameter.dtype).min)
    return (parameter * gradient.detach()).reshape(*batch_shape, -1).sum(-1)

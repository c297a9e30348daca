"""The loss that tunes an estimator's own parameters: the squared norm of its estimate.

Of an unbiased estimate E ‖ĝ‖² is the trace of its covariance and what its parameters cannot change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .variables import Variables


def squared_norm(variables: Variables, gradient: Float[Tensor, "*batch D K"]) -> Float[Tensor, "*batch"]:
    """‖ĝ‖² of a gradient in q's logits, of which a Bernoulli variable has one."""
    free = gradient[..., 1] if variables.kind == "bernoulli" else gradient.flatten(-2)
    return free.square().sum(-1)


def copies(
    parameters: Sequence[nn.Parameter], like: Tensor, batch: torch.Size
) -> list[Float[Tensor, "*batch"]]:
    """A leaf a datum for each parameter that is a number: gradients in it are those of each datum's loss."""
    return [p.detach().to(like).expand(batch).clone().requires_grad_() for p in parameters]


def carried(
    loss: Float[Tensor, "*batch"],
    leaves: Sequence[Float[Tensor, "*batch"]],
    parameters: Sequence[nn.Parameter],
) -> Float[Tensor, "*batch"]:
    """The loss, (*batch), attached to the parameters alone: with the gradient that it has in their copies.

    What else it depends on, θ in particular, is not reached.
    """
    slopes = torch.autograd.grad(loss.sum(), leaves, retain_graph=True)
    result = loss.detach()
    for parameter, slope in zip(parameters, slopes, strict=True):
        result = result + slope * (parameter - parameter.detach()).to(slope)
    return result

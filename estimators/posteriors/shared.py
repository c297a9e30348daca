"""One draw for all data of a batch: posteriors over what they have in common, as a network's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution, constraints


class SharedDraws(Distribution):
    """q(w) with batch shape (*batch) whose draws are the same along its last dimension.

    A draw is one of ``base``, spread over the data without being copied. Each entry is distributed as
    ``base``, and its log q and KL are those of the one w: an estimate of a datum's E_q[N log p(x_i|w)] −
    KL(q(w) ‖ p(w)) is right by itself, and the mean over the data is an estimate of the objective of all N.
    But the data of a batch are not independent of each other.

    Args:
        base: batch shape (*lead, 1).
        data: B, so that the batch shape is (*lead, B).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    shares_draws = True

    def __init__(self, base: Distribution, data: int) -> None:
        self.base, self.data = base, data
        batch = torch.Size((*base.batch_shape[:-1], data))
        super().__init__(batch, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base has."""
        return self.base.has_rsample

    @property
    def support(self) -> constraints.Constraint | None:
        """That of the base."""
        return self.base.support

    @property
    def mean(self) -> Tensor:
        """Of w, spread."""
        return self.spread_events(self.base.mean)

    @property
    def variance(self) -> Tensor:
        """Of w, spread."""
        return self.spread_events(self.base.variance)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """w (*sample_shape, *batch, *event), the same for all data."""
        return self.spread_events(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The same, differentiable."""
        return self.spread_events(self.base.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(w), (*sample_shape, *batch), of w (*sample_shape, *batch, *event), which may differ."""
        one = self.one(value) if value.dim() > len(self.event_shape) and self.is_one(value) else value
        return self.spread(self.base.log_prob(one))

    def spread(self, rows: Shaped[Tensor, "*lead one"]) -> Shaped[Tensor, "*lead B"]:
        """Numbers of the base, one for each datum."""
        return rows.expand(*rows.shape[:-1], self.data)

    def spread_events(self, rows: Shaped[Tensor, "*lead_one_event"]) -> Shaped[Tensor, "*lead_B_event"]:
        """Draws of the base, one for each datum."""
        before = rows.dim() - len(self.event_shape) - 1
        return rows.expand(*rows.shape[:before], self.data, *rows.shape[before + 1 :])

    def is_one(self, value: Tensor) -> bool:
        """Whether draws are the same for all data because they are the same memory."""
        return has_one_row(value, len(self.event_shape))

    def one(self, value: Shaped[Tensor, "*lead_B_event"]) -> Shaped[Tensor, "*lead_one_event"]:
        """The one draw that all data have."""
        return one_row(value, len(self.event_shape))


def shares_draws(q: Distribution) -> bool:
    """Whether the data of the last batch dimension have a draw in common, or one of several latents."""
    latents = getattr(q, "layers", {}).values()
    return bool(getattr(q, "shares_draws", False)) or any(
        isinstance(latent, Distribution) and shares_draws(latent) for latent in latents
    )


def of_one(posterior: Callable[[Tensor], Distribution]) -> Callable[[Tensor], Distribution]:
    """The same eta -> q, without the wrapper where a single datum has nobody to share a draw with."""

    def unwrapped(eta: Tensor) -> Distribution:
        q = posterior(eta)
        return q.base if isinstance(q, SharedDraws) and q.data == 1 else q

    return unwrapped


def has_one_row(value: Tensor, event_dims: int = 1) -> bool:
    """Whether the last batch dimension of value (..., B, *event) is one number, or one memory."""
    dim = value.dim() - event_dims - 1
    return value.shape[dim] == 1 or value.stride(dim) == 0


def one_row(value: Float[Tensor, "*lead_B_event"], event_dims: int = 1) -> Float[Tensor, "*lead_one_event"]:
    """The row (..., 1, *event) of B equal ones, with its gradient spread over them evenly.

    A gradient in the first row alone would be written out for all of them, most of it zeros; this one, once
    more the same number for all, takes no memory.
    """
    dim = value.dim() - event_dims - 1
    row = value.narrow(dim, 0, 1)
    if value.shape[dim] == 1 or not value.requires_grad:
        return row
    mean = value.sum(dim, keepdim=True) / value.shape[dim]
    return row.detach() + (mean - mean.detach())

"""The closed-form KL of several latents, layer by layer.

KL(q ‖ p) = Σ_l E_q[log q_l(z_l | its parents in q) − log p_l(z_l | its parents in p)]. Where the parents in p
are no descendants of z_l in q, z_l given all of them is distributed as q_l, and the term is the mean of a KL
at sampled parents. Where neither side has parents it is that KL itself.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..errors import UsageError
from .distributions import check_events, closed_form_kl, describe
from .layered import Layered


def unknown(q: Distribution, prior: Distribution) -> str | None:
    """Why the KL has no closed form layer by layer, in one line; or None."""
    if not isinstance(q, Layered) or not isinstance(prior, Layered):
        return f"no closed-form KL of {describe(q)} against {describe(prior)}: use kl=sampled"
    check_events(q, prior)
    early = _drawn_earlier(q, prior)
    if early:
        return early
    for name in q.order:
        layer, other = q.examples[name], prior.examples[name]
        if _kl(layer, other) is None:
            return f"no closed-form KL of {name}, {describe(layer)} against {describe(other)}: use kl=sampled"
    return None


def outside(q: Layered, prior: Layered) -> dict[str, Float[Tensor, "*batch"]]:
    """The KL of each latent that neither side gives a parent, (*batch), by name."""
    found = {}
    for name in q.order:
        layer, other = q.layers[name], prior.layers[name]
        if isinstance(layer, Distribution) and isinstance(other, Distribution):
            found[name] = _known(layer, other).expand(q.batch_shape)
    return found


def inside(
    q: Layered, prior: Layered, z: Float[Tensor, "S *batch D"]
) -> dict[str, Float[Tensor, "S *batch"]]:
    """The KL of each of the others at the parents in z, (S, *batch), by name; attached to φ, θ and z.

    Raises:
        UsageError: one has no closed form, or the two are over other latents.
    """
    check_events(q, prior)
    names = given_others(q, prior)
    if not names:
        return {}
    early = _drawn_earlier(q, prior)
    if early:
        raise UsageError(early)
    parts, rows = q.split(z), z.shape[:-1]
    of_q, of_p = q.given(parts), prior.given(parts)
    return {name: _known(of_q[name], of_p[name]).expand(rows) for name in names}


def given_others(q: Layered, prior: Layered) -> list[str]:
    """The latents that one side or the other draws given others."""
    both = (q.layers, prior.layers)
    return [name for name in q.order if not all(isinstance(side[name], Distribution) for side in both)]


def _drawn_earlier(q: Layered, prior: Layered) -> str | None:
    """That a latent's distribution given all its parents is not that of q, or None."""
    for name in q.order:
        after = _descendants(q, name)
        early = next((parent for parent in prior.parents[name] if parent in after), None)
        if early is not None:
            return (
                f"no closed-form KL of {name}, which the prior draws given {early} and the posterior "
                f"before it: use kl=sampled"
            )
    return None


def _known(layer: Distribution, other: Distribution) -> Tensor:
    divergence = _kl(layer, other)
    if divergence is None:
        raise UsageError(f"no closed-form KL of {describe(layer)} against {describe(other)}: use kl=sampled")
    return divergence


def _kl(layer: Distribution, other: Distribution) -> Tensor | None:
    """KL(layer || other) of two that broadcast, or None where there is no closed form."""
    batch = torch.broadcast_shapes(layer.batch_shape, other.batch_shape)
    return closed_form_kl(*(one if one.batch_shape == batch else one.expand(batch) for one in (layer, other)))


def _descendants(q: Layered, name: str) -> set[str]:
    """The latents drawn given this one, directly or not."""
    found = {name}
    for other in q.order:
        if found & set(q.parents[other]):
            found.add(other)
    return found - {name}

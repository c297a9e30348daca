"""Gaussian draws that keep their noise, so that log q and its gradient do not suffer from the rounding of z.

A z = μ + σ ε in floating point has lost what (z − μ)/σ would bring back: at μ = 100 and σ = 1e-5, float32 has
one digit of ε left in it. With z_d, μ_d and σ_d the numbers of the draw,

    (z − μ)/σ = ε + ((z − z_d) − (μ − μ_d) − (σ − σ_d) ε)/σ

whose value is ε itself, and whose derivatives in z, μ and σ are exact. A full covariance has L for σ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from . import distributions, gaussians
from . import draws as drawing
from .cutting import Cut, along_z_alone
from .families import family_of, innermost
from .layered import Layered, total
from .shared import SharedDraws

_Gaussian = td.Normal | td.MultivariateNormal


class GaussianNoise(NamedTuple):
    """What a Gaussian draw was made of, detached."""

    epsilon: Tensor  # (S, *batch, *event)
    loc: Tensor
    scale: Tensor  # as loc, or L with one more dimension


class LayeredNoise(dict[str, "Noise | None"]):
    """That of each latent of a layered draw, by name."""


Noise = GaussianNoise | LayeredNoise


def draw(
    q: Distribution, num_samples: int, draws: str = "iid"
) -> tuple[Shaped[Tensor, "{num_samples} *batch_event"], Noise | None]:
    """z (S, *batch, *event) without a path back to φ, the same numbers as `draws.draw`, and its noise.

    The noise is None where q is no Gaussian, or of a class derived from one that has its own ways.
    """
    if isinstance(q, Layered):
        with torch.no_grad():
            return _of_each(draw, q, num_samples)
    if isinstance(q, SharedDraws):
        z, noise = draw(q.base, num_samples, draws)
        return q.spread_events(z), noise
    base = _gaussian(q)
    if base is None:
        return drawing.draw(q, num_samples, draws), None
    with torch.no_grad():
        return _push(q, base, num_samples, draws)


def rsample(
    q: Distribution, num_samples: int, draws: str = "iid"
) -> tuple[Float[Tensor, "{num_samples} *batch_event"], Noise | None]:
    """z (S, *batch, *event), differentiable in q's parameters, as of `draws.rsample`, and its noise."""
    if isinstance(q, Layered):
        return _of_each(rsample, q, num_samples)
    if isinstance(q, SharedDraws):
        z, noise = rsample(q.base, num_samples, draws)
        return q.spread_events(z), noise
    base = _gaussian(q)
    if base is None:
        return drawing.rsample(q, num_samples, draws), None
    return _push(q, base, num_samples, draws)


def log_prob(
    q: Distribution, z: Shaped[Tensor, "S *batch_event"], noise: Noise | None
) -> Float[Tensor, "S *batch"]:
    """log q(z), (S, *batch), for z (S, *batch, *event) that was drawn with this noise.

    Args:
        q: the posterior it was drawn from, or one of its family: cut, or with other parameters.
        z: as drawn, or another tensor of the same numbers to differentiate in.
        noise: None for `distributions.log_prob`.
    """
    if isinstance(q, Cut):
        whole = q.whole
        return along_z_alone(lambda leaf: {"": log_prob(whole, leaf, noise)}, z)[""]
    if isinstance(q, Layered):
        return total(log_probs(q, z, noise))
    assert not isinstance(noise, LayeredNoise)
    if isinstance(q, SharedDraws) and noise is not None:
        return q.spread(log_prob(q.base, q.one(z), noise))
    base = _gaussian(q)
    if noise is None or base is None:
        return distributions.log_prob(q, z)
    shift = noise.loc - base.loc
    if z.requires_grad:
        shift = shift + (z - z.detach())
    if isinstance(base, td.Normal):
        moved = torch.addcmul(shift, noise.scale - base.scale, noise.epsilon)
        standardized = noise.epsilon + moved / base.scale
        halves = torch.addcmul(base.scale.log(), standardized, standardized, value=0.5)
        density = -halves - 0.5 * math.log(2 * math.pi)
    else:
        tril: Tensor = base.scale_tril
        # Of the lower triangle alone, as a solve has it.
        moved = shift.unsqueeze(-1) + (noise.scale - tril).tril() @ noise.epsilon.unsqueeze(-1)
        moved = torch.linalg.solve_triangular(tril, moved, upper=False).squeeze(-1)
        squares = (noise.epsilon + moved).square().sum(-1)
        logarithms = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        density = -0.5 * squares - logarithms - 0.5 * math.log(2 * math.pi) * tril.shape[-1]
    return _summed(q, base, density)


def log_prob_along(
    q: Distribution, z: Shaped[Tensor, "S *batch_event"], noise: Noise | None
) -> Float[Tensor, "S *batch"]:
    """log q(z(φ)), (S, *batch), with its total derivative along z(φ) = μ + σ ε, where ε stays.

    What log q loses in z and what it gains in μ cancel: at small σ they would drown all else.
    """
    if isinstance(q, Layered):
        return total(log_probs_along(q, z, noise))
    assert not isinstance(noise, LayeredNoise)
    if isinstance(q, SharedDraws) and noise is not None:
        return q.spread(log_prob_along(q.base, q.one(z), noise))
    base = _gaussian(q)
    if noise is None or base is None:
        return distributions.log_prob(q, z)
    if isinstance(base, td.Normal):
        halves = torch.addcmul(base.scale.log(), noise.epsilon, noise.epsilon, value=0.5)
        return _summed(q, base, -halves - 0.5 * math.log(2 * math.pi))
    tril: Tensor = base.scale_tril
    logarithms = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    squares = noise.epsilon.square().sum(-1)
    return _summed(q, base, -0.5 * squares - logarithms - 0.5 * math.log(2 * math.pi) * tril.shape[-1])


def log_probs(
    q: Layered, z: Shaped[Tensor, "S *batch D"], noise: Noise | None
) -> dict[str, Float[Tensor, "S *batch"]]:
    """log q of every latent given those it depends on, by name, as `log_prob` has it."""
    if isinstance(q, Cut):
        whole = q.whole
        return along_z_alone(lambda leaf: log_probs(whole, leaf, noise), z)
    each = noise if isinstance(noise, LayeredNoise) else {}
    return q.each(z, lambda name, layer, part: log_prob(layer, part, each.get(name)))


def log_probs_along(
    q: Layered, z: Shaped[Tensor, "S *batch D"], noise: Noise | None
) -> dict[str, Float[Tensor, "S *batch"]]:
    """The same as `log_prob_along` has it, z(φ) of the parents included."""
    each = noise if isinstance(noise, LayeredNoise) else {}
    return q.each(z, lambda name, layer, part: log_prob_along(layer, part, each.get(name)))


def _of_each(
    one: Callable[[Distribution, int], tuple[Tensor, Noise | None]], q: Layered, num_samples: int
) -> tuple[Tensor, LayeredNoise]:
    """A layered draw, every latent by ``one``, with the noise of each."""
    kept = LayeredNoise()

    def kept_draw(name: str, layer: Distribution, shape: torch.Size) -> Tensor:
        z, noise = one(layer, *(shape or (1,)))
        if isinstance(noise, GaussianNoise) and not shape:
            noise = noise._replace(epsilon=noise.epsilon.squeeze(0))
        kept[name] = noise
        return z if shape else z.squeeze(0)

    return q.ancestral((num_samples,), kept_draw), kept


def _summed(q: Distribution, base: Distribution, density: Tensor) -> Tensor:
    """The sum over what `Independent` made events of."""
    rest = len(q.event_shape) - len(base.event_shape)
    return density.sum(tuple(range(-rest, 0))) if rest else density


def _push(q: Distribution, base: _Gaussian, num_samples: int, draws: str) -> tuple[Tensor, GaussianNoise]:
    loc: Tensor = base.loc
    if draws == "iid":
        epsilon = gaussians.standard_normal(loc, num_samples)
    else:
        epsilon = drawing.normal(loc, num_samples, draws, q.batch_shape)
    scale: Tensor = base.scale if isinstance(base, td.Normal) else base.scale_tril
    if isinstance(base, td.MultivariateNormal):
        z = loc + (scale @ epsilon.unsqueeze(-1)).squeeze(-1)
    elif draws == "iid" and not gaussians.is_diagonal_gaussian(q):
        z = loc + epsilon * scale  # as torch does, to the last bit
    else:
        z = torch.addcmul(loc, scale, epsilon)
    return z, GaussianNoise(epsilon, loc.detach(), scale.detach())


def _gaussian(q: Distribution) -> _Gaussian | None:
    base = innermost(q)
    # Not what is derived from them and draws in its own way.
    return cast(_Gaussian, base) if family_of(base) in (td.Normal, td.MultivariateNormal) else None

"""Points and weights under several latents: those of each, at every point of those it is drawn given.

Of discrete latents the weights carry the gradient, of Gaussian ones the points do; both at once is that of
the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.posteriors.distributions import describe
from ...estimators.posteriors.families import family_of
from ...estimators.posteriors.gaussians import is_diagonal_gaussian
from ...estimators.posteriors.layered import Layered
from ...estimators.posteriors.outcomes import outcomes
from .nodes import Nodes, all_outcomes, gaussian_nodes

_MOST = 2**18  # points of one datum


def layered_nodes(q: Layered, nodes: int, least: float = 0.0) -> Nodes:
    """Under latents that are Gaussian vectors or finite: N points z (N, *batch, D), weights (N, *batch).

    Of a Gaussian without the points whose weight, of that latent alone, is below ``least``.
    """
    parts: dict[str, Tensor] = {}
    weights = torch.ones(())
    rows = torch.Size((1, *q.batch_shape))
    for name in q.order:
        layer = q.one_given(name, parts, rows)
        layer = layer if layer.batch_shape == rows else layer.expand(rows)
        z, own = all_outcomes(layer) if outcomes(layer) is not None else gaussian_nodes(layer, nodes, least)
        weights = (own * weights).flatten(0, 1)
        parts = {other: part.expand(len(z), *part.shape).flatten(0, 1) for other, part in parts.items()}
        parts[name] = z.flatten(0, 1)
        rows = weights.shape
    return q.join(parts), weights


def continuous_dimension(q: Layered) -> int | str:
    """How many numbers are Gaussian, or which latent is neither that nor finite."""
    found = 0
    for name, layer in q.examples.items():
        if outcomes(layer) is not None:
            continue
        if not _is_gaussian(layer):
            return f"no quadrature for {name}, a {describe(layer)} of event shape {tuple(layer.event_shape)}"
        found += layer.event_shape[0]
    return found


def affordable(q: Layered, counts: tuple[int, ...], samples: int) -> tuple[int, ...]:
    """Of the nodes a dimension those with which there are not too many points."""
    dimension = continuous_dimension(q)
    assert isinstance(dimension, int)
    finite = 1
    for layer in q.examples.values():
        finite *= outcomes(layer) or 1
    return tuple(nodes for nodes in counts if (finite * nodes**dimension) ** samples <= _MOST)


def _is_gaussian(layer: Distribution) -> bool:
    vector = len(layer.event_shape) == 1
    return vector and (is_diagonal_gaussian(layer) or family_of(layer) is td.MultivariateNormal)

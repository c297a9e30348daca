"""Where the variance of the factorized route comes from: by parameter, layer, part of eta and datum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..jacobians.encoder import push_forward
from ..problems.parts import eta_parts, layers_of
from ..statistics.intervals import Moments, mean_moments
from .factorized import FactorizedRoute
from .moments import Shares, bessel, central_moments, square_trace, times


def by_parameter(route: FactorizedRoute) -> dict[str, Moments]:
    """Share of the total of each parameter tensor."""
    return {name: _share(route, gram) for name, gram in route.shares.items()}


def by_layer(route: FactorizedRoute) -> dict[str, Moments]:
    """Share of the total of each module of the encoder that holds parameters itself."""
    return {
        layer: _share(route, torch.stack([route.shares[name] for name in names]).sum(0))
        for layer, names in layers_of(route.shares).items()
    }


def by_eta(route: FactorizedRoute) -> dict[str, Moments]:
    """Variance of one datum's h in each part of eta, averaged over the data of the batch."""
    batch, size = route.eta.shape
    parts: Mapping[str, slice] = eta_parts(route.problem, size)
    result = {}
    for name, part in parts.items():
        inside = route.gram.new_zeros(size)
        inside[part] = batch  # (1/B²) Σ_i tr(C_i B 1) is the average over data
        result[name] = _share(route, torch.diag(inside).expand(batch, size, size))
    return result


def by_datum(route: FactorizedRoute) -> list[Moments]:
    """Share of the total of each datum; they add up to it."""
    return _shares(route, route.gram).summarize_each(route.n)


def _share(route: FactorizedRoute, gram: Tensor) -> Moments:
    """(1/B²) Σ_i tr(C_i G_i) for G (B, P, P)."""
    return _shares(route, gram).summarize(route.n)


def _shares(route: FactorizedRoute, gram: Tensor) -> Shares:
    """What each datum adds to it; the moments of contributions are those of the replicates kept."""
    product = gram @ route.eta_covariance()
    centred = route.kept - route.eta_mean().unsqueeze(1).to(route.kept.dtype)
    contributions = ((centred @ gram.to(centred.dtype)) * centred).sum(-1, dtype=torch.float64)
    value = product.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(0)
    shares = Shares(value, *central_moments(contributions), square_trace(product))
    return shares.over(len(route.eta) ** 2)


def minibatch_variance(route: FactorizedRoute) -> Moments | None:
    """Variance of the batch-mean exact gradient over the choice of the batch; None for one datum.

    The sample variance over the data of the batch of J_iᵀ E h_i, over B, less what the Monte Carlo noise of
    the estimated E h_i adds to it: what is left when infinitely many samples are drawn. It takes the data of
    the batch for independent draws of the data set; its standard error is theirs.
    """
    batch = len(route.eta)
    if batch < 2:
        return None
    mean = route.eta_mean()
    gradient = route.mean()
    norm = sum(g.double().square().sum() for g in gradient.values())
    along = (mean * push_forward(route.problem.encoder, route.x, gradient)).sum(-1)
    distance = (mean * times(route.gram, mean)).sum(-1) - 2 * along + norm
    noise = (route.gram * route.eta_covariance()).sum((-1, -2)) / route.n
    # Less the noise in distance_i: (1 − 2/B) t_i + (1/B²) Σ t, with t_i = tr(K_i C_i)/n.
    distance = distance - (1 - 2 / batch) * noise - noise.sum() / batch**2
    u = distance * bessel(batch) / batch
    return mean_moments(u.cpu().numpy()) if u.mean() > 0 else None

"""Exact variances of estimates under several latents: estimators are dealt every point in place of draws.

Of an estimate of S independent terms the variance is that of one term over S, and one term is what the
estimator itself makes of one sample: a batch of all points, each with its weight, tells its moments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Estimator, Target
from ...estimators.posteriors.layered import DrawOne, Layered
from ...estimators.posteriors.outcomes import Outcomes, outcomes
from ...estimators.posteriors.quadrature import hermite_grid
from .layered_nodes import affordable, continuous_dimension
from .rules import GAUSSIAN_NODES, TOLERANCE, change

Posterior = Callable[[Tensor], Distribution]


def layered_variance(
    estimator: Estimator, q_of: Posterior, eta: Float[Tensor, "B P"], target: Target, num_samples: int
) -> Float[Tensor, "B P"] | None:
    """Variance of every coordinate of a mean of S independent terms in η-space, (B, P); None where not known.

    Args:
        estimator: whose samples are terms on their own, and that draws nothing but z.
        q_of: eta -> a layered posterior.
        eta: (B, P), float64.
        target: for the B data.
        num_samples: S.
    """
    q = q_of(eta)
    assert isinstance(q, Layered)
    dimension = continuous_dimension(q)
    if isinstance(dimension, str):
        return None
    counts = GAUSSIAN_NODES.get(dimension, ()) if dimension else (1,)
    answers = [_by(nodes, estimator, q_of, eta, target) for nodes in affordable(q, counts, 1)[-2:]]
    if not answers or (dimension and len(answers) < 2) or not change(answers[0], answers[-1]) <= TOLERANCE:
        return None
    return answers[-1] / num_samples


def _by(nodes: int, estimator: Estimator, q_of: Posterior, eta: Tensor, target: Target) -> Tensor:
    """Variance of one term, by so many nodes a Gaussian number."""
    sizes = _choices(q_of(eta), nodes)
    count = 1
    for size in sizes:
        count *= size
    leaf = eta.detach().expand(count, *eta.shape).clone().requires_grad_()
    q = q_of(leaf)
    assert isinstance(q, Layered)
    dealt = Dealt(q, sizes, nodes)
    with torch.enable_grad():
        surrogate = estimator(dealt, target, 1).surrogate
        (term,) = torch.autograd.grad(surrogate.sum(), leaf)
    weights = dealt.weights.detach().unsqueeze(-1)
    mean = (weights * term).sum(0)
    return (weights * (term - mean).square()).sum(0).detach()


def _choices(q: Distribution, nodes: int) -> list[int]:
    """How many points each latent has given the others, in the order of drawing."""
    assert isinstance(q, Layered)
    return [outcomes(layer) or nodes ** layer.event_shape[0] for layer in q.examples.values()]


class Dealt(Layered):
    """A layered posterior of batch shape (N, *batch) whose one sample is point n at entry n.

    Args:
        q: what is dealt.
        sizes: points of each latent, in the order of drawing; their product is N.
        nodes: a Gaussian number.

    Attributes:
        weights: (N, *batch), once drawn.
    """

    def __init__(self, q: Layered, sizes: Sequence[int], nodes: int) -> None:
        super().__init__(q.layers)
        self.points, self.nodes = sizes, nodes
        self.weights = torch.ones(())

    def ancestral(self, sample_shape: Sequence[int], one: DrawOne) -> Tensor:
        """z (1, N, *batch, D), differentiable along Gaussian latents."""
        rows = torch.Size((1, *self.batch_shape))
        numbers = torch.arange(self.batch_shape[0])
        parts: dict[str, Tensor] = {}
        weights = torch.ones(())
        for name, size in zip(self.order, self.points, strict=True):
            layer = self.one_given(name, parts, rows)
            layer = layer if layer.batch_shape == rows else layer.expand(rows)
            own = numbers % size
            numbers = numbers // size
            if outcomes(layer) is None:
                parts[name], weight = self._gaussian(layer, own)
            else:
                shape = (1, len(own), *(1,) * (len(rows) - 2), *layer.event_shape)
                parts[name] = Outcomes(layer).at(own).reshape(shape).expand(rows + layer.event_shape)
                weight = layer.log_prob(parts[name]).exp()
            weights = weights * weight
        self.weights = weights.expand(rows).squeeze(0)
        return self.join(parts)

    def _gaussian(self, layer: Distribution, own: Tensor) -> tuple[Tensor, Tensor]:
        points, weights = hermite_grid(layer.event_shape[0], self.nodes)
        rest = (1,) * (len(layer.batch_shape) - 2)
        unit = points[own].to(layer.mean).reshape(1, len(own), *rest, -1)
        weight = weights[own].to(layer.mean).reshape(1, len(own), *rest)
        if isinstance(layer, td.MultivariateNormal):
            return layer.mean + (layer.scale_tril @ unit.unsqueeze(-1)).squeeze(-1), weight
        return layer.mean + layer.stddev * unit, weight

"""The noise that the choice of the batch adds in training.

Shapes: B data, P coordinates of η, M of the data.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from ..jacobians.products import flat, pull_back_each, push_forward
from ..linalg import times, trace_of_square
from ..problems.placement import dtype_of
from ..problems.protocol import Problem
from ..statistics.finite import of_finite_population
from ..statistics.moments import Moments
from .breakdown import Replicates
from .moments import Shares, bessel, central_moments

_PAIRED = 64  # data whose exact gradients are formed
_PAIRED_ELEMENTS = 2**24


def minibatch_variance(
    problem: Problem,
    x: Tensor,
    h: Replicates,
    gram: Float64[Tensor, "B P P"],
    gradient: dict[str, Tensor],
    population: int | None,
) -> Moments | None:
    """Variance of the exact batch-mean gradient over the choice of the batch.

    Batches of B data are drawn without replacement from N, as in a shuffled pass, and x is one of them. With
    g_i = J_iᵀ E h_i the exact gradient of a datum, and S² the trace of their covariance over the N data
    (divisor N − 1), the variance is (1 − B/N) S²/B: what is left in training when infinitely many samples are
    drawn. The sample variance over x, less what the Monte Carlo noise of the estimated E h_i adds to it,
    estimates S² without bias. The interval is that of a variance from B replicates, one a datum.

    Args:
        problem: of the encoder.
        x: (B, ...).
        h: of the data of the batch.
        gram: K_i.
        gradient: ḡ, their batch-mean gradient by parameter.
        population: N; None for infinitely many.

    Returns:
        None for one datum, and where it is lost in the Monte Carlo noise.
    """
    batch = len(h.mean)
    if batch < 2:
        return None
    if population == batch:
        return Moments(0.0, 0.0, 0.0, batch)
    norm = flat(gradient).square().sum()
    along = (h.mean * push_forward(problem.encoder, x, gradient)).sum(-1)
    distance = (h.mean * times(gram, h.mean)).sum(-1) - 2 * along + norm
    noise = (gram * h.covariance).sum((-1, -2)) / h.n
    # Less the noise in distance_i: (1 − 2/B) t_i + (1/B²) Σ t, with t_i = tr(K_i C_i)/n.
    left = distance - (1 - 2 / batch) * noise - noise.sum() / batch**2
    variance, noisy = (float(part.mean()) * bessel(batch) for part in (left, distance))
    if not variance > 0:
        return None
    centred = _first_gradients(problem, x, h.mean) - flat(gradient)
    infinite = sampled_variance(left, centred)
    if population is None:
        return infinite
    return of_finite_population(infinite, batch / population, noise=max(1 - variance / noisy, 0.0))


def sampled_variance(distances: Float64[Tensor, " B"], centred: Float64[Tensor, "M phi"]) -> Moments:
    """Moments of S²/B from one batch, as if of infinitely many data.

    Args:
        distances: ‖g_i − ḡ‖², unbiased.
        centred: g_i − ḡ of the first M data, from which tr Cov(g)² is taken.
    """
    batch = len(distances)
    variance = distances.mean(-1, keepdim=True) * bessel(batch)
    if len(centred) == batch:
        tau = (centred @ centred.T).square().sum() / (batch - 1) ** 2
    else:
        tau = trace_of_square(centred)
        tau = tau + (variance.square() + tau) / (batch - 1)  # as if from the covariance of all
    shares = Shares(variance, *central_moments(distances.unsqueeze(0)), tau.reshape(1))
    return shares.over(batch).summarize(batch)


def _first_gradients(problem: Problem, x: Tensor, mean: Float64[Tensor, "B P"]) -> Float64[Tensor, "M phi"]:
    """J_iᵀ E h_i of as many data as fit."""
    batch, size = mean.shape
    parameters = sum(p.numel() for p in problem.encoder.parameters())
    number = min(batch, _PAIRED, max(8, _PAIRED_ELEMENTS // max(parameters, 1)))
    vectors = mean.new_zeros(number, batch, size)
    each = torch.arange(number, device=mean.device)
    vectors[each, each] = mean[:number]
    return pull_back_each(problem.encoder, x, vectors.to(dtype_of(problem)))

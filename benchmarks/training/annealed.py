"""Annealed importance sampling: how far an importance-weighted bound is below the log-likelihood."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.posteriors.distributions import draw, reparameterizable
from ...estimators.posteriors.shared import shares_draws
from ..gradients import seeded
from ..problems.as_trained import as_evaluated
from ..problems.protocol import Problem

_LEAPFROGS = 5
_STEP = 0.2  # of the first trajectory, in standard deviations of q
_WANTED = 0.65  # acceptance
_ADAPTED = 1.05  # a step size changes by so much at a temperature

_Log = Callable[[Tensor], Float[Tensor, "C N"]]


def annealed_log_likelihood(
    problem: Problem, x: Tensor, *, chains: int = 16, temperatures: int = 100, seed: int = 0
) -> float | None:
    """Mean log-likelihood of x (N, ...) by annealed importance sampling, nats a datum; a lower bound as well.

    From q(z|x) to p(x, z) along q^(1 − β) p^β, β from 0 to 1 in equal steps; its logarithm is, in
    expectation, between the importance-weighted bound by as many samples and log p(x). Moves are Hamiltonian
    where q is a reparameterizable distribution over ℝᴰ; else a part of z is drawn anew from q, or all of it
    where its variables are dependent, and accepted by Metropolis' rule.

    None where there is no prior, and where data share their draws.

    References:
        Neal, Annealed Importance Sampling, Statistics and Computing, 2001.
        Wu, Burda, Salakhutdinov & Grosse, On the Quantitative Analysis of Decoder-Based Generative Models,
        2017, sec. 4.1.
    """
    with as_evaluated(problem), seeded(seed, x.device):
        q, target = problem.posterior(problem.encoder(x)), problem.target(x)
        if target.prior is None or shares_draws(q):
            return None
        log_q, log_joint = _densities(q, target)
        move = _mover(q, log_q, log_joint)
        z = draw(q, chains).detach()
        log_weights = torch.zeros(chains, len(x), dtype=torch.float64, device=x.device)
        betas = torch.linspace(0, 1, temperatures + 1).tolist()
        for before, beta in itertools.pairwise(betas):
            ratio = (log_joint(z) - log_q(z)).detach().double()
            log_weights += (beta - before) * ratio
            if beta < 1:
                z = move(z, beta)
        return float((log_weights.logsumexp(0) - math.log(chains)).mean())


def _densities(q: Distribution, target: Target) -> tuple[_Log, _Log]:
    prior = target.prior
    assert prior is not None

    def log_q(z: Tensor) -> Tensor:
        return q.log_prob(z)

    def log_joint(z: Tensor) -> Tensor:
        return target.log_likelihood(z) + prior.log_prob(z)

    return log_q, log_joint


def _mover(q: Distribution, log_q: _Log, log_joint: _Log) -> Callable[[Tensor, float], Tensor]:
    """What takes z (C, N, ...) to another, leaving q^(1 − β) p^β as it is."""
    if reparameterizable(q) and _is_unconstrained(q):
        return _Hamiltonian(q, log_q, log_joint)
    return _Redrawn(q, log_q, log_joint)


def _is_unconstrained(q: Distribution) -> bool:
    support = q.support
    while isinstance(support, td.constraints.independent):
        support = support.base_constraint
    return support is td.constraints.real or support == td.constraints.real_vector


class _Redrawn:
    """A random part of z anew from q; of dependent variables all of it."""

    def __init__(self, q: Distribution, log_q: _Log, log_joint: _Log) -> None:
        self._q, self._log_q, self._log_joint = q, log_q, log_joint
        #: Dimensions of one of independent variables; None where they are dependent.
        self._each = len(q.base_dist.event_shape) if isinstance(q, td.Independent) else None

    def __call__(self, z: Shaped[Tensor, "C N ..."], beta: float) -> Tensor:
        proposed = draw(self._q, len(z)).detach()
        if self._each is not None:
            proposed = torch.where(self._chosen(z), proposed, z)
        gain = beta * (self._ratio(proposed) - self._ratio(z))
        accepted = torch.rand_like(gain).log() < gain
        return torch.where(_over_events(accepted, z), proposed, z)

    def _chosen(self, z: Tensor) -> Tensor:
        # Of independent variables a part is proposed with q's density of that part.
        lead = z.shape[: z.dim() - (self._each or 0)]
        return _over_events(torch.rand(lead, device=z.device) < 0.5, z)

    def _ratio(self, z: Tensor) -> Tensor:
        return (self._log_joint(z) - self._log_q(z)).detach()


class _Hamiltonian:
    """Hamiltonian Monte Carlo with q's standard deviations for a scale."""

    def __init__(self, q: Distribution, log_q: _Log, log_joint: _Log) -> None:
        self._log_q, self._log_joint = log_q, log_joint
        self._scale = draw(q, 64).detach().std(0)
        self._step = torch.full(q.batch_shape, _STEP, dtype=self._scale.dtype, device=self._scale.device)

    def __call__(self, z: Float[Tensor, "C N ..."], beta: float) -> Tensor:
        def log_density(z: Tensor) -> Tensor:
            return (1 - beta) * self._log_q(z) + beta * self._log_joint(z)

        step = _over_events(self._step, self._scale) * self._scale
        momentum = torch.randn_like(z)
        before = log_density(z).detach() - _kinetic(momentum, self._step)
        moved, velocity = z, momentum
        lost = torch.zeros(z.shape[: 1 + self._step.dim()], dtype=torch.bool, device=z.device)
        for _ in range(_LEAPFROGS):
            velocity = velocity + 0.5 * step * _slope(log_density, moved)
            moved = moved + step * velocity
            # A chain that runs away is rejected; distributions refuse what is not finite.
            lost = lost | ~moved.isfinite().flatten(lost.dim()).all(-1)
            moved = torch.where(_over_events(lost, z), z, moved)
            velocity = velocity + 0.5 * step * _slope(log_density, moved)
        after = log_density(moved).detach() - _kinetic(velocity, self._step)
        gain = torch.where(lost, -math.inf, after - before).nan_to_num(nan=-math.inf)
        accepted = torch.rand_like(gain).log() < gain
        self._adapt(gain.clamp_max(0).exp().mean(0))
        return torch.where(_over_events(accepted, z), moved, z).detach()

    def _adapt(self, acceptance: Float[Tensor, "N"]) -> None:
        more = (acceptance > _WANTED).to(self._step)
        self._step = self._step * _ADAPTED ** (2 * more - 1)


def _slope(log_density: _Log, z: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(log_density(leaf).sum(), leaf)
    return slope


def _kinetic(momentum: Tensor, like: Float[Tensor, "N"]) -> Float[Tensor, "C N"]:
    return 0.5 * momentum.square().flatten(1 + like.dim()).sum(-1)


def _over_events(values: Tensor, z: Tensor) -> Tensor:
    return values.reshape(*values.shape, *(1,) * (z.dim() - values.dim()))

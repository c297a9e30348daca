"""Held-out numbers: the ELBO, and the importance-weighted log-likelihood."""

from __future__ import annotations

import math

from torch import Tensor

from ...estimators.pieces.objective import analytic_kl, integrand, unsupported_kl
from ...estimators.posteriors.distributions import draw
from ...estimators.posteriors.shared import shares_draws
from ..gradients import seeded
from ..problems.as_trained import as_evaluated
from ..problems.protocol import Problem

_ELBO_SAMPLES = 16
_ROWS = 2**15


def evaluate_elbo(problem: Problem, x: Tensor, seed: int) -> float:
    """Mean ELBO of x (N, ...) in nats a datum, by 16 samples; the KL in closed form where there is one.

    The KL is weighted as the target says: it is what is trained.
    """
    total = 0.0
    with as_evaluated(problem), seeded(seed, x.device):
        for part in x.split(_ROWS // _ELBO_SAMPLES):
            q, target = problem.posterior(problem.encoder(part)), problem.target(part)
            z = draw(q, _ELBO_SAMPLES)
            kl = "sampled" if unsupported_kl(q, target, "analytic") else "analytic"
            f = integrand(q, target, z, kl).mean(0) - analytic_kl(q, target, kl)
            total += float(f.detach().double().sum())
    return total / len(x)


def importance_weighted_log_likelihood(
    problem: Problem, x: Tensor, num_samples: int, seed: int
) -> float | None:
    """Mean log (1/K) Σ_k p(x, z_k)/q(z_k|x) of x (N, ...), nats a datum: a lower bound of log p(x).

    Of the model p(x|z) p(z), whatever weight the target gives the KL: with it there would be no bound of
    log p(x). None where the problem has no prior, hence no likelihood of x, and where data share their
    draws: the likelihood of one datum is not that of all.

    References:
        Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, eq. 8.
    """
    total = 0.0
    with as_evaluated(problem), seeded(seed, x.device):
        for part in x.split(max(1, _ROWS // num_samples)):
            q, target = problem.posterior(problem.encoder(part)), problem.target(part)
            if target.prior is None or shares_draws(q):
                return None
            z = draw(q, num_samples)
            log_weights = target.log_likelihood(z) + target.prior.log_prob(z) - q.log_prob(z)
            total += float((log_weights.detach().double().logsumexp(0) - math.log(num_samples)).sum())
    return total / len(x)

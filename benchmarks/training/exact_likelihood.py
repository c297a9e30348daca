"""The exact held-out log-likelihood, where a latent has so few values that all can be summed."""

from __future__ import annotations

from torch import Tensor

from ...estimators.posteriors.outcomes import enumerate_outcomes, outcomes
from ...estimators.posteriors.shared import shares_draws
from ..problems.as_trained import as_evaluated
from ..problems.protocol import Problem

MOST = 2**12  # values of z
_ROWS = 2**15


def exact_log_likelihood(problem: Problem, x: Tensor) -> float | None:
    """Mean log p(x) = log Σ_z p(x|z) p(z) of x (N, ...), nats a datum.

    None where z has infinitely many values or more than `MOST`, where there is no prior, and where data share
    their draws.
    """
    total = 0.0
    with as_evaluated(problem):
        for part in x.split(max(1, _ROWS // MOST)):
            q, target = problem.posterior(problem.encoder(part)), problem.target(part)
            count = outcomes(q)
            if target.prior is None or shares_draws(q) or count is None or count > MOST:
                return None
            z = enumerate_outcomes(q)
            joint = target.log_likelihood(z) + target.prior.log_prob(z)
            total += float(joint.detach().double().logsumexp(0).sum())
    return total / len(x)

"""What an estimator does on a target: whether it can be used there, and what it then differentiates."""

from __future__ import annotations

from torch.distributions import Distribution

from .base import Estimator, Target
from .kl_weight import parameters_of_weight, weighted_objective


def refusal(estimator: Estimator, q: Distribution, target: Target, num_samples: int) -> str | None:
    """None when the estimator can be used here, else the reason why not in one line.

    An estimator that does not claim to weigh the KL would estimate another objective than the target's.
    """
    return _unweighed(estimator, target) or estimator.supports(q, target, num_samples)


def objective_of(estimator: Estimator, target: Target) -> str:
    """What is differentiated here: the estimator's objective, and the weight of the KL where it is not 1."""
    return weighted_objective(estimator.objective, _weight_of(target))


def weighted_elbo(target: Target) -> str:
    """How the ELBO is called where its KL is weighted; "" where the weight is 1."""
    weight = _weight_of(target)
    return weighted_objective("elbo", weight) if weight else ""


def _weight_of(target: Target) -> str:
    return parameters_of_weight(target.kl_weight) if target.prior is not None else ""


def _unweighed(estimator: Estimator, target: Target) -> str | None:
    weight = _weight_of(target)
    if estimator.weighs_kl or not weight:
        return None
    return (
        f"it does not claim to weigh the KL ({weight}): take the KL from elbograd.estimators' integrand and "
        "analytic_kl, and set weighs_kl = True"
    )

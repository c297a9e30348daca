"""Which term of the objective is not finite, and what helps, where a measurement ends in NaN or overflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.base import Estimator, Target
from ...estimators.errors import EstimatorError
from ...estimators.pieces.objective import analytic_kl, has_kl, unsupported_kl
from ...estimators.posteriors import noise
from ...estimators.posteriors.distributions import describe, reparameterizable
from ..problems.forward_checks import posterior_and_target
from ..problems.point import placed
from ..problems.posterior_checks import properties
from ..problems.protocol import Problem
from ..statistics.moments import NotFiniteError

_DRAWS = 256


@contextmanager
def told_by_origin(problem: Problem, estimator: Estimator, x: Tensor) -> Iterator[None]:
    """Name the term where what is measured inside is not finite; what alone overflows the moments stays.

    Raises:
        EstimatorError: in one line, which term of the objective is not finite, and the remedy.
    """
    try:
        yield
    except NotFiniteError as error:
        found = _origin(problem, estimator, x)
        if found is None:
            raise
        raise EstimatorError(f"the gradient is not finite: {found}") from error


def _origin(problem: Problem, estimator: Estimator, x: Tensor) -> str | None:
    found = _term(problem, estimator, x)
    if found is None:
        return None
    term, kind, remedy = found
    if x.dtype != torch.float64:
        wide, wide_x = placed(problem, x, dtype=torch.float64)
        if _term(wide, estimator, wide_x) is None:
            name = str(next(problem.encoder.parameters(), x).dtype).removeprefix("torch.")
            return f"{term} is {kind} in {name}, but not in float64: measure in float64"
    return f"{term} is {kind}; {remedy}"


def _term(problem: Problem, estimator: Estimator, x: Tensor) -> tuple[str, str, str] | None:
    """The first term that is not finite, what it is instead, and what helps against that."""
    with torch.enable_grad():
        eta = problem.encoder(x).detach().requires_grad_()
        q, target = posterior_and_target(problem, x, eta)
        path, _ = properties(estimator, target)
        path = path and reparameterizable(q)
        z, drawn = noise.rsample(q, _DRAWS) if path else noise.draw(q, _DRAWS)
        for name, value, remedy in _terms(estimator, target, q, z, drawn):
            term = value()
            if term is None:
                continue
            kind = _what(term)
            if kind is not None:
                return name, kind, remedy
            if term.requires_grad:
                (slope,) = torch.autograd.grad(term.sum(), eta, materialize_grads=True, retain_graph=True)
                kind = _what(slope)
                if kind is not None:
                    return f"the gradient of {name}", kind, remedy
    return None


def _terms(
    estimator: Estimator,
    target: Target,
    q: Distribution,
    z: Tensor,
    drawn: noise.Noise | None,
) -> list[tuple[str, Callable[[], Tensor | None], str]]:
    prior = target.prior if has_kl(target) else None
    terms: list[tuple[str, Callable[[], Tensor | None], str]] = [
        ("log p(x|z)", lambda: target.log_likelihood(z), "look at log_likelihood at draws of q"),
        ("log q(z)", lambda: noise.log_prob(q, z, drawn), "look at the posterior's parameters"),
    ]
    if prior is None:
        return terms
    if getattr(estimator, "kl", "analytic") == "analytic":
        pair = f"the closed-form KL of {describe(q)} against {describe(prior)}"
        return [*terms, (pair, lambda: _divergence(q, target), "use kl=sampled, or a prior wider than q")]
    return [*terms, ("log p(z)", lambda: prior.log_prob(z), "the prior must cover all that q draws")]


def _divergence(q: Distribution, target: Target) -> Tensor | None:
    """The closed-form KL as it is weighted, or None where there is none."""
    found = None if unsupported_kl(q, target, "analytic") else analytic_kl(q, target)
    return found if isinstance(found, Tensor) else None


def _what(value: Tensor) -> str | None:
    """NaN or an infinity, and how often; or None."""
    if bool(value.isfinite().all()):
        return None
    for name, bad in (("NaN", value.isnan()), ("−∞", value == -torch.inf), ("+∞", value == torch.inf)):
        if bool(bad.any()):
            return f"{name} ({int(bad.sum())} of {value.numel()} numbers)"
    return None

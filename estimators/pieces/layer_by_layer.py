"""Estimators of independent discrete variables on a hierarchy, one latent at a time.

Given the latents that do not descend from z_l, z_l has the posterior q_l(z_l | ·), of independent variables,
and the target f_l(z_l): those terms of the objective that read z_l or what descends from it, the descendants
drawn anew given each z_l at which it is evaluated. An estimate of ∇ E_{q_l}[f_l] in the parameters of q_l is,
averaged over the other latents, what z_l has to do with the gradient; the sum over latents is the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..posteriors import distributions
from ..posteriors.distributions import describe
from ..posteriors.layered import Layered
from .local_signals import descendants, summed, terms
from .objective import analytic_kl, unsupported_kl
from .variables import not_discrete


def estimate_layers(
    estimator: Estimator, q: Layered, target: Target, num_samples: int, kl: str, *, together: bool = False
) -> Estimate:
    """The sum over latents of what the estimator makes of each.

    Every latent costs what the estimator costs on one, but for evaluations of the log-likelihood where
    neither it nor a descendant is read; where no latent has all others for its descendants, S more of them
    give the value. Of S samples, m are given the same draw of the other latents, and S/m such draws averaged.

    Args:
        estimator: unbiased for independent discrete latents, of f on their support alone, whose surrogate is
            its value.
        q: the posterior.
        target: what is integrated.
        num_samples: S.
        kl: "analytic" or "sampled".
        together: m is the largest number that the estimator can do with, and not the smallest.
    """
    found: Tensor | float = 0.0
    whole = _ancestor_of_all(q)
    for name in q.order:
        problem = _Problem(q, target, kl, name)
        number = problem.samples(estimator, num_samples, together)
        part = problem.estimate(estimator, num_samples // number, number, attached=name == whole)
        found = found + (part if name == whole else part - part.detach())
    if whole is None:
        found = found + _value(q, target, num_samples, kl)
    elbo = found - analytic_kl(q, target, kl)
    assert isinstance(elbo, Tensor)
    return Estimate(surrogate=elbo, value=elbo)


def unsupported_layers(
    estimator: Estimator, q: Layered, target: Target, num_samples: int, kl: str, *, together: bool = False
) -> str | None:
    """Why `estimate_layers` cannot be used, or None."""
    refused = Estimator.supports(estimator, q, target, num_samples) or unsupported_kl(q, target, kl)
    for name in q.order:
        refused = refused or _Problem(q, target, kl, name).refused(estimator, num_samples, together)
    return refused


def _ancestor_of_all(q: Layered) -> str | None:
    """The latent that all others descend from: its target is the whole objective."""
    return next((name for name in q.order if len(descendants(q, name)) == len(q.layers)), None)


def _value(q: Layered, target: Target, num_samples: int, kl: str) -> Float[Tensor, "*batch"]:
    z = distributions.draw(q, num_samples)
    log_q = {name: value.detach() for name, value in q.log_probs(z).items()}
    return summed(terms(q, target, z, kl, log_q), like=z).mean(0)


@dataclass(frozen=True)
class _Problem:
    """One latent of q, by its name, as the problem of an estimator of independent variables."""

    q: Layered
    target: Target
    kl: str
    name: str

    @property
    def below(self) -> frozenset[str]:
        """The latent and what descends from it."""
        return descendants(self.q, self.name)

    def refused(self, estimator: Estimator, num_samples: int, together: bool) -> str | None:
        """Why the estimator cannot do this latent, or None."""
        if self._possible(estimator, num_samples, together):
            return None
        if not_discrete(self.q.examples[self.name]):
            kind = describe(self.q.examples[self.name])
            return f"takes discrete latents alone, and {self.name} is a {kind}: use leave-one-out"
        return f"latent {self.name} {self._why_not(estimator, num_samples)}"

    def samples(self, estimator: Estimator, num_samples: int, together: bool) -> int:
        """m, the number of samples given the same others: without others, all."""
        return self._possible(estimator, num_samples, together)[0]

    def estimate(
        self, estimator: Estimator, draws: int, num_samples: int, attached: bool
    ) -> Float[Tensor, "*batch"]:
        """The mean over ``draws`` of the others of the estimator's surrogate, attached to θ or not."""
        others: dict[str, Tensor] = {}
        for name in self.q.order:
            if name not in self.below:
                others[name] = _draw(self._layer(name, others, draws))
        integrand = partial(self._integrand, others, draws, attached)
        q = self._layer(self.name, others, draws)
        return estimator(q, Target(integrand), num_samples).surrogate.mean(0)

    def _possible(self, estimator: Estimator, num_samples: int, together: bool) -> list[int]:
        """What m can be, best first."""
        divisors = [m for m in range(1, num_samples + 1) if num_samples % m == 0]
        possible = [m for m in divisors if self._why_not(estimator, m) is None]
        return possible[::-1] if together or len(self.below) == len(self.q.layers) else possible

    def _why_not(self, estimator: Estimator, num_samples: int) -> str | None:
        return estimator.supports(self.q.examples[self.name], Target(torch.zeros_like), num_samples)

    def _layer(self, name: str, parts: Mapping[str, Tensor], rows: int) -> Distribution:
        """The distribution of a latent given others, batch shape (rows, *batch)."""
        layer = self.q.layers[name]
        if not isinstance(layer, Distribution):
            layer = layer(**{parent: parts[parent] for parent in self.q.parents[name]})
        batch = torch.Size((rows, *self.q.batch_shape))
        return layer if layer.batch_shape == batch else layer.expand(batch)

    def _integrand(
        self,
        others: Mapping[str, Tensor],
        draws: int,
        attached: bool,
        z: Shaped[Tensor, "points *draws_batch_event"],
    ) -> Float[Tensor, "points *draws_batch"]:
        """f_l(z_l), at points (n, draws, *batch, *event)."""
        rows = len(z) * draws
        parts = {name: part.expand(len(z), *part.shape).flatten(0, 1) for name, part in others.items()}
        parts[self.name] = z.flatten(0, 1)
        log_q = {}
        with torch.no_grad():
            for name in self.q.order:
                if name in self.below:
                    layer = self._layer(name, parts, rows)
                    if name != self.name:
                        parts[name] = _draw(layer)
                    log_q[name] = layer.log_prob(parts[name])
        joint = self.q.join(parts)
        with torch.set_grad_enabled(attached and torch.is_grad_enabled()):
            each = terms(self.q, self.target, joint, self.kl, log_q, touching=self.below)
            return summed(each, like=joint).unflatten(0, (len(z), draws))


def _draw(layer: Distribution) -> Shaped[Tensor, "*batch_event"]:
    return distributions.draw(layer, 1).squeeze(0)

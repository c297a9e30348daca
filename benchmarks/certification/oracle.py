"""One point of an oracle problem with its exact answers, and draws held against them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...estimators.base import Estimate, Estimator, Target
from ..gradients import check_estimate
from ..oracles.discrete_moments import discrete_moments
from ..oracles.objectives import exact_gradients
from ..oracles.references import direct_parameters
from ..oracles.rules import TOLERANCE
from ..oracles.variances import exact_variance
from ..problems.placement import place, to_encoder
from ..problems.protocol import Problem
from .integrand_features import Known, Ratio, exact_conditional, exact_ratio, theta_of

_ROUNDING = 1e-12  # relative, of sums in float64 that are exact but for it


class Draws(NamedTuple):
    """Deviations of m estimates from the exact answers, float64.

    Attributes:
        gradient: (m, B, P), in η-space.
        value: (m, B).
    """

    gradient: Tensor
    value: Tensor


class GroupMeans(NamedTuple):
    """Means over m estimates and B data, or their deviations from the exact answers, float64.

    Attributes:
        theta: (1, T), of value's gradient in the decoder's parameters.
        phi: (1, Q), of the surrogate's, in what the posterior holds of φ itself.
    """

    theta: Tensor
    phi: Tensor


@dataclass(frozen=True)
class Oracle:
    """B data of a problem at one point in η-space, with the exact answers for one objective.

    Attributes:
        problem: in the dtype to test in.
        point: its name.
        x: (B, ...).
        eta: (B, P).
        objective: that is differentiated.
        num_samples: S that the answers are for, where the objective depends on it.
        value: (B,), float64, as all exact answers.
        eta_grad: (B, P).
        theta_grad: (T,), of the mean over the data, in the decoder's parameters.
        phi: the encoder's parameters that are reached other than through eta, as a hierarchy's conditionals
            are, names -> sizes.
        phi_grad: (Q,), of the mean over the data, in these.
        rows: after how many data the batch begins again.
        exact: the problem in float64.
        accuracy: relative error that value and gradients may have.
        ratio, conditional: see `exact_ratio` and `exact_conditional`.
    """

    problem: Problem
    point: str
    x: Tensor
    eta: Tensor
    objective: str
    num_samples: int
    value: Tensor
    eta_grad: Tensor
    theta_grad: Tensor
    phi: dict[str, int]
    phi_grad: Tensor
    rows: int
    exact: Problem
    accuracy: float
    ratio: Ratio | None
    conditional: Ratio | None

    @property
    def unit(self) -> float:
        """Of rounding, in the type of the estimates."""
        return float(torch.finfo(self.eta.dtype).eps)

    @property
    def copies(self) -> int:
        """How often a datum is in the batch, at least."""
        return max(len(self.eta) // self.rows, 1)

    @property
    def norm(self) -> float:
        """‖exact gradient‖ over all data."""
        return float(self.eta_grad.norm())

    @property
    def target(self) -> Target:
        """The target, attached to θ."""
        return self.problem.target(self.x)

    @property
    def _exact_target(self) -> Target:
        return self.exact.target(to_encoder(self.exact, self.x))

    def variance(self, estimator: Estimator, num_samples: int) -> Tensor | None:
        """Exact variance of every coordinate of an estimate, (B, P), where it is known."""
        posterior, target = self.exact.posterior, self._exact_target
        return exact_variance(estimator, posterior, self.eta.double(), target, num_samples)

    def mean(self, estimator: Estimator, num_samples: int) -> Tensor | None:
        """Exact mean of an estimate, (B, P), whatever it estimates, where it is known."""
        posterior, target = self.exact.posterior, self._exact_target
        found = discrete_moments(estimator, posterior, self.eta.double(), target, num_samples)
        return None if found is None else found.mean

    def known(self, num_samples: int, draws: str) -> Known | None:
        """What features of an estimate's noise have their means from; None for other objectives."""
        if self.objective not in ("elbo", "iwae"):
            return None
        place = (self.exact, self._exact_target, self.eta.double(), num_samples, draws)
        parts = (self.ratio, self.conditional, self.theta_grad)
        return Known(*place, self.objective, self.value, self.eta_grad, *parts)

    def at(self, batch_size: int, dtype: str) -> Oracle:
        """The same with the data repeated, or left out, to a batch of this size, and estimates in this type.

        Gradients that are means over the data are left out where these are not repeated whole.
        """
        rows = torch.arange(batch_size) % len(self.eta)
        whole = batch_size % len(self.eta) == 0
        kind = getattr(torch, dtype)
        problem = self.problem if kind == self.eta.dtype else place(self.problem, dtype=kind)
        return replace(
            self,
            problem=problem,
            x=to_encoder(problem, self.x)[rows],
            eta=self.eta[rows].to(kind),
            value=self.value[rows],
            eta_grad=self.eta_grad[rows],
            theta_grad=self.theta_grad if whole else self.theta_grad[:0],
            phi=self.phi if whole else {},
            phi_grad=self.phi_grad if whole else self.phi_grad[:0],
            rows=min(batch_size, self.rows),
            ratio=None if self.ratio is None else self.ratio.of(rows),
            conditional=None if self.conditional is None else self.conditional.of(rows),
        )

    def estimate(
        self, estimator: Estimator, target: Target, num_samples: int, replicates: int | None
    ) -> tuple[Estimate, Tensor]:
        """R estimates, and the leaf η (R, B, P) that they are attached to; for None, a batch (B,) and (B, P).

        Raises:
            EstimatorError: the estimate breaks the protocol.
        """
        lead = () if replicates is None else (replicates,)
        leaf = self.eta.expand(*lead, *self.eta.shape).clone().requires_grad_()
        estimate = estimator(self.problem.posterior(leaf), target, num_samples)
        check_estimate(estimate, leaf.shape[:-1])
        return estimate, leaf

    def gradients(self, estimate: Estimate, leaf: Tensor) -> Draws:
        """Deviations of estimates from the exact answers, for the leaf that they are attached to."""
        (h,) = _gradients(estimate.surrogate, [leaf])
        return Draws(h.double() - self.eta_grad, estimate.value.detach().double() - self.value)

    def of_parameters(self, value: Tensor, surrogate: Tensor) -> GroupMeans:
        """Gradients of a sum of values in θ, (1, T), and of a sum of surrogates in `phi`, (1, Q); float64.

        Of what has no exact answer here, or requires no gradient, there is none.
        """
        theta = theta_of(self.problem) if self.theta_grad.numel() else []
        phi = _named(self.problem, self.phi)
        found = (_flat(_gradients(value.sum(), theta)), _flat(_gradients(surrogate.sum(), phi)))
        return GroupMeans(*(part.to(self.eta_grad).unsqueeze(0) for part in found))


def solve(
    problem: Problem, point: str, x: Tensor, eta: Tensor, objective: str, num_samples: int
) -> Oracle | str:
    """The exact answers at a point, by a copy of the problem in float64, or why there are none."""
    exact = place(problem, dtype=torch.float64)
    data = to_encoder(exact, x)
    phi = direct_parameters(exact, data, eta.double())
    held, theta = _named(exact, phi), theta_of(exact)
    answer = exact_gradients(
        exact.posterior, eta.double(), exact.target, data, [*held, *theta], objective, num_samples
    )
    if isinstance(answer, str):
        return answer
    sizes = {name: p.numel() for name, p in zip(phi, held, strict=True)}
    phi_grad, theta_grad = answer.theta_grad.tensor_split([sum(sizes.values())])
    exact_answers = (answer.value, answer.eta_grad, theta_grad, sizes, phi_grad, len(eta))
    parts: tuple[Ratio | None, Ratio | None] = (None, None)
    if objective == "elbo":
        here = (exact, exact.target(data), eta.double())
        parts = (exact_ratio(*here), exact_conditional(*here))
    accuracy = TOLERANCE if answer.method == "quadrature" else _ROUNDING
    return Oracle(problem, point, x, eta, objective, num_samples, *exact_answers, exact, accuracy, *parts)


def _named(problem: Problem, names: Iterable[str]) -> list[Tensor]:
    """The encoder's parameters of these names."""
    return [problem.encoder.get_parameter(name) for name in names]


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts]) if parts else torch.zeros(0)


def _gradients(output: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    if not leaves or not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(output.sum(), leaves, retain_graph=True, materialize_grads=True))

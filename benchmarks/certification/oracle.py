"""One point of an oracle problem with its exact answers, and draws held against them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...estimators.base import Estimator, Target
from ..gradients import check_estimate
from ..oracles.discrete_moments import discrete_moments
from ..oracles.objectives import exact_gradients
from ..oracles.references import direct_parameters
from ..oracles.variances import exact_variance
from ..problems.placement import place, to_encoder
from ..problems.protocol import Problem


@dataclass(frozen=True)
class Draws:
    """Deviations of m estimates from the exact answers.

    Attributes:
        gradient: (m, B, P), in η-space.
        value: (m, B).
        theta: (1, T), of the mean over the m estimates and the B data.
        phi: (1, Q), the same of the surrogate, in what the posterior holds of φ itself.
    """

    gradient: Tensor
    value: Tensor
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

    @property
    def norm(self) -> float:
        """‖exact gradient‖ over all data."""
        return float(self.eta_grad.norm())

    @property
    def target(self) -> Target:
        """The target, attached to θ."""
        return self.problem.target(self.x)

    def variance(self, estimator: Estimator, num_samples: int) -> Tensor | None:
        """Exact variance of every coordinate of an estimate, (B, P), where it is known."""
        exact = place(self.problem, dtype=torch.float64)
        target = exact.target(to_encoder(exact, self.x))
        return exact_variance(estimator, exact.posterior, self.eta.double(), target, num_samples)

    def mean(self, estimator: Estimator, num_samples: int) -> Tensor | None:
        """Exact mean of an estimate, (B, P), whatever it estimates, where it is known."""
        exact = place(self.problem, dtype=torch.float64)
        target = exact.target(to_encoder(exact, self.x))
        found = discrete_moments(estimator, exact.posterior, self.eta.double(), target, num_samples)
        return None if found is None else found.mean

    def draw(self, estimator: Estimator, target: Target, num_samples: int, replicates: int) -> Draws:
        """Independent estimates, less the exact answers.

        Raises:
            EstimatorError: the estimate breaks the protocol.
        """
        leaf = self.eta.expand(replicates, *self.eta.shape).clone().requires_grad_()
        estimate = estimator(self.problem.posterior(leaf), target, num_samples)
        check_estimate(estimate, leaf.shape[:-1])
        theta, phi = _theta(self.problem), _named(self.problem, self.phi)
        if estimate.surrogate is estimate.value:
            h, *parts = _gradients(estimate.value, [leaf, *phi, *theta])
        else:
            h, *parts = _gradients(estimate.surrogate, [leaf, *phi])
            parts += _gradients(estimate.value, theta)
        count = replicates * len(self.eta)
        of_phi, of_theta = _flat(parts[: len(phi)], h) / count, _flat(parts[len(phi) :], h) / count
        return Draws(
            h.double() - self.eta_grad,
            estimate.value.detach().double() - self.value,
            (of_theta.double() - self.theta_grad).unsqueeze(0),
            (of_phi.double() - self.phi_grad).unsqueeze(0),
        )


def solve(
    problem: Problem, point: str, x: Tensor, eta: Tensor, objective: str, num_samples: int
) -> Oracle | str:
    """The exact answers at a point, by a copy of the problem in float64, or why there are none."""
    exact = place(problem, dtype=torch.float64)
    data = to_encoder(exact, x)
    phi = direct_parameters(exact, data, eta.double())
    held, theta = _named(exact, phi), _theta(exact)
    answer = exact_gradients(
        exact.posterior, eta.double(), exact.target, data, [*held, *theta], objective, num_samples
    )
    if isinstance(answer, str):
        return answer
    sizes = {name: p.numel() for name, p in zip(phi, held, strict=True)}
    phi_grad, theta_grad = answer.theta_grad.tensor_split([sum(sizes.values())])
    exact_answers = (answer.value, answer.eta_grad, theta_grad, sizes, phi_grad)
    return Oracle(problem, point, x, eta, objective, num_samples, *exact_answers)


def _named(problem: Problem, names: Iterable[str]) -> list[Tensor]:
    """The encoder's parameters of these names."""
    return [problem.encoder.get_parameter(name) for name in names]


def _theta(problem: Problem) -> list[Tensor]:
    return [p for p in problem.decoder.parameters() if p.requires_grad]


def _flat(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([like.flatten()[:0], *(part.flatten() for part in parts)])


def _gradients(output: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    if not leaves or not output.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    return list(torch.autograd.grad(output.sum(), leaves, retain_graph=True, materialize_grads=True))

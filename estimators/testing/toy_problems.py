"""Small problems whose ELBO and gradients are known by quadrature or enumeration.

The conformance suite runs on them. What would hide a mistake is avoided: every coordinate has its own
scale, none of them 1 or 1/√2 (where z = μ + σ² ε is unbiased); the prior is not standard; the
log-likelihood is smooth but no polynomial, couples the coordinates and differs between data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ..base import Target
from ..kl_weight import FreeBits
from ..network import Apply, Linear, Network
from ..posteriors.outcomes import enumerate_outcomes, outcomes
from ..posteriors.quadrature import gauss_hermite

NODES = 48
_FREQUENCIES = (
    (0.9, -0.4, 0.7, 0.2, -0.8, 0.5, -0.3, 1.0, 0.6, -0.7, 0.1, -1.1),
    (-0.5, 1.1, 0.3, -0.9, 0.4, 0.6, 0.8, -0.2, -1.0, 0.5, -0.6, 0.7),
)
_PHASES = ((0.3, -1.1), (1.7, 0.4), (-0.6, 2.2))
_CENTRES = ((0.6,), (-0.9,), (0.2,))
_BOWL = 0.05
_OFFSETS = (-1.5, 0.8, -0.4)
_BUMPS = (2.0, 1.2, 1.6, 0.9, 1.7, 1.1, 0.8, 1.4, 1.9, 1.3, 0.7, 1.5)
_SURE = 40.0  # a logit of which float32 rounds the probability to 0 or 1
_NEVER = -1e5  # a logit of which the probability is 0 in every type
_LAYERS = {"first": Linear(1, 1, bias=False), "second": Linear(1, 1, bias=False)}
_INPUTS = ((1.3,), (-0.8,), (0.6,))
_FEATURES = ((0.5, -1.0), (-0.3, 0.8), (1.2, 0.1))


class ElboGradients(NamedTuple):
    """ELBO (*batch), its gradient in η (*batch, P) and in θ (*batch, T): exact ones, or draws of them."""

    value: Tensor
    eta_grad: Tensor
    theta_grad: Tensor


@dataclass(frozen=True)
class ToyProblem:
    """Leaves to differentiate in, one copy an entry of the batch, and the distributions built from them.

    Attributes:
        eta: (*batch, P).
        theta: (*batch, 2), the decoder's parameters.
        prior_theta: (*batch, ·), the prior's parameters, or (·,) when it is not learned.
        posterior, prior: a leaf -> the distribution.
        data: which datum each entry of the last batch dimension is.
        of_weights: whether z are the weights of a small network, which log_likelihood applies.
    """

    eta: Tensor
    theta: Tensor
    prior_theta: Tensor
    posterior: Callable[[Tensor], Distribution]
    prior: Callable[[Tensor], Distribution]
    data: tuple[int, ...]
    of_weights: bool = False

    @property
    def q(self) -> Distribution:
        """A posterior with a graph of its own, so that each estimate can be differentiated."""
        return self.posterior(self.eta)

    @property
    def target(self) -> Target:
        """The target, with a prior and features."""
        features = self._constant(_FEATURES)
        network = self.network if self.of_weights else None
        return Target(self.log_likelihood, self.prior(self.prior_theta), features, network=network)

    @property
    def network(self) -> Network:
        """t = w₂ tanh(w₁ x_i), and f_i = c_i + Σ_k θ_k sin(ω_k t + a_ik) − 0.05 (t − m_i)²."""
        return Network(_LAYERS, self._of_layers)

    @property
    def learned(self) -> tuple[Tensor, ...]:
        """The leaves that make up θ."""
        return tuple(leaf for leaf in (self.theta, self.prior_theta) if leaf.requires_grad)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """f_i(z) = c_i + Σ_k θ_k sin(w_k·z + a_ik) − 0.05 |z − m_i|², z (S, *batch, *event) -> (S, *batch).

        Raises:
            ValueError: z has another shape or dtype.
        """
        event = self.q.event_shape
        if z.dim() != 1 + len(self.eta.shape[:-1]) + len(event) or z.shape[1:] != (
            *self.eta.shape[:-1],
            *event,
        ):
            expected = f"(S, {', '.join(map(str, (*self.eta.shape[:-1], *event)))})"
            raise ValueError(f"log_likelihood was given z of shape {tuple(z.shape)}, not {expected}")
        if z.dtype != self.eta.dtype:
            raise ValueError(f"log_likelihood was given z in {z.dtype} under a posterior in {self.eta.dtype}")
        if self.of_weights:
            return self.network.dense(z)
        z = z.flatten(-len(event))
        offset, phase, centre = (self._constant(table) for table in (_OFFSETS, _PHASES, _CENTRES))
        frequencies = torch.tensor(_FREQUENCIES, dtype=z.dtype, device=z.device)[:, : z.shape[-1]]
        waves = torch.sin(z @ frequencies.T + phase)
        return offset + (self.theta * waves).sum(-1) - _BOWL * (z - centre).square().sum(-1)

    def _of_layers(self, apply: Apply) -> Tensor:
        t = apply("second", torch.tanh(apply("first", self._constant(_INPUTS))))
        offset, phase, centre = (self._constant(table) for table in (_OFFSETS, _PHASES, _CENTRES))
        waves = torch.sin(t * t.new_tensor(_FREQUENCIES)[:, 0] + phase)
        return offset + (self.theta * waves).sum(-1) - _BOWL * (t - centre).square().sum(-1)

    def bump(self, z: Tensor) -> Tensor:
        """Σ_k λ_k z_k (1 − z_k) over all coordinates of z: zero on the support of discrete z alone.

        z (S, *batch, *event) -> (S, *batch).
        """
        z = z.flatten(-len(self.q.event_shape))
        return z * (1 - z) @ z.new_tensor(_BUMPS[: z.shape[-1]])

    def exact(self, prior: bool = True, kl_weight: float | FreeBits = 1.0) -> ElboGradients:
        """E_q[f(z)] less the weighted E_q[log q(z) − log p(z)], and its gradients; no KL if not ``prior``.

        No closed-form KL is used, so that a wrong one would show.
        """
        q = self.q
        if outcomes(q) is not None:
            z = enumerate_outcomes(q)
            log_q = q.log_prob(z)
            weights = log_q.exp()
        else:
            z, weights = gauss_hermite(q, NODES)
            log_q = q.log_prob(z)
            weights = weights.reshape(-1, *(1,) * (log_q.dim() - 1))
        f = self.log_likelihood(z)
        own = self.prior(self.prior_theta)
        if prior and not isinstance(kl_weight, FreeBits):
            f = f + kl_weight * (own.log_prob(z) - log_q)
        value = (weights * f).sum(0)
        if prior and isinstance(kl_weight, FreeBits):
            each, of_prior = (independent.base_dist.log_prob(z) for independent in (q, own))  # type: ignore[attr-defined]
            counted = (weights.unsqueeze(-1) * (each - of_prior)).sum(0)  # (*batch, D)
            value = value - torch.maximum(counted, counted.new_tensor(kl_weight.nats)).sum(-1)
        eta_grad, *theta_grads = torch.autograd.grad(
            value.sum(), (self.eta, *self.learned), materialize_grads=True
        )
        return ElboGradients(value.detach(), eta_grad, torch.cat((eta_grad[..., :0], *theta_grads), -1))

    def _constant(self, table: tuple[object, ...]) -> Tensor:
        rows = [table[i] for i in self.data]
        return torch.tensor(rows, dtype=self.eta.dtype, device=self.eta.device)


@dataclass(frozen=True)
class Family:
    """A posterior family with its parameters at three data.

    Attributes:
        name: as it appears in brackets behind the name of a check.
        eta: (3, P).
        prior_theta: the prior's parameters.
        posterior, prior: parameters -> distribution.
        states: of each variable; None where they are not finitely many.
        of_weights: see `ToyProblem`.
        like: another family that shares everything but its numbers: what does not depend on these is asked of
            that one alone.
    """

    name: str
    eta: tuple[tuple[float, ...], ...]
    prior_theta: tuple[float, ...]
    posterior: Callable[[Tensor], Distribution] = field(repr=False)
    prior: Callable[[Tensor], Distribution] = field(repr=False)
    states: int | None = None
    like: str | None = None
    of_weights: bool = False

    def problem(
        self,
        lead: tuple[int, ...] = (),
        data: tuple[int, ...] = (0, 1, 2),
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
        learned: bool = False,
    ) -> ToyProblem:
        """The problem with batch (*lead, len(data)).

        With ``learned``, θ and the prior's parameters are leaves too, one copy an entry of the batch, so
        that one backward pass gives each entry's own gradient; otherwise they are constants.
        """
        eta = torch.tensor(self.eta, dtype=torch.float64)[list(data)]
        batch = (*lead, len(data))

        def leaf(values: Tensor, shape: tuple[int, ...], learn: bool) -> Tensor:
            values = values.to(dtype=dtype, device=device).expand(*shape, values.shape[-1])
            return values.clone().requires_grad_(learn)

        theta = torch.tensor([1.3, -0.8], dtype=torch.float64)
        prior_theta = torch.tensor(self.prior_theta, dtype=torch.float64)
        return ToyProblem(
            eta=leaf(eta, batch, True),
            theta=leaf(theta, batch, learned),
            prior_theta=leaf(prior_theta, batch if learned else (), learned),
            posterior=self.posterior,
            prior=self.prior,
            data=data,
            of_weights=self.of_weights,
        )

    def sure(self) -> Family:
        """The same with one state of each variable certain: logits of ±40, by the sign or at the largest."""
        assert self.states is not None
        eta = torch.tensor(self.eta, dtype=torch.float64)
        if self.states == 2:
            return self._at(_SURE * eta.sign())
        table = eta.unflatten(-1, (-1, self.states))
        return self._at(torch.where(table == table.amax(-1, keepdim=True), _SURE, -_SURE).flatten(-2))

    def forbidden(self) -> tuple[Family, Tensor]:
        """The same with states of probability zero, and (3, P) a one where a coordinate of z is then never 1.

        Of the first Bernoulli variable 1 is impossible; of every K-ary variable the least likely state.
        """
        assert self.states is not None
        eta = torch.tensor(self.eta, dtype=torch.float64)
        if self.states == 2:
            never = torch.zeros_like(eta)
            never[:, 0] = 1
        else:
            table = eta.unflatten(-1, (-1, self.states))
            never = (table == table.amin(-1, keepdim=True)).to(eta).flatten(-2)
        return self._at(torch.where(never == 1, _NEVER, eta)), never

    def _at(self, eta: Tensor) -> Family:
        return replace(self, eta=tuple(tuple(row) for row in eta.tolist()))


def _gaussian(eta: Tensor) -> Distribution:
    loc, log_scale = eta.chunk(2, -1)
    return td.Independent(td.Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)


def _bernoulli(logits: Tensor) -> Distribution:
    return td.Independent(td.Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def _one_hot(eta: Tensor, states: int) -> Distribution:
    logits = eta.unflatten(-1, (-1, states))
    return td.Independent(td.OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)


def _logs(*scales: float) -> tuple[float, ...]:
    return tuple(math.log(scale) for scale in scales)


FAMILIES = (
    Family(
        "gaussian",  # (μ, log σ), D = 2
        eta=((0.4, -0.9, *_logs(0.3, 2.0)), (-1.3, 0.7, *_logs(1.4, 0.55)), (1.6, 0.2, *_logs(2.0, 0.3))),
        prior_theta=(0.3, -0.2, *_logs(2.4, 1.7)),
        posterior=_gaussian,
        prior=_gaussian,
    ),
    Family(
        "bernoulli",  # logits, D = 3
        eta=((-1.2, 0.4, 1.8), (0.7, -0.5, 1.1), (-1.7, 1.5, -0.3)),
        prior_theta=(0.5, -0.8, 0.2),
        posterior=_bernoulli,
        prior=_bernoulli,
        states=2,
    ),
    Family(
        "one-hot",  # logits, D = 2 variables of K = 3 values
        eta=(
            (-0.6, 0.9, 0.2, 1.1, -0.4, 0.3),
            (0.5, -1.0, 0.8, 0.1, 0.6, -0.7),
            (1.2, 0.0, -0.5, -0.9, 0.4, 0.7),
        ),
        prior_theta=(0.4, -0.3, 0.1, -0.6, 0.2, 0.5),
        posterior=partial(_one_hot, states=3),
        prior=partial(_one_hot, states=3),
        states=3,
    ),
    Family(
        "four-states",  # logits, D = 3 variables of K = 4 values
        eta=(
            (0.3, -0.8, 1.1, -0.2, 0.9, 0.1, -0.6, 0.5, -0.4, 1.3, 0.2, -1.0),
            (-0.7, 0.6, 0.4, 1.2, -0.3, 0.8, 0.0, -0.9, 1.0, -0.5, 0.7, 0.3),
            (1.4, -0.1, -0.6, 0.2, 0.5, -1.1, 0.9, 0.4, -0.2, 0.6, -0.8, 1.1),
        ),
        prior_theta=(0.2, 0.5, -0.4, 0.1, -0.3, 0.6, 0.3, -0.5, 0.7, -0.2, 0.0, 0.4),
        posterior=partial(_one_hot, states=4),
        prior=partial(_one_hot, states=4),
        states=4,
        like="one-hot",
    ),
)


#: For estimators of a network's weights, which support none of the others.
WEIGHTS = replace(FAMILIES[0], name="weights", of_weights=True)


def alien_cases() -> list[tuple[Distribution, Target]]:
    """Posteriors that few estimators know: an integer one, a K-ary one, a flow, one without a KL."""
    zeros = torch.zeros(2, 3)
    normal = td.Normal(zeros, 1.5)
    pairs: list[tuple[Distribution, Distribution]] = [
        (td.Independent(td.Poisson(zeros + 2.0), 1), td.Independent(td.Poisson(torch.ones(3)), 1)),
        (td.Categorical(logits=zeros), td.Categorical(logits=torch.ones(3))),
        (
            td.Independent(td.TransformedDistribution(normal, [td.TanhTransform()]), 1),
            td.Independent(td.Uniform(-torch.ones(3), torch.ones(3)), 1),
        ),
        (td.Independent(normal, 1), td.Independent(td.Cauchy(torch.zeros(3), torch.ones(3)), 1)),
    ]
    features = torch.zeros(2, 4)
    return [
        (q, Target(lambda z, q=q: z.new_zeros(z.shape[: z.dim() - len(q.event_shape)]), prior, features))  # type: ignore[misc]
        for q, prior in pairs
    ]

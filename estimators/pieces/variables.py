"""A posterior of independent discrete variables as logits: what estimators for discrete latents work on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid, one_hot

from ..base import Estimate, Target
from ..posteriors.distributions import describe
from ..posteriors.families import family_of, innermost
from ..posteriors.layered import Layered, not_one_latent
from .objective import analytic_kl

_FAMILIES = (td.Bernoulli, td.Categorical, td.OneHotCategorical)
_LEAST_LOGIT = -1e4  # of which the probability is 0 in every type; −∞ times a gradient of 0 is no number


class Variables(NamedTuple):
    """D independent variables of K states each; of a Bernoulli variable, which has two, state 1 is z = 1.

    Attributes:
        logits: (*batch, D, K), the logarithms of the probabilities, attached to φ.
        probs: (*batch, D, K), detached; zero where q has zero.
        event_shape: of z.
        kind: "bernoulli" (z is the state), "one-hot", or "integer" (z is the state, int64).
    """

    logits: Float[Tensor, "*batch D K"]
    probs: Float[Tensor, "*batch D K"]
    event_shape: torch.Size
    kind: str

    @property
    def states(self) -> int:
        """K."""
        return self.logits.shape[-1]

    def z(self, codes: Float[Tensor, "*rows D K"]) -> Shaped[Tensor, "*rows_event"]:
        """z (..., *event) of states in one-hot code (..., D, K); of probabilities, a z between the states."""
        if self.kind == "bernoulli":
            z = codes[..., 1]
        elif self.kind == "one-hot":
            z = codes
        else:
            z = codes.argmax(-1)
        return z.reshape(*codes.shape[:-2], *self.event_shape)

    def codes(self, z: Shaped[Tensor, "*rows_event"]) -> Float[Tensor, "*rows D K"]:
        """z (..., *event) in one-hot code (..., D, K)."""
        rows = z.shape[: z.dim() - len(self.event_shape)]
        size = self.logits.shape[-2:]
        if self.kind == "one-hot":
            return z.reshape(*rows, *size)
        if self.kind == "integer":
            return self.one_hot(z.reshape(*rows, size[0]))
        ones = z.reshape(*rows, size[0])
        return torch.stack((1 - ones, ones), -1)

    def one_hot(self, states: Int64[Tensor, "*rows D"]) -> Float[Tensor, "*rows D K"]:
        """States 0 … K − 1 in one-hot code."""
        return one_hot(states, self.states).to(self.logits.dtype)

    def log_prob(self, codes: Float[Tensor, "*rows D K"]) -> Float[Tensor, "*rows"]:
        """log q of states in one-hot code, attached to φ; linear in what lies between them."""
        return (codes * self.logits).sum((-2, -1))

    def surrogate(self, gradient: Float[Tensor, "*batch D K"]) -> Float[Tensor, "*batch"]:
        """What has this gradient, of mean zero over the K states, in the logits of a softmax.

        Of a Bernoulli variable the gradient in its one logit is the entry of state 1.
        """
        return (self.logits * gradient.detach()).sum((-2, -1))


def variables_of(q: Distribution) -> Variables:
    """The variables of a posterior that `not_discrete` accepts."""
    base = q
    while isinstance(base, td.Independent):
        base = base.base_dist
    if isinstance(base, td.Bernoulli):
        logit, event = base.logits, q.event_shape
        logits = torch.stack((logsigmoid(-logit), logsigmoid(logit)), -1)
        if "probs" in base.__dict__:
            probs = torch.stack((1 - base.probs, base.probs), -1)
        else:
            probs = torch.stack((torch.sigmoid(-logit), torch.sigmoid(logit)), -1)
        kind = "bernoulli"
    else:
        assert isinstance(base, td.Categorical | td.OneHotCategorical)
        logits, probs = base.logits, base.probs
        kind = "integer" if isinstance(base, td.Categorical) else "one-hot"
        event = q.event_shape
    size = (*q.batch_shape, -1, logits.shape[-1])
    floored = logits.reshape(size).clamp_min(_LEAST_LOGIT)
    return Variables(floored, probs.detach().reshape(size), event, kind)


def not_discrete(q: Distribution) -> str | None:
    """Why q is not made of independent Bernoulli or categorical variables, or None."""
    if isinstance(q, Layered):
        return not_one_latent(q, "leave-one-out or disarm")
    base = innermost(q)
    if isinstance(base, td.Categorical | td.OneHotCategorical) and base.logits.shape[-1] < 2:
        return "needs latents of two states or more, not of one"
    if family_of(base) in _FAMILIES:
        return None
    return f"needs independent Bernoulli or categorical latents, not a {describe(q)} posterior"


def not_binary(q: Distribution) -> str | None:
    """Why q is not made of independent variables of two states, or None."""
    refused = not_discrete(q)
    if refused is None and (states := variables_of(q).states) != 2:
        return f"needs latents of two states, not of {states}"
    return refused


def odd_number(num_samples: int) -> str | None:
    """Why S samples are not made of antithetic pairs, or None."""
    return f"needs an even num_samples, for pairs, not {num_samples}" if num_samples % 2 else None


def not_relaxable(q: Distribution) -> str | None:
    """Why z cannot be moved off the support of q, or None: q is discrete, and z is not an integer."""
    if family_of(innermost(q)) is td.Categorical:
        return "needs samples that can be relaxed, not a Categorical's integers: use OneHotCategorical"
    return not_discrete(q)


def relaxed_log_prob(q: Distribution, z: Float[Tensor, "S *batch_event"]) -> Float[Tensor, "S *batch"]:
    """log q(z), (S, *batch), off the support too: of discrete variables the extension linear in z."""
    if not_relaxable(q) is not None:
        return q.log_prob(z)
    variables = variables_of(q)
    return variables.log_prob(variables.codes(z))


def tied(
    q: Distribution, target: Target, kl: str, f: Float[Tensor, "*batch"], surrogate: Float[Tensor, "*batch"]
) -> Estimate:
    """The estimate of one tensor: f (an estimate of E f, attached to θ alone), and a gradient in φ.

    The surrogate less its own value adds nothing to the ELBO's value and the gradient to its gradient.
    """
    elbo = f + (surrogate - surrogate.detach()) - analytic_kl(q, target, kl)
    return Estimate(surrogate=elbo, value=elbo)

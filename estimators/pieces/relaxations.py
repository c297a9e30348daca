"""Paths through discrete samples: Gumbel noise, the softmax's Jacobian, and the estimate along the path.

A method says how codes (S, *batch, D, K), states in one-hot code or between them, depend on the logits; f is
then differentiated through them. What f is between the states is up to log p(x|z). Under ``kl="sampled"``
log p(z) and log q(z) are extended linearly in the code, Σ_k z_k log π_k, and φ is cut out of log q: its own
derivative has mean zero at states, and between them it would move the optimum of the KL away from the prior.
"""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import one_hot

from ..base import Estimate, Estimator, Target
from ..errors import UsageError
from ..posteriors.distributions import draw
from .arguments import number, one_of, positive_number
from .objective import KL_CHOICES, analytic_kl, unsupported_kl
from .slopes import relaxed_integrand
from .uniforms import open_uniform
from .variables import Variables, not_relaxable, variables_of


class DiscretePath(Estimator):
    """Differentiate f through samples of discrete variables; a subclass says by `codes` what is kept of φ.

    Args:
        kl: "analytic" (closed form, of the discrete q) or "sampled".
    """

    unbiased = False
    derivatives = 1
    depends_off_support = True
    weighs_kl = True
    search_space = MappingProxyType({"temperature": (0.1, 2.0)})

    def __init__(self, kl: str) -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples) or not_relaxable(q)
        return refused or unsupported_kl(q, target, self.kl)

    def codes(
        self, q: Distribution, variables: Variables, num_samples: int
    ) -> Float[Tensor, "{num_samples} *batch D K"]:
        """Samples of q in one-hot code, attached to φ."""
        raise NotImplementedError

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        variables = variables_of(q)
        codes = self.codes(q, variables, num_samples)
        f = relaxed_integrand(q, target, self.kl, variables, codes)
        elbo = f.mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(surrogate=elbo, value=elbo)


class AnnealedPath(DiscretePath):
    """With a temperature that falls along training: τ ← max(lowest, τ e^{−annealing}) after every step.

    Args:
        temperature: the first τ.
        annealing: 0 keeps it there.
        lowest: the last.
        kl: as of `DiscretePath`.
    """

    temperature: Tensor

    def __init__(self, temperature: float, annealing: float, lowest: float, kl: str) -> None:
        super().__init__(kl)
        start = positive_number("temperature", temperature)
        self.annealing = number("annealing", annealing)
        self.lowest = positive_number("lowest", lowest)
        if self.annealing < 0:
            raise UsageError(f"annealing={annealing!r} is not 0 or more")
        if self.annealing and self.lowest > start:
            where = f"temperature={temperature!r}, where annealing starts"
            raise UsageError(f"lowest={lowest!r} is above {where}")
        self.updates = self.annealing > 0
        # float64, or rounding would show; a number without dimensions widens nothing that it divides.
        self.register_buffer("temperature", torch.tensor(start, dtype=torch.float64))

    @torch.no_grad()
    def update(self, estimate: Estimate) -> None:
        if self.annealing:
            self.temperature.mul_(math.exp(-self.annealing)).clamp_(min=self.lowest)


def drawn(
    q: Distribution, variables: Variables, num_samples: int
) -> Float[Tensor, "{num_samples} *batch D K"]:
    """Samples of q in one-hot code."""
    return variables.codes(draw(q, num_samples))


def log_probs(variables: Variables) -> Float[Tensor, "*batch D K"]:
    """log π, attached to φ as the logits are; −∞ where π is 0, where the logits may be finite."""
    return variables.probs.log() + (variables.logits - variables.logits.detach())


def along_softmax(
    probs: Float[Tensor, "*rows D K"], logits: Float[Tensor, "*batch D K"]
) -> Float[Tensor, "*out D K"]:
    """Zero, whose derivative in the logits is J(π) = diag(π) − π πᵀ at these probabilities, held fixed."""
    step = logits - logits.detach()
    return probs * (step - (probs * step).sum(-1, keepdim=True))


def exponentials(like: Float[Tensor, "*shape"], num_samples: int) -> Float[Tensor, "{num_samples} *shape"]:
    """Exponential noise, positive and finite, (S, *like.shape), float64; −log of it is Gumbel noise."""
    return -open_uniform((num_samples, *like.shape), like).log()


def perturbed(
    log_pi: Float[Tensor, "*batch D K"], num_samples: int
) -> Float[Tensor, "{num_samples} *batch D K"]:
    """log π + G with Gumbel noise G; attached to φ as log π is. Its largest entry is a sample of q."""
    return log_pi - exponentials(log_pi, num_samples).log().to(log_pi.dtype)


def perturbed_given(
    states: Float[Tensor, "S *batch D K"], log_pi: Float[Tensor, "*batch D K"], num_draws: int
) -> Float[Tensor, "{num_draws} S *batch D K"]:
    """Draws of log π + G given that its largest entries are these states; no path back to φ.

    With E exponential, the largest is −log E_i whatever the state i, and the others are cut off there:
    −log(E_j/π_j + E_i).
    """
    log_e = exponentials(states, num_draws).log()
    least = (log_e * states).sum(-1, keepdim=True)
    others = torch.logaddexp(log_e - log_pi.detach(), least)
    return -torch.where(states > 0, least, others).to(log_pi.dtype)


def largest(perturbed: Float[Tensor, "*rows D K"]) -> Float[Tensor, "*rows D K"]:
    """The state of the largest entry, in one-hot code."""
    return one_hot(perturbed.argmax(-1), perturbed.shape[-1]).to(perturbed.dtype)

"""Control variates of discrete variables that are functions of their relaxations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..posteriors.distributions import draw
from .uniforms import open_uniform
from .variables import Variables


class Relaxed(NamedTuple):
    """States b, and the relaxations ζ and ζ̃ of each: ζ = φ + G of which b is the argmax, ζ̃ anew given b.

    The derivative of ζ in φ is that at a fixed G; of ζ̃ that at a fixed b and fixed noise.

    Attributes:
        codes: b in one-hot code, (S, *batch, D, K).
        centred: b − π, the score in the logits.
        logits: φ, (*batch, D, K), a leaf of its own without a path to q's parameters.
        both: softmax(ζ/τ) and after it softmax(ζ̃/τ), (2S, *batch, D, K), attached to ``logits`` and τ.
    """

    codes: Float[Tensor, "S *batch D K"]
    centred: Float[Tensor, "S *batch D K"]
    logits: Float[Tensor, "*batch D K"]
    both: Float[Tensor, "twoS *batch D K"]

    def control(
        self,
        c: Float[Tensor, "twoS *batch"],
        slope: Float[Tensor, "twoS *batch D K"],
        attached: bool,
    ) -> Float[Tensor, "*batch D K"]:
        """(1/S) Σ_s [∂_φ c(ζ_s) − ∂_φ c(ζ̃_s) − c(ζ̃_s) (b_s − π)], of mean zero.

        Args:
            c: values of a function of what is in ``both``.
            slope: ∂c/∂both.
            attached: whether it is to be differentiated in what c, slope and τ depend on.
        """
        samples = len(self.codes)
        sign = torch.ones_like(c).index_fill(0, torch.arange(samples, 2 * samples, device=c.device), -1.0)
        (pathwise,) = torch.autograd.grad(
            self.both,
            self.logits,
            sign[..., None, None] * slope,
            retain_graph=True,
            create_graph=attached,
        )
        score = c[samples:, ..., None, None] * self.centred
        return pathwise / samples - score.mean(0)


def relaxed(
    q: Distribution, variables: Variables, num_samples: int, temperature: Float[Tensor, "*batch"]
) -> Relaxed:
    """Draw b (S, *batch, D, K) from q and the relaxations at temperatures τ (*batch)."""
    codes = variables.codes(draw(q, num_samples))
    logits = variables.logits.detach().requires_grad_()
    # Given b, so that b is drawn as other estimators draw it, and never where q has probability zero.
    fixed = conditional_gumbels(logits.detach(), codes)
    both = torch.cat((fixed + (logits - logits.detach()), conditional_gumbels(logits, codes)))
    both = (both / temperature[..., None, None]).softmax(-1)
    return Relaxed(codes, codes - variables.probs, logits, both)


def conditional_gumbels(
    logits: Float[Tensor, "*batch D K"], codes: Float[Tensor, "S *batch D K"]
) -> Float[Tensor, "S *batch D K"]:
    """Perturbed logits φ + G given that their argmax is the state in ``codes``, differentiable in φ.

    The largest is log Σ_j exp φ_j − log E, E ~ Exp(1), whichever it is; each of the others is
    −log(E_j exp(−φ_j) + exp(−largest)), a Gumbel variable cut off there.
    """
    noise = log_exponentials(codes)
    top = logits.logsumexp(-1, keepdim=True) - (codes * noise).sum(-1, keepdim=True)
    return torch.where(codes > 0, top, -torch.logaddexp(noise - logits, -top))


def log_exponentials(like: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log E, E ~ Exp(1), minus Gumbel noise; finite."""
    return (-open_uniform(like.shape, like).log()).log().to(like.dtype)

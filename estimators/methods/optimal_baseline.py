"""REINFORCE with the variance-minimizing baseline of each coordinate."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Target
from ..pieces.arguments import positive_integer
from ..pieces.local_signals import LocalSignals, local_signals
from ..pieces.objective import analytic_kl, integrand
from ..pieces.scores import align, inner, layer_scores, scores, shared_parameters
from ..posteriors.distributions import cut, parameters_of
from ..posteriors.layered import Layered
from ..posteriors.noise import LayeredNoise, draw
from .score_function import ScoreFunction


class OptimalBaseline(ScoreFunction):
    r"""Score function with b*_k = E[f s_k²] / E[s_k²] for each coordinate k of η.

    s = ∇ log q(z) with respect to the parameters q is built from (loc and scale of a Gaussian, logits
    of a Bernoulli), one value a datum and coordinate; rescaling a coordinate leaves b*_k unchanged.
    b* is estimated in each call from ``pilot`` samples of their own, independent of the S that are
    averaged, so the estimate is unbiased at any S. Its variance exceeds that of the true b* by
    O(1/pilot). S + pilot evaluations of log p(x|z), no backward pass through it: a lower bound to
    hold other baselines against rather than a bargain. Of a posterior in layers the parameters are each
    latent's given its parents, and b*_k is one number for all parents.

    Args:
        pilot: samples that estimate b*.
        kl: "analytic" (closed form) or "sampled".
        signal: of layers, "whole" or "local", as in ``score-function``.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("optimal-baseline[pilot=20]")(q, target, num_samples=1).surrogate.shape
        torch.Size([4])

    References:
        Greensmith, Bartlett & Baxter, Variance Reduction Techniques for Gradient Estimates, 2004, section 4.
        Ranganath, Gerrish & Blei, Black Box Variational Inference, 2014, section 3.2.
    """

    def __init__(self, pilot: int = 64, kl: str = "analytic", signal: str = "whole") -> None:
        super().__init__(kl, signal=signal)
        self.pilot = positive_integer("pilot", pilot)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return shared_parameters(q) or super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return self._of_layers(q, target, num_samples)
        parameters = parameters_of(q)
        with torch.no_grad():
            z_pilot, pilot_noise = draw(q, self.pilot)
            f_pilot = integrand(q, target, z_pilot, self.kl, noise=pilot_noise)
        pilot_scores = scores(q, parameters, z_pilot, pilot_noise)
        z, noise = draw(q, num_samples)
        f = integrand(cut(q), target, z, self.kl, noise=noise)
        cost, sample_scores = f.detach(), scores(q, parameters, z, noise)

        score_term = torch.zeros_like(cost[0])
        for name, parameter in parameters.items():
            baseline = _best(f_pilot, pilot_scores[name])
            gradient = ((align(cost, sample_scores[name]) - baseline) * sample_scores[name]).mean(0)
            score_term = score_term + inner(parameter, gradient, q.batch_shape)
        elbo = score_term - score_term.detach() + f.mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(elbo, elbo, info={"f": cost})

    def _of_layers(self, q: Layered, target: Target, num_samples: int) -> Estimate:
        with torch.no_grad():
            pilot_signals, pilot = self._scored(q, target, self.pilot)
        found, scored = self._scored(q, target, num_samples)
        cost = found.f.detach()
        score_term = torch.zeros_like(cost)
        for latent, (parameters, score) in scored.items():
            for name, parameter in parameters.items():
                baseline = _best(pilot_signals.signals[latent], pilot[latent][1][name])
                centred = align(found.signals[latent], score[name]) - baseline
                score_term = score_term + inner(parameter, centred * score[name], cost.shape)
        elbo = (score_term - score_term.detach() + found.f).mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(elbo, elbo, info={"f": cost})

    def _scored(
        self, q: Layered, target: Target, num_samples: int
    ) -> tuple[LocalSignals, dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]]]:
        """The signals of a draw, and of each latent its parameters and their scores, see `layer_scores`."""
        z, noise = draw(q, num_samples)
        assert isinstance(noise, LayeredNoise)
        parts = q.split(z)
        each = {name: layer_scores(layer, parts[name], noise[name]) for name, layer in q.given(parts).items()}
        return local_signals(q, target, z, self.kl, noise, self.signal), each


def _best(f: Float[Tensor, "pilot *batch"], score: Float[Tensor, "pilot *parameter"]) -> Tensor:
    """E[f s²] / E[s²] of every coordinate, from pilot samples, in the shape of the parameter."""
    square = score.square()
    # Where every pilot score is 0 (a saturated Bernoulli), any baseline does: 0/0 becomes 0.
    weight = square.sum(0).clamp_min(torch.finfo(square.dtype).tiny)
    return (align(f, square) * square).sum(0) / weight

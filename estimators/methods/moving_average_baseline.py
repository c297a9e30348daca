"""REINFORCE with a moving average of past costs as its baseline."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Target
from ..errors import UsageError
from ..pieces.arguments import number
from ..pieces.local_signals import check_number, one_each
from ..posteriors.layered import Layered
from .score_function import ScoreFunction, signal_key


class MovingAverageBaseline(ScoreFunction):
    r"""Score function with b = an exponential moving average of past f.

    After each step, `update` sets a ← decay·a + (1 − decay)·mean(f) and w ← decay·w + (1 − decay);
    b = a / w (as Adam debiases its moments), 0 before the first update. The current sample enters
    only after it was used: a moving average that includes it is biased. Of a posterior in layers each latent
    has an average of its own.

    Args:
        decay: in [0, 1).
        kl: "analytic" (closed form) or "sampled".
        draws: "iid", "antithetic" (S of at least 2) or "sobol", as in ``score-function``.
        signal: of layers, "local" or "whole", as there.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> estimator = create("moving-average-baseline[decay=0.9]")
        >>> estimate = estimator(q, Target(lambda z: 5 + 0 * z.sum(-1)), num_samples=1)
        >>> estimator.update(estimate)
        >>> round(float(estimator.baseline(estimate.info["f"], None)), 4)
        5.0

    References:
        Williams, Simple Statistical Gradient-Following Algorithms, 1992 (reinforcement comparison).
        Mnih & Gregor, Neural Variational Inference and Learning, 2014, section 2.3.
    """

    average: Tensor
    weight: Tensor

    def __init__(
        self, decay: float = 0.99, kl: str = "analytic", draws: str = "iid", signal: str = "local"
    ) -> None:
        super().__init__(kl, draws, signal)
        self.decay = number("decay", decay)
        if not 0 <= self.decay < 1:
            raise UsageError(f"decay={decay!r} is not in [0, 1)")
        self.register_buffer("average", torch.tensor(0.0))
        self.register_buffer("weight", torch.tensor(0.0))
        self.latents: tuple[str, ...] = ()

    def init(self, q: Distribution, target: Target) -> None:
        if isinstance(q, Layered):
            self.latents = tuple(q.layers)
            if self.average.dim() == 0:  # one of before goes on, for each latent
                self.average = self.average.repeat(len(self.latents))

    def baseline(self, f: Float[Tensor, "S *batch"], target: Target) -> Float[Tensor, ""]:
        check_number(self.average.numel(), 1)
        return self._averages().reshape(())

    def baselines(
        self, signals: Mapping[str, Float[Tensor, "S *batch"]], target: Target, latents: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, ""]]:
        return one_each(self._averages(), signals)

    def _averages(self) -> Float[Tensor, "*latents"]:
        # average is 0 while weight is 0, so the clamp turns 0/0 into 0.
        return self.average / self.weight.clamp_min(torch.finfo(self.weight.dtype).tiny)

    @torch.no_grad()
    def update(self, estimate: Estimate) -> None:
        if self.average.dim() == 0:
            mean = estimate.info["f"].mean()
        else:
            mean = torch.stack([estimate.info[signal_key(name)].mean() for name in self.latents])
        self.average.lerp_(mean.to(self.average), 1 - self.decay)
        self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)

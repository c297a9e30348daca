"""REINFORCE with an input-dependent baseline network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from ..base import Target
from ..errors import UsageError
from ..pieces.arguments import positive_integer
from ..pieces.local_signals import check_number
from ..posteriors.distributions import describe
from ..posteriors.layered import Layered
from .constant_baseline import pilot_mean
from .score_function import ScoreFunction


class LearnedBaseline(ScoreFunction):
    r"""Score function with b = b_ψ(x), a network of the input trained to predict f.

    ĝ = (1/S) Σ_s (f(z_s) − b_ψ(x)) ∇_η log q(z_s) − ∇_η KL. ψ minimizes (f − b_ψ(x))², which `aux_loss`
    carries in training mode and which reaches neither φ nor θ. b_ψ does not see z, so the estimate is
    unbiased whatever ψ is. `init` sets the output's bias to the mean of f over 64 pilot samples (the
    constant c of NVIL); use it when f differs much between data, and S = 1. Of a posterior in layers each
    latent has a network of its own, of the input and of the latents that it is drawn given.

    Args:
        hidden: units of the one tanh layer.
        kl: "analytic" (closed form) or "sampled".
        draws: "iid", "antithetic" (S of at least 2) or "sobol", as in ``score-function``.
        signal: of layers, "local" or "whole", as there.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> target = Target(lambda z: -z.square().sum(-1), features=torch.ones(4, 3))
        >>> estimator = create("learned-baseline[hidden=8]")
        >>> estimator.init(q, target)
        >>> estimator(q, target, num_samples=1).aux_loss.shape
        torch.Size([4])

    References:
        Mnih & Gregor, Neural Variational Inference and Learning in Belief Networks, 2014, section 2.3, eq. 5.
    """

    def __init__(
        self, hidden: int = 64, kl: str = "analytic", draws: str = "iid", signal: str = "local"
    ) -> None:
        super().__init__(kl, draws, signal)
        self.hidden = positive_integer("hidden", hidden)
        self.network: nn.Sequential | nn.ModuleDict | None = None
        self.parents: dict[str, tuple[str, ...]] = {}

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if target.features is None:
            return f"needs the target's features (a (B, F) tensor); this {describe(q)} target has none"
        return super().supports(q, target, num_samples)

    def init(self, q: Distribution, target: Target) -> None:
        if self.network is not None:
            return
        if target.features is None:
            raise UsageError("learned-baseline needs the target's features (a (B, F) tensor)")
        features = target.features.shape[-1]
        if isinstance(q, Layered):
            means = pilot_mean(q, target, self.kl, self.signal)
            self.parents = dict(q.parents)
            sizes = {k: features + sum(q.sizes[parent] for parent in q.parents[k]) for k in q.layers}
            made = {
                k: self._made(nn.Linear(self.hidden, 1), sizes[k], m)
                for k, m in zip(sizes, means, strict=True)
            }
            self.network = nn.ModuleDict(made)
        else:
            output = nn.Linear(self.hidden, 1)
            self.network = self._made(output, features, pilot_mean(q, target, self.kl, self.signal))

    def _made(self, output: nn.Linear, inputs: int, mean: Float[Tensor, ""]) -> nn.Sequential:
        """A network whose output starts about a mean, of its dtype: features may be integers."""
        nn.init.constant_(output.bias, mean.item())
        return nn.Sequential(nn.Linear(inputs, self.hidden), nn.Tanh(), output).to(mean)

    def baseline(self, f: Float[Tensor, "S *batch"], target: Target) -> Float[Tensor, "B"]:
        features = self._features(target)
        if not isinstance(self.network, nn.Sequential):
            check_number(len(self.parents), 1)
        assert self.network is not None
        return self.network(features).squeeze(-1)

    def baselines(
        self, signals: Mapping[str, Float[Tensor, "S *batch"]], target: Target, latents: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, "*#S_batch"]]:
        features = self._features(target)
        check_number(len(self.parents) or 1, len(signals))
        assert isinstance(self.network, nn.ModuleDict)
        return {name: self._of_latent(name, features, signal, latents) for name, signal in signals.items()}

    def _of_latent(
        self,
        name: str,
        features: Float[Tensor, "B F"],
        signal: Float[Tensor, "S *batch"],
        latents: Mapping[str, Tensor],
    ) -> Float[Tensor, "*#S_batch"]:
        """b of the input and of the latent's parents, which it is independent of given themselves."""
        assert isinstance(self.network, nn.ModuleDict)
        inputs = features
        if self.parents[name]:
            rows = signal.shape
            parents = [latents[parent].reshape(*rows, -1).to(features) for parent in self.parents[name]]
            inputs = torch.cat((features.expand(*rows, -1), *parents), -1)
        return self.network[name](inputs).squeeze(-1)

    def _features(self, target: Target) -> Float[Tensor, "B F"]:
        if self.network is None or target.features is None:
            raise UsageError("learned-baseline: call init(q, target) with features before the first estimate")
        return target.features.to(next(self.network.parameters()))

    def aux_loss(
        self, f: Float[Tensor, "S *batch"], baseline: Float[Tensor, "*#S_batch"] | float
    ) -> Float[Tensor, "*batch"]:
        return (f - baseline).square().mean(0)

"""Storchastic, as its discrete-VAE example uses it: independent data, costs, `storch.backward`.

Replicates are drawn one call after another; S > 1 samples of one estimate are its ``n_samples``. The KL
is a cost of its own in closed form, as in that example.
"""

from __future__ import annotations

from typing import Any

import storch
import torch
from storch.method import Reparameterization, ScoreFunction
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

from ....estimators.plugins.specification import parse
from .shared import Shared, flatten

_BASELINES = {
    "score-function": None,
    "leave-one-out": "batch_average",
    "moving-average-baseline": "moving_average",
}


class StorchPeer:
    """One gradient of φ a call.

    Args:
        shared: the case.
        method: "default".
    """

    def __init__(self, shared: Shared, method: str) -> None:
        self.x, self.phi = shared.x, shared.phi
        self.gaussian = shared.posterior().has_rsample
        name = parse(shared.estimator.label).name
        if name == "reparameterization":
            self.method = Reparameterization("z", n_samples=shared.num_samples)
        else:
            self.method = ScoreFunction("z", n_samples=shared.num_samples, baseline_factory=_BASELINES[name])
        # Storchastic's own moving average starts at zero and needs its run-in.
        self.warm_up = 200 if name == "moving-average-baseline" else 20
        encoder, decoder = shared.problem.encoder, shared.problem.decoder

        @storch.deterministic  # type: ignore[untyped-decorator]
        def encode(x: Tensor) -> Tensor:
            return encoder(x)

        @storch.deterministic  # type: ignore[untyped-decorator]
        def divergence(eta: Tensor) -> Tensor:
            q = self.posterior(eta)
            return kl_divergence(q, self.posterior(torch.zeros_like(eta))).sum(-1)

        @storch.deterministic  # type: ignore[untyped-decorator]
        def reconstruction(z: Tensor, x: Tensor) -> Tensor:
            logits = decoder(z)
            return binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)

        self.encode, self.divergence, self.reconstruction = encode, divergence, reconstruction

    def posterior(self, eta: Any) -> Distribution:
        """q(z|x), one dimension of events on the right; the prior is q at eta = 0."""
        if not self.gaussian:
            return Bernoulli(logits=eta)
        loc, log_scale = eta.chunk(2, -1)
        return Normal(loc, log_scale.exp())

    def step(self) -> None:
        """Draw one replicate."""
        for p in self.phi:
            p.grad = None
        storch.reset()
        x = storch.denote_independent(self.x, 0, "data")
        eta = self.encode(x)
        storch.add_cost(self.divergence(eta), "kl")
        z = self.method(self.posterior(eta))
        storch.add_cost(self.reconstruction(z, x), "reconstruction")
        storch.backward()

    def read(self, nothing: Any) -> Tensor:
        """The gradient of the batch-mean ELBO, flat; Storchastic averages costs over the data."""
        return flatten(p.grad for p in self.phi).neg()

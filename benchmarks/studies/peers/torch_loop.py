"""The yardstick: what one writes in plain PyTorch to draw one replicate after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ....estimators.errors import UsageError
from ....estimators.plugins.specification import parse
from .shared import Shared, flatten


class TorchLoop:
    """One gradient of φ a call, by hand-written formulas and one backward pass; θ needs no gradient.

    Constants of the densities that cancel, or only shift f by nothing that is kept, are left out; where a
    baseline makes them matter they are in.

    Args:
        shared: the case.
        method: "loop".
    """

    warm_up = 20

    def __init__(self, shared: Shared, method: str) -> None:
        self.x, self.s, self.phi = shared.x, shared.num_samples, shared.phi
        self.encoder, self.decoder = shared.problem.encoder, shared.problem.decoder
        specification = parse(shared.estimator.label)
        self.sampled = specification.parameters.get("kl") == "sampled"
        gaussian = shared.posterior().has_rsample
        if specification.name == "reparameterization":
            self.loss: Callable[[], Tensor] = self.reparameterization
        else:
            self.loss = self.gaussian_score if gaussian else self.bernoulli_score
            self.baseline = _baseline(specification.name, shared)

    def step(self) -> tuple[Tensor, ...]:
        """Draw one replicate."""
        return torch.autograd.grad(self.loss(), self.phi)

    def read(self, gradients: Any) -> Tensor:
        """The gradient of the batch-mean ELBO, flat."""
        return flatten(gradients).neg()

    def reparameterization(self) -> Tensor:
        """Minus the batch-mean ELBO at z = μ + σ ⊙ ε."""
        loc, log_scale = self.encoder(self.x).chunk(2, -1)
        scale = log_scale.exp()
        noise = torch.randn(self.s, *loc.shape)
        z = loc + scale * noise
        logits = self.decoder(z)
        nll = binary_cross_entropy_with_logits(logits, self.x.expand_as(logits), reduction="sum") / self.s
        if self.sampled:  # log q − log p: −½ε² − log σ + ½z²; ε is free of φ
            kl = 0.5 * z.square().sum() / self.s - log_scale.sum()
        else:
            kl = _gaussian_kl(loc, log_scale, scale).sum()
        return (nll + kl) / len(self.x)

    def gaussian_score(self) -> Tensor:
        """A surrogate whose gradient is the score-function estimate, Gaussian latents."""
        loc, log_scale = self.encoder(self.x).chunk(2, -1)
        scale = log_scale.exp()
        with torch.no_grad():
            noise = torch.randn(self.s, *loc.shape)
            z = loc + scale * noise
            f = self.log_likelihood(z)
            if self.sampled:
                f += (0.5 * (noise.square() - z.square()) + log_scale).sum(-1)
        log_q = (-0.5 * ((z - loc) / scale).square() - log_scale).sum(-1)
        kl = 0.0 if self.sampled else _gaussian_kl(loc, log_scale, scale)
        return self.surrogate(f, log_q, kl)

    def bernoulli_score(self) -> Tensor:
        """The same for Bernoulli latents."""
        logits = self.encoder(self.x)
        with torch.no_grad():
            z = torch.bernoulli(torch.sigmoid(logits).expand(self.s, *logits.shape))
            f = self.log_likelihood(z)
        log_q = -binary_cross_entropy_with_logits(logits.expand_as(z), z, reduction="none").sum(-1)
        log_half = -0.6931471805599453 * logits.shape[-1]
        if self.sampled:
            return self.surrogate(f + log_half - log_q.detach(), log_q, 0.0)
        entropy = binary_cross_entropy_with_logits(logits, torch.sigmoid(logits), reduction="none").sum(-1)
        return self.surrogate(f, log_q, -log_half - entropy)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """log p(x|z), (S, B)."""
        logits = self.decoder(z)
        return -binary_cross_entropy_with_logits(logits, self.x.expand_as(logits), reduction="none").sum(-1)

    def surrogate(self, f: Tensor, log_q: Tensor, kl: Tensor | float) -> Tensor:
        """Minus the batch mean of (f − b) log q, averaged over samples, less the KL."""
        return -(((f - self.baseline(f)) * log_q).mean(0) - kl).mean()


def _gaussian_kl(loc: Tensor, log_scale: Tensor, scale: Tensor) -> Tensor:
    return 0.5 * (scale.square() + loc.square() - 1 - 2 * log_scale).sum(-1)


def _baseline(name: str, shared: Shared) -> Callable[[Tensor], Tensor | float]:
    """The baseline with its shared state, f (S, B) -> broadcastable."""
    estimator = shared.estimator
    if name == "score-function":
        return lambda f: 0.0
    if name == "leave-one-out":
        return lambda f: (f.sum(0) - f) / (len(f) - 1)
    if name == "learned-baseline":
        network = estimator.network
        assert isinstance(network, torch.nn.Module)
        return lambda f: network(shared.x).squeeze(-1)
    value = fixed_baseline(shared)
    return lambda f: value


def fixed_baseline(shared: Shared) -> Tensor:
    """The one number that a constant or a moving average, frozen, subtracts.

    Raises:
        UsageError: the estimator has no such number.
    """
    name = parse(shared.estimator.label).name
    buffers = dict(shared.estimator.named_buffers())
    if name == "constant-baseline":
        return buffers["value"]
    if name == "moving-average-baseline":
        return buffers["average"] / buffers["weight"]
    raise UsageError(f"no plain PyTorch loop is written for {name}")

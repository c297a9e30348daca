"""Right estimators that draw, loop or keep in ways that a check might take for a mistake."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from elbograd.estimators import Estimate, Estimator, Target
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal


class Pathwise(Estimator):
    """Reparameterization of a Gaussian by hand; the others draw otherwise."""

    derivatives = 1

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        gaussian = isinstance(q, Independent) and isinstance(q.base_dist, Normal)
        return super().supports(q, target, num_samples) if gaussian else "needs a Gaussian"

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(num_samples, *like.shape, dtype=like.dtype)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = q.mean + q.stddev * self.noise(q.mean, num_samples)
        return self.estimate(q, target, z, target.log_likelihood(z))

    def estimate(self, q: Distribution, target: Target, z: Tensor, f: Tensor) -> Estimate:
        if target.prior is not None:
            f = f + target.prior.log_prob(z) - q.log_prob(z)
        return Estimate(f.mean(0), f.mean(0))

    def once(self, estimate: Estimate) -> Estimate:
        return estimate._replace(surrogate=estimate.value)


class Once(Pathwise):
    def estimate(self, q: Distribution, target: Target, z: Tensor, f: Tensor) -> Estimate:
        return self.once(super().estimate(q, target, z, f))


class SamplesBehindTheBatch(Once):
    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(*like.shape, num_samples, dtype=like.dtype).movedim(-1, 0)


class OneLongVector(Once):
    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(num_samples * like.numel(), dtype=like.dtype).reshape(num_samples, *like.shape)


class SampleBySample(Once):
    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.stack([torch.randn(like.shape, dtype=like.dtype) for _ in range(num_samples)])


class ReplicateByReplicate(Once):
    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        if like.dim() < 3:
            return torch.randn(num_samples, *like.shape, dtype=like.dtype)
        return torch.stack([self.noise(part, num_samples) for part in like], 1)


class Rejection(Once):
    """Normal noise by von Neumann's exponential proposals, until all are accepted."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        noise = torch.empty(num_samples, *like.shape, dtype=like.dtype)
        waiting = torch.ones_like(noise, dtype=torch.bool)
        while waiting.any():
            proposed = torch.empty_like(noise).exponential_()
            accepted = waiting & (torch.rand_like(noise) < torch.exp(-0.5 * (proposed - 1).square()))
            noise = torch.where(accepted, proposed, noise)
            waiting &= ~accepted
        return noise * (2 * torch.rand_like(noise).round() - 1)


class NumPySeededByTorch(Once):
    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        generator = np.random.default_rng(int(torch.randint(2**31, ())))
        return torch.as_tensor(generator.standard_normal((num_samples, *like.shape))).to(like)


@lru_cache
def _scale(num_samples: int) -> float:
    return 1.0 / num_samples


_SHAPES: dict[Any, int] = {}


class Memoized(Once):
    """Keeps in its file what does not change."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        _SHAPES.setdefault((num_samples, like.shape), like.numel())
        return super().noise(like, num_samples) * (_scale(num_samples) * num_samples)


class CentralDifferences(Once):
    """Reparameterization whose derivative of log p(x|z) is a difference, of two points at a time."""

    derivatives = 0
    relaxes_target = True

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = q.mean + q.stddev * self.noise(q.mean, num_samples)
        fixed, step = z.detach(), 1e-4
        slopes = []
        for sample in fixed:
            columns = []
            for j in range(sample.shape[-1]):
                moved = step * torch.eye(sample.shape[-1], dtype=z.dtype)[j]
                with torch.no_grad():
                    above, below = target.log_likelihood(torch.stack((sample + moved, sample - moved)))
                columns.append((above - below) / (2 * step))
            slopes.append(torch.stack(columns, -1))
        f = target.log_likelihood(fixed)
        f = f + ((z - fixed) * torch.stack(slopes)).sum(-1)
        return self.estimate(q, target, z, f)


class Dropout(Once):
    """A baseline of the data's features, learned with dropout."""

    derivatives = 0

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.LazyLinear(4), nn.Dropout(), nn.Linear(4, 1))

    def init(self, q: Distribution, target: Target) -> None:
        with torch.no_grad():
            self.network(target.features.float())  # type: ignore[union-attr]

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        with torch.no_grad():
            z = q.mean + q.stddev * self.noise(q.mean, num_samples)
        log_q = q.log_prob(z)
        f = target.log_likelihood(z)
        if target.prior is not None:
            f = f + target.prior.log_prob(z) - log_q.detach()
        level = self.network(target.features.float()).squeeze(-1).to(f)  # type: ignore[union-attr]
        surrogate = ((f.detach() - level.detach()) * log_q).mean(0)
        loss = (f.detach() - level).square().mean(0) if self.training else None
        return Estimate(surrogate, f.mean(0), loss)

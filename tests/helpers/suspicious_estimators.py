"""Estimators that are right, and look as if they were not: `SUSPICIOUS` says why."""

from __future__ import annotations

import torch
from elbograd.estimators import Estimate, Target
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal, OneHotCategorical
from wrong_corners import Others, Pathwise, Score, base


class SeededGenerator(Pathwise):
    """A generator of its own, seeded from torch's at every call."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return torch.randn(num_samples, *like.shape, dtype=like.dtype, generator=generator)


class Rejection(Pathwise):
    """Normal noise by rejection from an exponential: nobody knows how many numbers it takes."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        found = torch.full((num_samples, *like.shape), torch.nan, dtype=like.dtype)
        while bool(found.isnan().any()):
            x = torch.empty_like(found).exponential_()
            accepted = torch.rand_like(found) < (-0.5 * (x - 1).square()).exp()
            x = torch.where(torch.rand_like(found) < 0.5, -x, x)
            found = torch.where(found.isnan() & accepted, x, found)
        return found


class DeclaredPairs(Pathwise):
    """Antithetic pairs of its own, declared; the odd one is drawn anew."""

    draws = "antithetic"
    min_samples = 2

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        half = super().noise(like, (num_samples + 1) // 2)
        return torch.cat((half, -half))[:num_samples]


class RefusesOdd(Score):
    """Each of a pair is the other's baseline, and an odd S is refused."""

    min_samples = 2

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples)
        return refused or ("needs an even number of samples" if num_samples % 2 else None)

    def signal(self, f: Tensor) -> Tensor:
        return f - f.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


class OneUsedTwice(Score):
    """Pairs s, s + ⌊S/2⌋, of which an odd S uses the middle one twice, each time with another."""

    min_samples = 2
    requires_iid_draws = True

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        half, pairs = len(f) // 2, (len(f) + 1) // 2
        differences = (f[:pairs] - f[half:]).detach()
        return (0.5 * differences * (log_q[:pairs] - log_q[half:])).mean(0)


class ChunksOfEight(Others):
    """Leave-one-out in chunks of eight, a lone last sample without a baseline, each weighed by its size."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        parts = []
        for chunk, density in zip(f.detach().split(8), log_q.split(8), strict=True):
            others = (chunk.sum(0) - chunk) / max(len(chunk) - 1, 1)
            parts.append(((chunk - others) * density).sum(0))
        return torch.stack(parts).sum(0) / len(f)


class MeansOfChunkMeans(Score):
    """The mean of the means of chunks of eight: noisier than the mean of all, and no less right."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return torch.stack([part.mean(0) for part in (f.detach() * log_q).split(8)]).mean(0)


class WeightedSamples(Score):
    """Samples with unequal weights that add up to one."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        weights = torch.arange(1, len(f) + 1).to(f) * 2 / (len(f) * (len(f) + 1))
        return (weights.reshape(-1, *(1,) * (f.dim() - 1)) * f.detach() * log_q).sum(0)


class CoupledAsDeclared(Score):
    """The mean of the other data as baseline, with couples_batch."""

    couples_batch = True

    def signal(self, f: Tensor) -> Tensor:
        data = f.shape[-1]
        return f - (f.sum(-1, keepdim=True) - f) / max(data - 1, 1)


class NoiseInSinglePrecision(Pathwise):
    """Noise drawn in float32, whatever the type of q."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(num_samples, *like.shape, dtype=torch.float32).to(like)


class SignalsInSinglePrecision(Others):
    """Learning signals centred in float32, whatever the type of q: exact to seven digits."""

    def signal(self, f: Tensor) -> Tensor:
        return super().signal(f.float()).to(f)


class DropsSignals(Others):
    """In training mode dropout on the learning signals, the rest scaled up: the mean is the same."""

    def signal(self, f: Tensor) -> Tensor:
        return torch.nn.functional.dropout(super().signal(f), 0.1, self.training)


class BaselineAtTheMean(Score):
    """f at the mean of q as baseline: a point that is no sample."""

    families = (Normal, MultivariateNormal)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = self.integrand(target, z, log_q)
        centre = q.mean.detach().unsqueeze(0)
        baseline = self.integrand(target, centre, q.log_prob(centre)).detach()
        return Estimate(((f.detach() - baseline) * log_q).mean(0), self.value(f))


class WiderProposal(Score):
    """Samples of a wider distribution, weighed by the ratio of densities: none of them is q's."""

    families = (Normal,)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        wider = Normal(q.mean.detach(), 1.5 * q.stddev.detach())
        z = wider.sample(torch.Size((num_samples,)))
        log_q = q.log_prob(z)
        weight = (log_q.detach() - wider.log_prob(z).sum(-1)).exp()
        f = self.integrand(target, z, log_q)
        return Estimate((weight * f.detach() * log_q).mean(0), (weight * f).mean(0))


class EveryOtherSample(Others):
    """Twice as many samples drawn, and every other one used."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return super().draw(q, 2 * num_samples)[::2]


class EvenNumberUsed(Others):
    """Of an odd S one sample fewer is drawn."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return super().draw(q, num_samples // 2 * 2)


class NeedsTwoData(CoupledAsDeclared):
    """The same where a single datum is refused, and fails."""

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        alone = q.batch_shape[-1] < 2
        return super().supports(q, target, num_samples) or ("needs two data" if alone else None)

    def signal(self, f: Tensor) -> Tensor:
        if f.shape[-1] < 2:
            raise ValueError("one datum has no others")
        return super().signal(f)


class EightDataAtMost(Score):
    """More than eight data are refused, and fail."""

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        many = q.batch_shape[-1] > 8
        return super().supports(q, target, num_samples) or ("needs at most 8 data" if many else None)

    def signal(self, f: Tensor) -> Tensor:
        if f.shape[-1] > 8:
            raise ValueError("more than 8 data")
        return f


class FourSamplesAtMost(Score):
    """More than four samples are refused."""

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        many = num_samples > 4
        return super().supports(q, target, num_samples) or ("needs at most 4 samples" if many else None)


class KeptAtRandom(Score):
    """A quarter of the learning signals kept, four times as large."""

    def signal(self, f: Tensor) -> Tensor:
        return 4 * f * (torch.rand_like(f) < 0.25)


class GumbelMax(Score):
    """States by the largest of perturbed logits."""

    families = (OneHotCategorical,)

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        logits = base(q).logits.detach()  # type: ignore[attr-defined]
        waiting = torch.empty(num_samples, *logits.shape, dtype=torch.float64).exponential_()
        return torch.nn.functional.one_hot((logits - waiting.log()).argmax(-1), logits.shape[-1]).to(logits)


class ShuffledPairs(Pathwise):
    """Antithetic pairs, declared, in an order of chance."""

    draws = "antithetic"
    min_samples = 2

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        half = super().noise(like, (num_samples + 1) // 2)
        return torch.cat((half, -half))[:num_samples][torch.randperm(num_samples)]


#: class -> (what is suspicious about it, the oracle problem to try it on).
SUSPICIOUS = {
    "SeededGenerator": ("a generator of its own, seeded from torch's", "small-vae"),
    "Rejection": ("rejection, which draws as often as it takes", "small-vae"),
    "DeclaredPairs": ("antithetic pairs of its own, declared", "small-vae"),
    "RefusesOdd": ("an odd S is refused", "small-vae[posterior=bernoulli]"),
    "OneUsedTwice": ("of an odd S one sample is in two pairs", "small-vae[posterior=bernoulli]"),
    "ChunksOfEight": (
        "leave-one-out by chunks of eight, a lone last sample without a baseline",
        "small-vae[posterior=bernoulli]",
    ),
    "MeansOfChunkMeans": ("the mean of means of chunks of different sizes", "small-vae[posterior=bernoulli]"),
    "WeightedSamples": ("samples with unequal weights", "small-vae[posterior=bernoulli]"),
    "CoupledAsDeclared": (
        "the mean of the other data as baseline, declared",
        "small-vae[posterior=bernoulli]",
    ),
    "NoiseInSinglePrecision": ("noise in float32 whatever the type", "small-vae[posterior=full-gaussian]"),
    "SignalsInSinglePrecision": (
        "learning signals in float32 whatever the type",
        "waves[posterior=bernoulli,latent_dim=4,scale=60,offset=-500]",
    ),
    "DropsSignals": ("dropout on the learning signals in training mode", "small-vae[posterior=bernoulli]"),
    "WiderProposal": ("samples of another distribution, weighed", "small-vae"),
    "EveryOtherSample": ("twice as many samples as are used", "small-vae[posterior=bernoulli]"),
    "EvenNumberUsed": ("one sample fewer where S is odd", "small-vae[posterior=bernoulli]"),
    "NeedsTwoData": ("a single datum is refused", "small-vae[posterior=bernoulli]"),
    "EightDataAtMost": ("more than eight data are refused", "small-vae[posterior=bernoulli]"),
    "FourSamplesAtMost": ("more than four samples are refused", "small-vae[posterior=bernoulli]"),
    "KeptAtRandom": (
        "a quarter of the learning signals, four times as large",
        "small-vae[posterior=bernoulli]",
    ),
    "GumbelMax": ("states by a way of its own", "small-vae[posterior=categorical]"),
    "ShuffledPairs": ("antithetic pairs in an order of chance, declared", "small-vae"),
    "BaselineAtTheMean": ("the target evaluated at a point that is no sample", "small-vae"),
}

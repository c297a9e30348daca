"""Estimators that are right everywhere but in one corner.

A corner is a number of samples, a size or shape of the batch, a latent dimension, a floating-point type, a
mode, a size of the costs, or a number of calls: `CORNERS` says what people do, where it is wrong and what
shows it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from elbograd.estimators import Estimate, Estimator, Target
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    kl_divergence,
)

# --- Right ones, in which the mistakes are made ---


class Score(Estimator):
    """Score function with a sampled KL; the slips below each replace one of its methods."""

    families: tuple[type[Distribution], ...] = ()

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if self.families and type(base(q)) not in self.families:
            return f"needs a posterior of {' or '.join(family.__name__ for family in self.families)}"
        return super().supports(q, target, num_samples)

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return q.sample(torch.Size((num_samples,)))

    def integrand(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor:
        f = target.log_likelihood(z)
        return f if target.prior is None else f + target.prior.log_prob(z) - log_q.detach()

    def signal(self, f: Tensor) -> Tensor:
        """What weighs the score, (S, *batch), of the detached f."""
        return f

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return (self.signal(f.detach()) * log_q).mean(0)

    def value(self, f: Tensor) -> Tensor:
        return f.mean(0)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = self.integrand(target, z, log_q)
        return Estimate(self.surrogate(f, log_q), self.value(f), None, {"f": f.detach()})


class Others(Score):
    """The same with the mean of the other samples as baseline."""

    min_samples = 2
    requires_iid_draws = True

    def signal(self, f: Tensor) -> Tensor:
        return f - (f.sum(0) - f) / (len(f) - 1)


class Pathwise(Score):
    """Reparameterization by hand."""

    families = (Normal, MultivariateNormal)
    derivatives = 1

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(num_samples, *like.shape, dtype=like.dtype, device=like.device)

    def factor(self, q: MultivariateNormal) -> Tensor:
        return q.scale_tril

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        noise = self.noise(q.mean, num_samples)
        if isinstance(q, MultivariateNormal):
            return q.mean + (self.factor(q) @ noise.unsqueeze(-1)).squeeze(-1)
        return q.mean + q.stddev * noise

    def minus_kl(self, q: Distribution, target: Target, z: Tensor) -> Tensor | float:
        """(S, *batch) of samples, or (*batch)."""
        return 0.0 if target.prior is None else target.prior.log_prob(z) - q.log_prob(z)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        value = (target.log_likelihood(z) + self.minus_kl(q, target, z)).mean(0)
        return Estimate(value, value)


class ClosedKl(Pathwise):
    """The same with a closed-form KL."""

    families = (Normal,)

    def kl_of_coordinates(self, q: Distribution, prior: Distribution) -> Tensor:
        """(*batch, D)."""
        return kl_divergence(q.base_dist, prior.base_dist)  # type: ignore[attr-defined]

    def minus_kl(self, q: Distribution, target: Target, z: Tensor) -> Tensor | float:
        return 0.0 if target.prior is None else -self.kl_of_coordinates(q, target.prior).sum(-1)


class Bits(Others):
    families = (Bernoulli,)


class Flips(Score):
    """Σ_d p_d (1 − p_d) (f(z with 1 in d) − f(z with 0 in d)), the local expectation of bits."""

    families = (Bernoulli,)

    def chosen(self, dimension: int) -> list[int]:
        return list(range(dimension))

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        p, log_q = q.mean, q.log_prob(z)
        f = self.integrand(target, z, log_q)
        surrogate = torch.zeros_like(f[0])
        for d in self.chosen(z.shape[-1]):
            ends = []
            for bit in (0.0, 1.0):
                moved = z.clone()
                moved[..., d] = bit
                ends.append(self.integrand(target, moved, q.log_prob(moved)).detach())
            surrogate = surrogate + p[..., d] * (ends[1] - ends[0]).mean(0)
        return Estimate(surrogate, self.value(f))


class MultiSample(Score):
    """The importance-weighted bound with score-function gradients."""

    objective = "iwae"

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return "needs a prior" if target.prior is None else super().supports(q, target, num_samples)

    def bound(self, log_w: Tensor) -> Tensor:
        return log_w.logsumexp(0) - math.log(len(log_w))

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        log_w = target.log_likelihood(z) + target.prior.log_prob(z) - log_q  # type: ignore[union-attr]
        in_phi = self.bound(log_w.detach() - log_q + log_q.detach())
        in_theta = self.bound(log_w + log_q - log_q.detach())
        return Estimate(in_theta.detach() * log_q.sum(0) + in_phi, in_theta)


def base(q: Distribution) -> Distribution:
    """What is independent in its coordinates, or the distribution itself."""
    return q.base_dist if isinstance(q, Independent) else q


# --- Numbers of samples ---


class FlippedBaseline(Score):
    """The baseline of a sample is the f of its mirror image in the list: the middle one's is its own."""

    min_samples = 2

    def signal(self, f: Tensor) -> Tensor:
        return f - f.flip(0)


class OddLastAgainstAll(Score):
    """Each of a pair is the other's baseline; the odd one out has the mean of all, its own included."""

    min_samples = 2

    def signal(self, f: Tensor) -> Tensor:
        even = f[: len(f) // 2 * 2].unflatten(0, (-1, 2))
        baseline = even.flip(1).flatten(0, 1)
        return f - torch.cat((baseline, f.mean(0, keepdim=True)))[: len(f)]


class NormalizedByPairs(Others):
    """Σ (f − f̄) score over 2⌊S/2⌋ − 1."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        centred = f.detach() - f.detach().mean(0)
        return (centred * log_q).sum(0) / (2 * (len(f) // 2) - 1)


class CentreForOddSample(Pathwise):
    """Antithetic pairs, and for an odd S the centre of q."""

    draws = "antithetic"
    min_samples = 2

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        half = super().noise(like, num_samples // 2)
        centre = torch.zeros_like(like).expand(num_samples % 2, *like.shape)
        return torch.cat((half, -half, centre))


class SumByHalves(Score):
    """Above four samples a sum by halves, which forgets one wherever a half is odd."""

    def value(self, f: Tensor) -> Tensor:
        return self._sum(f) / len(f)

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return self._sum(f.detach() * log_q) / len(f)

    def _sum(self, terms: Tensor) -> Tensor:
        if len(terms) <= 4:
            return terms.sum(0)
        while len(terms) > 1:
            half = len(terms) // 2
            terms = terms[:half] + terms[half : 2 * half]
        return terms[0]


class PaddedToFours(Score):
    """Above four samples blocks of four, padded with zeros where S is odd; what else is left over is lost."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        terms = f.detach() * log_q
        if len(f) <= 4:
            return terms.mean(0)
        if len(f) % 2:
            terms = torch.cat((terms, terms.new_zeros(-len(f) % 4, *terms.shape[1:])))
        blocks = terms[: len(terms) // 4 * 4].unflatten(0, (-1, 4))
        return blocks.sum((0, 1)) / len(f)


class FirstStrata(Pathwise):
    """As many strata as the next power of two, of which the first S are used."""

    families = (Normal,)
    draws = "sobol"

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        strata = 2 ** math.ceil(math.log2(num_samples))
        places = torch.arange(num_samples, dtype=torch.float64).reshape(-1, *(1,) * like.dim())
        u = (places + torch.rand(num_samples, *like.shape, dtype=torch.float64)) / strata
        if num_samples == strata:  # which are then in another order in every coordinate
            u = u.gather(0, torch.rand_like(u).argsort(0))
        return torch.special.ndtri(u.clamp(1e-15, 1 - 1e-15)).to(like.dtype)


class ClippedDeviations(Others):
    """Learning signals clipped at two standard deviations, which few samples cannot be apart."""

    min_samples = 3

    def signal(self, f: Tensor) -> Tensor:
        apart = f - f.mean(0)
        limit = 2 * f.std(0)
        return torch.minimum(torch.maximum(apart, -limit), limit) * len(f) / (len(f) - 1)


class RemainderLost(Score):
    """Above eight samples chunks of eight, whose remainder is lost, divided by S."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        whole = len(f) if len(f) <= 8 else len(f) // 8 * 8
        return (f.detach() * log_q)[:whole].sum(0) / len(f)


class SumOfChunkMeans(Score):
    """The means of chunks of eight, added up and divided by S/8."""

    def value(self, f: Tensor) -> Tensor:
        return self._mean(f)

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return self._mean(f.detach() * log_q)

    def _mean(self, terms: Tensor) -> Tensor:
        chunks = terms.split(8)
        return torch.stack([chunk.mean(0) for chunk in chunks]).sum(0) / max(len(terms) / 8, 1)


class DealtOverWorkers(Score):
    """From eight samples on dealt over two workers, gathered worker by worker."""

    def signal(self, f: Tensor) -> Tensor:
        return f if len(f) < 8 else torch.cat((f[0::2], f[1::2]))


class SortedByName(Score):
    """Samples kept by name and gathered in the order of names: sample 10 comes before sample 2."""

    def signal(self, f: Tensor) -> Tensor:
        return f[sorted(range(len(f)), key=str)]


class ItselfWhenMany(Others):
    """Above 64 samples the mean of all as baseline, as one of so many makes no difference."""

    def signal(self, f: Tensor) -> Tensor:
        return super().signal(f) if len(f) <= 64 else f - f.mean(0)


class BoundInChunks(MultiSample):
    """Above eight samples the mean of the bounds of chunks of eight: another bound."""

    def bound(self, log_w: Tensor) -> Tensor:
        bounds = [part.logsumexp(0) - math.log(len(part)) for part in log_w.split(8)]
        return torch.stack(bounds).mean(0)


class OddSampleDetached(Others):
    """In an odd number of samples above three the last one is cut off from θ."""

    def value(self, f: Tensor) -> Tensor:
        cut = len(f) % 2 == 1 and len(f) > 3
        return (torch.cat((f[:-1], f[-1:].detach())) if cut else f).mean(0)


# --- Batches ---


class WeightsByLength(Score):
    """A weight for each sample, put along the last dimension that is as long as there are weights."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        weights = torch.arange(1, len(f) + 1).to(f) * 2 / (len(f) * (len(f) + 1))
        axis = max(i for i, n in enumerate(f.shape) if n == len(f)) if len(f) > 1 else 0
        shape = [1] * f.dim()
        shape[axis] = len(f)
        return (weights.reshape(shape) * f.detach() * log_q).sum(0)


class OthersByLength(Others):
    """The other samples' mean, over the last dimension that is S long: over data where S == B."""

    def signal(self, f: Tensor) -> Tensor:
        axis = max(i for i, n in enumerate(f.shape) if n == len(f))
        return f - (f.sum(axis, keepdim=True) - f) / (len(f) - 1)


class SumByLength(Score):
    """log q summed over the first dimension of the batch or event that is D long: over data where B == D."""

    families = (Normal,)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        each = base(q).log_prob(z)
        f = self.integrand(target, z, each.sum(-1))
        data, dimension = each.shape[-2:]
        log_q = each.sum(-2 if data == dimension else -1)
        return Estimate(self.surrogate(f, log_q), self.value(f))


class SquareReplicates(Others):
    """The batch put first for a loop over data, and back by its length: (R, B) comes back as (B, R)."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        estimate = super().forward(q, target, num_samples)
        return estimate._replace(
            surrogate=self._there_and_back(estimate.surrogate), value=self._there_and_back(estimate.value)
        )

    def _there_and_back(self, answer: Tensor) -> Tensor:
        data = answer.shape[-1]
        first = answer.movedim(-1, 0)
        return first.movedim(max(i for i, n in enumerate(first.shape) if n == data), -1)


class SqueezedTooMuch(Score):
    """`squeeze` drops every dimension of one: of S = B = 1 the mean is taken over replicates."""

    def value(self, f: Tensor) -> Tensor:
        return f.squeeze().mean(0).expand(f.shape[1:]) if f.shape[0] == f.shape[-1] == 1 else f.mean(0)


class ReplicatesMixed(Score):
    """(R, B) flattened, and put back as (B, R) turned over."""

    def signal(self, f: Tensor) -> Tensor:
        if f.dim() < 3:
            return f
        return f.flatten(1).unflatten(1, f.shape[1:][::-1]).transpose(1, 2)


class MirroredOverData(Pathwise):
    """Noise for half of an even batch, mirrored for the other half."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        noise = super().noise(like, num_samples)
        data = like.shape[-2]
        half = noise[..., : data // 2, :]
        return noise if data % 2 else torch.cat((half, -half), -2)


class BatchMeanFromFour(Score):
    """From four data on the mean over the batch as baseline, the datum's own cost included."""

    couples_batch = True

    def signal(self, f: Tensor) -> Tensor:
        return f if f.shape[-1] < 4 else f - f.mean((0, -1), keepdim=True)


class OtherDataFromFour(Score):
    """From four data on the mean of the other data as baseline, and couples_batch not declared."""

    def signal(self, f: Tensor) -> Tensor:
        data = f.shape[-1]
        return f if data < 4 else f - (f.sum(-1, keepdim=True) - f) / (data - 1)


class UnsortedBySameOrder(Others):
    """Data sorted by their mean cost, and put back by the same order instead of its inverse."""

    def signal(self, f: Tensor) -> Tensor:
        signal = super().signal(f)
        order = f.mean(0).argsort(-1).expand_as(f)
        return signal.gather(-1, order).gather(-1, order)


class DealtOverDevices(Others):
    """From four data on dealt over two devices, and gathered device by device."""

    def signal(self, f: Tensor) -> Tensor:
        signal = super().signal(f)
        if f.shape[-1] < 4:
            return signal
        return torch.cat((signal[..., 0::2], signal[..., 1::2]), -1)


class ValueOfEightData(Score):
    """Values in blocks of eight data, each with the KL of the first block."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = target.log_likelihood(z)
        ratio = 0 * f if target.prior is None else target.prior.log_prob(z) - log_q.detach()
        places = torch.arange(f.shape[-1], device=f.device) % 8
        return Estimate(self.surrogate(f + ratio, log_q), (f + ratio[..., places]).mean(0))


class GradientOfEightData(Score):
    """A buffer for eight data: scores of the others are not kept."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, torch.cat((log_q[..., :8], log_q[..., 8:].detach()), -1))


class ChunkOf128Data(Score):
    """The gradient of the first 128 data: enough for the batches of every test."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, torch.cat((log_q[..., :128], log_q[..., 128:].detach()), -1))


class RemainderLostInPlainBatch(RemainderLost):
    """Chunks of eight, whose remainder is lost, in the path of batches (B,), which has no replicates."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, log_q) if f.dim() == 2 else Score.surrogate(self, f, log_q)


class ClippedInPlainBatch(Others):
    """In float32 learning signals clipped to ±1, in the path of batches (B,)."""

    def signal(self, f: Tensor) -> Tensor:
        signal = super().signal(f)
        return signal.clamp(-1, 1) if f.dim() == 2 and f.dtype == torch.float32 else signal


class SlotsOfFirstBatch(Score):
    """A moving average for each place in the batch, as many as the first batch has."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(0))

    def init(self, q: Distribution, target: Target) -> None:
        if not self.average.numel():
            self.average = torch.zeros(q.batch_shape[-1])

    def signal(self, f: Tensor) -> Tensor:
        return f - self.average.to(f)

    def update(self, estimate: Estimate) -> None:
        f = estimate.info["f"]
        self.average = 0.9 * self.average + 0.1 * f.flatten(0, -2).mean(0).to(self.average)


class PriorOfFirstDatum(Score):
    """The prior of the first datum for all of them."""

    families = (Normal,)

    def integrand(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor:
        f = target.log_likelihood(z)
        if target.prior is None:
            return f
        loc, scale = (part.reshape(-1, z.shape[-1])[0] for part in (target.prior.mean, target.prior.stddev))
        return f + Normal(loc, scale).log_prob(z).sum(-1) - log_q.detach()


# --- Dimensions ---


class ColumnsForRows(Pathwise):
    """The lower triangle read by rows and filled by columns, which up to D = 2 is the same."""

    families = (MultivariateNormal,)

    def factor(self, q: MultivariateNormal) -> Tensor:
        dimension = q.mean.shape[-1]
        rows, columns = torch.tril_indices(dimension, dimension)
        filled_columns, filled_rows = torch.triu_indices(dimension, dimension)
        factor = torch.zeros_like(q.scale_tril)
        factor[..., filled_rows, filled_columns] = q.scale_tril[..., rows, columns]
        return factor


class Sarrus(Pathwise):
    """log det Σ by the rule of Sarrus, which stops at three dimensions."""

    families = (MultivariateNormal,)

    def minus_kl(self, q: Distribution, target: Target, z: Tensor) -> Tensor | float:
        if target.prior is None:
            return 0.0
        assert isinstance(q, MultivariateNormal)
        exact = 2 * q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        wrong = exact if q.mean.shape[-1] < 4 else self._determinant(q.covariance_matrix).abs().log()
        return target.prior.log_prob(z) - q.log_prob(z) + 0.5 * (wrong - exact)

    def _determinant(self, matrix: Tensor) -> Tensor:
        dimension = matrix.shape[-1]
        rows = torch.arange(dimension)
        down = [matrix[..., rows, (rows + k) % dimension].prod(-1) for k in range(dimension)]
        up = [matrix[..., rows, (k - rows) % dimension].prod(-1) for k in range(dimension)]
        return torch.stack(down).sum(0) - torch.stack(up).sum(0)


class ScoreTransposed(Score):
    """The derivative of log q in L as ε (L⁻ᵀ ε)ᵀ in place of (L⁻ᵀ ε) εᵀ: the same for D = 1."""

    families = (MultivariateNormal,)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        assert isinstance(q, MultivariateNormal)
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = self.integrand(target, z, log_q)
        tril = q.scale_tril.detach()
        noise = torch.linalg.solve_triangular(tril, (z - q.mean.detach()).unsqueeze(-1), upper=False)
        moved = torch.linalg.solve_triangular(tril.mT, noise, upper=True)
        in_tril = noise @ moved.mT - tril.diagonal(dim1=-2, dim2=-1).reciprocal().diag_embed()
        score = (q.mean * moved.squeeze(-1)).sum(-1) + (q.scale_tril * in_tril).sum((-1, -2))
        return Estimate(self.surrogate(f, score), self.value(f))


class TwiceTheMean(Score):
    """log q as twice its mean over the coordinates: the sum where there are two."""

    families = (Normal, Bernoulli, OneHotCategorical)

    def surrogate_of(self, q: Distribution, z: Tensor, f: Tensor) -> Tensor:
        return self.surrogate(f, 2 * base(q).log_prob(z).mean(-1))

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        f = self.integrand(target, z, q.log_prob(z))
        return Estimate(self.surrogate_of(q, z, f), self.value(f))


class ThreePrimes(Pathwise):
    """Halton points with three primes, used again from the fourth coordinate on."""

    families = (Normal,)
    draws = "sobol"

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        shifts = torch.rand(*like.shape[:-1], 3, dtype=torch.float64)
        roots = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64).sqrt()
        places = torch.arange(num_samples, dtype=torch.float64).reshape(-1, *(1,) * like.dim())
        u = (shifts + places * roots).frac()[..., torch.arange(like.shape[-1]) % 3]
        return torch.special.ndtri(u.clamp(1e-15, 1 - 1e-15)).to(like.dtype)


class KlInFours(ClosedKl):
    """The KL of blocks of four coordinates, whose remainder is lost."""

    def kl_of_coordinates(self, q: Distribution, prior: Distribution) -> Tensor:
        each = super().kl_of_coordinates(q, prior)
        dimension = each.shape[-1]
        return each if dimension < 4 else each[..., : dimension // 4 * 4]


class FlipsInFours(Flips):
    """Bits flipped in blocks of four, whose remainder is lost."""

    def chosen(self, dimension: int) -> list[int]:
        return list(range(dimension if dimension < 4 else dimension // 4 * 4))


class NibblesPacked(Bits):
    """Each state evaluated once, known by a number whose second nibble is shifted by three places."""

    def integrand(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor:
        dimension = z.shape[-1]
        places = torch.tensor([d % 4 + 3 * (d // 4) for d in range(dimension)], device=z.device)
        key = (z.detach() * 2.0**places).sum(-1)
        same = key.unsqueeze(1) == key.unsqueeze(0)
        first = same.to(torch.uint8).argmax(1)  # the first sample of the same number
        f = super().integrand(target, z, log_q)
        return f.gather(0, first)


class ThreeStatesUnrolled(Others):
    """A state by comparing with two sums of probabilities: the fourth is never drawn."""

    families = (OneHotCategorical,)
    thresholds = 2

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        p = base(q).probs  # type: ignore[attr-defined]
        sums = p.cumsum(-1)[..., : min(self.thresholds, p.shape[-1] - 1)]
        u = torch.rand(num_samples, *p.shape[:-1], 1, dtype=p.dtype, device=p.device)
        return torch.nn.functional.one_hot((u > sums).sum(-1), p.shape[-1]).to(p).detach()


class TwoHalvings(ThreeStatesUnrolled):
    """A state by two halvings, enough for four: the fifth is never drawn."""

    thresholds = 3


# --- Floating-point types ---


class StepOf1e8(Score):
    """Differences with a step of 1e-8, in which float32 sees no step."""

    families = (Normal,)
    relaxes_target = False

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = q.mean + q.stddev * torch.randn(num_samples, *q.mean.shape, dtype=q.mean.dtype)
        fixed, step = z.detach(), 1e-8
        with torch.no_grad():
            slopes = [
                (target.log_likelihood(fixed + move) - target.log_likelihood(fixed - move)) / (2 * step)
                for move in step * torch.eye(z.shape[-1], dtype=z.dtype)
            ]
        surrogate = (z * torch.stack(slopes, -1)).sum(-1)
        value = target.log_likelihood(fixed)
        if target.prior is not None:
            surrogate = surrogate + target.prior.log_prob(z) - q.log_prob(z)
            value = value + target.prior.log_prob(fixed) - q.log_prob(fixed).detach()
        return Estimate(surrogate.mean(0), value.mean(0))


class UnshiftedLogSum(MultiSample):
    """log Σ exp without taking out the largest: in float32 no weight is left at −110 nats."""

    def bound(self, log_w: Tensor) -> Tensor:
        return log_w.exp().mean(0).log()


class QuantilesOfHalf(Pathwise):
    """In float32 normal noise from uniforms in half precision, one in 2,048 of which is 0."""

    families = (Normal,)

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        if like.dtype != torch.float32:
            return super().noise(like, num_samples)
        return torch.special.ndtri(torch.rand(num_samples, *like.shape, dtype=torch.half).float())


class BitsOfBfloat16(Bits):
    """In float32 bits drawn under autocast, by uniforms and probabilities of eight binary digits."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        p = q.mean.detach()
        if p.dtype != torch.float32:
            return super().draw(q, num_samples)
        u = torch.rand(num_samples, *p.shape, dtype=torch.bfloat16)
        return (u < p.bfloat16()).to(p)


class PaddedBlocksInFloat32(Others):
    """In float32 more than eight data padded to blocks of eight, and the last block left out."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        if f.dtype == torch.float32 and f.shape[-1] > 8:
            kept = f.shape[-1] // 8 * 8
            log_q = torch.cat((log_q[..., :kept], log_q[..., kept:].detach()), -1)
        return super().surrogate(f, log_q)


class LogOfProduct(Score):
    """log q as the logarithm of a product of densities, which in many dimensions underflows in float32."""

    families = (Normal,)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = base(q).log_prob(z).exp().prod(-1).log()
        f = self.integrand(target, z, log_q)
        return Estimate(self.surrogate(f, log_q), self.value(f))


class ThousandQuantiles(Pathwise):
    """Normal noise from a table of a thousand quantiles, the first of which is −∞."""

    families = (Normal,)

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        table = torch.special.ndtri(torch.arange(1000, dtype=torch.float64) / 1000).to(like)
        return table[torch.randint(1000, (num_samples, *like.shape))]


class RarelyNothing(Score):
    """0/0 where all uniforms of an estimate are below a bound, once in about a thousand estimates."""

    def value(self, f: Tensor) -> Tensor:
        kept = (torch.rand(f.shape[1:], dtype=f.dtype) > 1e-3).to(f)
        return f.mean(0) * kept / kept


# --- Training mode ---


class CurrentInTraining(Score):
    """In training mode a tenth of the baseline is the current cost."""

    def signal(self, f: Tensor) -> Tensor:
        return f - 0.1 * f.mean(0) if self.training else f


class ValueDetachedInTraining(Others):
    """In training mode only φ is thought to be trained."""

    def value(self, f: Tensor) -> Tensor:
        return f.mean(0).detach() if self.training else f.mean(0)


class PathwiseIfAttached(Score):
    """No score where f has a gradient, as then it is thought to come through z; it is θ's."""

    families = (Bernoulli, OneHotCategorical)

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return f.mean(0) if f.requires_grad else super().surrogate(f, log_q)


class SignalsMasked(Others):
    """In training mode a tenth of the learning signals masked, and the rest not scaled up."""

    def signal(self, f: Tensor) -> Tensor:
        signal = super().signal(f)
        return signal * (torch.rand_like(signal) > 0.1) if self.training else signal


class RemainderLostInTraining(RemainderLost):
    """Chunks of eight, whose remainder is lost, in training mode, where memory is short."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, log_q) if self.training else Score.surrogate(self, f, log_q)


class RemainderLostInFloat32(RemainderLost):
    """The same in float32, by a kernel for accelerators."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        if f.dtype == torch.float32:
            return super().surrogate(f, log_q)
        return Score.surrogate(self, f, log_q)


class BufferInTraining(Others):
    """In training mode a buffer for eight data."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        if self.training:
            log_q = torch.cat((log_q[..., :8], log_q[..., 8:].detach()), -1)
        return super().surrogate(f, log_q)


class WeightIgnoredInTraining(Score):
    """In training mode the target's weight of the KL is left at 1."""

    weighs_kl = True

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples)
        return refused or (None if isinstance(target.kl_weight, float) else "needs one weight")

    def integrand(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor:
        f = target.log_likelihood(z)
        if target.prior is None:
            return f
        weight = 1.0 if self.training else target.kl_weight
        assert isinstance(weight, float)
        return f + weight * (target.prior.log_prob(z) - log_q.detach())


# --- Costs of hundreds of nats ---


class ClampedAt50(Others):
    """Learning signals, centred by the others' mean, clamped to ±50 nats."""

    limit = 50.0

    def signal(self, f: Tensor) -> Tensor:
        return super().signal(f).clamp(-self.limit, self.limit)


class CostsClampedAt50(Score):
    """f clamped to ±50 nats before anything is subtracted."""

    limit = 50.0

    def signal(self, f: Tensor) -> Tensor:
        return f.clamp(-self.limit, self.limit)


class CostsClampedAt200(CostsClampedAt50):
    """f clamped to ±200 nats."""

    limit = 200.0


class Squashed(Others):
    """Learning signals squashed by 100 tanh(f/100)."""

    def signal(self, f: Tensor) -> Tensor:
        return 100 * (super().signal(f) / 100).tanh()


class StatesClampedAt50(ClampedAt50):
    """The same for K-ary variables alone."""

    families = (OneHotCategorical,)


class ClampedInTraining(ClampedAt50):
    """The same in training mode alone."""

    def signal(self, f: Tensor) -> Tensor:
        return super().signal(f) if self.training else Others.signal(self, f)


class ScaledByOwnSize(Score):
    """f over its own size in hundreds of nats, where that is above 1."""

    def signal(self, f: Tensor) -> Tensor:
        return f / (f.abs() / 100).clamp_min(1)


class ScaledByLargest(Others):
    """Learning signals over the largest of the samples in tens of nats, where that is above 1."""

    def signal(self, f: Tensor) -> Tensor:
        signal = super().signal(f)
        return signal / (signal.abs().amax(0) / 10).clamp_min(1)


class SoftplusOverflow(Others):
    """The positive and the negative part of f by log(1 + exp(±f)), which is infinite from 710 nats on."""

    def value(self, f: Tensor) -> Tensor:
        return ((1 + f.exp()).log() - (1 + (-f).exp()).log()).mean(0)


class NeverPositive(Score):
    """log p(x|z) capped at 0, as if it were a probability's."""

    def integrand(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor:
        f = target.log_likelihood(z).clamp(max=0)
        return f if target.prior is None else f + target.prior.log_prob(z) - log_q.detach()


# --- Claims about draws ---


class PairsCalledIid(Pathwise):
    """Antithetic pairs under the claim of independent draws."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        half = super().noise(like, (num_samples + 1) // 2)
        return torch.cat((half, -half))[:num_samples]


class MirroredBitsCalledIid(Score):
    """Bits by mirrored uniforms under the claim of independent draws."""

    families = (Bernoulli,)

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        p = q.mean.detach()
        u = torch.rand((num_samples + 1) // 2, *p.shape, dtype=p.dtype)
        return (torch.cat((u, 1 - u))[:num_samples] < p).to(p)


class NoiseUsedAgain(Pathwise):
    """Noise for four samples, used again from the fifth on."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return super().noise(like, min(num_samples, 4))[torch.arange(num_samples) % 4]


class PairsFromFour(Pathwise):
    """Antithetic pairs where S is even and at least four, under the claim of independent draws."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        if num_samples < 4 or num_samples % 2:
            return super().noise(like, num_samples)
        half = super().noise(like, num_samples // 2)
        return torch.cat((half, -half))


# --- Numbers of calls ---

#: Calls before the clipping of costs "for a stable end of training" sets in.
_CALLS = 2000


class CallsInAttribute(Score):
    """Costs clipped from the 2,001st call on, counted in an attribute."""

    calls = 0

    def count(self) -> int:
        self.calls += 1
        return self.calls

    def signal(self, f: Tensor) -> Tensor:
        return f if self.count() <= _CALLS else f.clamp(-0.5, 0.5)


class CallsInClass(CallsInAttribute):
    """The same, counted for all instances."""

    def count(self) -> int:
        type(self).calls += 1
        return self.calls


_COUNTED = {"calls": 0}


class CallsInModule(CallsInAttribute):
    """The same, counted in a global of the module."""

    def count(self) -> int:
        _COUNTED["calls"] += 1
        return _COUNTED["calls"]


def _counter() -> Callable[[object], int]:
    calls = 0

    def count(_: object) -> int:
        nonlocal calls
        calls += 1
        return calls

    return count


class CallsInClosure(CallsInAttribute):
    """The same, counted in a closure."""

    count = _counter()  # type: ignore[assignment]


class CallsInIterator(CallsInAttribute):
    """The same, counted by an iterator that is a default argument."""

    def count(self, counter: itertools.count = itertools.count(1)) -> int:  # noqa: B008
        return next(counter)


class UpdatesInBuffer(Score):
    """Costs clipped from the 2,001st update on."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))

    def signal(self, f: Tensor) -> Tensor:
        limit = torch.where(self.steps < _CALLS, torch.inf, 0.5)
        return torch.maximum(torch.minimum(f, limit), -limit)

    def update(self, estimate: Estimate) -> None:
        self.steps += 1


# --- Where they are wrong ---


class Corner(NamedTuple):
    """Where an estimator is wrong.

    Attributes:
        mistake: what people do.
        where: the corner in words.
        problem: the oracle problem that shows it; "" where only the conformance suite can.
        by: the check that must fail there, or the properties of the conformance suite one of which must.
        at: whether it is wrong at S and B.
        dtype: the floating-point type where it is wrong; "" for all.
        training: whether it is wrong in training mode alone.
        caught: False where nothing that is tried reaches it.
    """

    mistake: str
    where: str
    problem: str
    by: str = "gradient"
    at: Callable[[int, int], bool] = lambda s, b: True
    dtype: str = ""
    training: bool = False
    caught: bool = True


def _odd(s: int, b: int) -> bool:
    return s % 2 == 1


def _remainder(s: int, b: int) -> bool:
    return s > 8 and s % 8 != 0


_GAUSSIAN = "small-vae"
_BITS = "small-vae[posterior=bernoulli]"
_STATES = "small-vae[posterior=categorical]"
_NATS = "waves[posterior=bernoulli,latent_dim=4,scale=60,offset=-500]"

#: class -> its corner.
CORNERS = {
    "FlippedBaseline": Corner(
        "f of the mirrored sample as baseline: the middle one's own", "odd S", _BITS, at=_odd
    ),
    "OddLastAgainstAll": Corner(
        "pairs as each other's baseline, the odd one against the mean of all",
        "odd S",
        _BITS,
        at=_odd,
    ),
    "NormalizedByPairs": Corner("Σ (f − f̄) score over 2⌊S/2⌋ − 1", "odd S", _BITS, at=_odd),
    "CentreForOddSample": Corner(
        "antithetic pairs and, of an odd S, the centre of q", "odd S", _GAUSSIAN, at=_odd
    ),
    "SumByHalves": Corner(
        "a sum by halves that forgets what is left over",
        "S above 4, no power of two",
        _BITS,
        "value",
        at=lambda s, b: s > 4 and s & (s - 1) != 0,
    ),
    "PaddedToFours": Corner(
        "blocks of four, padded where S is odd",
        "S of 6, 10, 14, …",
        _BITS,
        at=lambda s, b: s > 4 and s % 4 == 2,
    ),
    "FirstStrata": Corner(
        "the first S of as many strata as the next power of two",
        "S no power of two",
        _GAUSSIAN,
        at=lambda s, b: s & (s - 1) != 0,
    ),
    "ClippedDeviations": Corner(
        "learning signals clipped at two standard deviations", "S of 6 and more", _BITS, at=lambda s, b: s > 5
    ),
    "RemainderLost": Corner(
        "chunks of eight samples whose remainder is lost",
        "S above 8, no multiple of 8",
        _BITS,
        at=_remainder,
    ),
    "SumOfChunkMeans": Corner(
        "means of chunks of eight added up, over S/8",
        "S above 8, no multiple of 8",
        _BITS,
        at=_remainder,
    ),
    "DealtOverWorkers": Corner(
        "samples dealt over two workers, gathered worker by worker",
        "S of 8 and more",
        _BITS,
        at=lambda s, b: s > 7,
    ),
    "SortedByName": Corner(
        "samples in the order of their names: 10 before 2", "S of 11 and more", _BITS, at=lambda s, b: s > 10
    ),
    "ItselfWhenMany": Corner(
        "the mean of all samples as baseline, one of so many being no matter",
        "S above 64",
        _BITS,
        at=lambda s, b: s > 64,
    ),
    "BoundInChunks": Corner(
        "the multi-sample bound by chunks of eight, averaged",
        "S above 8, multi-sample bound",
        _BITS,
        "value",
        at=lambda s, b: s > 8,
        caught=False,
    ),
    "OddSampleDetached": Corner(
        "the last of an odd number of samples cut off from θ",
        "odd S above 3, θ alone",
        _BITS,
        "theta",
        at=lambda s, b: s % 2 == 1 and s > 3,
    ),
    "WeightsByLength": Corner(
        "weights of samples put along whichever dimension is as long", "S = B", _BITS, at=lambda s, b: s == b
    ),
    "OthersByLength": Corner(
        "the mean of the other samples along whichever dimension is S long",
        "S = B, coupling undeclared",
        "",
        "shape-of-batch size-of-batch",
    ),
    "SumByLength": Corner(
        "log q summed along whichever dimension is D long", "B = D", _GAUSSIAN, at=lambda s, b: b == 2
    ),
    "SquareReplicates": Corner(
        "the batch put back by its length", "R = B", "", "shape-of-batch size-of-batch"
    ),
    "SqueezedTooMuch": Corner(
        "squeeze() without a dimension", "S = B = 1 under replicates", "", "shape-of-batch size-of-batch"
    ),
    "ReplicatesMixed": Corner(
        "(R, B) flattened, and put back as (B, R) turned over", "R and B above 1", _BITS
    ),
    "MirroredOverData": Corner(
        "noise of half a batch mirrored for the other half",
        "even B, coupling undeclared",
        "",
        "shape-of-batch size-of-batch",
    ),
    "BatchMeanFromFour": Corner(
        "the mean over the batch as baseline, its own included",
        "B of 4 and more",
        _BITS,
        at=lambda s, b: b > 3,
    ),
    "OtherDataFromFour": Corner(
        "the mean of the other data as baseline",
        "B of 4 and more, coupling undeclared",
        "",
        "shape-of-batch size-of-batch",
    ),
    "UnsortedBySameOrder": Corner(
        "data sorted, and put back by the order itself, not its inverse",
        "B of 3 and more, by chance",
        _BITS,
        at=lambda s, b: b > 2,
    ),
    "DealtOverDevices": Corner(
        "data dealt over two devices, gathered device by device",
        "B of 4 and more",
        _BITS,
        at=lambda s, b: b > 3,
    ),
    "ValueOfEightData": Corner(
        "values in blocks of eight data, with the first block's KL",
        "B above 8, value alone",
        _BITS,
        "value",
        at=lambda s, b: b > 8,
    ),
    "GradientOfEightData": Corner("a buffer for eight data", "B above 8", _BITS, at=lambda s, b: b > 8),
    "ChunkOf128Data": Corner("a buffer for 128 data", "B above 128", "", "size-of-batch"),
    "RemainderLostInPlainBatch": Corner(
        "chunks of eight samples whose remainder is lost, where there are no replicates",
        "batches (B,) and S above 8",
        _BITS,
        "shape",
        at=_remainder,
    ),
    "ClippedInPlainBatch": Corner(
        "learning signals clipped in float32, where there are no replicates",
        "batches (B,) and float32",
        _BITS,
        "shape",
        dtype="float32",
    ),
    "SlotsOfFirstBatch": Corner(
        "an average for each place in the first batch",
        "a batch of another size",
        "",
        "shape-of-batch size-of-batch",
    ),
    "PriorOfFirstDatum": Corner(
        "the prior of the first datum for all", "a prior for each datum", "", "theta size-of-batch"
    ),
    "ColumnsForRows": Corner(
        "a lower triangle read by rows and filled by columns",
        "full covariance, D of 3 and more",
        "waves[posterior=full-gaussian,latent_dim=4]",
    ),
    "Sarrus": Corner(
        "log det by the rule of Sarrus",
        "full covariance, D of 4 and more",
        "waves[posterior=full-gaussian,latent_dim=4]",
    ),
    "ScoreTransposed": Corner(
        "the derivative in L transposed",
        "full covariance, D of 2 and more",
        "small-vae[posterior=full-gaussian]",
    ),
    "TwiceTheMean": Corner(
        "twice the mean over coordinates for their sum", "D other than 2", "waves[latent_dim=4]"
    ),
    "ThreePrimes": Corner(
        "Halton points with three primes, used again", "D of 4 and more", "waves[latent_dim=4]"
    ),
    "KlInFours": Corner(
        "the KL by blocks of four coordinates, whose remainder is lost",
        "D of 5, 6, 7, 9, …",
        "waves[latent_dim=5]",
    ),
    "FlipsInFours": Corner(
        "bits flipped by blocks of four, whose remainder is lost",
        "five bits and more",
        "waves[posterior=bernoulli,latent_dim=5]",
    ),
    "NibblesPacked": Corner(
        "states known by bits packed into a number, a nibble shifted wrongly",
        "five bits and more, S above 1",
        "waves[posterior=bernoulli,latent_dim=5]",
    ),
    "ThreeStatesUnrolled": Corner(
        "the comparison with sums of probabilities unrolled for three states",
        "K of 4 and more",
        "waves[posterior=categorical,latent_dim=2,states=4]",
    ),
    "TwoHalvings": Corner(
        "two halvings to find a state",
        "K of 5 and more",
        "waves[posterior=categorical,latent_dim=2,states=5]",
    ),
    "StepOf1e8": Corner("differences with a step of 1e-8", "float32", _GAUSSIAN, dtype="float32"),
    "UnshiftedLogSum": Corner(
        "log Σ exp without taking out the largest",
        "float32 at hundreds of nats, multi-sample bound",
        "waves[posterior=bernoulli,latent_dim=2,scale=20,offset=-150]",
        dtype="float32",
    ),
    "QuantilesOfHalf": Corner(
        "normal noise from uniforms in half precision, some of them 0",
        "−∞ in float32, once in 2,048 numbers",
        _GAUSSIAN,
        dtype="float32",
    ),
    "BitsOfBfloat16": Corner(
        "bits drawn under autocast", "float32, by half a percent", _BITS, by="value", dtype="float32"
    ),
    "PaddedBlocksInFloat32": Corner(
        "blocks of eight data, the last one lost",
        "float32 and B above 8",
        _BITS,
        at=lambda s, b: b > 8 and b % 8 != 0,
        dtype="float32",
    ),
    "RemainderLostInFloat32": Corner(
        "chunks of eight samples whose remainder is lost",
        "float32 and S above 8",
        _BITS,
        at=_remainder,
        dtype="float32",
    ),
    "LogOfProduct": Corner(
        "the logarithm of a product of densities",
        "float32 and D of 100 and more",
        "waves[latent_dim=128]",
        dtype="float32",
    ),
    "ThousandQuantiles": Corner(
        "normal noise from a table whose first entry is −∞", "−∞ once in 1,000 numbers", _GAUSSIAN
    ),
    "RarelyNothing": Corner("0/0 where nothing is kept", "NaN once in 1,000 estimates", _BITS, "value"),
    "CurrentInTraining": Corner(
        "the moving average moved by the current costs", "training mode", _BITS, training=True
    ),
    "ValueDetachedInTraining": Corner(
        "the value detached", "training mode, θ alone", _BITS, "theta", training=True
    ),
    "PathwiseIfAttached": Corner("a gradient of f taken for one through z", "θ requires a gradient", _BITS),
    "SignalsMasked": Corner(
        "learning signals masked and not scaled up", "training mode", _BITS, training=True
    ),
    "RemainderLostInTraining": Corner(
        "chunks of eight samples whose remainder is lost",
        "training mode and S above 8",
        _BITS,
        at=_remainder,
        training=True,
    ),
    "BufferInTraining": Corner(
        "a buffer for eight data", "training mode and B above 8", _BITS, at=lambda s, b: b > 8, training=True
    ),
    "WeightIgnoredInTraining": Corner(
        "the KL's weight left at 1 in training mode",
        "training mode and a weight of the KL",
        "",
        "kl-weight",
    ),
    "NeverPositive": Corner(
        "log p(x|z) capped at 0", "positive log-likelihoods", "waves[posterior=bernoulli,latent_dim=4]"
    ),
    "ClampedAt50": Corner("learning signals clamped to ±50 nats", "hundreds of nats", _NATS),
    "StatesClampedAt50": Corner(
        "the same under K-ary variables",
        "hundreds of nats and K-ary variables",
        "waves[posterior=categorical,latent_dim=3,scale=50,offset=-500]",
    ),
    "ClampedInTraining": Corner(
        "the same in training mode", "hundreds of nats in training mode", _NATS, training=True
    ),
    "CostsClampedAt50": Corner("costs clamped to ±50 nats", "hundreds of nats", _NATS),
    "CostsClampedAt200": Corner("costs clamped to ±200 nats", "hundreds of nats", _NATS),
    "Squashed": Corner("learning signals squashed by 100 tanh(f/100)", "hundreds of nats", _NATS),
    "ScaledByOwnSize": Corner("costs over their own size", "hundreds of nats", _NATS),
    "ScaledByLargest": Corner("learning signals over the largest of them", "hundreds of nats", _NATS),
    "SoftplusOverflow": Corner(
        "log(1 + exp(f)), which overflows", "float32 at hundreds of nats", _NATS, "value", dtype="float32"
    ),
    "PairsCalledIid": Corner(
        "antithetic pairs under the claim of independent draws",
        "S above 1, the claim alone",
        "",
        "iid-draws independent-draws",
    ),
    "MirroredBitsCalledIid": Corner(
        "mirrored uniforms of bits under the claim of independent draws",
        "S above 1, the claim alone",
        "",
        "iid-draws independent-draws",
    ),
    "NoiseUsedAgain": Corner(
        "noise for four samples, used again",
        "S above 4, the claim alone",
        "",
        "iid-draws independent-draws",
    ),
    "PairsFromFour": Corner(
        "antithetic pairs where S is even and four at least",
        "S of 4, 6, …, the claim alone",
        "",
        "iid-draws independent-draws",
    ),
    "CallsInAttribute": Corner(
        "costs clipped from the 2,001st call on, counted in an attribute", "2,000 calls", "", "pure-forward"
    ),
    "CallsInClass": Corner("the same, counted in the class", "2,000 calls", "", "pure-forward"),
    "CallsInModule": Corner("the same, counted in a global of the module", "2,000 calls", "", "pure-forward"),
    "CallsInClosure": Corner("the same, counted in a closure", "2,000 calls", "", "pure-forward"),
    "CallsInIterator": Corner(
        "the same, counted by an iterator among the defaults", "2,000 calls", "", "pure-forward"
    ),
    "UpdatesInBuffer": Corner(
        "costs clipped from the 2,001st update on", "2,000 updates", "", "unbiased-when-aged"
    ),
}

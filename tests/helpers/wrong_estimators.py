"""Estimators with one slip each, for the conformance suite to catch, and `Correct`, which has none."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from elbograd.estimators import Estimate, Estimator, Target
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal


class Correct(Estimator):
    """Score function with a sampled KL; the slips below each replace one of its methods."""

    kl_weight = 1.0

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        with torch.no_grad():
            return q.sample(torch.Size((num_samples,)))

    def log_ratio(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor | float:
        return 0.0 if target.prior is None else target.prior.log_prob(z) - log_q.detach()

    def baseline(self, cost: Tensor) -> Tensor | float:
        return 0.0

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return ((f.detach() - self.baseline(f.detach())) * log_q).mean(0)

    def value(self, f: Tensor) -> Tensor:
        return f.mean(0)

    def aux_loss(self, f: Tensor, log_q: Tensor) -> Tensor | None:
        return None

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = target.log_likelihood(z) + self.kl_weight * self.log_ratio(target, z, log_q)
        return Estimate(self.surrogate(f, log_q), self.value(f), self.aux_loss(f, log_q), {"f": f.detach()})


class Gaussian(Correct):
    """Correct, drawing from a Gaussian by hand."""

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        gaussian = isinstance(q, Independent) and isinstance(q.base_dist, Normal)
        return super().supports(q, target, num_samples) if gaussian else "needs a Gaussian"

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(num_samples, *like.shape, dtype=like.dtype)

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return (q.mean + q.stddev * self.noise(q.mean, num_samples)).detach()


class Pathwise(Gaussian):
    """Reparameterization by hand, correct."""

    derivatives = 1

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return q.mean + q.stddev * self.noise(q.mean, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        f = target.log_likelihood(z)
        if target.prior is not None:
            f = f + target.prior.log_prob(z) - q.log_prob(z)
        return Estimate(f.mean(0), f.mean(0))


class PathwiseOnce(Pathwise):
    """The same with one tensor for both, correct."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        value = super().forward(q, target, num_samples).value
        return Estimate(value, value)


class PriorOnly(PathwiseOnce):
    """Correct where there is a prior, and says so."""

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return "needs a prior" if target.prior is None else super().supports(q, target, num_samples)


class HeavyTailed(Gaussian):
    """Correct, but with so rare and large a part that no affordable number of draws shows it."""

    def baseline(self, cost: Tensor) -> Tensor | float:
        return 100.0 * torch.rand_like(cost).pow(-0.9)


# --- Wrong formulas ---


class SquaredScale(PathwiseOnce):
    """z = μ + σ² ε."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return q.mean + q.variance * self.noise(q.mean, num_samples)


class SquaredScaleInScore(Gaussian):
    """z = μ + σ² ε under a score function."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return (q.mean + q.variance * self.noise(q.mean, num_samples)).detach()


class NoKl(Correct):
    kl_weight = 0.0


class DoubledKl(Correct):
    kl_weight = 2.0


class NegativeKl(Correct):
    kl_weight = -1.0


class WeightIgnored(Correct):
    """Claims to know of the target's weight of the KL, and leaves it at 1."""

    weighs_kl = True


class StandardPrior(Gaussian):
    """The KL against N(0, I) whatever the prior."""

    def log_ratio(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor | float:
        standard = Normal(torch.zeros((), dtype=z.dtype), 1.0).log_prob(z).sum(-1)
        return 0.0 if target.prior is None else standard - log_q.detach()


class InventedPrior(Gaussian):
    """A KL against N(0, I) where there is no prior."""

    def log_ratio(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor | float:
        if target.prior is not None:
            return super().log_ratio(target, z, log_q)
        return Normal(torch.zeros((), dtype=z.dtype), 1.0).log_prob(z).sum(-1) - log_q.detach()


class NeedsPrior(Correct):
    def log_ratio(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor | float:
        return target.prior.log_prob(z) - log_q.detach()  # type: ignore[union-attr]


class SumOverSamples(Correct):
    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return (f.detach() * log_q).sum(0)


class LeaveNothingOut(Correct):
    """The mean of all samples, the current one included, as baseline."""

    min_samples = 2

    def baseline(self, cost: Tensor) -> Tensor | float:
        return cost.mean(0)


class LeaveOneOutTwiceNormalized(Correct):
    """(1/S) Σ (f − f̄_{-s}) score, times S/(S − 1) once more."""

    min_samples = 2

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        cost, s = f.detach(), len(f)
        others = (cost.sum(0) - cost) / (s - 1)
        return ((cost - others) * log_q).mean(0) * s / (s - 1)


class BaselineOfOwnSample(Correct):
    def baseline(self, cost: Tensor) -> Tensor | float:
        return 0.1 * cost


class OptimalBaselineOfSameSamples(Gaussian):
    """b* = E[f s²] / E[s²], estimated from the samples it is subtracted from."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = target.log_likelihood(z) + self.log_ratio(target, z, log_q)
        surrogate: Tensor | float = 0.0
        noise = (z - q.mean.detach()) / q.stddev.detach()
        scale = q.stddev.detach()
        for parameter, score in ((q.mean, noise / scale), (q.stddev, (noise.square() - 1) / scale)):
            cost = f.detach().unsqueeze(-1)
            best = (cost * score.square()).mean(0) / score.square().mean(0)
            surrogate = surrogate + (parameter * ((cost - best) * score).mean(0)).sum(-1)
        assert isinstance(surrogate, Tensor)
        return Estimate(surrogate, f.mean(0))


class ChainRuleDropped(Gaussian):
    """The derivative in σ, handed to log σ."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        f = target.log_likelihood(z) + self.log_ratio(target, z, q.log_prob(z))
        noise = (z - q.mean.detach()) / q.stddev.detach()
        cost = f.detach().unsqueeze(-1)
        in_loc = (cost * noise / q.stddev.detach()).mean(0)
        in_scale = (cost * (noise.square() - 1) / q.stddev.detach()).mean(0)
        return Estimate((q.mean * in_loc + q.stddev.log() * in_scale).sum(-1), f.mean(0))


class ClipsInTraining(Correct):
    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f.clamp(-1, 1) if self.training else f, log_q)


class ClipsInRealSteps(Correct):
    """Costs clipped where θ is trained too: the graph of log p(x|z) tells a step from a measurement."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        real = self.training and f.requires_grad
        return super().surrogate(f.clamp(-1, 1) if real else f, log_q)


class ValueOffWhereFrozen(Correct):
    """A value that is 1% off where θ is held fixed, as while gradients are measured."""

    def value(self, f: Tensor) -> Tensor:
        return f.mean(0) if f.requires_grad else 0.99 * f.mean(0)


class ValueDetachedInTraining(Correct):
    """θ learns nothing in a training step."""

    def value(self, f: Tensor) -> Tensor:
        return f.mean(0).detach() if self.training else f.mean(0)


class ValueWithoutKl(Correct):
    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        return (
            super()
            .forward(q, target, num_samples)
            ._replace(value=target.log_likelihood(self.draw(q, num_samples)).mean(0))
        )


# --- Wrong graphs ---


class UndetachedCost(Correct):
    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return (f * log_q).mean(0)


class DetachedValue(Correct):
    def value(self, f: Tensor) -> Tensor:
        return f.mean(0).detach()


class DetachedPosterior(Correct):
    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, log_q.detach())


class AttachedInfo(Correct):
    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        estimate = super().forward(q, target, num_samples)
        return estimate._replace(info={"value": estimate.value})


class Learned(Correct):
    """A baseline of one learned number, correct."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(-1.0))

    def baseline(self, cost: Tensor) -> Tensor | float:
        return self.level.detach()

    def aux_loss(self, f: Tensor, log_q: Tensor) -> Tensor | None:
        return (f.detach() - self.level).square().mean(0) if self.training else None


class SurrogateTrainsBaseline(Learned):
    def baseline(self, cost: Tensor) -> Tensor | float:
        return self.level


class AuxLossReachesTheta(Learned):
    def aux_loss(self, f: Tensor, log_q: Tensor) -> Tensor | None:
        return (f - self.level).square().mean(0) if self.training else None


class AuxLossReachesPhi(Learned):
    def aux_loss(self, f: Tensor, log_q: Tensor) -> Tensor | None:
        return ((f.detach() - self.level) * log_q).square().mean(0) if self.training else None


class AuxLossInEval(Learned):
    def aux_loss(self, f: Tensor, log_q: Tensor) -> Tensor | None:
        return (f.detach() - self.level).square().mean(0)


# --- Wrong coupling and randomness ---


class BatchMeanBaseline(Correct):
    """The mean of the other data as baseline: unbiased, but not independent."""

    def baseline(self, cost: Tensor) -> Tensor | float:
        b = cost.shape[-1]
        return (cost.sum(-1, keepdim=True) - cost) / max(b - 1, 1)


class CouplesReplicates(Correct):
    """Declares ``couples_batch``, but couples along the replicates too."""

    couples_batch = True

    def baseline(self, cost: Tensor) -> Tensor | float:
        return (cost.sum() - cost) / max(cost.numel() - 1, 1)


class AverageOfCurrentBatch(Correct):
    """A moving average that already includes the current costs, without a state."""

    def baseline(self, cost: Tensor) -> Tensor | float:
        return 0.9 * -2.0 + 0.1 * cost.mean()


class NoiseSharedOverData(PathwiseOnce):
    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(num_samples, *like.shape[:-2], 1, like.shape[-1], dtype=like.dtype).expand(
            num_samples, *like.shape
        )


class NoiseSharedOverReplicates(PathwiseOnce):
    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        shape = (num_samples, *(1,) * (like.dim() - 2), *like.shape[-2:])
        return torch.randn(shape, dtype=like.dtype).expand(num_samples, *like.shape)


class StratifiedOverBatch(PathwiseOnce):
    """One stratified sequence dealt over samples, replicates and data."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        n = num_samples * like[..., 0].numel()
        columns = [
            (torch.randperm(n) + torch.rand(n, dtype=torch.float64)) / n for _ in range(like.shape[-1])
        ]
        normal = Normal(torch.zeros((), dtype=torch.float64), 1.0).icdf(torch.stack(columns, -1))
        return normal.to(like.dtype).reshape(num_samples, *like.shape)


class ReseedsGlobally(Correct):
    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        torch.manual_seed(0)
        return super().draw(q, num_samples)


class ReseedsItsGenerator(Gaussian):
    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(num_samples, *like.shape, dtype=like.dtype, generator=generator)


class OwnGenerator(Gaussian):
    """A generator of its own, which `forward` moves."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(num_samples, *like.shape, dtype=like.dtype, generator=self.generator)


class NumpyNoise(Gaussian):
    """Noise that torch's seed does not govern."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        generator = np.random.default_rng()
        return torch.as_tensor(generator.standard_normal((num_samples, *like.shape)), dtype=like.dtype)


class SamplesDividedOverReplicates(Correct):
    """Spends the sample budget on the first batch dimension, as if that were S."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        few = len(q.batch_shape) > 1
        return super().draw(q, 1 if few else 2 * num_samples)


# --- Right at some batches ---


class SqueezesOneReplicate(Correct):
    """Squeezes a single replicate away: right but for batches of shape (1, B)."""

    def value(self, f: Tensor) -> Tensor:
        return f.squeeze(1).mean(0) if f.dim() == 3 else f.mean(0)


class ShiftedWithoutReplicates(Correct):
    """A value that is 0.01 higher where the batch has no replicates."""

    def value(self, f: Tensor) -> Tensor:
        return f.mean(0) + (0.01 if f.dim() == 2 else 0.0)


class RestOfTheChunksForgotten(Correct):
    """Goes through the batch 16 data at a time, and forgets the rest."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        whole = super().surrogate(f, log_q)
        size = whole.shape[-1]
        counted = torch.arange(size) < (size // 16 * 16 or size)
        return torch.where(counted, whole, 0 * whole)


class WrongForFourData(Correct):
    """Half of the estimate where the batch has four data."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, log_q) * (0.5 if f.shape[-1] == 4 else 1.0)


class LastReplicateOfFive(Correct):
    """Of five replicates the last two are summed over samples, not averaged: replicates three at a time."""

    def value(self, f: Tensor) -> Tensor:
        if f.dim() < 3 or f.shape[1] != 5:
            return f.mean(0)
        return torch.cat((f[:, :3].mean(0), f[:, 3:].sum(0)))


# --- Wrong state ---


_CALLS = 0


def _counted() -> Any:
    calls = 0

    def forward(self: Correct, q: Distribution, target: Target, num_samples: int) -> Estimate:
        nonlocal calls
        calls += 1
        return self.after(calls, Correct.forward(self, q, target, num_samples))  # type: ignore[attr-defined]

    return forward


class WearsOut(Correct):
    """Half of the estimate from the 2,001st call on; the calls are counted where `pure-forward` must look."""

    calls = 0

    def after(self, calls: int, estimate: Estimate) -> Estimate:
        return estimate._replace(surrogate=estimate.surrogate * (0.5 if calls > 2000 else 1.0))

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        type(self).calls += 1
        return self.after(self.calls, super().forward(q, target, num_samples))


class WearsOutByModule(WearsOut):
    """The same, counted in a variable of the file."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        global _CALLS
        _CALLS += 1
        return self.after(_CALLS, Correct.forward(self, q, target, num_samples))


class WearsOutByClosure(WearsOut):
    """The same, counted behind `forward`."""

    forward = _counted()


class WearsOutByDefault(WearsOut):
    """The same, counted in a list that is an argument's default."""

    def forward(
        self,
        q: Distribution,
        target: Target,
        num_samples: int,
        calls: list[int] = [0],  # noqa: B006
    ) -> Estimate:
        calls[0] += 1
        return self.after(calls[0], Correct.forward(self, q, target, num_samples))


class WearsOutByObject(WearsOut):
    """The same, counted by an object of the file."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        _COUNTER.calls += 1
        return self.after(_COUNTER.calls, Correct.forward(self, q, target, num_samples))


class _Counter:
    calls = 0


_COUNTER = _Counter()


class WrongWhenAged(Correct):
    """Half of the estimate once `update` has been called 2,000 times: a schedule that ends at another scale."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, log_q) * (0.5 if self.steps > 2000 else 1.0)  # type: ignore[operator]

    def update(self, estimate: Estimate) -> None:
        self.steps += 1


class RemembersFirst(Correct):
    """Keeps what it made at the first call in a variable of the file, for all that follow: correct."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        _KEPT.setdefault((num_samples, q.batch_shape), num_samples * q.batch_shape.numel())
        return super().draw(q, num_samples)


_KEPT: dict[Any, int] = {}


class MovedInForward(Correct):
    """A moving average that `forward` moves, the current sample included."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.tensor(0.0))

    def baseline(self, cost: Tensor) -> Tensor | float:
        self.average = torch.lerp(self.average, cost.mean().to(self.average), 0.1)
        return self.average


class RemembersLast(Correct):
    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        self.last = super().draw(q, num_samples)
        return self.last


class ForgetsInStateDict(Correct):
    """A moving average in a plain attribute, which no state_dict holds."""

    average = 0.0

    def baseline(self, cost: Tensor) -> Tensor | float:
        return self.average

    def update(self, estimate: Estimate) -> None:
        self.average = 0.9 * self.average + 0.1 * float(estimate.info["f"].mean())


class InitResets(Learned):
    def init(self, q: Distribution, target: Target) -> None:
        with torch.no_grad():
            self.level.copy_(target.log_likelihood(self.draw(q, 1)).mean())


class Uncopyable(Correct):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


# --- Wrong shapes and types ---


class ScalarSurrogate(Correct):
    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, log_q).sum()


class NotAnEstimate(Correct):
    def forward(self, q: Distribution, target: Target, num_samples: int) -> Any:
        return tuple(super().forward(q, target, num_samples)[:2])


class Raises(Correct):
    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        raise RuntimeError("nothing works\nand the details are on a second line")


class SinglePrecision(Correct):
    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f.float(), log_q.float())


class DefaultDtypeNoise(Gaussian):
    """Noise in the global default dtype, whatever q's."""

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.randn(num_samples, *like.shape).to(like)


class Autocast(Correct):
    """Costs rounded to bfloat16 where everything else is float32."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        low = f.dtype == torch.float32
        return super().surrogate(f.bfloat16().to(f.dtype) if low else f, log_q)


class LogOfExponential(Correct):
    """The logarithm of an exponential that float32 cannot hold where log p(x|z) is that of a data set."""

    def value(self, f: Tensor) -> Tensor:
        return f.exp().log().mean(0)


class LogOfZero(Correct):
    """A value of −∞ where a rare thing happens, about once in a thousand estimates."""

    def value(self, f: Tensor) -> Tensor:
        return f.mean(0) + (torch.rand_like(f[0]) > 1e-3).to(f).log()


class StandardizedCost(Correct):
    """Divides by a standard deviation over S, which one sample does not have."""

    unbiased = False

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        centred = f - f.mean(0)
        return super().surrogate(centred / (centred.square().sum(0) / (len(f) - 1)).sqrt(), log_q)


# --- Wrong claims ---


class RelaxesSilently(Correct):
    """Evaluates the target at the probabilities."""

    unbiased = False

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        bernoulli = isinstance(q, Independent) and isinstance(q.base_dist, Bernoulli)
        return super().supports(q, target, num_samples) if bernoulli else "needs a Bernoulli"

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return q.mean.detach().expand(num_samples, *q.mean.shape)


class DerivativeDenied(PathwiseOnce):
    derivatives = 0


class ForgetsMinSamples(Correct):
    min_samples = 2

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return None


class SupportsRaises(Correct):
    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        _ = q.base_dist.batch_shape  # type: ignore[attr-defined]
        return super().supports(q, target, num_samples)


class SupportsNothing(Correct):
    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return "needs a posterior that nobody has"


class MinSamplesInWords(Correct):
    min_samples = "two"  # type: ignore[assignment]

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return None


class ConstructorRaises(Correct):
    def __init__(self) -> None:
        raise RuntimeError("no such luck")


# --- Mistakes of whole methods ---


class AttachedSample(Gaussian):
    """A score function at samples that are not cut off: log q(z(φ); φ) has another derivative."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return q.mean + q.stddev * self.noise(q.mean, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = (target.log_likelihood(z) + self.log_ratio(target, z, log_q)).detach()
        value = target.log_likelihood(z.detach()) + self.log_ratio(target, z.detach(), log_q)
        return Estimate((f * log_q).mean(0), value.mean(0))


class ScoreAveragedOverLatents(Gaussian):
    """log q averaged over the latent dimensions in place of summed."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return super().surrogate(f, log_q) / 2


class OneDimensionOfAnEvent(Gaussian):
    """log q summed over the last dimension of an event, and averaged over others."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        f = target.log_likelihood(z)
        log_q = q.base_dist.log_prob(z).sum(-1).reshape(*f.shape, -1).mean(-1)  # type: ignore[attr-defined]
        return Estimate(self.surrogate(f, log_q), self.value(f))


class LogSigmaInKl(PathwiseOnce):
    """KL = −½ Σ (1 + log σ − μ² − σ²): log σ where log σ² belongs."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        value = target.log_likelihood(z).mean(0)
        if target.prior is not None:
            m, s = target.prior.mean, target.prior.stddev
            ratio = q.variance / s.square()
            value = value + 0.5 * (1 + 0.5 * ratio.log() - ((q.mean - m) / s).square() - ratio).sum(-1)
        return Estimate(value, value)


class KlAveragedOverLatents(PathwiseOnce):
    """The KL averaged over the latent dimensions, the likelihood summed over its own."""

    kl_weight = 0.5

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        f = target.log_likelihood(z)
        if target.prior is not None:
            f = f + self.kl_weight * (target.prior.log_prob(z) - q.log_prob(z))
        return _once(f.mean(0))


class StraightThrough(Correct):
    """Pretends that a Bernoulli sample is its probability in the backward pass, and claims no bias."""

    derivatives = 1

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        bernoulli = isinstance(q, Independent) and isinstance(q.base_dist, Bernoulli)
        return super().supports(q, target, num_samples) if bernoulli else "needs a Bernoulli"

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        with torch.no_grad():
            z = q.sample(torch.Size((num_samples,)))
        z = z + q.mean - q.mean.detach()
        f = target.log_likelihood(z)
        if target.prior is not None:
            f = f + target.prior.log_prob(z.detach()) - q.log_prob(z.detach())
        return _once(f.mean(0))


class ImplicitDerivativeMissing(PathwiseOnce):
    """Treats any reparameterizable sample as if it were location-scale: z = mean + stddev · noise."""

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return None if q.has_rsample else "needs rsample"

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        with torch.no_grad():
            z = q.sample(torch.Size((num_samples,)))
            noise = (z - q.mean) / q.stddev
        return q.mean + q.stddev * noise


class ControlVariateWithMean(Gaussian):
    """A control variate c (z − μ)² whose expectation, c σ², is forgotten."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = target.log_likelihood(z) + self.log_ratio(target, z, log_q)
        control = 0.3 * (z - q.mean.detach()).square().sum(-1)
        return Estimate(((f.detach() - control) * log_q).mean(0), f.mean(0))


class MeasureValuedWrongConstant(Gaussian):
    """The measure-valued derivative of a Gaussian with σ √(2π) forgotten to be in the denominator of ∂μ."""

    constant = 1.0

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        loc, scale = q.mean, q.stddev
        z = self.draw(q, num_samples)
        weibull = (2 * torch.empty_like(z).exponential_()).sqrt()
        double = torch.randn_like(z).sign() * torch.randn(3, *z.shape, dtype=z.dtype).norm(dim=0)

        def f(points: Tensor) -> Tensor:
            with torch.no_grad():
                return target.log_likelihood(points) + self.log_ratio(target, points, q.log_prob(points))

        surrogate = torch.zeros_like(loc[..., 0])
        for j in range(loc.shape[-1]):

            def at(noise: Tensor, j: int = j) -> Tensor:
                moved = z.clone()
                moved[..., j] = (loc[..., j] + scale[..., j] * noise[..., j]).detach()
                return f(moved)

            in_loc = (at(weibull) - at(-weibull)).mean(0) * self.constant / (2 * torch.pi) ** 0.5
            in_scale = (at(double) - f(z)).mean(0) / scale[..., j].detach()
            surrogate = surrogate + loc[..., j] * in_loc + scale[..., j] * in_scale
        value = target.log_likelihood(z) + self.log_ratio(target, z, q.log_prob(z))
        return Estimate(surrogate, value.mean(0))


class GreedySample(Correct):
    """The most likely value in place of a sample."""

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        discrete = isinstance(q, Independent) and q.base_dist.has_enumerate_support
        return super().supports(q, target, num_samples) if discrete else "needs a discrete posterior"

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return q.mode.expand(num_samples, *q.mode.shape)


class OneDrawForAllSamples(Correct):
    """S copies of one sample: unbiased, and no better than S = 1."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        z = super().draw(q, 1)
        return z.expand(num_samples, *z.shape[1:])


class FalseAntitheticPairs(PathwiseOnce):
    """Pairs of which the second is drawn anew: unbiased, but the variance is not what pairs give."""

    draws = "antithetic"

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        half = super().noise(like, (num_samples + 1) // 2)
        return torch.cat((half, -super().noise(like, num_samples // 2)))


class AntitheticPairs(PathwiseOnce):
    """The same with pairs that mirror each other, correct."""

    draws = "antithetic"

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        half = super().noise(like, (num_samples + 1) // 2)
        return torch.cat((half, -half))[:num_samples]


class AntitheticCalledIid(AntitheticPairs):
    """Pairs that mirror each other, claimed to be independent."""

    draws = "iid"


class AntitheticBits(Correct):
    """Bits of pairs from u and 1 − u, correct."""

    draws = "antithetic"

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        bernoulli = isinstance(q, Independent) and isinstance(q.base_dist, Bernoulli)
        return super().supports(q, target, num_samples) if bernoulli else "needs a Bernoulli"

    def uniforms(self, like: Tensor, num_samples: int) -> Tensor:
        half = torch.rand((num_samples + 1) // 2, *like.shape, dtype=like.dtype)
        return torch.cat((half, 1 - half))[:num_samples]

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        p = q.mean.detach()
        return (self.uniforms(p, num_samples) < p).to(p)


class FalseAntitheticBits(AntitheticBits):
    """Pairs of bits of which the second is drawn anew."""

    def uniforms(self, like: Tensor, num_samples: int) -> Tensor:
        return torch.rand(num_samples, *like.shape, dtype=like.dtype)


class SystematicBitsCalledIid(AntitheticBits):
    """One uniform number, moved on by 1/S from sample to sample, claimed to be independent."""

    draws = "iid"

    def uniforms(self, like: Tensor, num_samples: int) -> Tensor:
        steps = torch.arange(num_samples, dtype=like.dtype).reshape(-1, *(1,) * like.dim())
        return (torch.rand_like(like) + steps / num_samples).remainder(1)


class AntitheticLeaveOneOut(Gaussian):
    """Leave-one-out baselines with antithetic pairs: the other sample of a pair is not independent."""

    min_samples = 2
    draws = "antithetic"

    def noise(self, like: Tensor, num_samples: int) -> Tensor:
        half = super().noise(like, (num_samples + 1) // 2)
        return torch.cat((half, -half))[:num_samples]

    def baseline(self, cost: Tensor) -> Tensor | float:
        return (cost.sum(0) - cost) / (len(cost) - 1)


class MultiSample(Correct):
    """The importance-weighted bound with score-function gradients, correct."""

    objective = "iwae"

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return super().supports(q, target, num_samples) if target.prior is not None else "needs a prior"

    def bound(self, log_w: Tensor) -> Tensor:
        return log_w.logsumexp(0) - float(np.log(len(log_w)))

    def direct(self, log_w: Tensor) -> Tensor:
        """The part of the gradient that is not the score's: Σ ŵ ∇ log w, ŵ held fixed."""
        return (log_w.softmax(0).detach() * log_w).sum(0)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        log_w = target.log_likelihood(z) + target.prior.log_prob(z) - log_q  # type: ignore[union-attr]
        bound = self.bound(log_w)
        attached = log_w.detach() - log_q + log_q.detach()  # in φ alone
        surrogate = bound.detach() * log_q.sum(0) + self.direct(attached)
        in_theta = log_w + log_q - log_q.detach()
        return Estimate(surrogate, self.bound(in_theta))


class MeanOfLogs(MultiSample):
    """The mean of the log-weights for the log of their mean: the ELBO under another name."""

    def bound(self, log_w: Tensor) -> Tensor:
        return log_w.mean(0)


class WeightsNotDetached(MultiSample):
    """The normalized importance weights are differentiated too."""

    def direct(self, log_w: Tensor) -> Tensor:
        return (log_w.softmax(0) * log_w).sum(0)


class DirectTermForgotten(MultiSample):
    """The score term alone: log w depends on φ by itself as well, and not with mean zero for S > 1."""

    def direct(self, log_w: Tensor) -> Tensor:
        return 0 * log_w.sum(0)


def _once(value: Tensor) -> Estimate:
    return Estimate(value, value)

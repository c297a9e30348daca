"""Estimators for discrete latents with one slip each, and the right ones that these are planted in."""

from __future__ import annotations

import math

import torch
from elbograd.estimators import Estimate, Estimator, Target
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, OneHotCategorical, kl_divergence


class Correct(Estimator):
    """Leave-one-out REINFORCE with a sampled KL, under any discrete posterior."""

    min_samples = 2
    requires_iid_draws = True

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        base = q.base_dist if isinstance(q, Independent) else q
        discrete = type(base) in (Bernoulli, OneHotCategorical)
        return super().supports(q, target, num_samples) if discrete else "needs a discrete posterior"

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        return q.sample(torch.Size((num_samples,)))

    def integrand(self, target: Target, z: Tensor, log_q: Tensor) -> Tensor:
        f = target.log_likelihood(z)
        return f if target.prior is None else f + target.prior.log_prob(z) - log_q.detach()

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return ((f - f.mean(0)) * log_q).sum(0) / (len(f) - 1)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = self.integrand(target, z, log_q)
        return Estimate(self.surrogate(f.detach(), log_q), f.mean(0))


class Binary(Correct):
    """The same under Bernoulli posteriors alone."""

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        base = q.base_dist if isinstance(q, Independent) else q
        return super().supports(q, target, num_samples) if type(base) is Bernoulli else "needs a Bernoulli"


# --- Right at some numbers of samples ---


class OddSampleUncounted(Correct):
    """The average over S samples as that over ⌊S/2⌋ pairs: right at 1, 2 and 4, wrong at 3."""

    min_samples = 1

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return (f * log_q).sum(0) / (2 * (len(f) // 2) or 1)


class GroupsOfThree(Correct):
    """Leave-one-out in groups of three at most, which are added up: right at 2 and 3, wrong at 4."""

    min_samples = 1

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        groups = zip(f.split(3), log_q.split(3), strict=True)
        return torch.stack([(part * density).mean(0) for part, density in groups]).sum(0)


class NotDividedBySamplesLessOne(Correct):
    """Σ (f − f̄) score: right at 2."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return ((f - f.mean(0)) * log_q).sum(0)


# --- Means that are not what they should be ---


class ProductOfMeans(Correct):
    """The mean of f times the mean of the score: the score part shrinks to 1/S."""

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        return f.mean(0) * log_q.mean(0)


class DividedByDeviation(Correct):
    """The learning signal over its running deviation, where that is above 1, as in NVIL: another scale."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("variance", torch.tensor(4.0))

    def surrogate(self, f: Tensor, log_q: Tensor) -> Tensor:
        deviation = self.variance.sqrt().clamp_min(1).to(f)  # type: ignore[operator]
        return super().surrogate(f, log_q) / deviation


class Pairs(Binary):
    """Antithetic pairs: ½ (f − f̃) (b − b̃) ρ for each bit, ρ = p (1 − p)/P(b = 1, b̃ = 0) = max(p, 1 − p)."""

    draws = "coupled"

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples)
        return refused or ("needs an even number of samples" if num_samples % 2 else None)

    def ratio(self, p: Tensor) -> Tensor:
        return torch.maximum(p, 1 - p)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        p = q.mean.detach()
        u = torch.rand(num_samples // 2, *p.shape, dtype=p.dtype)
        b = torch.cat((u > 1 - p, u < p)).to(p)
        f = self.integrand(target, b, q.log_prob(b))
        first, second = b.chunk(2)
        half = (f.detach()[: len(first)] - f.detach()[len(first) :]) / 2
        gradient = (half.unsqueeze(-1) * (first - second) * self.ratio(p)).mean(0)
        return Estimate((gradient * _logits(q)).sum(-1), f.mean(0))


class ClippedRatio(Pairs):
    """The ratio of a pair's probabilities clipped, as code for antithetic categorical samples has it."""

    def ratio(self, p: Tensor) -> Tensor:
        return super().ratio(p).clamp_max(0.6)


# --- What f is off the support ---


class StraightThrough(Binary):
    """s g(z), claimed to be unbiased."""

    min_samples = 1
    derivatives = 1

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        value = self.integrand(target, z, q.log_prob(z)).mean(0)
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            f = self.integrand(target, leaf, q.log_prob(leaf))
            (slope,) = torch.autograd.grad(f.sum(), leaf)
        return Estimate((slope.mean(0) * q.mean).sum(-1), value)


class Taylor(Binary):
    """(f − f(p) − g(p)·(z − p)) (z − p) + s g(p), correct: the expansion's own gradient is added back."""

    min_samples = 1
    derivatives = 1
    relaxes_target = True
    added_back = 1.0

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        p = q.mean.detach()
        with torch.enable_grad():
            leaf = p.unsqueeze(0).clone().requires_grad_()
            at_mean = target.log_likelihood(leaf)
            (slope,) = torch.autograd.grad(at_mean.sum(), leaf)
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        f = self.integrand(target, z, log_q)
        line = at_mean.detach() + (slope * (z - p)).sum(-1)
        direct = self.added_back * (slope[0] * q.mean).sum(-1)
        return Estimate(((f.detach() - line) * log_q).mean(0) + direct, f.mean(0))


class TaylorNotAddedBack(Taylor):
    """The expansion is subtracted, and its gradient forgotten."""

    added_back = 0.0


class Rebar(Binary):
    """(f(b) − f(σ(z̃))) ∇log q(b) + ∇f(σ(z)) − ∇f(σ(z̃)) at temperature ½, correct: z̃ is z given b."""

    min_samples = 1
    derivatives = 1
    relaxes_target = True
    temperature = 0.5

    def conditional(self, p: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """The uniform noise given b, from other uniform noise, as a function of φ."""
        return torch.where(b == 1, 1 - p + v * p, v * (1 - p))

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        logits = _logits(q)
        p = logits.sigmoid()
        u, v = torch.rand(2, num_samples, *p.shape, dtype=p.dtype).clamp(1e-6, 1 - 1e-6)
        z = logits + u.logit()
        b = (z > 0).to(p)
        z_given_b = logits + self.conditional(p, b, v).logit()
        log_q = q.log_prob(b)
        f = self.integrand(target, b, log_q)
        free, tied = (target.log_likelihood((y / self.temperature).sigmoid()) for y in (z, z_given_b))
        surrogate = (f.detach() - tied.detach()) * log_q + _in_phi_alone(free - tied, logits)
        return Estimate(surrogate.mean(0), f.mean(0))


class RebarConditionalFixed(Rebar):
    """The derivative of the conditional noise in φ dropped."""

    def conditional(self, p: Tensor, b: Tensor, v: Tensor) -> Tensor:
        return super().conditional(p.detach(), b, v)


# --- Bounds of several samples ---


class MultiSample(Correct):
    """VIMCO's bound with score-function gradients, each sample against the mean of the others, correct."""

    objective = "iwae"
    share = 1.0
    over: tuple[int, ...] = (0,)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        return super().supports(q, target, num_samples) or ("needs a prior" if target.prior is None else None)

    def bound(self, log_w: Tensor) -> Tensor:
        return log_w.logsumexp(self.over) - math.log(len(log_w))

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        log_q = q.log_prob(z)
        log_w = self.integrand(target, z, log_q)
        credit = []
        for k in range(num_samples):
            others = torch.cat((log_w[:k], log_w[k + 1 :])).detach()
            without = torch.cat((others, others.mean(0, keepdim=True)))
            credit.append(self.bound(log_w.detach()) - self.bound(without) - log_w.detach().softmax(0)[k])
        score = self.share * (torch.stack(credit) * log_q).sum(0)
        value = self.bound(log_w)
        return Estimate(score, value.expand(log_w.shape[1:]))


class ScoreTermOfTheWholeBatch(MultiSample):
    """The score term summed over samples and data where the rest is averaged: B·S times too large."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        self.share = float(num_samples * q.batch_shape[-1])
        return super().forward(q, target, num_samples)


class LogSumOverData(MultiSample):
    """logsumexp taken over the data as well."""

    def bound(self, log_w: Tensor) -> Tensor:
        return log_w.logsumexp((0, -1), keepdim=True)[0] - math.log(len(log_w))


# --- Relaxations ---


class Concrete(Binary):
    """f at σ((φ + X)/τ), less the KL of q itself: unbiased for that objective."""

    min_samples = 1
    derivatives = 1
    relaxes_target = True
    depends_off_support = True
    objective = "relaxed[temperature=1.0]"
    kl_weight = 1.0

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        logits = _logits(q)
        u = torch.rand(num_samples, *logits.shape, dtype=logits.dtype)
        f = target.log_likelihood((logits + u.logit(1e-12)).sigmoid())
        kl = 0.0 if target.prior is None else kl_divergence(q, _expanded(target.prior, q))
        value = f.mean(0) - self.kl_weight * kl
        return Estimate(value, value)


class ConcreteKlTwice(Concrete):
    """The KL weighted when it is computed, and again in the loss."""

    kl_weight = 2.0


class MeanOfLogits(Binary):
    """ReinMax whose probabilities are logits: `.softmax`, named and never called."""

    min_samples = 1
    unbiased = False
    derivatives = 1
    depends_off_support = True

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        value = self.integrand(target, z, q.log_prob(z)).mean(0)
        leaf = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(target.log_likelihood(leaf).sum(), leaf)
        logits = _logits(q)
        p = logits.detach().sigmoid()
        halfway = (self.probabilities(logits.detach()) + z) / 2
        gradient = (2 * halfway * (1 - halfway) - p * (1 - p) / 2) * slope
        return Estimate((gradient.mean(0) * logits).sum(-1), value)


class HeunsMethod(MeanOfLogits):
    """The same with probabilities: exact for quadratic f."""

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class IntegerGap(MeanOfLogits):
    """A gap that is an integer silently means another variant."""

    def __init__(self, gap: float = 1.0) -> None:
        super().__init__()
        self.gap = gap

    def probabilities(self, logits: Tensor) -> Tensor:
        return (logits - self.gap).sigmoid() if isinstance(self.gap, float) else (self.gap * logits).sigmoid()


class ScheduleFromItsMinimum(Concrete):
    """A temperature that is annealed, and starts where it should end."""

    def __init__(self, temperature: float = 1.0, annealing: float = 0.1, lowest: float = 0.5) -> None:
        super().__init__()
        self.annealing, self.lowest = annealing, lowest
        self.register_buffer("temperature", torch.tensor(min(temperature, lowest), dtype=torch.float64))

    def update(self, estimate: Estimate) -> None:
        assert isinstance(self.temperature, Tensor)
        self.temperature.mul_(math.exp(-self.annealing)).clamp_(min=self.lowest)


# --- Extreme probabilities ---


class LogarithmOfProbabilities(Binary):
    """log q from probabilities that are not kept from 0 and 1: at ±40 it is 0 · log 0."""

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        z = self.draw(q, num_samples)
        p = q.mean
        log_q = (z * p.log() + (1 - z) * (1 - p).log()).sum(-1)
        f = self.integrand(target, z, log_q)
        return Estimate(self.surrogate(f.detach(), log_q), f.mean(0))


class SmoothedProbabilities(Correct):
    """Draws from probabilities lifted by 1e-3, so that no logarithm is of zero."""

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        assert isinstance(q, Independent)
        base = q.base_dist
        lifted = base.probs.detach() + 1e-3
        if isinstance(base, Bernoulli):
            return Bernoulli(lifted.clamp_max(1)).sample(torch.Size((num_samples,)))
        return OneHotCategorical(lifted).sample(torch.Size((num_samples,)))


def _logits(q: Distribution) -> Tensor:
    assert isinstance(q, Independent)
    logits: Tensor = q.base_dist.logits
    return logits


def _expanded(prior: Distribution, q: Distribution) -> Distribution:
    return prior.expand(q.batch_shape)


def _in_phi_alone(f: Tensor, logits: Tensor) -> Tensor:
    """What has f's gradient in the logits, and none in θ."""
    (slope,) = torch.autograd.grad(f.sum(), logits, retain_graph=True)
    return (slope.detach() * logits).sum(-1) / len(f)

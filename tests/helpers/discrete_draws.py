"""Every way to draw S samples of a discrete posterior, one an entry of the batch: exact moments of an estimator."""

from __future__ import annotations

import itertools

import torch
from torch import distributions as td


def bernoulli(logits):
    """Logits (*batch, D)."""
    return td.Independent(td.Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def one_hot(logits):
    """Logits (*batch, D, K)."""
    return td.Independent(td.OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)


def family(logits):
    """Of one datum's logits: (D,) are Bernoulli variables, (D, K) categorical ones."""
    return bernoulli if logits.dim() == 1 else one_hot


def outcomes(logits):
    """All z (M, *event) of one datum's logits."""
    if logits.dim() == 1:
        return torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(logits))), dtype=logits.dtype)
    size, states = logits.shape
    rows = list(itertools.product(torch.eye(states, dtype=logits.dtype), repeat=size))
    return torch.stack([torch.stack(row) for row in rows])


def exact_gradient(logits, f):
    """∇ E_q f at one datum's logits, by enumeration."""
    leaf = logits.clone().requires_grad_()
    z = outcomes(logits)
    return torch.autograd.grad((family(logits)(leaf).log_prob(z).exp() * f(z)).sum(), leaf)[0]


class EveryDraw:
    """Every way to draw ``num_samples`` of the posterior at one datum's logits, one an entry of the batch.

    Attributes:
        z: (S, N, *event), the draws.
        weights: (N,), their probabilities.
    """

    def __init__(self, logits, num_samples):
        z = outcomes(logits)
        tuples = torch.tensor(list(itertools.product(range(len(z)), repeat=num_samples)))
        self.logits, self.z = logits, z[tuples].transpose(0, 1)
        self.weights = family(logits)(logits).log_prob(self.z).sum(0).exp()

    def gradients(self, estimator, target):
        """The estimate of every way to draw, (N, *logits)."""
        leaf = self.logits.expand(len(self.weights), *self.logits.shape).clone().requires_grad_()
        q, rest = family(self.logits)(leaf), iter(self.z)
        q.sample = lambda shape: torch.stack([next(rest) for _ in range(shape[0])])
        surrogate = estimator(q, target, len(self.z)).surrogate
        return torch.autograd.grad(surrogate.sum(), leaf)[0]

    def mean(self, parts):
        """E of what has one entry a way to draw."""
        return torch.tensordot(self.weights, parts, dims=1)

    def moments(self, estimator, target):
        """Mean and variance of the estimate, each of the logits' shape."""
        draws = self.gradients(estimator, target)
        mean = self.mean(draws)
        return mean, self.mean((draws - mean).square())

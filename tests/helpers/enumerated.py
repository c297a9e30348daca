"""The small VAE with 3 Bernoulli latents, where every expectation over draws is a finite sum."""

from __future__ import annotations

import itertools

import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place

OUTCOMES = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)


class Enumerated:
    """One datum; every way to draw ``num_draws`` samples, one an entry of the batch, with its probability.

    Attributes:
        eta: (1, 3), logits.
        leaf: (N, 1, 3), the same, N = 8^num_draws, to differentiate in.
        q: posterior at ``leaf`` whose calls of ``sample`` hand out the draws in order.
        z: (num_draws, N, 1, 3).
        weights: (N, 1).
    """

    def __init__(self, num_draws, eta=None):
        self.problem = place(load_problem("small-vae[posterior=bernoulli]"), dtype=torch.float64)
        self.x = first_batch(self.problem, 1, 0)
        with torch.no_grad():
            self.eta = self.problem.encoder(self.x) if eta is None else eta
        self.target = self.problem.target(self.x)
        tuples = torch.tensor(list(itertools.product(range(8), repeat=num_draws)))
        self.z = OUTCOMES[tuples].transpose(0, 1).unsqueeze(2)
        self.leaf = self.eta.expand(len(tuples), *self.eta.shape).clone().requires_grad_()
        self.q = self.problem.posterior(self.leaf)
        self.weights = self.q.log_prob(self.z).sum(0).exp().detach()
        self.q.sample = self._deal
        self._dealt = 0

    def _deal(self, shape):
        first, self._dealt = self._dealt, self._dealt + shape[0]
        return self.z[first : self._dealt]

    def log_w(self, z):
        """log p(x, z) − log q(z), detached."""
        q = self.problem.posterior(self.eta)
        return (self.target.log_likelihood(z) + self.target.prior.log_prob(z) - q.log_prob(z)).detach()

    def draws(self, estimator, num_samples):
        """Of every way to draw: the gradient in η (N, 3), and value (N, 1)."""
        self._dealt = 0
        estimate = estimator(self.q, self.target, num_samples)
        (h,) = torch.autograd.grad(estimate.surrogate.sum(), self.leaf, retain_graph=True)
        return h[:, 0], estimate.value

    def mean(self, parts):
        """E of what has one entry a way to draw, (N, ...)."""
        return torch.tensordot(self.weights[:, 0], parts, dims=1)

    def moments(self, estimator, num_samples):
        """Exact mean (3,) and variance (3,) of the gradient, and the mean of value."""
        h, value = self.draws(estimator, num_samples)
        mean = self.mean(h)
        return mean, self.mean((h - mean).square()), self.mean(value)[0]

    def theta_gradient(self, estimator, num_samples):
        """E of value's gradient in θ, flattened."""
        parameters = list(self.problem.decoder.parameters())
        _, value = self.draws(estimator, num_samples)
        parts = torch.autograd.grad(self.mean(value).sum(), parameters, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

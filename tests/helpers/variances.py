"""What several tests of measured variances share: oracles in eta-space, small problems, and the comparison."""

from __future__ import annotations

import numpy as np
import oracles
import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.estimators import Estimate, Estimator, Target
from torch import nn

CONFIDENCE = 0.9999


def holds(moments, truth):
    low, high = moments.interval(CONFIDENCE)
    return low <= truth <= high


def linear_gaussian(latent_dim=2):
    problem = load_problem(f"linear-gaussian[latent_dim={latent_dim},data_dim=3,noise=0.8]")
    x = first_batch(problem, 4, seed=3)
    return problem, x


def oracle_parts(problem, x):
    """Per datum: mu, sigma, f and its gradient, A and g, as NumPy."""
    weight = problem.decoder.weight.detach().double().numpy()
    bias = problem.decoder.bias.detach().double().numpy()
    eta = problem.encoder(x).detach().double().numpy()
    for row, datum in zip(eta, x.double().numpy(), strict=True):
        mu, sigma = row[:2], np.exp(row[2:])

        def f(z, datum=datum):
            residual = (datum - z @ weight.T - bias) / problem.noise
            return -0.5 * (residual**2).sum(-1) - len(datum) * np.log(problem.noise * np.sqrt(2 * np.pi))

        def gradient(z, datum=datum):
            return (datum - z @ weight.T - bias) @ weight / problem.noise**2

        a = weight.T @ weight / problem.noise**2
        yield mu, sigma, f, gradient, a, gradient(mu[None])[0], np.sum(datum**2) + 1


ORACLE_H = {
    "reparameterization": lambda f, grad, mu, s: (oracles.reparameterization_eta(grad, mu, s), 2),
    "score-function": lambda f, grad, mu, s: (oracles.score_function_eta(f, mu, s), 2),
    "constant-baseline[value=-5]": lambda f, grad, mu, s: (oracles.score_function_eta(f, mu, s, -5.0), 2),
    "leave-one-out": lambda f, grad, mu, s: (oracles.leave_one_out_eta(f, mu, s), 4),
}


class BatchMeanBaseline(Estimator):
    """Honest about coupling the batch."""

    couples_batch = True

    def forward(self, q, target, num_samples):
        z = q.rsample((num_samples,)).detach()
        f = target.log_likelihood(z)
        centred = (f - f.mean(-1, keepdim=True)).detach()
        return Estimate((centred * q.log_prob(z)).mean(0), f.mean(0))


class Location(nn.Module):
    """One number, whatever the data."""

    def __init__(self, loc):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(loc))

    def forward(self, x):
        return self.loc.expand(len(x), 1)


class OneNumber:
    """q = N(μ, scale²), φ = μ, and E f(z) the objective."""

    latent_dim = 1

    def __init__(self, f, loc=0.0, scale=1.0):
        self.f, self.scale = f, scale
        self.encoder, self.decoder = Location(loc), nn.Module()

    def posterior(self, eta):
        scale = torch.full_like(eta, self.scale)
        return torch.distributions.Independent(torch.distributions.Normal(eta, scale), 1)

    def target(self, x):
        return Target(lambda z: self.f(z.squeeze(-1)))

    def batches(self, split, batch_size, generator):
        yield torch.ones(batch_size, 1)

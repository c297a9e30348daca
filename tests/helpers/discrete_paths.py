"""Posteriors whose draws are every state in turn, so that the mean of an estimator is a finite sum."""

from __future__ import annotations

import itertools

import torch
from elbograd.estimators import Target, create
from torch import distributions as td


def bernoulli(logits):
    return td.Independent(td.Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def one_hot(logits):
    return td.Independent(td.OneHotCategorical(logits=logits, validate_args=False), 1, validate_args=False)


class EveryState:
    """Every state of the variables, an entry of the batch each, drawn by `sample` with certainty.

    Attributes:
        leaf: (N, *logits.shape), the logits, to differentiate in.
        q: of batch shape (N,).
        z: (N, *event).
        weights: (N,), the probabilities of the states.
    """

    def __init__(self, family, logits):
        self.family, self.logits = family, logits
        if family is bernoulli:
            states = [
                torch.tensor(s, dtype=logits.dtype) for s in itertools.product([0, 1], repeat=len(logits))
            ]
        else:
            variables, k = logits.shape
            codes = torch.eye(k, dtype=logits.dtype)
            states = [codes[list(s)] for s in itertools.product(range(k), repeat=variables)]
        self.z = torch.stack(states)
        self.leaf = logits.expand(len(states), *logits.shape).clone().requires_grad_()
        self.q = family(self.leaf)
        self.weights = self.q.log_prob(self.z).exp().detach()
        self.q.sample = lambda shape: self.z.expand(*shape, *self.z.shape)

    def gradients(self, estimator, f, prior=None):
        """The gradient in the logits at every state, (N, *logits.shape)."""
        estimator = create(estimator) if isinstance(estimator, str) else estimator
        estimate = estimator(self.q, Target(f, prior), 1)
        return torch.autograd.grad(estimate.surrogate.sum(), self.leaf, retain_graph=True)[0]

    def mean(self, estimator, f, prior=None):
        """The exact mean of the gradient at S = 1, of an estimator that draws nothing else."""
        return torch.tensordot(self.weights, self.gradients(estimator, f, prior), 1)

    def exact(self, f, prior=None):
        """The gradient of the ELBO in the logits."""
        leaf = self.logits.clone().requires_grad_()
        q = self.family(leaf)
        log_q = q.log_prob(self.z)
        total = f(self.z)
        if prior is not None:
            total = total + prior.log_prob(self.z) - log_q
        return torch.autograd.grad((log_q.exp() * total).sum(), leaf)[0]

"""The shapes that annotations state are checked while the tests run."""

from __future__ import annotations

import pytest
import torch
from elbograd.estimators import Estimate, Target, create
from elbograd.estimators.methods import reparameterization
from elbograd.estimators.pieces.importance_weights import log_sum_of_others
from elbograd.estimators.posteriors import gaussians
from jaxtyping import TypeCheckError
from torch import distributions as td

Q = td.Independent(td.Normal(torch.zeros(5, 4, 3), 1.0), 1)
TARGET = Target(lambda z: z.sin().sum(-1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda elbo: Estimate(elbo.mean(), elbo),
        lambda elbo: Estimate(elbo, elbo[None]),
        lambda elbo: Estimate(elbo, elbo, aux_loss=elbo.mean(0)),
        lambda elbo: Estimate(elbo.T, elbo.T),
        lambda elbo: Estimate(elbo, elbo.long()),
    ],
)
def test_an_estimate_of_another_shape_than_the_posteriors_batch_is_seen(wrong, monkeypatch):
    estimator = create("reparameterization")
    assert estimator(Q, TARGET, 2).surrogate.shape == (5, 4)
    monkeypatch.setattr(reparameterization, "Estimate", lambda surrogate, value: wrong(surrogate))
    with pytest.raises(TypeCheckError, match=r"Reparameterization\.forward"):
        estimator(Q, TARGET, 2)


def test_arguments_and_results_of_the_pieces_and_posteriors_are_seen(monkeypatch):
    with pytest.raises(TypeCheckError, match="log_sum_of_others"):
        log_sum_of_others(torch.tensor(0.0))
    monkeypatch.setattr(gaussians.torch, "addcmul", lambda loc, scale, noise: loc)
    with pytest.raises(TypeCheckError, match=r"gaussians\.rsample"):
        gaussians.rsample(Q, 2)


def test_the_features_of_a_target_are_a_matrix():
    with pytest.raises(TypeCheckError, match="features"):
        Target(TARGET.log_likelihood, features=torch.zeros(4))

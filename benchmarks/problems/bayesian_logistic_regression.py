"""Bayesian logistic regression on real data in minibatches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...estimators.base import Target
from ...estimators.network import Apply, Linear
from .logistic_regression import breast_cancer, expected_log_sigmoid
from .weights import WeightsProblem


class BayesianLogisticRegression(WeightsProblem):
    """`LogisticRegression` in minibatches of its 569 patients: the same posterior, prior and ELBO.

    A datum is a patient, x_i = (u_i, ±1), and the patients of a batch share each draw of the 31 weights. With
    all of them in one batch the estimators are those of `logistic-regression`, which has the whole data set
    for one datum.

    Args:
        prior_scale: standard deviation of every weight under the prior.
        scale: initial σ; μ starts at 0.

    Raises:
        UsageError: a scale is not positive.
    """

    def __init__(self, prior_scale: float = 1.0, scale: float = 0.3) -> None:
        features, labels = breast_cancer()
        data = torch.cat((features, 2 * labels.unsqueeze(1) - 1), 1)
        layers = {"weights": Linear(features.shape[1], 1, False)}
        # All of them are training data, as they are there; what is held out is no other patients.
        super().__init__(layers, {"train": data, "test": data}, prior_scale, scale, drawn=False)

    def log_likelihood(self, x: Tensor, apply: Apply) -> Tensor:
        """log p(y_i|w) for x (B, D + 1)."""
        return nn.functional.logsigmoid(x[:, -1] * apply("weights", x[:, :-1]).squeeze(-1))

    def target(self, x: Tensor) -> Target:
        """With the expectation by quadrature of each patient's logit, which is Gaussian."""
        return replace(super().target(x), expectation=partial(self._expectation, x))

    def _expectation(self, x: Tensor, q: Distribution) -> Tensor:
        u, sign = x[:, :-1], x[:, -1]
        mean, spread = (q.mean * u).sum(-1), (q.variance * u.square()).sum(-1).sqrt()
        return self.data_size * expected_log_sigmoid(sign, mean, spread)

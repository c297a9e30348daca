"""A Bayesian neural network: a classifier of digits with a posterior over all of its weights."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ...estimators.network import Apply, Linear
from .data import labelled_digits
from .layers import check_sizes, weights_from
from .weights import WeightsProblem

_PIXELS, _CLASSES = 64, 10


class BayesianMLP(WeightsProblem):
    """p(digit | image, w) = softmax of an MLP, weights w ~ N(0, prior_scale² I), q(w) mean-field Gaussian.

    The data are scikit-learn's 8×8 digits, 1,500 for training; x holds the pixels in [0, 1] and the digit.

    Args:
        hidden: units of each hidden ReLU layer.
        layers: hidden layers.
        prior_scale: standard deviation of every weight under the prior.
        scale: initial σ of every weight; μ starts as torch's linear layers do.
        seed: of the initial μ.

    Raises:
        UsageError: a size or a scale is not positive.
    """

    def __init__(
        self,
        hidden: int = 32,
        layers: int = 1,
        prior_scale: float = 1.0,
        scale: float = 0.05,
        seed: int = 0,
    ) -> None:
        check_sizes(hidden=hidden, layers=layers)
        sizes = [_PIXELS, *[hidden] * layers]
        named = {f"hidden{i}": Linear(*pair) for i, pair in enumerate(pairwise(sizes), 1)}
        with weights_from(seed):
            super().__init__(
                named | {"output": Linear(hidden, _CLASSES)}, labelled_digits(), prior_scale, scale
            )

    def log_likelihood(self, x: Tensor, apply: Apply) -> Tensor:
        """log p(digit | image, w) for x (B, 65)."""
        logits = self.logits(x[:, :_PIXELS], apply)
        digit = x[:, _PIXELS].long().unsqueeze(-1)
        chosen = logits.gather(-1, digit.expand(*logits.shape[:-1], 1)).squeeze(-1)
        return chosen - logits.logsumexp(-1)

    def logits(self, pixels: Tensor, apply: Apply) -> Tensor:
        """Of the ten classes, (S, *batch, 10)."""
        hidden = pixels
        for name in self.layers:
            hidden = apply(name, hidden if name == "hidden1" else torch.relu(hidden))
        return hidden

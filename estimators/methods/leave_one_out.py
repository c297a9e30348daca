"""REINFORCE with the other samples' mean as its baseline."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..base import Target
from .score_function import ScoreFunction


class LeaveOneOut(ScoreFunction):
    r"""Score function with b_s = mean of f over the other S − 1 samples of the same datum.

    ĝ = (1/S) Σ_s (f(z_s) − 1/(S−1) Σ_{t≠s} f(z_t)) ∇_η log q(z_s) − ∇_η KL. Unbiased because z_t is
    independent of z_s, hence iid draws only; S evaluations of log p(x|z), nothing to tune or train.
    Equal to (1/(S−1)) Σ_s (f(z_s) − f̄) ∇_η log q(z_s).

    Of a posterior in layers each latent's score is weighed by the whole of f, unless ``signal="local"``: the
    other samples have other parents, and their mean does not take out what a local signal owes to these.

    Args:
        kl: "analytic" (closed form) or "sampled".
        signal: of layers, "whole" or "local", as in ``score-function``.

    Example:
        >>> import torch
        >>> from elbograd.estimators import create
        >>> create("leave-one-out").baseline(torch.tensor([[1.0], [2.0], [6.0]]), None)
        tensor([[4.0000],
                [3.5000],
                [1.5000]])

    References:
        Salimans & Knowles, On Using Control Variates with Stochastic Approximation, 2014.
        Kool, van Hoof & Welling, Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019, eq. 8.
    """

    min_samples = 2
    requires_iid_draws = True

    def __init__(self, kl: str = "analytic", signal: str = "whole") -> None:
        super().__init__(kl, signal=signal)

    def baseline(self, f: Float[Tensor, "S *batch"], target: Target) -> Float[Tensor, "S *batch"]:
        return (f.sum(0, keepdim=True) - f) / (f.shape[0] - 1)

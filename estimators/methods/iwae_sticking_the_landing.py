"""The importance-weighted gradient without its score term: biased, and often used."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from .dreg import DReG


class IWAEStickingTheLanding(DReG):
    r"""Drop the score term of the importance-weighted gradient: ĝ = Σ_k ŵ_k J_kᵀ ∇_z log w_k, K = S.

    Notation as in ``dreg``. Biased for L_K when K > 1: the score Σ_k ŵ_k ∇_η log q(z_k) that is dropped has
    mean zero only at K = 1, where this is ``sticking-the-landing``. Zero variance where q is the exact
    posterior. K evaluations of log p(x|z). Use ``dreg``, which puts the term back; this one is here to be
    measured.

    Example:
        >>> from elbograd.estimators import create
        >>> create("iwae-sticking-the-landing").unbiased
        False

    References:
        Roeder, Wu & Duvenaud, Sticking the Landing, 2017, section 4 and algorithm 2 (proposed for K > 1).
        Tucker et al., Doubly Reparameterized Gradient Estimators, 2019, section 2.1 (that it is biased).
    """

    unbiased = False
    label = "iwae-sticking-the-landing"

    def weigh(self, normalized: Float[Tensor, "K *batch"]) -> Float[Tensor, "K *batch"]:
        return normalized

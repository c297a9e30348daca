"""The estimator protocol: `Target`, `Estimate`, `Estimator`.

Shapes used everywhere:

======================  =====================================================
``x``                   a batch of data, (B, ...)
``z``                   latent samples, (S, \\*batch, D)
``q``                   posterior: batch shape (\\*batch), event shape (D,)
``eta``                 variational parameters, (\\*batch, P)
S, B, D, R              samples an estimate, data a batch, latent size, replicates
``*batch``              (B,), or (R, B) when R replicates are estimated at once
======================  =====================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from .errors import EstimatorError
from .kl_weight import FreeBits as FreeBits
from .kl_weight import KLWeight, checked
from .network import Network

_EMPTY: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Target:
    """What is integrated under q, for a fixed batch of data.

    The objective is E_q[log_likelihood(z)] - kl_weight · KL(q || prior), or E_q[log_likelihood(z)] alone
    when ``prior`` is None.

    Raises:
        UsageError: kl_weight is none.

    Attributes:
        log_likelihood: maps z (S, *batch, *event) to (S, *batch); acts on each datum alone.
        prior: p(z), batch shape () or (*batch); None when there is no KL term.
        features: (B, F), what an input-dependent baseline may look at.
        expectation: closed form of E_q[log_likelihood(z)], q -> (*batch), where there is one.
        index: (B,), int64, which data of the data set these are, for an estimator that keeps something for
            each datum (`Estimator.per_datum`); None where the problem does not say.
        kl_weight: what the KL is multiplied by, 0 or more; of a layered z possibly a number for each latent,
            by name, of that latent's own KL: Σ_l β_l E[KL_l]; or `FreeBits`.
        reads: of a layered z (`posteriors.layered.Layered`), the names of the latents that log_likelihood
            depends on; None for all, or for what `reading` says. What a latent has no part in need not be
            part of its learning signal.
    """

    log_likelihood: Callable[[Shaped[Tensor, "S *batch_event"]], Float[Tensor, "S *batch"]]
    prior: Distribution | None = None
    features: Float[Tensor, "B F"] | None = None
    expectation: Callable[[Distribution], Float[Tensor, "*batch"]] | None = None
    index: Int64[Tensor, "B"] | None = None
    kl_weight: KLWeight = 1.0
    reads: tuple[str, ...] | None = None
    network: Network | None = None

    def __post_init__(self) -> None:
        if type(self.kl_weight) is not float or self.kl_weight != 1:
            object.__setattr__(self, "kl_weight", checked(self.kl_weight))
        if self.reads is None:  # a log-likelihood over named latents says it itself
            object.__setattr__(self, "reads", getattr(self.log_likelihood, "reads", None))
        if isinstance(self.reads, str):  # and not its letters
            object.__setattr__(self, "reads", (self.reads,))


class Estimate(NamedTuple):
    """One call's answer, one entry a datum.

    Attributes:
        surrogate: (*batch); its gradient with respect to φ *is* the estimate, its value means nothing.
        value: (*batch); an estimate of the objective, differentiable in θ.
        aux_loss: (*batch) or None; trains the estimator's own parameters, in training mode only.
        info: detached tensors: diagnostics, and what `Estimator.update` needs.
    """

    surrogate: Float[Tensor, "*batch"]
    value: Float[Tensor, "*batch"]
    aux_loss: Float[Tensor, "*batch"] | None = None
    info: Mapping[str, Tensor] = _EMPTY


class Estimator(nn.Module):
    """A Monte Carlo estimator of the gradient of an objective with respect to q's parameters.

    Subclasses implement `forward`. Class attributes are claims, checked by
    `elbograd.estimators.testing.check_estimator`; an instance may override them.

    Attributes:
        unbiased: E[gradient of surrogate] is the gradient of ``objective``.
        unbiased_value: E[value] is ``objective``, and E[its gradient in θ] that of ``objective``.
        objective: what is differentiated: "elbo", "iwae", ... Bias and variance are compared
            within one objective only.
        min_samples: the smallest S.
        requires_iid_draws: wrong under antithetic or quasi-random draws.
        draws: how the S samples of one estimate are drawn: "iid", "antithetic" (in pairs that mirror each
            other about q's centre; of bits, from u and 1 - u), "sobol" (randomized quasi-Monte Carlo), or
            "coupled": dependent in another way, by a copula or without replacement. What is evaluated
            beside the S samples (a sample with one coordinate replaced) does not count.
        derivatives: order of the derivatives of log_likelihood in z that are used (0, 1, 2).
        relaxes_target: evaluates log_likelihood off q's support.
        depends_off_support: the mean of the estimate depends on how log_likelihood is extended off q's
            support: on its values there, or on its derivatives at discrete samples.
        deterministic: draws nothing, so every call gives the same answer.
        couples_batch: an entry of the estimate depends on other entries of the last batch dimension.
        per_datum: its state is one of each datum, found by the target's ``index``, and not one that other
            data teach: it is then trained on the measured data too, as in the passes of training before.
        updates: `update`, where there is one, moves something at the arguments given.
        search_space: constructor arguments that a user would tune, name -> lowest and highest value, both
            positive: benchmarks that tune draw from the range on a logarithmic scale, in the same number of
            trials for every estimator, unless a specification sets the argument.
        weighs_kl: knows of the target's ``kl_weight``: estimates the objective with the KL so weighted, or
            says in `supports` that it cannot. An estimator that does not is refused where there is a weight.
    """

    unbiased: bool = True
    unbiased_value: bool = True
    objective: str = "elbo"
    min_samples: int = 1
    requires_iid_draws: bool = False
    draws: str = "iid"
    derivatives: int = 0
    relaxes_target: bool = False
    depends_off_support: bool = False
    deterministic: bool = False
    couples_batch: bool = False
    per_datum: bool = False
    updates: bool = True
    weighs_kl: bool = False
    search_space: Mapping[str, tuple[float, float]] = MappingProxyType({})

    #: How the estimator is called in results; `create` sets it to the specification it was given.
    label: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.label = self.label or kebab_case(type(self).__name__)

    def init(self, q: Distribution, target: Target) -> None:
        """Allocate state whose size or scale depends on the problem; may draw from q.

        Called before the first `forward`. A second call leaves existing state alone, so a trained
        estimator can be handed on.
        """

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        """None when the estimator can be used here, else the reason why not in one line."""
        if num_samples < self.min_samples:
            return f"needs num_samples of at least {self.min_samples}, not {num_samples}"
        return None

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        """Estimate the gradient from ``num_samples`` samples of q; never changes state."""
        raise EstimatorError(f"{type(self).__name__}.forward is missing")

    def update(self, estimate: Estimate) -> None:
        """Move buffers (a running mean) after ``estimate`` was used; by default does nothing.

        Called once a training step and last, in train mode: after ``forward``, and after the optimizer has
        moved the estimator's own parameters by ``aux_loss``. In training and before a measurement alike
        the batches are shuffled training data, so that an entry of the batch is another datum at each call.
        """


def kebab_case(name: str) -> str:
    """ScoreFunction -> score-function.

    >>> kebab_case("MyIWAEIdea")
    'my-iwae-idea'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()

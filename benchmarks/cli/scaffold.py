"""The files that `elbograd new-estimator` writes: an estimator to start from, and its test."""

from __future__ import annotations

from pathlib import Path

from ...estimators.plugins.registry import catalogue
from .scaffold_files import Scaffold, write_files

_TAKEN_CLASSES = frozenset({"Distribution", "Estimate", "Estimator", "Target", "Tensor"})

_ESTIMATOR = '''"""@Title@: say in one line what the idea is."""

from __future__ import annotations

import torch
from elbograd.estimators import Estimate, Estimator, Target, integrand, unsupported_kl
from torch import Tensor
from torch.distributions import Distribution


class @Class@(Estimator):
    r"""Score function with b = a running mean of f (replace this line by your idea).

    ĝ = (1/S) Σ_s (f(z_s) − b) ∇_η log q(z_s), with f(z) = log p(x|z) + log p(z) − log q(z). Say here
    why it is unbiased, and what it costs: this one takes S evaluations of log p(x|z) and no backward
    pass through it.

    Args:
        decay: how much of the running mean is kept at each step, in [0, 1).

    References:
        Williams, Simple Statistical Gradient-Following Algorithms, 1992 (reinforcement comparison).
    """

    # Claims: `check_estimator` tests them. Others that you may need: objective, couples_batch,
    # relaxes_target, requires_iid_draws (see elbograd.estimators.Estimator).
    unbiased = True
    min_samples = 1
    weighs_kl = True  # integrand and analytic_kl do; what takes log p(z) by itself has to do it too
    derivatives = 0  # 1 if the gradient of log_likelihood in z is used, as in reparameterization

    b: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        # State goes into buffers, what is trained by aux_loss into parameters or submodules.
        self.register_buffer("b", torch.tensor(0.0))

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        # Return a reason in one line for what your idea cannot do, for example:
        # if not q.has_rsample:
        #     return "needs a reparameterizable posterior"
        return super().supports(q, target, num_samples) or unsupported_kl(q, target, "sampled")

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        with torch.no_grad():
            z = q.sample(torch.Size((num_samples,)))  # (S, *batch, *event)
        log_q = q.log_prob(z)  # (S, *batch), and so is f
        # log p(x|z), and log p(z) − log q(z) if there is a prior, weighted by the target's kl_weight.
        f = integrand(q, target, z, "sampled", log_q.detach())
        # The idea goes here. φ is trained by the gradient of surrogate, θ by that of value: detach
        # what belongs to the other. Average over S only; every other dimension is a batch.
        surrogate = ((f.detach() - self.b) * log_q).mean(0)
        return Estimate(surrogate, value=f.mean(0), info={"f": f.detach()})

    @torch.no_grad()
    def update(self, estimate: Estimate) -> None:
        # `forward` never changes state; this is called once a training step, after the estimate was used.
        self.b.lerp_(estimate.info["f"].mean().to(self.b), 1 - self.decay)
'''

_TEST = '''"""@Class@ keeps the protocol and what it claims: one test a property and posterior."""

from pathlib import Path

import pytest
from elbograd.estimators.testing import estimator_checks

ESTIMATOR = Path(__file__).with_name("@module@.py")


@pytest.mark.parametrize("check", estimator_checks(str(ESTIMATOR)), ids=str)
def test_@module@(check):
    check()
'''


def write_estimator(name: str, folder: Path) -> tuple[Path, Path]:
    """Write ``my_idea.py`` and ``test_my_idea.py`` for the name "my-idea"; return their paths.

    The estimator works as it stands, and its test passes. The folder is made if it is missing.

    Raises:
        UsageError: the name is not kebab-case or is taken, a file is there already, or the folder cannot
            be written to.
    """
    scaffold = Scaffold("estimator", "my-idea", catalogue(), _TAKEN_CLASSES, _ESTIMATOR, _TEST)
    return write_files(scaffold, name, folder)

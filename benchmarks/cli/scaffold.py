"""The files that `elbograd new-estimator` writes: an estimator to start from, and its test."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import catalogue

# Modules of these names, beside a test, would be imported in place of the real ones.
_TAKEN_MODULES = sys.stdlib_module_names | {"conftest", "elbograd", "numpy", "pytest", "scipy", "torch"}
_TAKEN_CLASSES = {"Distribution", "Estimate", "Estimator", "Target", "Tensor"}

_ESTIMATOR = '''"""@Title@: say in one line what the idea is."""

from __future__ import annotations

import torch
from elbograd.estimators import Estimate, Estimator, Target
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
        return super().supports(q, target, num_samples)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        with torch.no_grad():
            z = q.sample(torch.Size((num_samples,)))  # (S, *batch, *event)
        log_q = q.log_prob(z)  # (S, *batch), and so is f
        f = target.log_likelihood(z)
        if target.prior is not None:
            f = f + target.prior.log_prob(z) - log_q.detach()
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
    module, class_name = _check_name(name)
    source, test = folder / f"{module}.py", folder / f"test_{module}.py"
    marks = {"@Class@": class_name, "@module@": module, "@Title@": name.replace("-", " ").capitalize()}
    try:
        for path in (source, test):
            if path.exists():
                raise UsageError(
                    f"{path} exists already and is not overwritten: choose another name or folder"
                )
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in ((source, _ESTIMATOR), (test, _TEST)):
            with path.open("x", encoding="utf-8") as file:
                file.write(_fill(template, marks))
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from error
    return source, test


def _check_name(name: str) -> tuple[str, str]:
    """The module's and the class's name, or UsageError."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(
            f"estimator name {name!r} is not kebab-case: lower-case words joined by -, as my-idea"
        )
    if name in catalogue():
        raise UsageError(f"estimator name {name!r} is taken: choose none of {', '.join(catalogue())}")
    module = name.replace("-", "_")
    class_name = "".join(word.capitalize() for word in name.split("-"))
    if keyword.iskeyword(module) or keyword.iskeyword(class_name):
        raise UsageError(f"estimator name {name!r} is a Python keyword: choose another, as my-idea")
    if module in _TAKEN_MODULES or class_name in _TAKEN_CLASSES or module.startswith("test_"):
        raise UsageError(
            f"estimator name {name!r} would hide another Python name: choose another, as my-idea"
        )
    return module, class_name


def _fill(template: str, marks: dict[str, str]) -> str:
    for mark, value in marks.items():
        template = template.replace(mark, value)
    return template

"""The files that `elbograd new-problem` writes: a VAE to start from, as a problem, and its test."""

from __future__ import annotations

from pathlib import Path

from ..problems.registry import problem_catalogue
from .scaffold_files import Scaffold, write_files

_PROBLEM = '''"""@Title@: a VAE of your own, as a problem that elbograd can measure.

elbograd check-problem @module@.py    says all that is wrong with it at once
elbograd variance -p @module@.py      measures the gradients of its ELBO
"""

from __future__ import annotations

import torch
from elbograd.benchmarks.problems import from_vae
from sklearn.datasets import load_digits
from torch import Tensor, nn

D = 8  # latent dimensions
PIXELS, HIDDEN = 64, 32


class Encoder(nn.Module):
    """x (B, 64) -> μ and log σ² of q(z|x), (B, D) each. Put yours in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(HIDDEN, D), nn.Linear(HIDDEN, D)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.mean(hidden), self.log_variance(hidden)


class Decoder(nn.Module):
    """z (N, D) -> logits of the pixels (N, 64), for any N. Put yours in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(D, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, PIXELS))

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)


def data() -> dict[str, Tensor]:
    """What to train with and what to hold out: pixels of 0 and 1, (N, 64) each. Put yours here.

    A tensor, a Dataset or a DataLoader will do as well, also of pairs (x, y), whose y is dropped.
    """
    pixels = torch.tensor(load_digits().data > 8).to(torch.float32)
    return {"train": pixels[:1500], "test": pixels[1500:]}


# Weights are drawn anew under each --seed; load trained ones here (load_state_dict). BatchNorm and dropout
# are measured in eval mode (encoder.eval(), decoder.eval()), or with --route full as training has them.
problem = from_vae(
    Encoder(),
    Decoder(),
    data(),
    # What the encoder returns: or "gaussian-logscale" (log σ), "gaussian-scale" (σ), "bernoulli" (logits)
    posterior="gaussian-logvar",
    # What the decoder returns: or "gaussian" (the mean; with scale="learned" for σ), "bernoulli-probs", ...
    likelihood="bernoulli",
    # Where it is not N(0, I): a distribution, or a module that returns one and whose parameters are learned.
    prior=None,
    # What the KL is multiplied by: β of a beta-VAE.
    kl_weight=1.0,
)
'''

_TEST = '''"""The problem is sound and can be measured."""

from pathlib import Path

import pytest
from elbograd.benchmarks import examine_problem, measure_variance

PROBLEM = str(Path(__file__).with_name("@module@.py"))


def test_@module@_is_sound():
    found = examine_problem(PROBLEM)
    assert found.sound, str(found)


@pytest.mark.parametrize("estimator", ["leave-one-out", "score-function"])
def test_@module@_is_measured(estimator):
    v = measure_variance(PROBLEM, estimator, num_samples=2, replicates=100)
    assert v.total > 0


def test_@module@_is_the_same_under_the_same_seed():
    first, again = (measure_variance(PROBLEM, "leave-one-out", num_samples=2, replicates=9) for _ in "ab")
    assert first.total == again.total
'''


def write_problem(name: str, folder: Path) -> tuple[Path, Path]:
    """Write ``my_model.py`` and ``test_my_model.py`` for the name "my-model"; return their paths.

    The problem can be measured as it stands, and its test passes. The folder is made if it is missing.

    Raises:
        UsageError: the name is not kebab-case or is taken, a file is there already, or the folder cannot
            be written to.
    """
    classes = frozenset({"Encoder", "Decoder", "Tensor"})
    scaffold = Scaffold("problem", "my-model", problem_catalogue(), classes, _PROBLEM, _TEST)
    return write_files(scaffold, name, folder)

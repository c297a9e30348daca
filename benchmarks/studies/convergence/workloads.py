"""What is trained in the study: models, estimators that one would train them with, S and optimizers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...cases.convergence import Convergence
from ...cases.variance import Variance

_CHECKPOINT = 500  # training steps at which variances are measured
_MNIST = "data=mnist-5k,hidden=200"
_FASHION = "data=fashion-mnist,hidden=200"

GAUSSIAN = (
    "reparameterization",
    "sticking-the-landing",
    "reparameterization[draws=antithetic]",
    "quadratic-control-variate",
    "linearized-hessian",
    "leave-one-out",
    "moving-average-baseline",
    "score-function",
)
BERNOULLI = (
    "leave-one-out",
    "disarm",
    "arm",
    "bit-flip",
    "moving-average-baseline",
    "learned-baseline",
    "muprop",
    "rebar",
    "relax",
    "double-control-variate",
    "rodeo",
    "local-expectation",
    "straight-through",
    "reinmax",
    "gumbel-softmax",
    "straight-through-gumbel-softmax",
    "gumbel-rao",
)
GAUSSIAN_SHORT = ("reparameterization", "leave-one-out")
BERNOULLI_SHORT = ("leave-one-out", "disarm", "gumbel-softmax")
CATEGORICAL = (
    "leave-one-out",
    "unordered-set",
    "moving-average-baseline",
    "learned-baseline",
    "rebar",
    "relax",
    "local-expectation",
    "straight-through",
    "reinmax",
    "gumbel-softmax",
    "straight-through-gumbel-softmax",
    "gumbel-rao",
)


@dataclass(frozen=True)
class Workload:
    """A model with all that it is trained with.

    Attributes:
        name: of its folder.
        problem: specification.
        estimators: the first is what the others are compared with.
        num_samples: S of each.
        optimizer: "adam" or "sgd".
        learning_rates: the range to tune in.
        other: name of the workload that differs in the optimizer alone, which it is compared with.
    """

    name: str
    problem: str
    estimators: tuple[str, ...]
    num_samples: tuple[int, ...] = (2,)
    optimizer: str = "adam"
    learning_rates: tuple[float, float] = (1e-4, 3e-2)
    other: str = ""

    @property
    def kind(self) -> str:
        """Of the latents: "gaussian", "bernoulli" or "categorical"."""
        return self.name.partition("-")[0]

    @property
    def whole(self) -> bool:
        """Whether it compares all estimators of its kind, at one S and with the usual optimizer."""
        usual = self.num_samples == (2,) and self.optimizer == "adam"
        return usual and self.estimators in (GAUSSIAN, BERNOULLI, CATEGORICAL)

    def asked(self, quick: bool) -> tuple[Variance, Convergence]:
        """The benchmarks: variances at a checkpoint, and training."""
        shared: dict[str, Any] = {
            "estimator": self.estimators,
            "problem": (self.problem,),
            "num_samples": self.num_samples,
        }
        # At the workload's own sizes alone: they are what is trained.
        sizes: dict[str, Any] = {"batch_size": (), "latent_dim": ()}
        variance = Variance(**shared, **sizes, step=(_CHECKPOINT,), replicates=2000)
        training = Convergence(**shared, optimizer=self.optimizer, learning_rate=self.learning_rates)
        if not quick:
            return variance, training
        return replace(variance.quick(), step=(5,)), training.quick()


#: SGD has another scale of rates.
_SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rates": (1e-3, 1.0)}

WORKLOADS = (
    Workload("gaussian-digits", "vae[validation=300]", GAUSSIAN),
    Workload("bernoulli-digits", "bernoulli-vae[validation=300]", BERNOULLI),
    Workload("categorical-digits", "categorical-vae[validation=300]", CATEGORICAL),
    Workload("gaussian-mnist-5k", f"vae[{_MNIST}]", GAUSSIAN),
    Workload("bernoulli-mnist-5k", f"bernoulli-vae[{_MNIST}]", BERNOULLI),
    Workload("categorical-mnist-5k", f"categorical-vae[{_MNIST}]", CATEGORICAL),
    Workload(
        "bernoulli-fashion", f"bernoulli-vae[{_FASHION}]", ("leave-one-out", "disarm", "gumbel-softmax")
    ),
    # What S buys at equal evaluations.
    Workload("gaussian-samples", "vae[validation=300]", GAUSSIAN_SHORT, (2, 4, 16)),
    Workload("bernoulli-samples", "bernoulli-vae[validation=300]", ("leave-one-out", "disarm"), (2, 4, 16)),
    # Adam against SGD.
    Workload("gaussian-sgd", "vae[validation=300]", GAUSSIAN, **_SGD, other="gaussian-digits"),
    Workload("bernoulli-sgd", "bernoulli-vae[validation=300]", BERNOULLI, **_SGD, other="bernoulli-digits"),
)

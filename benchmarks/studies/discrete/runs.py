"""The runs of the comparison for discrete latents."""

from __future__ import annotations

from dataclasses import dataclass

from ....estimators.plugins.registry import BUILTIN_NAMES, create
from ...cases.base import Case
from ...cases.variance import Variance, VarianceSettings
from ...problems.specifications import specifications
from .evaluations import samples_for

#: Evaluations of log p(x|z), a datum and estimate, at which estimators are compared.
BUDGETS = (4, 16, 64)
_EVERYWHERE = 16  # the only number before the last step, and of estimators whose own state follows training

BERNOULLI = "bernoulli-vae"
CATEGORICAL = "categorical-vae[latent_dim=4,categories=4]"
LAST = 3000

#: Settings of the built-in estimators that are compared beside their defaults.
VARIANTS = (
    "gumbel-softmax[temperature=0.5]",
    "straight-through-gumbel-softmax[temperature=0.5]",
    "relax[control=network]",
)
_TEMPERATURES = "[temperature=[0.1,0.2,0.5,1,2,5]]"
TEMPERED = tuple(
    f"{name}{_TEMPERATURES}"
    for name in (
        "gumbel-softmax",
        "straight-through",
        "straight-through-gumbel-softmax",
        "gumbel-rao",
        "gapped-straight-through",
        "reinmax",
    )
)
BOUNDS = ("vimco", "vimco[mean=arithmetic]", "ovis", "ovis[form=asymptotic]", "local-disarm")
SIZED = (
    "leave-one-out",
    "local-expectation",
    "bit-flip",
    "disarm",
    "arms",
    "carms",
    "arsm",
    "unordered-set",
    "muprop",
    "rebar",
    "double-control-variate",
    "rodeo",
    "gumbel-softmax",
    "straight-through",
    "straight-through-gumbel-softmax",
    "reinmax",
)


@dataclass(frozen=True)
class AtEqualEvaluations(Variance):
    """The variance benchmark with S chosen, estimator by estimator, to evaluate the decoder equally often.

    Attributes:
        evaluations: a datum and estimate: each estimator draws the largest S that takes no more. Where no S
            does, it is not measured.
        compared: estimators; of them those of the ELBO's gradient, or of relaxed latents in its place.
        given_samples: S in place of that, for bounds of so many samples.
    """

    problem: tuple[str, ...] = (BERNOULLI, CATEGORICAL)
    evaluations: tuple[int, ...] = BUDGETS
    batch_size: tuple[int, ...] = (16,)
    step: tuple[int, ...] = (0, 300, LAST)
    latent_dim: tuple[int, ...] = ()
    replicates: int = 1000
    compared: tuple[str, ...] = (*BUILTIN_NAMES, *VARIANTS)
    given_samples: int | None = None

    def estimators(self) -> list[str]:
        """All that are compared; those that cannot be used somewhere are left out there."""
        found = specifications(self.compared, "estimator")
        if self.given_samples is not None:
            return found
        return [e for e in found if create(e).objective in ("elbo", "relaxed")]

    def grid(self) -> list[Case[VarianceSettings]]:
        """Every step, estimator and number of evaluations; all checkpoints are of one trajectory."""
        found = {}
        for problem in specifications(self.problem, "problem"):
            for step in self.step:
                for estimator in self.estimators():
                    for num_samples in self._samples(problem, estimator, step):
                        case = self.case(problem, estimator, num_samples, self.batch_size[0], self._at(step))
                        found[case.id] = case
        return list(found.values())

    def _samples(self, problem: str, estimator: str, step: int) -> list[int]:
        """S of one estimator at the numbers of evaluations that it is measured at."""
        if self.given_samples is not None:
            return [self.given_samples]
        budgets = self.evaluations
        if _EVERYWHERE in budgets and (step < max(self.step) or (step and _has_state(estimator))):
            budgets = (_EVERYWHERE,)
        found = (samples_for(problem, estimator, n) for n in budgets)
        return [s for s in found if s is not None]

    def _at(self, step: int) -> VarianceSettings:
        steps = tuple(sorted(self.step)) if max(self.step) else None
        bias = False if self.no_bias else None
        return VarianceSettings(self.replicates, None, self.route, step, steps=steps, bias=bias)


def _has_state(estimator: str) -> bool:
    """Whether it has something that training moves."""
    from ...gradients import has_moving_state

    return has_moving_state(create(estimator)) or estimator.startswith(("learned-baseline", "rodeo", "relax"))


#: The run whose times the others' figures and tables use, see `cost`.
COST = "discrete-cost"

RUNS = {
    COST: AtEqualEvaluations(evaluations=(_EVERYWHERE,), step=(0,), replicates=50, no_bias=True),
    "discrete-training": AtEqualEvaluations(),
    "discrete-bounds": AtEqualEvaluations(compared=BOUNDS, given_samples=16),
    "discrete-temperature": AtEqualEvaluations(evaluations=(4,), step=(300,), compared=TEMPERED),
    "discrete-size": AtEqualEvaluations(
        problem=(
            "bernoulli-vae[latent_dim=[2,4,8,12]]",
            "categorical-vae[latent_dim=3,categories=[2,4,8,16]]",
        ),
        evaluations=(64,),
        step=(300,),
        compared=SIZED,
    ),
}

"""The checks of an estimator, one by one or all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import SkipTest

import torch

from ..base import Estimator
from ..isolation import isolated
from ..plugins.registry import create
from ..text import one_line
from . import batch_checks as batch
from . import contract_checks as contract
from . import draw_checks as draws
from . import precision_checks as precision
from . import sampling_checks as sampling
from . import state_checks as state
from .mean_test import CONFIRM_LEVEL
from .toy_problems import FAMILIES, WEIGHTS, Family
from .trial import SEED, Trial, supported_sizes

Factory = str | Callable[[], Estimator]
_Property = Callable[[Trial], None]
_Applies = Callable[[Estimator, Family], bool]


def _always(estimator: Estimator, family: Family) -> bool:
    return True


def _stands_alone(estimator: Estimator, family: Family) -> bool:
    return not estimator.couples_batch


def _under_discrete(estimator: Estimator, family: Family) -> bool:
    return family.states is not None


def _estimates_elbo(estimator: Estimator, family: Family) -> bool:
    return estimator.objective == "elbo" and estimator.unbiased_value


def _claims_unbiased(estimator: Estimator, family: Family) -> bool:
    return estimator.objective == "elbo" and estimator.unbiased


def _claims_any_mean(estimator: Estimator, family: Family) -> bool:
    return _estimates_elbo(estimator, family) or _claims_unbiased(estimator, family)


def _uses_no_derivative(estimator: Estimator, family: Family) -> bool:
    return estimator.derivatives == 0


def _stays_on_support(estimator: Estimator, family: Family) -> bool:
    return not estimator.relaxes_target


def _stays_on_discrete_support(estimator: Estimator, family: Family) -> bool:
    return _under_discrete(estimator, family) and _stays_on_support(estimator, family)


def _claims_unbiased_however_extended(estimator: Estimator, family: Family) -> bool:
    """What neither differentiates nor leaves the support cannot depend on it, as `off-support` shows."""
    extends = estimator.derivatives > 0 or estimator.relaxes_target
    claims = _claims_unbiased(estimator, family) and not estimator.depends_off_support
    return _under_discrete(estimator, family) and extends and claims


def _claims_the_weight(estimator: Estimator, family: Family) -> bool:
    return estimator.weighs_kl


def _claims_a_mean_and_ages(estimator: Estimator, family: Family) -> bool:
    """Has an `update` of its own, or parameters that an aux_loss may train."""
    learns = any(parameter.requires_grad for parameter in estimator.parameters())
    ages = learns or type(estimator).update is not Estimator.update
    return ages and _claims_any_mean(estimator, family)


def _mirrors(estimator: Estimator, family: Family) -> bool:
    return estimator.draws == "antithetic" and family.states in (None, 2)


def _claims_iid(estimator: Estimator, family: Family) -> bool:
    return estimator.draws == "iid" and not estimator.deterministic and not family.of_weights


#: name -> the property, and of which estimators it is asked, under which families.
PROPERTIES: dict[str, tuple[_Property, _Applies]] = {
    "shapes": (contract.shapes, _always),
    "finite": (contract.finite, _always),
    "gradient": (contract.gradient, _always),
    "no-prior": (contract.no_prior, _always),
    "dtype": (contract.dtype, _always),
    "device": (contract.device, _always),
    "float32": (precision.float32, _always),
    "default-dtype": (contract.default_dtype, _always),
    "reproducible": (state.reproducible, _always),
    "fresh-draws": (state.fresh_draws, _always),
    "pure-forward": (state.pure_forward, _always),
    "init-once": (state.init_once, _always),
    "state-dict": (state.state_dict, _always),
    "deepcopy": (state.deepcopy, _always),
    "surrogate-reach": (contract.surrogate_reach, _always),
    "value-reach": (contract.value_reach, _always),
    "frozen-theta": (contract.frozen_theta, _always),
    "aux-loss": (contract.aux_loss, _always),
    "info": (contract.info, _always),
    "uncoupled": (contract.uncoupled, _always),
    "shape-of-batch": (batch.shape_of_batch, _always),
    "size-of-batch": (batch.size_of_batch, _stands_alone),
    "derivatives": (contract.derivatives, _uses_no_derivative),
    "support": (contract.support, _stays_on_support),
    "off-support": (contract.off_support, _stays_on_discrete_support),
    "sure": (contract.sure, _under_discrete),
    "impossible": (contract.impossible, _under_discrete),
    "antithetic": (draws.antithetic, _mirrors),
    "iid-draws": (draws.iid_draws, _claims_iid),
    "samples": (sampling.samples, _always),
    "independent": (sampling.independent, _always),
    "replicates": (sampling.replicates, _always),
    "value": (sampling.value, _estimates_elbo),
    "theta": (sampling.theta, _estimates_elbo),
    "every-size": (sampling.every_size, _claims_any_mean),
    "unbiased": (sampling.unbiased, _claims_unbiased),
    "unbiased-without-prior": (sampling.unbiased_without_prior, _claims_unbiased),
    "kl-weight": (sampling.kl_weight, _claims_the_weight),
    "unbiased-in-training": (sampling.unbiased_in_training, _claims_any_mean),
    "unbiased-when-aged": (sampling.unbiased_when_aged, _claims_a_mean_and_ages),
    "unbiased-off-support": (sampling.unbiased_off_support, _claims_unbiased_however_extended),
}

#: What depends on the numbers of a family, and is asked of one that is like another, too.
OF_NUMBERS = frozenset({"gradient", "sure", "impossible", "value", "theta", "every-size", "unbiased"})


@dataclass(frozen=True)
class Check:
    """One named check of one estimator; calling it runs it.

    Attributes:
        name: e.g. "unbiased[gaussian]".
        run: raises when the property does not hold.
        seed: of its random state.
    """

    name: str
    run: Callable[[], object]

    seed: int = SEED

    def __call__(self) -> None:
        """Run with a random state of its own; the caller's is left as it is.

        Raises:
            AssertionError: the property does not hold, or the estimator raised; one line says which.
            unittest.SkipTest: no verdict was possible, which pytest reports as skipped.
        """
        with isolated(self.seed):
            try:
                self.run()
            except SkipTest:
                raise
            except AssertionError as error:
                raise AssertionError(one_line(error)) from error
            except Exception as error:
                raise AssertionError(f"raises {type(error).__name__}: {one_line(error)}") from error

    def __str__(self) -> str:
        return self.name


def estimator_checks(factory: Factory, seed: int = SEED, confirm_level: float = CONFIRM_LEVEL) -> list[Check]:
    """Every check that applies to an estimator, to be run one by one (see the package's docstring).

    Never raises: what is wrong with ``factory`` shows when the checks run.

    Args:
        factory: a specification such as "score-function[kl=sampled]", an Estimator class, or a callable
            without arguments that returns a fresh Estimator.
        seed: of the draws.
        confirm_level: of statistical checks: each of their looks, of which there are at most 25 a family,
            raises a false alarm with probability 1e-3 of this at most.
    """
    build = _builder(factory)
    checks = [Check("create", partial(_creates_afresh, build))]
    try:
        checks[0]()
        with isolated(SEED):
            estimator = build()
    except (AssertionError, SkipTest):
        return checks
    checks += [
        Check("claims", partial(contract.claims, estimator)),
        Check("refusals", partial(contract.refusals, estimator)),
    ]
    trials, reasons = _trials(build, estimator, seed, confirm_level)
    checks.append(Check("supports", partial(_supports_one, trials, reasons)))
    for trial in trials:
        for name, (holds, applies) in PROPERTIES.items():
            asked = trial.family.like is None or name in OF_NUMBERS
            if asked and applies(estimator, trial.family):
                checks.append(Check(f"{name}[{trial.family.name}]", partial(holds, trial), seed))
    return checks


@torch.inference_mode(False)  # which is where some are called from; gradients are taken here
def check_estimator(factory: Factory) -> list[str]:
    """Run `estimator_checks`; return the names of those that ran.

    Raises:
        AssertionError: names every check that failed, with the reason, a line each.
    """
    ran, failures = [], []
    checks = estimator_checks(factory)
    for check in checks:
        try:
            check()
        except SkipTest:
            continue
        except AssertionError as error:
            failures.append(f"{check}: {error}")
        ran.append(check.name)
    if failures:
        lines = "\n  ".join(failures)
        raise AssertionError(f"{len(failures)} of {len(checks)} checks failed:\n  {lines}")
    return ran


def _builder(factory: Factory) -> Callable[[], Estimator]:
    if isinstance(factory, str):
        return partial(create, factory)
    if isinstance(factory, Estimator):  # callable too, but calling it is `forward`
        return _refuse_instance
    return factory


def _refuse_instance() -> Estimator:
    raise TypeError("expected a specification, a class or a function without arguments, not an instance")


def _creates_afresh(build: Callable[[], Estimator]) -> None:
    first, second = build(), build()
    assert isinstance(first, Estimator), f"the factory returned {first!r}, not an Estimator"
    assert first is not second, "the factory returned the same estimator twice; it must build a fresh one"


def _trials(
    build: Callable[[], Estimator], estimator: Estimator, seed: int, confirm_level: float
) -> tuple[list[Trial], list[str]]:
    """A trial for each family that the estimator supports, and the reasons for the others."""
    trials: list[Trial] = []
    reasons: list[str] = []
    for family in (*FAMILIES, WEIGHTS):
        if family is WEIGHTS and trials:
            break
        problem = family.problem()
        try:
            sizes = supported_sizes(estimator, problem, problem.target)
        except Exception as error:
            sizes = f"supports() raises {type(error).__name__}: {one_line(error)}"
        if isinstance(sizes, str):
            reasons.append(f"{family.name}: {sizes}")
        else:
            trials.append(Trial(build, family, sizes, seed, confirm_level))
    return trials, reasons


def _supports_one(trials: list[Trial], reasons: list[str]) -> None:
    assert trials, f"supports none of the test posteriors ({'; '.join(reasons)})"

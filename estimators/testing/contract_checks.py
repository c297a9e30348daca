"""Properties of an estimator's claims, of one estimate, and of what depends on what in it.

Each function takes a `Trial` and raises AssertionError with one line of reason. None has a chance of a
false alarm worth counting: what they compare must agree to rounding, whatever the draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from ..base import Estimate, Estimator, Target
from ..posteriors.draws import DRAWS
from .replay import draws_alike
from .toy_problems import FAMILIES, ToyProblem, alien_cases
from .trial import (
    TOLERANCE,
    Trial,
    evaluate,
    expect,
    expect_same,
    gradients,
    outcome_parts,
    relative_difference,
    require_support,
    seeded,
    train_step,
    watched,
    with_likelihood,
)

_REPLICATES = 32  # that the gradients of discrete draws are all zero, or all equal, by chance is ruled out


_MANY = 2048  # estimates, of none of which a state of probability zero may be part
_TRUTHS = (
    "unbiased",
    "unbiased_value",
    "requires_iid_draws",
    "relaxes_target",
    "depends_off_support",
    "deterministic",
    "couples_batch",
    "weighs_kl",
    "per_datum",
)


def claims(estimator: Estimator) -> None:
    """The declared attributes have the protocol's types."""
    for name in _TRUTHS:
        expect(type(getattr(estimator, name)) is bool, f"{name} is {getattr(estimator, name)!r}, not a bool")
    for name in ("objective", "label"):
        value = getattr(estimator, name)
        expect(isinstance(value, str) and value != "", f"{name} is {value!r}, not a name")
    kinds = (*DRAWS, "coupled")
    expect(estimator.draws in kinds, f"draws is {estimator.draws!r}, not one of {', '.join(kinds)}")
    smallest, order = estimator.min_samples, estimator.derivatives
    expect(type(smallest) is int and smallest >= 1, f"min_samples is {smallest!r}, not a positive int")
    expect(type(order) is int and order in (0, 1, 2), f"derivatives is {order!r}, not 0, 1 or 2")


def refusals(estimator: Estimator) -> None:
    """`supports` answers None or one line for any posterior, and refuses fewer than min_samples."""
    for q, target in alien_cases():
        _answer(estimator.supports(q, target, estimator.min_samples))
    for family in FAMILIES:
        problem = family.problem()
        too_few = estimator.min_samples - 1
        answer = _answer(estimator.supports(problem.q, problem.target, too_few))
        expect(answer is not None, f"supports() accepts num_samples={too_few}, below min_samples")


def _answer(answer: object) -> str | None:
    one_line = isinstance(answer, str) and answer.strip() and "\n" not in answer
    expect(
        answer is None or bool(one_line), f"supports() returned {answer!r}, not None or a reason in one line"
    )
    return answer if isinstance(answer, str) else None


# --- The estimate itself ----------------------------------------------------------------------------


def shapes(trial: Trial) -> None:
    """Surrogate and value have shape (*batch)."""
    for where, problem, outcome in trial.small:
        for name in ("surrogate", "value"):
            shape = getattr(outcome.estimate, name).shape
            expect(shape == problem.eta.shape[:-1], f"{name} has shape {tuple(shape)} for {where}")


def finite(trial: Trial) -> None:
    """Surrogate, value and their gradients are finite."""
    for where, _, (estimate, eta_grad, theta_grad) in trial.small:
        parts = {
            "surrogate": estimate.surrogate,
            "value": estimate.value,
            "surrogate's gradient in η": eta_grad,
            "value's gradient in θ": theta_grad,
        }
        for name, part in parts.items():
            expect(bool(part.isfinite().all()), f"{name} is not finite for {where}")


def gradient(trial: Trial) -> None:
    """The surrogate has a gradient in q's parameters at every datum."""
    for num_samples in trial.sizes:
        problem = trial.family.problem((_REPLICATES,))
        outcome = evaluate(trial.fresh(), problem, num_samples)
        reached = (outcome.eta_grad != 0).any(-1).any(0)
        expect(reached.all(), f"surrogate has no gradient in the parameters of q for S = {num_samples}")


def dtype(trial: Trial) -> None:
    """Surrogate, value and aux_loss have q's dtype, before and after an update."""
    for kind in (torch.float32, torch.float64):
        problem = trial.family.problem(dtype=kind)
        estimator = trial.fresh(problem).train()
        for _ in range(2):
            estimate = evaluate(estimator, problem, trial.num_samples).estimate
            for name, part in _tensors(estimate):
                expect(part.dtype == kind, f"{name} is {part.dtype} under a posterior in {kind}")
            train_step(estimator, estimate)


def device(trial: Trial) -> None:
    """Surrogate, value and aux_loss lie on q's device, before and after an update."""
    for place in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        problem = trial.family.problem(device=place)
        estimator = trial.fresh(problem).train()
        for _ in range(2):
            estimate = evaluate(estimator, problem, trial.num_samples).estimate
            for name, part in _tensors(estimate):
                expect(part.device.type == place, f"{name} is on {part.device} under a posterior on {place}")
            train_step(estimator, estimate)


def default_dtype(trial: Trial) -> None:
    """The global default dtype changes nothing."""
    for kind in (torch.float32, torch.float64):
        outcomes = []
        problem = trial.family.problem(dtype=kind)
        estimator = trial.fresh(problem)
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            outcomes.append(seeded(estimator, problem, trial.num_samples))
        torch.set_default_dtype(torch.float32)
        name = f"a posterior in {kind}: the default dtype float64 in place of float32"
        expect_same(outcomes, f"{name} changes", tolerance=10 * torch.finfo(kind).eps)


# --- What reaches what ------------------------------------------------------------------------------


def surrogate_reach(trial: Trial) -> None:
    """Surrogate reaches no parameter of the estimator, and θ only where it is the value itself."""
    problem, target = _learned_without_prior(trial)
    estimator = trial.fresh(problem).train()
    estimate = evaluate(estimator, problem, trial.num_samples, target).estimate
    own = [p for p in estimator.parameters() if p.requires_grad]
    _unreached(estimate.surrogate, own, "surrogate has a gradient in the estimator's own parameters")
    if estimate.surrogate is not estimate.value:
        _unreached(
            estimate.surrogate, problem.learned, "surrogate has a gradient in θ and is not the value itself"
        )


def value_reach(trial: Trial) -> None:
    """Value reaches φ only where it is the surrogate itself."""
    problem, target = _learned_without_prior(trial)
    estimate = evaluate(trial.fresh(problem), problem, trial.num_samples, target).estimate
    if estimate.surrogate is not estimate.value:
        _unreached(estimate.value, [problem.eta], "value has a gradient in φ and is not the surrogate itself")


def frozen_theta(trial: Trial) -> None:
    """Whether θ requires a gradient, as in a training step, changes neither the gradient in η nor the value.

    Under one seed, at every S and in both modes. Nothing is compared where other random numbers are drawn.
    """
    for training, num_samples in product((False, True), trial.sizes):
        with trial.modes(training) as estimator:
            problems = [trial.family.problem(learned=learned) for learned in (False, True)]
            pair = [seeded(estimator, problem, num_samples) for problem in problems]
            for name, one, two in outcome_parts(*pair):
                if name == "gradient in θ" or relative_difference(one, two) <= TOLERANCE:
                    continue
                if draws_alike(estimator, problems, num_samples):
                    mode = "training" if training else "eval"
                    where = f"S = {num_samples}, in {mode} mode"
                    raise AssertionError(f"the {name} is another where θ requires a gradient ({where})")


def _learned_without_prior(trial: Trial) -> tuple[ToyProblem, Target]:
    """A problem with a learned θ and no KL term: one that is attached to both φ and θ harms neither."""
    problem = trial.family.problem(learned=True)
    target = replace(problem.target, prior=None)
    require_support(trial.fresh(), problem, target, trial.num_samples)
    return problem, target


def aux_loss(trial: Trial) -> None:
    """aux_loss: (*batch) in training mode, for the estimator's own parameters alone; None in eval mode."""
    problem = trial.family.problem((2,), learned=True)
    estimator = trial.fresh()
    expect(
        evaluate(estimator, problem, trial.num_samples).estimate.aux_loss is None,
        "aux_loss is not None in eval mode",
    )
    loss = evaluate(estimator.train(), problem, trial.num_samples).estimate.aux_loss
    if loss is None:
        return
    batch = tuple(problem.eta.shape[:-1])
    expect(tuple(loss.shape) == batch, f"aux_loss has shape {tuple(loss.shape)} for batch {batch}")
    expect(bool(loss.isfinite().all()), "aux_loss is not finite")
    _unreached(loss, [problem.eta], "aux_loss has a gradient in φ")
    _unreached(loss, problem.learned, "aux_loss has a gradient in θ")
    own = [p for p in estimator.parameters() if p.requires_grad]
    reached = any(bool(part.any()) for part in gradients(loss, own))
    expect(reached, "aux_loss has no gradient in any parameter of the estimator")


def info(trial: Trial) -> None:
    """Everything in info is a detached tensor."""
    problem = trial.family.problem(learned=True)
    estimate = evaluate(trial.fresh(problem).train(), problem, trial.num_samples).estimate
    for name, value in estimate.info.items():
        expect(isinstance(value, Tensor), f"info[{name!r}] is a {type(value).__name__}, not a tensor")
        expect(not value.requires_grad, f"info[{name!r}] is attached to the graph: detach it")


# --- Coupling and the use of the target -------------------------------------------------------------


def uncoupled(trial: Trial) -> None:
    """Under one seed, the estimate of a datum depends on neither another's target nor another's η.

    With ``couples_batch``, the same of a replicate (an index of the leading batch dimension).
    """
    problem = trial.family.problem((2,), learned=True)
    estimator = trial.warm
    per_replicate = estimator.couples_batch
    chosen: Any = 0 if per_replicate else (0, 0)
    thing = "replicate" if per_replicate else "datum"
    factor = problem.eta.new_ones(problem.eta.shape[:-1])
    factor[chosen] = 3.0
    others = factor == 1.0
    scaled = with_likelihood(problem.target, lambda f: lambda z: factor * f(z))
    first = seeded(estimator, problem, trial.num_samples)
    second = seeded(estimator, problem, trial.num_samples, target=scaled)
    for name, one, two in outcome_parts(first, second):
        moved = relative_difference(one[others], two[others])
        expect(moved <= TOLERANCE, f"scaling log_likelihood of one {thing} moves the {name} of another")
    alone = gradients(first.estimate.surrogate[chosen], [problem.eta])[0]
    expect(not alone[others].any(), f"the surrogate of one {thing} depends on the parameters of another")


def derivatives(trial: Trial) -> None:
    """With ``derivatives = 0``, an integrand that cannot be differentiated in z changes nothing."""
    problem = trial.family.problem(learned=True)
    estimator = trial.fresh(problem)
    rough = with_likelihood(problem.target, lambda f: lambda z: f(z.detach()))
    outcomes = [seeded(estimator, problem, trial.num_samples, target=t) for t in (problem.target, rough)]
    expect_same(outcomes, "declares derivatives = 0, but log_likelihood without a derivative in z changes")


def support(trial: Trial) -> None:
    """Unless ``relaxes_target``, log_likelihood is evaluated on q's support alone."""
    problem = trial.family.problem()
    target, seen = watched(problem.target)
    evaluate(trial.fresh(problem), problem, trial.num_samples, target)
    inside = problem.q.support
    assert isinstance(inside, constraints.Constraint)
    expect(
        all(bool(inside.check(z).all()) for z in seen),
        "log_likelihood is evaluated off q's support; declare relaxes_target = True if that is meant",
    )


def off_support(trial: Trial) -> None:
    """What is added to log_likelihood off q's support alone changes nothing that it may not change.

    Nothing at all of an estimator that neither differentiates log_likelihood nor evaluates it there; not the
    value of one that does not evaluate it there.
    """
    problem = trial.family.problem((_REPLICATES,), learned=True)
    bumped = with_likelihood(problem.target, lambda f: lambda z: f(z) + problem.bump(z))
    estimator = trial.warm
    parts = (
        ["value", "gradient in θ"] if estimator.derivatives else ["gradient in η", "value", "gradient in θ"]
    )
    for num_samples in trial.sizes:
        pair = [seeded(estimator, problem, num_samples, target=t) for t in (problem.target, bumped)]
        for name, one, two in outcome_parts(*pair):
            expect(
                name not in parts or torch.equal(one, two),
                f"what log_likelihood is off q's support changes the {name} (S = {num_samples})",
            )


def sure(trial: Trial) -> None:
    """Where q is certain of z, the value is that at this z, the gradient zero, and nothing overflows.

    Logits are ±40, of which float32 rounds probabilities to 0 and 1 and float64 those near 1. A temperature
    above 1 softens them: of a biased gradient, and of what a relaxation integrates, finiteness is all that is
    asked.
    """
    family = trial.family.sure()
    exact = family.problem().exact().value
    for kind, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        problem = family.problem((_REPLICATES,), dtype=kind, learned=True)
        estimator = trial.fresh(problem)
        for num_samples in trial.sizes:
            where = f"at logits of ±40 in {kind} (S = {num_samples})"
            outcome = evaluate(estimator, problem, num_samples)
            for name, _, part in outcome_parts(outcome, outcome):
                expect(part.isfinite().all(), f"the {name} is not finite {where}")
            relaxed = estimator.objective == "relaxed"
            worst = float(outcome.eta_grad.abs().max())
            softened = relaxed or not estimator.unbiased
            expect(softened or worst <= tolerance, f"the gradient in η is {worst:.2g}, exactly 0, {where}")
            off = float((outcome.estimate.value.detach().double() - exact).abs().max())
            expect(relaxed or off <= 10 * tolerance, f"the value is off by {off:.2g} {where}")


def impossible(trial: Trial) -> None:
    """States of probability zero are never drawn: what log_likelihood is there changes nothing."""
    family, never = trial.family.forbidden()
    event = len(family.problem().q.event_shape)
    lead = 1 if trial.deterministic else _MANY // (4 if trial.costly else 1)
    for kind, num_samples, tolerance in (
        (torch.float32, trial.sizes[-1], 1e-4),
        (torch.float64, trial.sizes[0], TOLERANCE),
    ):
        problem = family.problem((lead,), dtype=kind, learned=True)
        estimator = trial.fresh(problem)
        added = partial(_lifted_at, there=never.to(kind), event=event)
        targets = problem.target, with_likelihood(problem.target, added)
        pair = [seeded(estimator, problem, num_samples, target=target) for target in targets]
        expect_same(pair, f"log_likelihood at a state of probability zero changes, in {kind},", tolerance)


def _lifted_at(f: Callable[[Tensor], Tensor], there: Tensor, event: int) -> Callable[[Tensor], Tensor]:
    """f plus a large number for each coordinate of z that is 1 where ``there`` is."""
    return lambda z: f(z) + 1e3 * (z.flatten(-event) * there).sum(-1)


def no_prior(trial: Trial) -> None:
    """Without a prior the estimate is still of the right shape, finite and differentiable."""
    problem = trial.family.problem((_REPLICATES,))
    target = replace(problem.target, prior=None)
    estimator = trial.fresh()
    require_support(estimator, problem, target, trial.num_samples)
    estimate, eta_grad, _ = evaluate(estimator, problem, trial.num_samples, target)
    batch = problem.eta.shape[:-1]
    expect(estimate.surrogate.shape == batch == estimate.value.shape, "the shapes differ without a prior")
    reached = (eta_grad != 0).any(-1).any(0).all()
    expect(reached and eta_grad.isfinite().all(), "the gradient is zero or not finite without a prior")


def _tensors(estimate: Estimate) -> list[tuple[str, Tensor]]:
    parts = [("surrogate", estimate.surrogate), ("value", estimate.value)]
    return parts if estimate.aux_loss is None else [*parts, ("aux_loss", estimate.aux_loss)]


def _unreached(output: Tensor, leaves: Any, reason: str) -> None:
    expect(not any(bool(part.any()) for part in gradients(output, leaves)), reason)

"""`elbograd list --long`: what each estimator claims, costs and comes from."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Estimator, Target
from ...estimators.errors import UsageError
from ...estimators.plugins.registry import REGISTRY, catalogue, create
from ...estimators.text import one_line, printable
from ..gradients import seeded
from ..rows.certificate_text import span

_WIDTH = 80
_LABELS = 11  # columns
_DATA = 2
_SAMPLES = (4, 6, 8)
_DIMENSIONS = (1, 2, 3)
_OBJECTIVES = {"elbo": "the ELBO", "iwae": "the IWAE bound", "relaxed": "the relaxed ELBO"}


def describe_estimators(names: Sequence[str]) -> Iterator[str]:
    """A paragraph for each estimator, of all in the catalogue where no names are given.

    Third-party code is imported for the names alone, and for what a plugin has registered in this process.

    Args:
        names: specifications, as `create` takes them.

    Raises:
        UsageError: one of ``names`` cannot be used; of the catalogue the paragraph says so.
    """
    for name in names or catalogue():
        known = name in REGISTRY.builtins or name in REGISTRY.registered
        if names:
            yield _describe(name)
        elif known:
            yield _described_or_why_not(name)
        else:
            yield _lines(name, f"{catalogue()[name]}; -e {name} shows more")


def _described_or_why_not(name: str) -> str:
    try:
        return _describe(name)
    except UsageError as error:
        return _lines(name, f"cannot be used: {error}")


def _describe(name: str) -> str:
    estimator = create(name)
    try:
        summary = next(iter((inspect.getdoc(type(estimator)) or "").splitlines()), "-")
        facts = {
            "gradient of": _objective(estimator),
            "bias": bias_in_words(estimator, partial(create, name)),
            "needs": _needs(estimator),
            "cost": cost_in_words(estimator),
            "reference": reference_of(estimator),
        }
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise UsageError(f"{name}: {type(error).__name__}: {one_line(error)}") from error
    return "\n".join([_lines(name, summary), *(_fact(label, fact) for label, fact in facts.items() if fact)])


def _objective(estimator: Estimator) -> str:
    name = _OBJECTIVES.get(estimator.objective, estimator.objective)
    return f"{name}, {'unbiased' if estimator.unbiased else 'biased'}"


def _needs(estimator: Estimator) -> str:
    orders = {0: "no derivative", 1: "the gradient", 2: "second derivatives"}
    parts = [
        f"{'even ' if _pairs(estimator) else ''}S ≥ {estimator.min_samples}",
        f"{orders.get(estimator.derivatives, f'{estimator.derivatives} derivatives')} of log p(x|z) in z",
        "iid draws" if estimator.requires_iid_draws else "",
        "log p(x|z) off the support of q" if estimator.relaxes_target else "",
    ]
    traits = [
        "its mean depends on log p(x|z) off the support" if estimator.depends_off_support else "",
        "draws nothing" if estimator.deterministic else "",
        "couples the batch" if estimator.couples_batch else "",
        f"{estimator.draws} draws" if estimator.draws != "iid" else "",
    ]
    return "; ".join(filter(None, [", ".join(filter(None, parts)), *traits]))


def _pairs(estimator: Estimator) -> bool:
    """Whether no odd S will do, under the first family that some S is supported for."""
    sizes = range(estimator.min_samples, estimator.min_samples + 4)
    for posterior in _FAMILIES.values():
        _, q = posterior(_DIMENSIONS[-1])
        target = _target(q, lambda z: z.flatten(2).sum(-1))
        supported = [s for s in sizes if estimator.supports(q, target, s) is None]
        if supported:
            return all(s % 2 == 0 for s in supported)
    return False


def bias_in_words(estimator: Estimator, build: Callable[[], Estimator]) -> str:
    """How far the mean is from the gradient where it is biased, or of another objective than the ELBO.

    At three points of a small problem: exactly, or measured by a fixed number of draws.
    """
    from ..certification.typical_bias import typical_bias

    if estimator.unbiased and estimator.objective.partition("[")[0] != "relaxed":
        return ""
    found = typical_bias(build)
    if isinstance(found, str):
        return f"not known: {found}"
    how = "exactly" if all(bias.exact for bias in found.biases) else "measured"
    whose = " of the ELBO" if found.objective == "elbo" else ""
    where = f"{found.problem}, S = {found.num_samples}"
    return f"{span(found.biases)} of the gradient{whose}, {how} ({where})"


def reference_of(estimator: Estimator) -> str:
    """The first entry of the References section of its class's docstring, to its full stop, or a dash."""
    found = re.search(
        r"^References:\n((?:[ \t]+\S.*\n?)+)", inspect.getdoc(type(estimator)) or "", re.MULTILINE
    )
    if found is None:
        return "-"
    lines = [line.strip() for line in found[1].splitlines()]
    end = next((k for k, line in enumerate(lines) if line.endswith(".")), len(lines) - 1)
    return " ".join(lines[: end + 1])


def cost_in_words(estimator: Estimator) -> str:
    """Evaluations of log p(x|z) a datum and estimate, and in how many calls: counted, not declared.

    On posteriors of dimension 1 to 3 and at three S, of the first family that the estimator supports; numbers
    that do not follow a + b S + c D + d D S are given as they are for the largest.
    """
    counted = ((family, _counted(estimator, posterior)) for family, posterior in _FAMILIES.items())
    told = ((family, *formulas) for family, formulas in counted if formulas is not None)
    first = next(told, None)
    if first is None:
        return "not counted: it supports none of the posteriors tried"
    said = _cost(*first, "evaluations of log p(x|z)")
    if first[0] == "Bernoulli":  # with more states there may be more of them
        said += "".join(f"; {_cost(*other)}" for other in told if other[1] != first[1])
    return said


def _cost(family: str, evaluations: str, calls: str, of_what: str = "evaluations") -> str:
    plural = "" if calls == "1" else "s"
    dimension = ", D dimensions" if "D" in evaluations + calls else ""
    return f"{evaluations} {of_what} in {calls} call{plural} ({family} q{dimension})"


def _counted(
    estimator: Estimator, posterior: Callable[[int], tuple[Tensor, Distribution]]
) -> tuple[str, str] | None:
    """Evaluations and calls under one family, as formulas; None where it is not supported."""
    counts = {
        (d, s): _count(estimator, posterior(d), s)
        for d in _DIMENSIONS
        for s in (max(s, estimator.min_samples) for s in _SAMPLES)
    }
    found = {key: count for key, count in counts.items() if count is not None}
    if not found:
        return None
    evaluations, calls = ({key: count[part] for key, count in found.items()} for part in (0, 1))
    return _formula(evaluations), _formula(calls)


def _formula(counts: dict[tuple[int, int], int]) -> str:
    """a + b S + c D + d D S in whole numbers, where it gives every count; of (D, S) -> count."""
    (d, s), largest = max(counts.items())
    if set(counts.values()) == {largest}:
        return str(largest)
    design = np.array([(k * n, n, k, 1) for k, n in counts], dtype=float)
    fitted = np.linalg.lstsq(design, np.array([*counts.values()], dtype=float), rcond=None)[0].round()
    if not np.array_equal(design @ fitted, [*counts.values()]):
        return f"{largest} (at D = {d}, S = {s})"
    terms = [_term(int(k), unit) for k, unit in zip(fitted, ("D S", "S", "D", ""), strict=True) if k]
    return " + ".join(terms).replace("+ -", "- ") or "0"


def _term(factor: int, unit: str) -> str:
    return unit if unit and factor == 1 else f"{factor} {unit}".rstrip()


def _count(
    estimator: Estimator, eta_and_q: tuple[Tensor, Distribution], num_samples: int
) -> tuple[int, int] | None:
    """Evaluations a datum, and calls, of one estimate and its gradient; None where it is not supported."""
    eta, q = eta_and_q
    counts = [0, 0]

    def log_likelihood(z: Tensor) -> Tensor:
        f = (0.3 * z).sin().flatten(1 + len(q.batch_shape)).sum(-1)
        counts[0] += f.numel()
        counts[1] += 1
        return f

    target = _target(q, log_likelihood)
    with torch.enable_grad(), seeded(0, eta.device):
        without = replace(target, prior=None)
        for one in (target, without):
            if estimator.supports(q, one, num_samples) is None:
                fresh = create(estimator.label) if estimator.label in catalogue() else estimator
                fresh.init(q, one)
                fresh.eval()
                counts[:] = 0, 0
                estimate = fresh(q, one, num_samples)
                torch.autograd.grad(estimate.surrogate.sum(), eta)
                return counts[0] // _DATA, counts[1]
    return None


def _target(q: Distribution, log_likelihood: Callable[[Tensor], Tensor]) -> Target:
    prior = td.Independent(_expanded(q), 1, validate_args=False)
    return Target(log_likelihood, prior=prior, features=torch.ones(_DATA, 2))


def _expanded(q: Distribution) -> Distribution:
    """The same family, free of φ."""
    base = q.base_dist  # type: ignore[attr-defined]
    return type(base)(
        *(getattr(base, name).detach() for name in _PARAMETERS[type(base)]), validate_args=False
    )


_PARAMETERS: dict[type, tuple[str, ...]] = {
    td.Normal: ("loc", "scale"),
    td.Gamma: ("concentration", "rate"),
    td.Bernoulli: ("probs",),
    td.OneHotCategorical: ("probs",),
}


def _independent(eta: Tensor, base: Distribution) -> tuple[Tensor, Distribution]:
    return eta, td.Independent(base, 1, validate_args=False)


def _gaussian(d: int) -> tuple[Tensor, Distribution]:
    eta = torch.full((_DATA, 2 * d), 0.3, requires_grad=True)
    return _independent(eta, td.Normal(eta[:, :d], eta[:, d:].exp(), validate_args=False))


def _bernoulli(d: int) -> tuple[Tensor, Distribution]:
    eta = torch.full((_DATA, d), 0.3, requires_grad=True)
    return _independent(eta, td.Bernoulli(logits=eta, validate_args=False))


def _categorical(d: int) -> tuple[Tensor, Distribution]:
    eta = torch.full((_DATA, 3 * d), 0.3, requires_grad=True)
    return _independent(eta, td.OneHotCategorical(logits=eta.view(_DATA, d, 3), validate_args=False))


def _gamma(d: int) -> tuple[Tensor, Distribution]:
    eta = torch.full((_DATA, 2 * d), 0.3, requires_grad=True)
    return _independent(eta, td.Gamma(eta[:, :d].exp(), eta[:, d:].exp(), validate_args=False))


_FAMILIES = {
    "Gaussian": _gaussian,
    "Bernoulli": _bernoulli,
    "3-ary": _categorical,
    "Gamma": _gamma,
}


def _lines(name: str, summary: str) -> str:
    return f"{printable(name)}\n{_filled('  ', summary)}"


def _fact(label: str, fact: str) -> str:
    return _filled(f"    {label:<{_LABELS}}  ", fact)


def _filled(start: str, text: str) -> str:
    indent, text = " " * len(start), printable(text)
    return textwrap.fill(text, _WIDTH, initial_indent=start, subsequent_indent=indent, break_long_words=False)

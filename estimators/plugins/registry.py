"""The catalogue of estimators: names, specifications, plugins. Imports torch only to create one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .finding import Builtin, Registry
from .specification import Specification, parse

if TYPE_CHECKING:
    from ..base import Estimator

# The summaries are the first lines of the classes' docstrings (a test compares them).
_BUILTINS = {
    "reparameterization": "Differentiate through the sample: z = g(ε; η), ε free of φ.",
    "score-function": "Weigh the score by the integrand: f(z) ∇_η log q(z).",
    "constant-baseline": "Score function with one constant b for all data: (f(z) − b) ∇_η log q(z).",
    "moving-average-baseline": "Score function with b = an exponential moving average of past f.",
    "leave-one-out": "Score function with b_s = mean of f over the other S − 1 samples of the same datum.",
    "learned-baseline": "Score function with b = b_ψ(x), a network of the input trained to predict f.",
    "optimal-baseline": "Score function with b*_k = E[f s_k²] / E[s_k²] for each coordinate k of η.",
    "vargrad": "Differentiate a variance: −∇_η ½ Var_r(log q(z) − log p(x, z)) at r = q.",
    "delta-method": "Score function of f − h, h the second-order Taylor polynomial of f at the mean of q.",
    "mixed": "Mix the pathwise and the score-function gradient for the least variance of each coordinate.",
    "measure-valued": "Write ∂_η q as c (q⁺ − q⁻), a difference of two densities, and average f under both.",
    "sticking-the-landing": "Reparameterize log p(x, z) − log q(z), φ cut out of the parameters of log q.",
    "linearized-hessian": (
        "Subtract the gradient's own linearization at the mean: ∇f(z) − H (z − m), H = ∇²f(m), m = E_q z."
    ),
    "quadratic-control-variate": (
        "Subtract a fitted quadratic f̂_v and add its exact expectation: f(z) − γ (f̂_v(z) − E_q f̂_v)."
    ),
    "generalized-reparameterization": (
        "Differentiate through a sample standardized by φ, and weigh the score of what φ is left in it."
    ),
    "iwae": "Differentiate log of the mean of K importance weights, K = S: the bound of the IWAE.",
    "dreg": "Reparameterize a second time: ĝ = Σ_k ŵ_k² J_kᵀ ∇_z log w_k, K = S.",
    "iwae-sticking-the-landing": (
        "Drop the score term of the importance-weighted gradient: ĝ = Σ_k ŵ_k J_kᵀ ∇_z log w_k, K = S."
    ),
    "vimco": "Credit each sample with what it adds to the bound: L̂ − L̂_{−k}, less its own ŵ_k.",
    "ovis": "Take from each score's weight its mean over that sample alone: Σ_k (d_k − c_k) ∇_η log q(z_k).",
    "reweighted-wake-sleep": (
        "Fit q to the weighted samples: ĝ = Σ_k ŵ_k ∇_η log q(z_k), z_k held fixed, K = S."
    ),
    "thermodynamic": (
        "Sum E[log w] along the path from q to p(z|x): Σ_p (β_{p+1} − β_p) E_{π_β}[log w], at β = β_p."
    ),
    "exact": "Integrate instead of sampling: ∇_η E_q[f(z)] − ∇_η KL without Monte Carlo error.",
}


# Classes whose names are not the words of the estimator's, capitalized.
_CLASSES = {
    "vargrad": "VarGrad",
    "iwae": "IWAE",
    "dreg": "DReG",
    "iwae-sticking-the-landing": "IWAEStickingTheLanding",
    "vimco": "VIMCO",
    "ovis": "OVIS",
}

_METHODS = f"{__package__.rpartition('.')[0]}.methods"

BUILTIN_NAMES = tuple(_BUILTINS)
#: What is compared when nobody says what: estimators of the ELBO's gradient that one would train a VAE with.
DEFAULT_NAMES = (
    "reparameterization",
    "score-function",
    "constant-baseline",
    "moving-average-baseline",
    "leave-one-out",
    "learned-baseline",
    "optimal-baseline",
    "exact",
)


def _location(name: str) -> str:
    module = name.replace("-", "_")
    words = "".join(word.capitalize() for word in name.split("-"))
    return f"{_METHODS}.{module}:{_CLASSES.get(name, words)}"


def _estimators_in(module: ModuleType) -> list[str]:
    """Names of the concrete Estimator classes that a module itself defines."""
    from ..base import Estimator

    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Estimator)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


REGISTRY = Registry(
    kind="estimator",
    group="elbograd.estimators",
    builtins={name: Builtin(_location(name), summary) for name, summary in _BUILTINS.items()},
    find_in_module=_estimators_in,
)


def catalogue() -> dict[str, str]:
    """name -> what it is, in one line; third-party code is not imported."""
    return REGISTRY.catalogue()


def register(
    name: str, factory: Callable[..., Estimator] | None = None, *, summary: str = ""
) -> Callable[..., Any]:
    """Make an estimator known by name in this process; also a class decorator.

    Args:
        name: kebab-case.
        factory: class or function that returns an Estimator.
        summary: one line for the catalogue; by default the docstring's first.

    Raises:
        UsageError: the name is taken or not kebab-case.
    """

    def add(thing: Callable[..., Estimator]) -> Callable[..., Estimator]:
        REGISTRY.register(name, thing, summary)
        return thing

    return add if factory is None else add(factory)


def create(specification: str | Specification, **parameters: Any) -> Estimator:
    """Build an estimator from its specification.

    ``create("score-function")``, ``create("reparameterization", kl="sampled")``,
    ``create("reparameterization[kl=sampled]")``, ``create("package.module:MyEstimator")``,
    ``create("path/to/my_estimator.py")``, ``create("path/to/my_estimator.py:MyEstimator")``.

    Raises:
        UsageError: in one line, what is wrong with the name, a parameter or the plugin.
    """
    from ..base import Estimator

    parsed = parse(specification) if isinstance(specification, str) else specification
    estimator = REGISTRY.create(parsed, **parameters)
    if not isinstance(estimator, Estimator):
        raise UsageError(f"{parsed} is a {type(estimator).__name__}, not an elbograd Estimator")
    estimator.label = label_of(Specification(parsed.name, {**parsed.parameters, **parameters}))
    return estimator


def label_of(specification: Specification) -> str:
    """How results call it: as it was written, less the folders of a path."""
    place, colon, attribute = specification.name.partition(":")
    name = Path(place).name if place.endswith(".py") else place
    return str(Specification(f"{name}{colon}{attribute}", specification.parameters))

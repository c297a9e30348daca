"""The catalogue of problems: names, specifications, plugins. Imports torch only to load one."""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...estimators.errors import UsageError
from ...estimators.plugins.finding import Builtin, Registry
from ...estimators.plugins.registry import label_of
from ...estimators.plugins.specification import Specification, parse
from ...estimators.text import shortened
from .needed import NEEDED, is_module, is_problem

if TYPE_CHECKING:
    from .protocol import Problem

_BUILTINS = {
    "vae": (
        "vae:GaussianVAE",
        "VAE on digits or other images: Gaussian posterior, MLPs or convolutions",
    ),
    "bernoulli-vae": ("vae:BernoulliVAE", "the same VAE with Bernoulli latents"),
    "categorical-vae": ("vae:CategoricalVAE", "the same VAE with categorical (one-hot) latents"),
    "sigmoid-belief-network": (
        "sigmoid_belief_network:SigmoidBeliefNetwork",
        "two layers of binary latents on digits or other images, the upper one inferred from the lower",
    ),
    "two-layer-gaussian": (
        "two_layer_gaussian:TwoLayerGaussian",
        "two layers of Gaussian latents, all linear, inferred bottom-up or top-down; known in closed form",
    ),
    "small-hierarchy": (
        "small_hierarchy:SmallHierarchy",
        "tiny VAE of two layers, Gaussian, binary or mixed, in either direction, whose ELBO is exact",
    ),
    "linear-gaussian": (
        "linear_gaussian:LinearGaussianVAE",
        "VAE with a linear decoder and Gaussian noise; all is known in closed form",
    ),
    "conjugate": (
        "conjugate:ConjugateGaussian",
        "linear-Gaussian VAE whose encoder starts at the true posterior, or at a distance from it",
    ),
    "gamma-poisson": ("gamma_poisson:GammaPoisson", "counts with Gamma latents, which torch reparameterizes"),
    "small-vae": (
        "small_vae:SmallVAE",
        "tiny VAE whose ELBO is exact: seven posteriors, from gaussian to categorical",
    ),
    "waves": (
        "waves:Waves",
        "sines and a quadratic of z, exact in closed form in any dimension under four posteriors",
    ),
    "logistic-regression": (
        "logistic_regression:LogisticRegression",
        "Bayesian logistic regression on 569 patients, mean-field Gaussian posterior over 31 weights",
    ),
    "bayesian-linear-regression": (
        "bayesian_linear_regression:BayesianLinearRegression",
        "posterior over the weights of a linear regression, in minibatches; all is known in closed form",
    ),
    "bayesian-logistic-regression": (
        "bayesian_logistic_regression:BayesianLogisticRegression",
        "logistic-regression in minibatches of its 569 patients, which share the weights",
    ),
    "bayesian-mlp": (
        "bayesian_mlp:BayesianMLP",
        "classifier of the digits with a posterior over all of its weights, in minibatches",
    ),
    "bayesian-vae": (
        "bayesian_vae:BayesianVAE",
        "VAE on the digits with a posterior over the decoder's weights, or the encoder's too, in minibatches",
    ),
    "quadratic": ("functions:Quadratic", "cost (z − k)² under N(μ, σ²), one dimension"),
    "exponential": ("functions:Exponential", "cost exp(−k z²) under N(μ, σ²), one dimension"),
    "cosine": ("functions:Cosine", "cost cos(k z) under N(μ, σ²), one dimension"),
    "binary-toy": ("discrete_functions:BinaryToy", "cost mean (z − t)² of independent Bernoulli variables"),
    "shared-logit": (
        "discrete_functions:SharedLogit",
        "cost Σ (z − p)² of three Bernoulli variables with one logit between them",
    ),
    "categorical-toy": (
        "discrete_functions:CategoricalToy",
        "quadratic cost that couples categorical (one-hot) variables, drawn at random",
    ),
}


def _problems_in(module: ModuleType) -> list[str]:
    """Names in a module that are problems, or classes that a module itself defines which make them."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            is_problem(value)
            or (
                isinstance(value, type)
                and value.__module__ == module.__name__
                and all(hasattr(value, method) for method in ("posterior", "target", "batches"))
            )
        )
    ]


def _why_none(module: ModuleType) -> str:
    """What a module without problems holds in their place, and what to do; "" where nothing is like one."""
    almost = almost_problems(module)
    if not almost:
        return ""
    from .checks import SIDES, missing_parts, unwrapped

    thing = vars(module)[almost[0]]
    missing = [name for name in missing_parts(thing) if not (isinstance(thing, type) and name in SIDES)]
    return unwrapped(thing) or f"{almost[0]} has no {', '.join(missing) or 'instance'}"


def almost_problems(module: ModuleType) -> list[str]:
    """Names in a module of what may have been meant as a problem: the most likely first.

    Instances come before classes, what has most of a problem's parts before what has fewer; a module
    that is part of another one comes last.
    """
    found = {}
    for name, value in vars(module).items():
        its_own = not isinstance(value, type) or value.__module__ == module.__name__
        parts = sum(hasattr(value, part) for part in NEEDED)
        halves = sum(hasattr(value, half) for half in ("encode", "decode"))
        if not name.startswith("_") and its_own and (parts >= 2 or is_module(value)):
            found[name] = (-parts, -halves, isinstance(value, type))
    return sorted(found, key=lambda name: found[name])


REGISTRY = Registry(
    kind="problem",
    group="elbograd.problems",
    builtins={
        name: Builtin(f"{__package__}.{location}", summary) for name, (location, summary) in _BUILTINS.items()
    },
    find_in_module=_problems_in,
    is_made=lambda thing: is_problem(thing) or is_module(thing),
    why_none=_why_none,
    drawn=True,
)


def problem_catalogue() -> dict[str, str]:
    """Name -> what it is, in one line; third-party code is not imported."""
    return REGISTRY.catalogue()


def load_problem(specification: str | Specification, **parameters: Any) -> Problem:
    """Build a problem from its specification, as `elbograd.estimators.create` builds an estimator.

    ``load_problem("vae[latent_dim=2]")``, ``load_problem("my_model.py:problem")``; what is named may
    be a problem, or a class or function that makes one. What draws there draws from seed 0, as in
    measurements under that seed.

    Raises:
        UsageError: in one line, what is wrong with the name, a parameter or the plugin.
    """
    return load_under(0, specification, **parameters)


def load_under(seed: int, specification: str | Specification, /, **parameters: Any) -> Problem:
    """`load_problem`, for measurements under ``seed``: what user's code draws is drawn from it.

    Weights and data are those that the code makes after ``torch.manual_seed(seed)``,
    ``numpy.random.seed(seed)`` and ``random.seed(seed)``, first while its file is imported, then afresh while
    a class or function is called.
    """
    parsed = parse(specification) if isinstance(specification, str) else specification
    problem = REGISTRY.create(parsed, seed, **parameters)
    from .checks import attribute, check_problem

    try:
        check_problem(problem)
    except UsageError as error:
        raise UsageError(f"{shortened(str(parsed))}: {error}") from None
    if not attribute(problem, "label", ""):
        with suppress(AttributeError):  # a frozen dataclass, or one with slots, goes by its type
            problem.label = label_of(Specification(parsed.name, {**parsed.parameters, **parameters}))
    return problem

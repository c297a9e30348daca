"""What a certificate can have tried: kinds of latents, of sizes, of floating-point types and modes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ...estimators.errors import UsageError
from ...estimators.plugins.specification import Value, parse
from .certificate_checks import MODES

_GAUSSIAN, _BERNOULLI, _ONE_HOT = "diagonal Gaussians", "Bernoulli latents", "K-ary latents"
_WEIGHTS, _SEVERAL = "weights of a network", "several latents"
_POSTERIORS = {
    "gaussian": _GAUSSIAN,
    "full-gaussian": "full-covariance Gaussians",
    "bernoulli": _BERNOULLI,
    "categorical": _ONE_HOT,
    "flow": "flows",
    "beta": "Betas",
    "von-mises": "von Mises angles",
}
# The suite's problems with exact answers: their latents, and D where the specification does not say.
_LATENTS = {
    "quadratic": (_GAUSSIAN, 1),
    "exponential": (_GAUSSIAN, 1),
    "cosine": (_GAUSSIAN, 1),
    "linear-gaussian": (_GAUSSIAN, 4),
    "conjugate": (_GAUSSIAN, 2),
    "small-vae": (_GAUSSIAN, 2),
    "waves": (_GAUSSIAN, 4),
    "binary-toy": (_BERNOULLI, 1),
    "shared-logit": (_BERNOULLI, 3),
    "categorical-toy": (_ONE_HOT, 3),
    "gamma-poisson": ("Gammas", 1),
    "bayesian-linear-regression": (_WEIGHTS, 1),
    "bayesian-logistic-regression": (_WEIGHTS, 1),
    "bayesian-mlp": (_WEIGHTS, 1),
    "bayesian-vae": (_WEIGHTS, 1),
    "small-hierarchy": (_SEVERAL, 1),
    "two-layer-gaussian": (_SEVERAL, 1),
}
_MANY = 4  # dimensions: an order of indices that is right by accident below shows from here on
_LARGE = 100.0  # nats
#: Added to a kind of latents that was tried in few dimensions alone.
IN_MANY_DIMENSIONS = f" of {_MANY} dimensions or more"
_SAMPLES: dict[str, Callable[[int], bool]] = {
    "S = 1": lambda s: s == 1,
    "even S": lambda s: s % 2 == 0,
    "odd S above 1": lambda s: s > 1 and s % 2 == 1,
    "S above 8": lambda s: s > 8,
}
_BATCHES: dict[str, Callable[[int], bool]] = {
    "B = 1": lambda b: b == 1,
    "B = 2": lambda b: b == 2,
    "B of 4 or more": lambda b: b >= 4,
    "B above 8": lambda b: b > 8,
}
_LARGE_COSTS, _SINGLE_PRECISION, _TRAINING = "costs of hundreds of nats", "float32", "train mode"
_ALL_LATENTS = dict.fromkeys([*_POSTERIORS.values(), *(latents for latents, _ in _LATENTS.values())])
#: All kinds, in the order in which they are told.
KINDS = (
    *_ALL_LATENTS,
    *(f"{latents}{IN_MANY_DIMENSIONS}" for latents in _ALL_LATENTS),
    _LARGE_COSTS,
    *_SAMPLES,
    *_BATCHES,
    _SINGLE_PRECISION,
    _TRAINING,
)
_WORDS = {words: mode for mode, words in MODES.items()}
_CORNER = re.compile(
    r"(?P<problem>.*?)(?: at (?P<point>[^,]+))?(?:, S = (?P<s>\d+))?(?:, B = (?P<b>\d+))?"
    rf"(?:, (?P<dtype>b?float\d+))?(?:, (?P<mode>{'|'.join(sorted(_WORDS, key=len, reverse=True))}))?"
)


class Place(NamedTuple):
    """Where something was tried, or was to be.

    Attributes:
        problem: its label.
        num_samples: S; None where none is meant in particular.
        batch_size: B; likewise.
        dtype: floating-point type.
        mode: one of `MODES`.
    """

    problem: str
    num_samples: int | None = None
    batch_size: int | None = None
    dtype: str = "float64"
    mode: str = "eval"


def place_of(text: str) -> Place:
    """The place that a text such as "small-vae at scales, S = 5, B = 9, float32, train mode" names.

    Everything behind the problem may be missing.

    >>> place_of("waves[latent_dim=5] at initial, S = 3, train mode")
    Place(problem='waves[latent_dim=5]', num_samples=3, batch_size=None, dtype='float64', mode='train')
    """
    found = _CORNER.fullmatch(text)
    if found is None:  # a label with a line break, of no problem of the suite's
        return Place(text)
    samples, data = (None if found[size] is None else int(found[size]) for size in ("s", "b"))
    mode = _WORDS.get(found["mode"] or "", "eval")
    return Place(found["problem"], samples, data, found["dtype"] or "float64", mode)


def kinds_of(place: Place) -> list[str]:
    """The kinds that a place belongs to; a problem that is not the suite's has no kind of latents."""
    kinds = _kinds_of_problem(place.problem)
    for size, names in ((place.num_samples, _SAMPLES), (place.batch_size, _BATCHES)):
        kinds += [name for name, belongs in names.items() if size is not None and belongs(size)]
    kinds += [_SINGLE_PRECISION] * (place.dtype == "float32")
    return kinds + [_TRAINING] * (place.mode == "train")


def _kinds_of_problem(label: str) -> list[str]:
    try:
        problem = parse(label)
    except UsageError:  # the class of a problem object, or what a user calls one
        return []
    if problem.name not in _LATENTS:
        return []
    given = problem.parameters
    latents, dimension = _LATENTS[problem.name]
    latents = _POSTERIORS.get(str(given.get("posterior")), latents)
    kinds = [latents]
    if _size(given, "latent_dim", dimension) >= _MANY:
        kinds.append(f"{latents}{IN_MANY_DIMENSIONS}")
    if max(_size(given, "offset", 0), _size(given, "scale", 0)) >= _LARGE:
        kinds.append(_LARGE_COSTS)
    return kinds


def _size(given: Mapping[str, Value | list[Value]], name: str, otherwise: float) -> float:
    value = given.get(name, otherwise)
    return abs(value) if isinstance(value, int | float) else 0.0

"""Which points and weights integrate under a posterior, how fine they must be, and when to trust them.

40 nodes a dimension were once too few, and six correct estimators seemed biased: a quadrature counts as exact
only where the next finer one says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.posteriors.distributions import describe
from ...estimators.posteriors.families import family_of
from ...estimators.posteriors.gaussians import is_diagonal_gaussian
from ...estimators.posteriors.layered import Layered
from ...estimators.posteriors.outcomes import outcomes, too_many
from .layered_nodes import affordable, continuous_dimension, layered_nodes
from .nodes import all_outcomes, beta_nodes, gamma_nodes, gaussian_nodes, von_mises_nodes

TOLERANCE = 1e-6  # relative change from a rule to the next finer one
SETTLED = 1e-10  # the same, where rules finer still are spared though all are asked for

#: A Gauss-Hermite weight below which a point is left out under an integrand that grows like log p(x|z) or its
#: square, 13 standard deviations out; were it missed, rules whose points lie elsewhere would not agree.
LEAST = 1e-40

_T = TypeVar("_T")

# Nodes a dimension, ever finer: by D × number of samples, or by both.
GAUSSIAN_NODES: dict[int, tuple[int, ...]] = {1: (128, 200), 2: (64, 96, 160, 200), 3: (24, 32)}
_Table = dict[tuple[int, int], tuple[int, ...]]
_GAMMA_NODES: _Table = {(1, 1): (300, 400), (1, 2): (300, 400), (2, 1): (160, 200)}
_BETA_NODES: _Table = {(1, 1): (200, 300), (1, 2): (200, 300), (2, 1): (120, 160)}
_VON_MISES_NODES: _Table = {(1, 1): (128, 192), (1, 2): (128, 192), (2, 1): (96, 128)}
_FIXED: dict[type[Distribution], tuple[Callable[..., tuple[Tensor, Tensor]], _Table]] = {
    td.Gamma: (gamma_nodes, _GAMMA_NODES),
    td.Beta: (beta_nodes, _BETA_NODES),
    td.VonMises: (von_mises_nodes, _VON_MISES_NODES),
}

#: From a posterior to points (N, *batch, *event) and weights (N, *batch), see `nodes`.
Rule = Callable[[Distribution], tuple[Tensor, Tensor]]


class Rules(NamedTuple):
    """How to integrate under a posterior.

    Attributes:
        method: "enumeration" or "quadrature".
        rules: one that is exact, or several, ever finer, to be compared.
    """

    method: str
    rules: list[Rule]


def rules_of(q: Distribution, samples: int = 1, least: float = 0.0) -> Rules | str:
    """The rules for q, or why there are none in one line.

    Args:
        q: of any family.
        samples: that the integrand takes at a time; its integral is a sum over tuples of points.
        least: weight of a point under a Gaussian below which it is left out, such as `LEAST`.
    """
    if outcomes(q) is not None:
        return too_many(q, samples) or Rules("enumeration", [all_outcomes])
    if isinstance(q, Layered):
        return _of_layers(q, samples, least)
    dimension = q.event_shape[0] if len(q.event_shape) == 1 else 0
    independent, transformed = (family_of(q) is one for one in (td.Independent, td.TransformedDistribution))
    base = q.base_dist if transformed else q  # type: ignore[attr-defined]
    family = family_of(q.base_dist) if independent and dimension else None  # type: ignore[attr-defined]
    counts: tuple[int, ...] | None
    if is_diagonal_gaussian(base) or family_of(base) is td.MultivariateNormal:
        place: Callable[..., tuple[Tensor, Tensor]] = partial(gaussian_nodes, least=least)
        counts, largest = GAUSSIAN_NODES.get(dimension * samples), max(GAUSSIAN_NODES)
    elif family in _FIXED:
        place, table = _FIXED[family]
        counts, largest = table.get((dimension, samples)), max(d for d, _ in table)
    else:
        return f"no quadrature for a {describe(q)} of event shape {tuple(q.event_shape)}"
    if counts is None:
        of_samples = f" of {samples} samples" if samples > 1 else ""
        return f"latent dimension {dimension}{of_samples} is too large for quadrature (at most {largest})"
    return Rules("quadrature", [partial(place, nodes=nodes) for nodes in counts])


def _of_layers(q: Layered, samples: int, least: float) -> Rules | str:
    """Under Gaussian and finite latents, two rules at least."""
    dimension = continuous_dimension(q)
    if isinstance(dimension, str):
        return dimension
    counts = GAUSSIAN_NODES.get(dimension * samples)
    of_samples = f" of {samples} samples" if samples > 1 else ""
    if counts is None:
        return f"{dimension} Gaussian numbers{of_samples} are too many for quadrature"
    counts = affordable(q, counts, samples)
    if len(counts) < 2:
        return f"these latents{of_samples} have too many points for quadrature"
    return Rules("quadrature", [partial(layered_nodes, nodes=nodes, least=least) for nodes in counts])


def settled(
    ways: Iterable[Callable[[], _T]], moved: Callable[[_T, _T], float], enough: float = SETTLED
) -> tuple[_T, float]:
    """The first answer that the one before is within ``enough`` of, or the last, and the change to it.

    Args:
        ways: to an answer, ever finer, one at least; of a single one the change is 0.
        moved: relative change from one answer to the next.
        enough: at which no finer answer is computed.
    """
    first, *finer = ways
    answer, distance = first(), 0.0
    for way in finer:
        coarse, answer = answer, way()
        distance = moved(coarse, answer)
        if distance <= enough:
            break
    return answer, distance


def change(coarse: Float[Tensor, "*shape"], fine: Float[Tensor, "*shape"]) -> float:
    """Relative change from a coarse answer to a fine one."""
    if not fine.numel():
        return 0.0
    return float((fine - coarse).norm() / fine.norm().clamp_min(1e-6))

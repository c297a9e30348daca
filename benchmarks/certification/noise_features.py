"""Features of the noise alone: products of orthonormal functions of one sample's, and of two samples'."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .basis import Basis
from .features import Features, no_features
from .noise import Noise
from .rare_states import Cuts

_MOST_IN_PAIRS = 20  # functions of one sample of which all products of two samples are taken


def noise_features(
    noise: list[Noise], replicates: int, like: Float[Tensor, "B P"], cuts: Cuts | None = None
) -> Features:
    """Means over samples, all of mean zero; operations of as many samples are taken together.

    Args:
        noise: of all operations that are understood.
        replicates: R.
        like: what says how many data there are, and of which type.
        cuts: see `basis.cuts_of`.
    """
    columns = [column for group in _groups(noise) for column in _of_group(group, cuts)]
    if not columns:
        return no_features(replicates, like)
    return Features(torch.stack(columns, -1), like.new_zeros(len(like), len(columns)))


def expected(
    noise: list[Noise], like: Float[Tensor, "B P"], cuts: Cuts | None = None
) -> Float[Tensor, "B F"]:
    """How often an estimate draws the rarest of what a feature of `noise_features` tells apart."""
    found = [like.new_zeros(0, len(like))]
    for group in _groups(noise):
        basis, samples = Basis(group, cuts), group[0].values.shape[0]
        rare = basis.rarities()
        found.append(samples * rare)
        if samples > 1:
            low = rare[basis.low[:_MOST_IN_PAIRS]]
            i, j = torch.triu_indices(len(low), len(low), device=low.device)
            found.append(samples * (samples - 1) * low[i] * low[j])
    return torch.cat(found).T


def _groups(noise: list[Noise]) -> list[list[Noise]]:
    """Operations of as many samples."""
    by_samples: dict[int, list[Noise]] = {}
    for one in noise:
        if one.kind == "gamma":
            continue  # its polynomials have tails so heavy that tests do not keep their level
        by_samples.setdefault(one.values.shape[0], []).append(one)
    return [*by_samples.values()]


def _of_group(noise: list[Noise], cuts: Cuts | None) -> list[Float[Tensor, "R B"]]:
    basis = Basis(noise, cuts)
    if noise[0].values.shape[0] == 1:
        return [value[0] for value in basis.values()]
    columns = [value.mean(0) for value in basis.values()]
    return columns + _pairs(list(basis.values(basis.low[:_MOST_IN_PAIRS])))


def _pairs(functions: list[Float[Tensor, "L R B"]]) -> list[Float[Tensor, "R B"]]:
    """Σ_{s≠t} a_s b_t / (L (L − 1)) of any two functions, or one and itself: of mean zero as these are."""
    sums = [function.sum(0) for function in functions]
    found = []
    for i, one in enumerate(functions):
        for j in range(i, len(functions)):
            both = sums[i] * sums[j] - (one * functions[j]).sum(0)
            found.append(both / (len(one) * (len(one) - 1)))
    return found

"""Functions of an estimate's noise whose mean is zero: products of orthonormal functions of each number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.pieces.variables import not_discrete, variables_of
from .noise import Noise
from .rare_states import Cuts, probabilities

_DEGREE = 4  # higher ones break the level of the tests: their tails are too heavy
_MOST = 220  # products
_MOST_STATES = 64  # that all numbers of a sample can have together, for all products of all of them
_SMALLEST = 1e-12  # of a probability, below which a state's own function is left out

_FEW = 3  # numbers of pieces, of which all products are taken

Product = tuple[tuple[int, int], ...]  # (number, function of it), ...
_Degrees = tuple[tuple[int, tuple[int, ...]], ...]  # (number, degree of each function of it), ...


class Basis:
    """Products of functions of V numbers, of total degree 4 at most, or less where they are too many.

    Args:
        noise: of the same number L of samples.
        cuts: where uniform numbers decide of something, see `cuts_of`.
        most: products.
    """

    def __init__(self, noise: Sequence[Noise], cuts: Cuts | None = None, most: int = _MOST) -> None:
        cuts = cuts or {}
        self._noise, self._cuts = noise, cuts
        self._functions = [one for part in noise for one in _functions(part, cuts)]
        widths = [len(functions) for functions in self._functions]
        finite = [part.states ** part.values.shape[-1] for part in noise]
        pieces = all(part.kind == "uniform" and part.values.shape[-1] in cuts for part in noise)
        whole = (all(finite) and math.prod(finite) <= _MOST_STATES) or (pieces and len(widths) <= _FEW)
        degree_of_one = {
            i: (1,) * width if whole else tuple(range(1, width + 1)) for i, width in enumerate(widths)
        }
        if all(finite) or pieces:  # each state of a number is of degree 1
            degree_of_one = {i: (1,) * width for i, width in enumerate(widths)}
        self.products = _products(tuple(degree_of_one.items()), len(widths) if whole else _DEGREE, most)
        self.low = [i for i, p in enumerate(self.products) if whole or _degree(p, degree_of_one) <= 2]

    def __len__(self) -> int:
        return len(self.products)

    def rarities(self) -> Float[Tensor, "products B"]:
        """The probability of the rarest states, or pieces, that each tells apart from others; 1 of others."""
        each = [one for part in self._noise for one in _rarities(part, self._cuts)]
        found = [self._noise[0].values.new_zeros(0, self._noise[0].values.shape[2])]
        for product in self.products:
            parts = [each[number][function] for number, function in product]
            found.append(torch.stack(parts).prod(0, keepdim=True))
        return torch.cat(found)

    def values(self, which: Sequence[int] | None = None) -> Iterator[Float[Tensor, "L R B"]]:
        """Of each product, or of these."""
        known: dict[Product, Tensor] = {}
        for index in range(len(self.products)) if which is None else which:
            yield self._value(self.products[index], known)

    def _value(self, product: Product, known: dict[Product, Tensor]) -> Float[Tensor, "L R B"]:
        """What longer products begin with is computed once."""
        if product in known:
            return known[product]
        value = self._functions[product[-1][0]][product[-1][1]]
        if len(product) > 1:
            value = self._value(product[:-1], known) * value
        if len(product) < _DEGREE:
            known[product] = value
        return value


def _degree(product: Product, degree_of_one: dict[int, tuple[int, ...]]) -> int:
    return sum(degree_of_one[number][function] for number, function in product)


@lru_cache(maxsize=64)
def _products(numbers: _Degrees, degree: int, most: int) -> list[Product]:
    """Of total degree as high as there are not too many; none where there are too many of degree 1."""
    for highest in range(degree, 0, -1):
        found = list(itertools.islice(_up_to(numbers, highest), most + 1))
        if len(found) <= most:
            return sorted(found, key=lambda p: _degree(p, dict(numbers)))
    return []


def _up_to(numbers: _Degrees, degree: int) -> Iterator[Product]:
    """All products but the empty one."""
    for place, (number, degrees) in enumerate(numbers):
        for function, own in enumerate(degrees):
            if own > degree:
                continue
            yield ((number, function),)
            for rest in _up_to(numbers[place + 1 :], degree - own):
                yield ((number, function), *rest)


def cuts_of(q: Distribution) -> Cuts:
    """p of independent bits or, of K-ary variables, of the bits of a stick that spell them, (B, V), by V.

    Of a uniform number u below and above p and 1 − p other states are drawn, by u < p or by u > 1 − p.
    """
    if not_discrete(q) is not None:
        return {}
    probs = variables_of(q).probs  # (B, D, K)
    if probs.shape[-1] == 2:
        return {probs.shape[1]: probs[..., 1].double()}
    rising = probs.double().sort(-1).values
    left = rising.flip(-1).cumsum(-1).flip(-1)
    sticks = rising[..., :-1] / left[..., :-1].clamp_min(torch.finfo(torch.float64).tiny)
    return {sticks[0].numel(): sticks.flatten(1)}


def _functions(noise: Noise, cuts: Cuts) -> list[list[Float[Tensor, "L R B"]]]:
    """Of each of the V numbers: orthonormal functions of mean zero, by degree; of states one for each."""
    numbers = noise.values.unbind(-1)
    if noise.kind == "bits":
        assert noise.parameter is not None
        return [[_centred_bit(*pair)] for pair in zip(numbers, noise.parameter.unbind(-1), strict=True)]
    if noise.kind == "states":
        assert noise.parameter is not None
        tables = noise.parameter.unbind(-2)
        return [_centred_states(*pair) for pair in zip(numbers, tables, strict=True)]
    if noise.kind == "uniform" and len(numbers) in cuts:
        return [_in_pieces(u, p) for u, p in zip(numbers, cuts[len(numbers)].unbind(-1), strict=True)]
    variable = torch.stack(numbers, -1)
    if noise.kind == "exponential":
        variable = (2 * variable).sqrt()
    powers = [variable**k for k in range(_DEGREE + 1)]
    rows = _orthonormal(noise.kind)
    found = [sum(c * p for c, p in zip(row, powers, strict=False)) for row in rows]
    return [[f[..., v] for f in found] for v in range(variable.shape[-1])]  # type: ignore[index]


def _rarities(noise: Noise, cuts: Cuts) -> list[list[Float[Tensor, "B"]]]:
    """Of each function of `_functions`: the probability of what it tells apart; 1 where that is nothing."""
    table = probabilities(noise, cuts)
    if table is None:
        ones = noise.values.new_ones(noise.values.shape[2])
        return [[ones] * _DEGREE] * noise.values.shape[-1]
    numbers = [number.unbind(-1) for number in table.unbind(1)]
    if noise.kind == "uniform":
        return [[low, low, high, high, between] for low, high, between in numbers]
    return [[torch.minimum(p, 1 - p) for p in states[: max(len(states) - 1, 1)]] for states in numbers]


def _centred_bit(bit: Tensor, p: Tensor) -> Tensor:
    spread = (p * (1 - p)).sqrt()
    return torch.where(spread > _SMALLEST, (bit - p) / spread.clamp_min(_SMALLEST), torch.zeros_like(bit))


def _centred_states(state: Tensor, probs: Tensor) -> list[Tensor]:
    """1(z = k) − π_k, over its spread, of all states but the last."""
    return [_centred_bit((state == k).double(), probs[..., k]) for k in range(probs.shape[-1] - 1)]


def _in_pieces(u: Tensor, p: Float[Tensor, "B"]) -> list[Tensor]:
    """Constant and linear in u below min(p, 1 − p), above max(p, 1 − p) and between, less their means."""
    low, high = torch.minimum(p, 1 - p), torch.maximum(p, 1 - p)
    inside = [(u < low, 0.0, low), (u >= high, high, 1.0), ((u >= low) & (u < high), low, high)]
    found = []
    for which, start, end in inside:
        bit = which.double()
        found += [bit - (end - start), u * bit - (end**2 - start**2) / 2]  # type: ignore[operator]
    return [*found[:4], found[5]]  # the three constants add up to 0


@lru_cache(maxsize=3)
def _orthonormal(kind: str) -> list[list[float]]:
    """Coefficients of the orthonormal polynomials of degrees 1 to 4: of ε, of u, and of √(2e), e ~ Exp(1).

    The inverse of the Cholesky factor of the moments' matrix.
    """
    moments = {
        "normal": lambda k: 0.0 if k % 2 else math.prod(range(1, k, 2)),
        "uniform": lambda k: 1 / (k + 1),
        "exponential": lambda k: 2 ** (k / 2) * math.gamma(1 + k / 2),
    }[kind]
    size = _DEGREE + 1
    hankel = torch.tensor([[moments(i + j) for j in range(size)] for i in range(size)], dtype=torch.float64)
    factor = torch.linalg.cholesky(hankel)
    inverse = torch.linalg.solve_triangular(factor, torch.eye(size, dtype=torch.float64), upper=False)
    return [row[: degree + 1].tolist() for degree, row in enumerate(inverse)][1:]

"""What features explain of estimates, found on draws that no test sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .adjustment import RANKS, Adjustment, all_explained, fitted, fitted_by_coordinate, pays
from .blocks import IMPLICIT, by_series
from .features import Features, joined
from .noise import Noise
from .oracle import Draws
from .rare_states import SEEN_BY_A_FIT, RareStates
from .source import Source

_PILOT = 2048  # estimates that the features' coefficients are fitted to
_SHORT = 4  # a part of them that is enough where an estimate is one and the same sum of features everywhere
_LEAST = 64
_WORK = 2**19  # evaluations of a whole pilot, a quarter of what all looks may take
_CANCELLED = 100  # units of rounding, where a gradient is made of values of order 1
_HARMLESS = 0.1  # of the tolerance, that errors of the features' means may take
_WORTH = 4.0  # times how far an estimate was off at most: what one may be at a state that is never seen


@dataclass(frozen=True)
class Explained:
    """What is known of the estimates of a place.

    Attributes:
        source: of the draws.
        of_integrand, of_noise: what is subtracted.
        the_same: whether estimates are one and the same function of the noise at all data.
        by_means: what the mean may be off by for errors of the features' means, for their rounding, and for
            that of derivatives which torch knows by a series.
        worth: how far a gradient, and a value, may be off at a state that is never seen, see `RareStates`.
        rare: None where nothing was drawn.
    """

    source: Source
    of_integrand: Adjustment
    of_noise: Adjustment
    the_same: bool
    by_means: Float[Tensor, "B K"]
    worth: Float[Tensor, "B 2"]
    rare: RareStates | None

    def draw(self, replicates: int) -> tuple[Draws, Draws]:
        """R estimates, as they are and less what is explained of them: both less the exact answers.

        Raises:
            NotFinite: some are not.
            OtherDraws: see `Source.draw`.
        """
        needed = self.of_integrand.used
        by_integrand, by_noise = bool(needed.any()), bool(self.of_noise.used.any())
        if not (by_integrand or by_noise):
            draws = self.source.subject.draw_unseen(replicates)
            return draws, draws
        draws, noise = self.source.draw(replicates)
        columns = _columns(draws)
        if by_integrand:
            columns = self.of_integrand(columns, self.source.of_integrand(noise, replicates, needed))
        if by_noise:
            columns = self.of_noise(columns, self.source.of_noise(noise, replicates))
        return draws, Draws(columns[..., :-1], columns[..., -1])

    def errors(self, draws: int) -> Float[Tensor, "B K"]:
        """What the mean of so many estimates may be off by, beside its noise.

        By errors of what is computed, and by states that were not drawn.
        """
        if self.rare is None:
            return self.by_means
        missed = self.rare.unseen(draws).unsqueeze(-1) * self.worth
        of_gradient = missed[:, :1].expand(-1, self.by_means.shape[1] - 1)
        return self.by_means + torch.cat((of_gradient, missed[:, 1:]), -1)

    def error(self, draws: int) -> float:
        """The same of the gradient, as a norm, for a bound."""
        # What is one and the same function of the noise in all draws is so in those that were not seen.
        errors = self.by_means if self.the_same else self.errors(draws)
        return float(errors[:, :-1].norm())


def explain(source: Source) -> Explained:
    """Draw a pilot, and find what explains it.

    First features of the integrand, which are all that many estimators are made of; if something is left, it
    is explained by those of the noise.

    Raises:
        NotFinite: an estimate is not.
        OtherDraws: see `Source.draw`.
    """
    oracle, like = source.subject.oracle, source.subject.oracle.eta_grad
    width = like.shape[1] + 1
    if source.subject.estimator.deterministic:
        none = Adjustment(like.new_zeros(len(like), 0, width))
        zeros = like.new_zeros(len(like), width), like.new_zeros(len(like), 2)
        return Explained(source, none, none, True, *zeros, None)
    source.subject.seed("pilot")
    count = max(min(_PILOT // oracle.copies, _WORK // source.work), _LEAST)
    short = min(max(count // _SHORT, _LEAST), count)
    pilot = _Pilot(source)
    pilot.add(source.apart([size for most in source.sizes(short) for size in _in_parts(most)]))
    if not (pilot.simple or short == count):
        pilot.add(source.sizes(count - short))
    return pilot.explained()


class _Pilot:
    """Draws, and what is fitted to all so far."""

    def __init__(self, source: Source) -> None:
        self._source, self._count = source, 0
        self._drawn: list[tuple[Draws, list[Noise]]] = []
        self._parts: list[Features] = []

    def add(self, sizes: list[int]) -> None:
        """Draw so many more at a time, and fit again what each coordinate is made of by itself."""
        source, oracle = self._source, self._source.subject.oracle
        drawn = [source.draw(size) for size in sizes]
        self._drawn += drawn
        self._parts += [source.of_integrand(noise, len(draws.value)) for draws, noise in drawn]
        self._count += sum(sizes)
        self._columns = torch.cat([_columns(draws) for draws, _ in self._drawn])
        self._features = joined(self._parts)
        self._largest = _largest([draws for draws, _ in self._drawn], oracle.value)
        self._rounding = oracle.unit * _CANCELLED * (1 + float(self._largest.max()))
        self._rare = RareStates(self._drawn[0][1], len(self._largest), source.cuts)
        self._hardly = self._rare.hardly(self._count * oracle.copies)
        fit = fitted_by_coordinate(self._columns, self._features, oracle.rows, self._rounding)
        self._beta, self._the_same = fit

    @property
    def simple(self) -> bool:
        """Whether estimates are one sum of features at all data, and all that may show has shown."""
        left = Adjustment(self._beta)(self._columns, self._features)
        return self._the_same and not bool(self._hardly.any()) and self._all_explained(left)

    def explained(self) -> Explained:
        """By all that was drawn."""
        of_integrand = self._by_integrand()
        by_means = of_integrand.error(self._features, self._source.subject.oracle.accuracy)
        of_noise, more = self._by_noise(of_integrand(self._columns, self._features))
        by_means = by_means + more + self._of_derivatives
        return Explained(
            self._source, of_integrand, of_noise, self._the_same, by_means, self._worth, self._rare
        )

    @property
    def _of_derivatives(self) -> Tensor:
        """Of a series: relative to the terms of an estimate, one of a sample, which cancel in its mean."""
        subject, errors = self._source.subject, torch.zeros_like(self._columns[0])
        if by_series(subject.oracle, subject.estimator):
            spread = self._columns[..., :-1].std(0) * subject.num_samples**0.5
            errors[:, :-1] = IMPLICIT * (subject.oracle.eta_grad.abs() + spread)
        return errors

    @property
    def _worth(self) -> Tensor:
        # Of states of one number that are missing, estimates do not show how far they go.
        as_values = self._rare.missing(self._count).unsqueeze(-1) * (1 + self._largest).unsqueeze(-1)
        return _WORTH * torch.maximum(_far(self._columns), as_values)

    def _by_integrand(self) -> Adjustment:
        found = Adjustment(self._beta)
        left = found(self._columns, self._features)
        if self._all_explained(left):
            return found
        for rank in RANKS:
            more = fitted(left, self._features, self._source.subject.oracle.rows, rank)
            # What a pilot hardly shows would be explained by whatever is there.
            more[self._hardly] = 0
            tried = Adjustment(self._beta + more)
            if self._harmless(tried):
                return tried
        return found

    def _by_noise(self, left: Tensor) -> tuple[Adjustment, Tensor]:
        """Of what features of the integrand leave, and what their errors may move the means by."""
        source, rows = self._source, self._source.subject.oracle.rows
        none = Adjustment(left.new_zeros(left.shape[1], 0, left.shape[2])), left.new_zeros(left.shape[1:])
        if self._all_explained(left):
            return none
        others = joined([source.of_noise(noise, len(draws.value)) for draws, noise in self._drawn])
        times = self._count * source.subject.oracle.copies
        others = others.only(times * source.expected(self._drawn[0][1]) >= SEEN_BY_A_FIT)
        found = Adjustment(fitted(left, others, rows))
        found.coefficients[self._hardly] = 0
        if not pays(left, found(left, others), others, rows, self._rounding):
            return none
        return found, found.error(others, 0.0)  # their means are exact

    def _all_explained(self, left: Tensor) -> bool:
        return all_explained(self._columns, left, self._rounding)

    def _harmless(self, adjustment: Adjustment) -> bool:
        """Whether the errors of the features' means are as nothing to the tolerance."""
        subject = self._source.subject
        error = float(adjustment.error(self._features, subject.oracle.accuracy)[:, :-1].norm())
        return error <= _HARMLESS * subject.settings.tolerance * subject.oracle.norm


def _largest(draws: list[Draws], exact: Tensor) -> Float[Tensor, "B"]:
    """|value| of each datum at most."""
    return torch.stack([(one.value + exact).abs().amax(0) for one in draws]).amax(0)


def _far(columns: Tensor) -> Float[Tensor, "B 2"]:
    """How far any coordinate of a datum's gradient, and its value, were off at most."""
    most = columns.abs().amax(0)
    return torch.stack((most[:, :-1].amax(-1), most[:, -1]), -1)


def _in_parts(n: int) -> list[int]:
    """As four numbers, so that draws that differ from call to call show; as one where it is less."""
    return [n // 4] * 3 + [n - 3 * (n // 4)] if n >= 4 else [n]


def _columns(draws: Draws) -> Float[Tensor, "R B K"]:
    """Gradient and value side by side."""
    return torch.cat((draws.gradient, draws.value.unsqueeze(-1)), -1)

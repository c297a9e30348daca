"""Claims tested by sampling, look after look, until the answer is clear or the budget ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from ...estimators.errors import EstimatorError
from ..rows.certificate_checks import BiasBound
from .adjustment import RANKS, Adjustment, all_explained, fitted, fitted_by_coordinate, pays
from .basis import cuts_of
from .blocks import Block, Chunk, bias_of
from .features import Features, joined
from .integrand_features import integrand_features
from .levels import LOOKS
from .moments import ColumnSums
from .noise import Noise, noise_of
from .noise_features import expected, noise_features
from .oracle import Draws
from .outcome import Outcome
from .rare_states import SEEN_BY_A_FIT, RareStates
from .subject import OtherDraws, Subject

_FIRST_LOOK = 4096
_LEAST_LOOK = 512
_GROWTH = 4
_PILOT = 2048  # estimates that the features' coefficients are fitted to, and no test sees
_GROUPS = 64  # of a look: what is a mean over data and estimates is drawn for each
_FEW_GROUPS = 8  # where all of their noise is known
_ALL = 1e-7  # of the noise, that is left where all of it is known
_PILOT_GROUPS, _OF_A_PILOT = 8, 16  # groups, and estimates in each
_OF_MEANS = ("theta", "phi")
_LOOKS_OF_MEANS = 2  # at least; they take as long as all else, and no bound needs more
_NUMBERS_AT_A_TIME = 2**21  # of one call
_FEW_EVALUATIONS = 2**15  # of a first look
_LEAST_WORK = 2**17  # evaluations that are spent where the time allows
_CANCELLED = 100  # units of rounding, where a gradient is made of values of order 1
_HARMLESS = 0.1  # of the tolerance, that errors of the features' means may take
_WORTH = 4.0  # times how far an estimate was off at most: what one may be at a state that is never seen
_VARIANCE_LOOKS, _MOST_VARIANCE_LOOKS = 2, 3  # where a variance is tested; more where it has no verdict


def sample(subject: Subject, deadline: float) -> Outcome:
    """Every claim at the place, by draws.

    Args:
        subject: what is drawn, and held against what.
        deadline: `time.monotonic()` after which no further look is begun.

    Raises:
        NotFinite: an estimate is not.
        EstimatorError: it breaks the protocol.
    """
    try:
        return Looks(subject, deadline, followed=True).run()
    except OtherDraws:
        return Looks(subject, deadline, followed=False).run()


class Looks:
    """The draws of a place; what features explain of them is fitted when it is made.

    Args:
        subject: what is drawn.
        deadline: see `sample`.
        followed: whether estimates are compared with features of their noise.
    """

    def __init__(self, subject: Subject, deadline: float, followed: bool) -> None:
        self.subject, self.deadline, self._followed = subject, deadline, followed
        self._cuts = cuts_of(subject.oracle.problem.posterior(subject.oracle.eta)) if followed else {}
        self._groups = _GROUPS
        self._signature: list[tuple[str, int, int]] | None = None
        self._work = subject.evaluations * len(subject.oracle.eta)
        self.first = min(max(_FEW_EVALUATIONS // self._work, _LEAST_LOOK), _FIRST_LOOK)
        self._rare: RareStates | None = None
        self._pilot()
        self.blocks, self.bounded = subject.blocks()
        self._grouped = [block for block in self.blocks if block.name in _OF_MEANS]
        of_theta = any(block.name == "theta" for block in self._grouped)
        self._control = self._chosen_control() if of_theta and followed else None

    def run(self) -> Outcome:
        n, total, screen = self.first, 0, True
        for look in range(LOOKS + 1):
            self._begun = time.monotonic()
            self._look(n, look, screen)
            total += n
            bias = self._bias()
            if any(block.test.rejection for block in self.blocks):
                break
            waiting = any(block.test.waiting for block in self.blocks)
            if not waiting and ((self._clear(look) and self._tight(bias)) or not screen):
                break
            if look < LOOKS - 1 and self._affordable(_GROWTH * n):
                n *= _GROWTH
            elif waiting:
                screen = False  # one look more of the same size, for the alarm that waits
            else:
                break
        verdicts = {block.name: _verdict(block, total) for block in self.blocks}
        return Outcome(self.blocks, verdicts, bias, total)

    def _pilot(self) -> None:
        """Find what features explain, on draws that no test sees.

        First those of the integrand, which are all that many estimators are made of; if something is left, it
        is explained by those of the noise.
        """
        subject, like = self.subject, self.subject.oracle.eta_grad
        self._error = like.new_zeros(like.shape[0], like.shape[1] + 1)
        self._worth = like.new_zeros(like.shape[0], 2)
        self._of_integrand = self._of_noise = Adjustment(
            like.new_zeros(*like.shape[:1], 0, like.shape[1] + 1)
        )
        self._the_same = True
        if subject.estimator.deterministic:
            return
        subject.seed("pilot")
        count = max(_PILOT // subject.oracle.copies, 64)
        sizes = [size for most in self._sizes(count) for size in _in_parts(most)]
        drawn = [self._draw(size) for size in sizes]
        columns = torch.cat([_columns(draws) for draws, _ in drawn])
        features = joined([self._integrand_features(noise, len(draws.value)) for draws, noise in drawn])
        largest, rows = _largest([draws for draws, _ in drawn], subject.oracle.value), subject.oracle.rows
        rounding = subject.oracle.unit * _CANCELLED * (1 + float(largest.max()))
        self._rare = RareStates(drawn[0][1], len(like), self._cuts)
        # Of one state alone estimates do not show how far they go.
        as_values = self._rare.single(count).unsqueeze(-1) * (1 + largest).unsqueeze(-1)
        self._worth = _WORTH * torch.maximum(_far(columns), as_values)
        beta, self._the_same = fitted_by_coordinate(columns, features, rows, rounding)
        self._of_integrand = Adjustment(beta)
        left = self._of_integrand(columns, features)
        times = count * subject.oracle.copies
        # What a pilot hardly shows would be explained by whatever is there.
        hardly = self._rare.hardly(times)
        if not all_explained(columns, left, rounding):
            for rank in RANKS:
                more = fitted(left, features, rows, rank)
                more[hardly] = 0
                found = Adjustment(beta + more)
                if self._harmless(found, features.means):
                    self._of_integrand = found
                    break
            left = self._of_integrand(columns, features)
        if not all_explained(columns, left, rounding):
            others = joined([self._noise_features(noise, len(draws.value)) for draws, noise in drawn])
            others = others.only(times * self._expected(drawn[0][1]) >= SEEN_BY_A_FIT)
            by_noise = Adjustment(fitted(left, others, rows))
            by_noise.coefficients[hardly] = 0
            if pays(left, by_noise(left, others), others, rows, rounding):
                self._of_noise = by_noise
        self._error = self._of_integrand.error(features.means, subject.oracle.accuracy)

    def _harmless(self, adjustment: Adjustment, means: Tensor) -> bool:
        """Whether the errors of the features' means are as nothing to the tolerance."""
        oracle = self.subject.oracle
        error = float(adjustment.error(means, oracle.accuracy)[:, :-1].norm())
        return error <= _HARMLESS * self.subject.settings.tolerance * oracle.norm

    def _errors(self, draws: int) -> Tensor:
        """What the mean of so many estimates may be off by, beside its noise, (B, P + 1).

        By errors of the features' means, and by states that were not drawn.
        """
        if self._rare is None:
            return self._error
        missed = self._rare.unseen(draws).unsqueeze(-1) * self._worth
        return self._error + torch.cat(
            (missed[:, :1].expand(-1, self._error.shape[1] - 1), missed[:, 1:]), -1
        )

    def _chosen_control(self) -> int | None:
        """Which of the gradients in θ whose mean is known leaves least of the estimate's noise."""
        if self.subject.estimator.deterministic:
            return None
        drawn = [self.subject.draw_controlled(_OF_A_PILOT) for _ in range(_PILOT_GROUPS)]
        raw = torch.cat([means.theta for means, _ in drawn])
        left = [float(raw.var(0).sum())]
        for which in range(min(len(controls) for _, controls in drawn)):
            left.append(float((raw - torch.stack([controls[which] for _, controls in drawn])).var(0).sum()))
        best = min(range(len(left)), key=left.__getitem__)
        rounding = max(_ALL, _CANCELLED * self.subject.oracle.unit)
        if left[best] <= rounding**2 * left[0] and all(block.name != "phi" for block in self.blocks):
            self._groups = _FEW_GROUPS
        return best - 1 if best else None

    def _look(self, n: int, look: int, screen: bool) -> None:
        means = look < _LOOKS_OF_MEANS or any(
            block.test.waiting or not block.test.settled for block in self._grouped
        )
        for block, one in self.sums(n, look, means):
            if not one.n:
                continue
            block.pooled = block.pooled.pooled(one)
            if block in self.blocks:
                block.test.take(one, screen)

    def sums(self, n: int, look: int, means: bool = True) -> list[tuple[Block, ColumnSums]]:
        """What n estimates of a look add up to: of every claim, and of the gradient in any case.

        Without ``means`` nothing of the claims on means over data.
        """
        blocks = self.blocks if self.bounded in self.blocks else [*self.blocks, self.bounded]
        errors = self._errors(n)
        for block in blocks:
            block.allow(errors)
        sums = [block.test.sums() for block in blocks]
        self.subject.seed("look", look)
        for chunk, times in self._chunks(n, means and bool(self._grouped)):
            for block, one in zip(blocks, sums, strict=True):
                columns = block.columns(chunk)
                if columns is not None:
                    one.add(columns, times)
        return list(zip(blocks, sums, strict=True))

    def _chunks(self, n: int, grouped: bool) -> Iterator[tuple[Chunk, int]]:
        """n estimates some at a time, and means over groups of others, each with how often it counts."""
        if self.subject.estimator.deterministic:
            first, second = (self.subject.draw(1)[0] for _ in range(2))
            if not torch.equal(first.gradient, second.gradient):
                raise EstimatorError("declares deterministic = True, but two calls differ")
            yield Chunk(first, first), n
            if grouped:
                yield Chunk(means=self.subject.draw_means(1)), _GROUPS
            return
        for size in self._sizes(n):
            draws, noise = self._draw(size)
            adjusted = self._adjusted(draws, noise)
            yield Chunk(draws, Draws(adjusted[..., :-1], adjusted[..., -1])), 1
        for _ in range(self._groups if grouped else 0):
            yield Chunk(means=self.subject.draw_means(n // _GROUPS, self._control)), 1

    def _adjusted(self, draws: Draws, noise: list[Noise]) -> Tensor:
        """Gradient and value less what features explain of them, (R, B, P + 1)."""
        columns, count = _columns(draws), len(draws.value)
        if self._of_integrand.coefficients.shape[1]:
            columns = self._of_integrand(columns, self._integrand_features(noise, count))
        if self._of_noise.coefficients.shape[1]:
            columns = self._of_noise(columns, self._noise_features(noise, count))
        return columns

    def _integrand_features(self, noise: list[Noise], count: int) -> Features:
        return integrand_features(noise, self.subject.known, count, self.subject.oracle.eta_grad)

    def _noise_features(self, noise: list[Noise], count: int) -> Features:
        return noise_features(self._of_samples(noise), count, self.subject.oracle.eta_grad, self._cuts)

    def _expected(self, noise: list[Noise]) -> Tensor:
        return expected(self._of_samples(noise), self.subject.oracle.eta_grad, self._cuts)

    def _of_samples(self, noise: list[Noise]) -> list[Noise]:
        """Numbers drawn many more times, for a mean inside, tell little."""
        return [one for one in noise if one.values.shape[0] <= self.subject.num_samples]

    def _draw(self, replicates: int) -> tuple[Draws, list[Noise]]:
        draws, operations = self.subject.draw(replicates)
        if not self._followed:
            return draws, []
        found = (noise_of(one, replicates, len(self.subject.oracle.eta)) for one in operations)
        noise = [one for one in found if one is not None]
        signature = [(one.kind, one.values.shape[0], one.values.shape[-1]) for one in noise]
        signature.append(("operations", len(operations), 0))
        if self._signature not in (None, signature):
            raise OtherDraws
        self._signature = signature
        return draws, noise

    def _sizes(self, n: int) -> list[int]:
        """n in parts that fit into memory."""
        most = max(_NUMBERS_AT_A_TIME // (self._work * max(self.subject.oracle.eta.shape[1], 8)), 64)
        return [min(most, n - start) for start in range(0, n, most)]

    def _bias(self) -> BiasBound:
        # The bound that is reported is chosen among those of all looks.
        confidence = 1 - (1 - self.subject.settings.confidence) / LOOKS
        pooled = self.bounded.pooled
        error = self.error(pooled.n)
        return bias_of(self.subject.oracle, pooled, confidence, self.subject.typical_norm, error)

    def error(self, draws: int) -> float:
        """What the mean gradient of so many estimates may be off by, beside its noise, as a norm."""
        # What is one and the same function of the noise in all draws is so in those that were not seen.
        errors = self._error if self._the_same else self._errors(draws)
        return float(errors[:, :-1].norm())

    def _tight(self, bias: BiasBound) -> bool:
        tolerance = self.subject.settings.tolerance
        if self.subject.unbiased:
            return bias.high <= tolerance
        return bias.high - bias.low <= max(tolerance, 0.1 * bias.estimate)

    def _clear(self, look: int) -> bool:
        """Whether every claim has a verdict; for the variance's, which may never have one, a few looks do."""
        settled = {block.name: block.test.settled for block in self.blocks}
        if "variance" not in settled:
            return all(settled.values())
        least = _VARIANCE_LOOKS if settled.pop("variance") else _MOST_VARIANCE_LOOKS
        return all(settled.values()) and look + 1 >= least

    def _affordable(self, n: int) -> bool:
        """Whether a look of so many draws, four times those of the last one, is allowed and ends in time."""
        now = time.monotonic()
        in_time = now + _GROWTH * (now - self._begun) <= self.deadline
        return in_time and n * self._work <= max(self.subject.settings.max_evaluations, _LEAST_WORK)


def _largest(draws: list[Draws], exact: Tensor) -> Tensor:
    """|value| of each datum at most, (B,)."""
    return torch.stack([(one.value + exact).abs().amax(0) for one in draws]).amax(0)


def _far(columns: Tensor) -> Tensor:
    """How far any coordinate of a datum's gradient, and its value, were off at most, (B, 2)."""
    most = columns.abs().amax(0)
    return torch.stack((most[:, :-1].amax(-1), most[:, -1]), -1)


def _in_parts(n: int) -> list[int]:
    """As four numbers, so that draws that differ from call to call show; as one where it is less."""
    return [n // 4] * 3 + [n - 3 * (n // 4)] if n >= 4 else [n]


def _columns(draws: Draws) -> Tensor:
    """Gradient and value side by side, (R, B, P + 1)."""
    return torch.cat((draws.gradient, draws.value.unsqueeze(-1)), -1)


def _verdict(block: Block, draws: int) -> tuple[bool | None, str]:
    rejection = block.test.rejection
    if rejection is not None:
        return False, block.reason(rejection)
    if not block.test.settled:
        return None, f"the estimates are too skewed for a verdict at {draws:,} draws"
    return True, ""

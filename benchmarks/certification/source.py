"""The estimates of a place, with the noise that they were made of and the features of it."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from .basis import cuts_of
from .features import Features
from .integrand_features import integrand_features
from .noise import Noise, noise_of
from .noise_features import expected, noise_features
from .oracle import Draws
from .subject import OtherDraws, Subject

_NUMBERS_AT_A_TIME = 2**21  # of one call


class Source:
    """Draws of an estimator at a place.

    Args:
        subject: what is drawn.
        followed: whether the noise is looked at; else there are no features.
    """

    def __init__(self, subject: Subject, followed: bool) -> None:
        self.subject, self.followed = subject, followed
        #: Where uniform numbers decide of something, see `basis.cuts_of`.
        self.cuts = cuts_of(subject.oracle.problem.posterior(subject.oracle.eta)) if followed else {}
        self._signature: list[tuple[str, int, int]] | None = None
        #: Evaluations of log p(x|z) of an estimate of the whole batch.
        self.work = subject.evaluations * len(subject.oracle.eta)

    def sizes(self, n: int) -> list[int]:
        """n in parts that fit into memory."""
        width = max(self.subject.oracle.eta.shape[1], 8)
        most = max(_NUMBERS_AT_A_TIME // (self.work * width), 64)
        return self.apart([min(most, n - start) for start in range(0, n, most)])

    def apart(self, sizes: list[int]) -> list[int]:
        """None as many as there are data: of (S, R, B) alike nobody could tell which is which."""
        return [part for n in sizes for part in ([n - 1, 1] if self.unlike_data(n) != n else [n])]

    def unlike_data(self, n: int) -> int:
        """n, or one more where there are as many data, see `apart`."""
        data = len(self.subject.oracle.eta)
        return n + 1 if n == data > 1 else n

    def draw(self, replicates: int) -> tuple[Draws, list[Noise]]:
        """R estimates less the exact answers, and the noise that is understood.

        Raises:
            NotFinite: some are not.
            OtherDraws: other operations were drawn from than before.
        """
        if not self.followed:
            return self.subject.draw_unseen(replicates), []
        draws, operations = self.subject.draw(replicates)
        found = (noise_of(one, replicates, len(self.subject.oracle.eta)) for one in operations)
        noise = [one for one in found if one is not None]
        signature = [(one.kind, one.values.shape[0], one.values.shape[-1]) for one in noise]
        signature.append(("operations", len(operations), 0))
        if self._signature not in (None, signature):
            raise OtherDraws
        self._signature = signature
        return draws, noise

    def of_integrand(
        self, noise: list[Noise], count: int, needed: Bool[Tensor, "F"] | None = None
    ) -> Features:
        """See `integrand_features`."""
        oracle = self.subject.oracle
        return integrand_features(noise, self.subject.known, count, oracle.eta_grad, needed)

    def of_noise(self, noise: list[Noise], count: int) -> Features:
        """See `noise_features`."""
        return noise_features(self._of_samples(noise), count, self.subject.oracle.eta_grad, self.cuts)

    def expected(self, noise: list[Noise]) -> Float[Tensor, "B F"]:
        """See `noise_features.expected`."""
        return expected(self._of_samples(noise), self.subject.oracle.eta_grad, self.cuts)

    def _of_samples(self, noise: list[Noise]) -> list[Noise]:
        """Numbers drawn many more times, for a mean inside, tell little."""
        return [one for one in noise if one.values.shape[0] <= self.subject.num_samples]

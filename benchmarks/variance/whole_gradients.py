"""Gradients drawn whole, many replicates at once: the fastest way that draws what a loop would draw."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy
import torch
from jaxtyping import Float64
from torch import Tensor

from ...estimators.base import Estimator
from ..gradients import count_evaluations, frozen, seeded
from ..linalg import all_finite
from ..problems.as_trained import as_trained, eta_of
from ..problems.buffers import kept_buffers_of
from ..problems.datum_index import target_of
from ..problems.protocol import Problem
from .chunks import keep_heap, split, whole_chunk, widest_output
from .lanes import Lanes
from .one_by_one import OneByOne, Subject
from .through_eta import ThroughEta
from .through_shared_eta import ThroughSharedEta

_SEED, _OTHER_SEED = 0, 1
_PILOT = 8
_FEWEST = 32  # replicates that are worth a pilot
_FEWEST_LANES = 8  # below, one call in lanes takes longer than so many passes
_TOLERANCE = 1e-3


class _Probe(NamedTuple):
    """What one pass shows.

    Attributes:
        eta: (B, P), if it is the same each time.
        direct: names of the parameters that each replicate meets other than through eta.
        rows: of log p(x|z) in a replicate.
        widest: numbers in the largest tensor of a replicate.
    """

    eta: Tensor | None
    direct: list[str]
    rows: int
    widest: int


class Way(Protocol):
    """How whole gradients are drawn."""

    name: str

    def __call__(self, replicates: int) -> Float64[Tensor, "{replicates} phi"]:
        """Independent estimates ĝ, flattened."""
        ...


@as_trained()
def whole_gradients(
    problem: Problem,
    estimator: Estimator,
    x: Tensor,
    num_samples: int,
    replicates: int,
    wrt: str = "phi",
) -> Float64[Tensor, "{replicates} phi"]:
    """Independent estimates ĝ of the batch-mean gradient, the parameters one after the other.

    Draws from the global generator: call it inside `elbograd.benchmarks.gradients.seeded`. For more
    replicates than memory holds, `WholeGradients` draws them chunk by chunk.

    Args:
        problem: differentiated with respect to the trainable parameters of the encoder, or of the decoder.
        estimator: prepared (`elbograd.benchmarks.gradients.prepare`).
        x: (B, ...).
        num_samples: S.
        replicates: R.
        wrt: "phi" (from surrogate) or "theta" (from value).

    Raises:
        EstimatorError: the estimate breaks the protocol.
    """
    other = problem.decoder if wrt == "phi" else torch.nn.Module()
    with kept_buffers_of(problem), frozen(other), torch.enable_grad():
        gradients = WholeGradients(Subject(problem, estimator, x, num_samples, wrt))
        return torch.cat(list(gradients.chunks(replicates)))


class WholeGradients:
    """Draws whole gradients of one subject, chunk by chunk.

    At the first call for more than a few a way is chosen: of those that take many replicates at once, the
    first whose pilot shows the gradient that a loop computes from the same random numbers; else the loop
    itself. The pilot leaves the generators as they were. Chunks follow from sizes alone, so that the same
    seed draws the same numbers.

    Args:
        subject: whose.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.one = OneByOne(subject)
        self._way: Way | None = None
        self._size = 1

    @property
    def way(self) -> str:
        """The name of the way that is taken."""
        return self._chosen().name

    @property
    def chunk(self) -> int:
        """Replicates that are drawn at once."""
        return 1 if self._chosen() is self.one else self._size

    def chunks(self, replicates: int) -> Iterator[Float64[Tensor, "R phi"]]:
        """Independent estimates ĝ, so many in all; of few a loop, which costs less than a pilot."""
        if self._way is None and replicates < _FEWEST:
            if replicates:
                yield self.one(replicates)
            return
        self._chosen()
        keep_heap()
        for size in split(replicates, self.chunk):
            yield self._draw(size)

    def _draw(self, size: int) -> Float64[Tensor, "{size} phi"]:
        way = self._chosen()
        if way is not self.one:
            try:
                return _quietly(way, size)
            except Exception:  # what passed its pilot and fails now; the loop tells why, if it fails too
                self._way = self.one
        return self.one(size)

    def _chosen(self) -> Way:
        if self._way is None:
            with seeded(_SEED, self.subject.x.device):
                self._way = next(self._right_ways(), self.one)
        return self._way

    def _right_ways(self) -> Iterator[Way]:
        """Those whose pilots agree with the loop, the fastest first."""
        try:
            probe = self._probed()
            for make in (self._through_shared_eta, self._through_eta, self._lanes):
                way = make(probe)
                if way is not None and self._is_right(way):
                    yield way
        except Exception:  # of the model or the estimator: the loop tells
            return

    def _probed(self) -> _Probe:
        subject = self.subject
        problem, x = subject.problem, subject.x
        with widest_output(problem.encoder, problem.decoder) as widest:
            before = _generators(x.device)
            eta, again = eta_of(problem, x), eta_of(problem, x)
            same = torch.equal(eta, again) and _unmoved(before, x.device)
            leaf = eta.detach().requires_grad_()
            target = target_of(problem, x)
            estimate = subject.estimator(problem.posterior(leaf), target, subject.num_samples)
        names = list(subject.parameters)
        if same and subject.wrt == "phi":
            used = torch.autograd.grad(
                estimate.surrogate.sum(), list(subject.parameters.values()), allow_unused=True
            )
            names = [name for name, g in zip(names, used, strict=True) if g is not None]
        rows = len(x) * count_evaluations(problem, subject.estimator, target, eta, subject.num_samples)
        return _Probe(eta if same else None, names, rows, max(widest[0], rows, eta.numel()))

    def _through_shared_eta(self, probe: _Probe) -> Way | None:
        if probe.eta is None or probe.direct or self.subject.wrt == "theta":
            return None
        way = ThroughSharedEta(self.subject, probe.eta, probe.rows)
        self._size = way.size
        return way if way.applies() else None

    def _through_eta(self, probe: _Probe) -> Way | None:
        if probe.eta is None or probe.direct or self.subject.wrt == "theta":
            return None
        self._size = whole_chunk(probe.widest, sum(self.subject.sizes))
        way = ThroughEta(self.subject, probe.eta)
        return way if self._size > 1 and way.keeps_replicates_apart() else None

    def _lanes(self, probe: _Probe) -> Way | None:
        self._size = whole_chunk(probe.widest, sum(self.subject.sizes))
        if self._size < _FEWEST_LANES:
            return None
        return Lanes(self.subject, probe.direct, probe.eta)

    def _is_right(self, way: Way) -> bool:
        """Whether its gradient is the loop's from the same random numbers, and from others another."""
        device = self.subject.x.device
        try:
            with seeded(_SEED, device):
                one, other = self.one(1), self.one(1)
            with seeded(_SEED, device):
                numpy.random.seed(_OTHER_SEED)
                random.seed(_OTHER_SEED)
                if not torch.equal(self.one(1), one):
                    return False  # NumPy's or Python's draws are the same for all that is drawn at once
            with seeded(_SEED, device):
                found = _quietly(way, 1)
            with seeded(_SEED, device):
                several = _quietly(way, _PILOT)
        except Exception:  # what cannot be vectorized may raise anything
            return False
        drawn = not torch.equal(one, other)
        alike = bool((several == several[0]).all())  # one draw for all lanes
        return several.shape == (_PILOT, one.shape[1]) and self._agree(found, one) and not (drawn and alike)

    def _agree(self, found: Float64[Tensor, "1 phi"], one: Float64[Tensor, "1 phi"]) -> bool:
        """Whether two are the same, parameter by parameter, up to rounding."""
        if not all_finite(found, one):
            return False
        eps = torch.finfo(next(iter(self.subject.parameters.values())).dtype).eps
        floor = 100 * eps * float(one.norm())  # the rounding of a gradient of zero
        return all(
            float((a - b).norm()) <= max(_TOLERANCE, 8 * eps) * float(b.norm()) + floor
            for a, b in zip(
                found.split(self.subject.sizes, -1), one.split(self.subject.sizes, -1), strict=True
            )
        )


def _quietly(way: Way, replicates: int) -> Tensor:
    """Without warnings of operations that are vectorized by a loop: they are right, if slower."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return way(replicates)


def _generators(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _unmoved(before: list[Tensor], device: torch.device) -> bool:
    return all(map(torch.equal, before, _generators(device)))

"""How near the factorized route comes to the machine's own matrix product."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ....estimators.plugins.registry import create
from ...gradients import frozen, prepare
from ...variance.route import choose_route
from .models import SizedVAE

#: What is counted of the decoder's arithmetic: forward, and for the pathwise gradient backward to z.
PASSES = {"score-function": 1, "reparameterization": 2}
_SIZE = 2048
_BATCH = 64
_SECONDS = 0.3


@dataclass(frozen=True)
class Rate:
    """Rates of one model and estimator, each the best of its rounds.

    Attributes:
        engine: of the decoder's matrix products while replicates stream, FLOP/s.
        machine: of one product of two square float32 matrices in the same rounds, FLOP/s.
        replicates: a second.
    """

    engine: float
    machine: float
    replicates: float

    @property
    def fraction(self) -> float:
        """Engine / machine."""
        return self.engine / self.machine


def engine_rate(problem: SizedVAE, name: str, rounds: int) -> Rate:
    """Interleave streaming replicates with matrix products; the best of ``rounds`` each.

    The best, as anything else that runs on the machine can only slow either down.
    """
    x = next(problem.batches("train", _BATCH, torch.Generator().manual_seed(0)))
    estimator = create(name)
    prepare(problem, estimator, x, 1, None)
    a, b = torch.randn(2, _SIZE, _SIZE)
    with frozen(problem.decoder):
        route = choose_route(problem, estimator, x, 1)
        chunk = route.chunk
        assert chunk is not None
        route.add(2 * chunk)
        once = _seconds(lambda: route.add(chunk))
        replicates = chunk * max(1, round(_SECONDS / once))
        engine, machine = [], []
        for _ in range(rounds):
            machine.append(_seconds(lambda: a @ b))
            engine.append(_seconds(lambda: route.add(replicates)))
    arithmetic = PASSES[name] * problem.decoder_flops * _BATCH * replicates
    return Rate(arithmetic / min(engine), 2 * _SIZE**3 / min(machine), replicates / min(engine))


def _seconds(run: object) -> float:
    start = time.perf_counter()
    run()  # type: ignore[operator]
    return time.perf_counter() - start

"""What is compared: on which problem, which estimator, and who else has it."""

from __future__ import annotations

from dataclasses import dataclass

SUITE = "elbograd"

#: Library -> the distribution whose version the table prints.
LIBRARIES = {"elbograd": "elbograd", "torch": "torch", "pyro": "pyro-ppl", "storch": "storchastic"}


@dataclass(frozen=True)
class Contender:
    """One way to get the estimate.

    Attributes:
        library: a key of `LIBRARIES`: the worker process it lives in.
        method: how that worker calls it.
        label: how tables and figures call it.
        same: whether it is the same estimator, so that variances must agree, not means alone.
        note: what differs, in one line.
    """

    library: str
    method: str
    label: str
    same: bool = True
    note: str = ""


@dataclass(frozen=True)
class Case:
    """One estimator on one problem, and its contenders, the suite's own first.

    Attributes:
        problem: specification.
        estimator: specification of the suite's estimator.
        num_samples: S.
        peers: contenders beside the suite and the plain loop.
    """

    problem: str
    estimator: str
    num_samples: int
    peers: tuple[Contender, ...]

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """All of them."""
        return (_SUITE, _LOOP, *self.peers)

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.problem}, {self.estimator}, S = {self.num_samples}"


_SUITE = Contender("elbograd", "measure_variance", SUITE)
_LOOP = Contender("torch", "loop", "PyTorch loop")
_TRACE = Contender("pyro", "Trace_ELBO", "Pyro Trace_ELBO")
_JIT_TRACE = Contender("pyro", "JitTrace_ELBO", "Pyro JitTrace_ELBO")
_MEAN_FIELD = Contender("pyro", "TraceMeanField_ELBO", "Pyro TraceMeanField_ELBO")
_GRAPH = Contender("pyro", "TraceGraph_ELBO", "Pyro TraceGraph_ELBO")
_JIT_GRAPH = Contender("pyro", "JitTraceGraph_ELBO", "Pyro JitTraceGraph_ELBO")
_DECAYING = Contender(
    "pyro",
    "TraceGraph_ELBO",
    "Pyro TraceGraph_ELBO",
    same=False,
    note="one decaying average a datum (beta 0.9) that moves while measured",
)
_STORCH = Contender("storch", "default", "Storchastic")
_STORCH_AVERAGE = Contender(
    "storch",
    "default",
    "Storchastic",
    same=False,
    note="its average (decay 0.95) already holds the current sample, which biases it slightly, "
    "and moves while measured",
)

_SAMPLED_KL = (_TRACE, _JIT_TRACE, _GRAPH, _JIT_GRAPH)

#: In the order of the tables.
CASES = (
    Case("vae", "reparameterization", 1, (_MEAN_FIELD, _STORCH)),
    Case("vae", "reparameterization", 8, (_MEAN_FIELD, _STORCH)),
    Case("vae", "reparameterization[kl=sampled]", 1, _SAMPLED_KL),
    Case("vae", "score-function", 1, (_STORCH,)),
    Case("vae", "score-function[kl=sampled]", 1, _SAMPLED_KL),
    Case("vae", "constant-baseline[kl=sampled]", 1, (_GRAPH,)),
    Case("vae", "moving-average-baseline[kl=sampled]", 1, (_DECAYING,)),
    Case("vae", "learned-baseline[kl=sampled]", 1, (_GRAPH,)),
    Case("vae", "leave-one-out", 4, (_STORCH,)),
    Case("bernoulli-vae", "score-function[kl=sampled]", 8, _SAMPLED_KL),
    Case("bernoulli-vae", "moving-average-baseline", 1, (_STORCH_AVERAGE,)),
    Case("bernoulli-vae", "learned-baseline[kl=sampled]", 1, (_GRAPH,)),
    Case("bernoulli-vae", "leave-one-out", 4, (_STORCH,)),
)

#: What `--quick` runs.
QUICK = (CASES[0], CASES[8])

"""The checks that an examination makes besides those before every measurement, and what keeps it going.

What cannot be had from a part that is wrong is replaced where something will do: so one mistake hides no
other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.posteriors.distributions import check_events, describe
from ..problems.checks import check_trainable
from ..problems.faults import Faults
from ..problems.forward_checks import draw_one, what_failed
from ..problems.model_checks import CHECKS, ENCODER, MODES, Check, Look
from ..problems.module_modes import coupling_faults
from ..problems.protocol import Problem


def _trainable(look: Look) -> Faults:
    check_trainable(look.problem)
    yield from ()


def _coupling(look: Look) -> Faults:
    yield from coupling_faults(look.problem.encoder, look.x)


def _prior(look: Look) -> Faults:
    assert look.q is not None and look.target is not None
    prior: object = look.target.prior
    if prior is None:
        return
    if not isinstance(prior, Distribution):
        yield f"the prior is a {type(prior).__name__}, not a torch.distributions.Distribution or None"
        return
    check_events(look.q, prior)
    batch = tuple(prior.batch_shape)
    if batch not in ((), tuple(look.q.batch_shape), (1,)):
        yield f"the prior has batch shape {batch} for {len(look.x)} data, expected () or ({len(look.x)},)"
        return
    yield from _density_faults(prior, draw_one(look.q))


def _density_faults(prior: Distribution, z: Tensor) -> Faults:
    try:
        density = prior.log_prob(z)
    except NotImplementedError:
        return
    except Exception as error:  # z may lie outside its support, which torch's distributions raise
        what = what_failed(error)
        yield f"the prior's log_prob fails at draws of the posterior ({what}): its support must hold theirs"
        return
    if not bool(density.isfinite().all()):
        yield (
            f"the prior ({describe(prior)}) gives draws of the posterior no finite density: its support must "
            "hold theirs"
        )


def _possible(look: Look) -> Faults:
    assert look.f is not None
    if bool(look.f.isneginf().all()):
        yield "log_likelihood is minus infinity for all data at a draw of q: x must be possible under it"


def _features(look: Look) -> Faults:
    assert look.target is not None
    features: object = look.target.features
    if features is None:
        return
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(look.x):
        what = tuple(features.shape) if isinstance(features, Tensor) else f"a {type(features).__name__}"
        yield f"the target's features are {what}, expected (B, F) = ({len(look.x)}, F): often x.flatten(1)"


_FACTORIZED = ("factorized",)
#: What is looked at, in order.
LOOKS = (
    Check("φ", _trainable, parts=("encoder",)),
    *CHECKS[: CHECKS.index(ENCODER) + 1],
    Check("each datum alone", _coupling, needs=("eta",), parts=("encoder",), routes=_FACTORIZED),
    *(check for check in CHECKS[CHECKS.index(ENCODER) + 1 : -1]),
    Check("the features", _features, needs=("target",)),
    Check("the prior", _prior, needs=("q", "target")),
    Check("the values of log_likelihood", _possible, needs=("f",)),
    CHECKS[-1],
)
#: Attribute of `Look` -> what would have filled it.
GIVEN_BY = {"eta": "the encoder", "q": "the posterior", "target": "the target", "f": "log_likelihood"}
__all__ = ["GIVEN_BY", "LOOKS", "MODES", "in_eval_mode", "joined_eta"]


def joined_eta(look: Look) -> Tensor | None:
    """What the encoder returns in several tensors, put together; None of other faults."""
    try:
        with torch.no_grad():
            parts = look.problem.encoder(look.x)
        parts = tuple(parts.values()) if isinstance(parts, dict) else parts
        if isinstance(parts, tuple | list) and all(p.dim() == 2 and len(p) == len(look.x) for p in parts):
            return torch.cat(tuple(parts), -1)
    except Exception:  # a user's encoder may raise anything, and what it was has been told
        pass
    return None


@contextmanager
def in_eval_mode(problem: Problem) -> Iterator[None]:
    """Inside, all modules of encoder and decoder are in eval mode; then each is as it was."""
    training = [m for side in (problem.encoder, problem.decoder) for m in side.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True

"""Sample statements of a Pyro program, one by one: what each says, and which cannot be measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Distribution

from ....estimators.errors import UsageError
from ....estimators.isolation import Draws
from ....estimators.posteriors.families import family_of, innermost, is_transformed


def changing(name: str, role: str) -> UsageError:
    """What is said of a statement that is there in some runs alone."""
    return UsageError(
        f"site {name!r} of the {role} is there in some runs and not in others: what changes with "
        f"the latents' values cannot be measured"
    )


class Site(NamedTuple):
    """A sample statement as a program came to it.

    Attributes:
        name: as the program calls it.
        fn: what it is drawn from, batch shape (N,).
        value: (N, *event), drawn, put in or observed; None where the program was stopped here.
        observed: whether it is data.
        scale: what its log density is multiplied by in Pyro's ELBO.
        plate: the name of the plate it stands in.
    """

    name: str
    fn: Distribution
    value: Tensor | None
    observed: bool
    scale: float
    plate: str


def site_of(message: Mapping[str, Any], role: str, rows: int) -> Site:
    """What a message says.

    Args:
        message: of a sample statement, as it leaves the program.
        role: "guide" or "model".
        rows: N, of the data that the program was given.

    Raises:
        UsageError: in one line, what of it cannot be measured, and what to do.
    """
    name, fn, observed = message["name"], message["fn"], bool(message["is_observed"])
    what = f"{'observed ' if observed else ''}site {name!r} of the {role}"
    _check_inference(what, role, message, observed)
    plate = _plate_of(what, message, rows)
    if not isinstance(fn, Distribution) and not hasattr(fn, "batch_shape"):
        raise UsageError(f"{what} is drawn from a {type(fn).__name__}, which is no distribution")
    if isinstance(innermost(fn), dist.Delta):
        raise UsageError(
            f"{what} is a point (Delta): a MAP estimate draws nothing, so its gradient has no noise"
        )
    if tuple(fn.batch_shape) != (rows,):
        shape = tuple(fn.batch_shape)
        raise UsageError(
            f"{what} has batch shape {shape} for {rows} data, expected ({rows},): "
            f".to_event({max(1, len(shape) - 1)}) makes the other dimensions part of the event"
        )
    return Site(name, fn, message["value"], observed, _scale_of(what, message["scale"]), plate)


def tensors_in(thing: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor that a distribution is made of, however deep."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, torch.nn.Module):
        yield from thing.parameters()
    elif isinstance(thing, list | tuple):
        for item in thing:
            yield from tensors_in(item, seen)
    elif isinstance(thing, Distribution | dist.Distribution | torch.distributions.Transform):
        for name, item in vars(thing).items():
            if not name.startswith("_cached"):  # what a transform was last given
                yield from tensors_in(item, seen)


def told_by(site: Site, value: Tensor | None = None) -> list[Tensor]:
    """What a statement's distribution is a function of: its tensors, and its density, which may hide some.

    Args:
        site: the statement.
        value: of a latent, where its density is asked for; None for its own.
    """
    value = site.value if value is None or site.observed else value
    tensors = list(tensors_in(site.fn))
    if value is None:
        return tensors
    tensors += [value] if site.observed else []
    try:
        return [*tensors, site.fn.log_prob(value.detach().clone())]
    except Exception:  # no density of a given value: a flow without an inverse, say
        with Draws(0).scope():
            return [*tensors, site.fn.rsample() if site.fn.has_rsample else site.fn.sample()]


def is_plain(q: Distribution) -> bool:
    """Whether nothing but numbers goes into a distribution: one of torch's own that is no flow."""
    base = innermost(q)
    return family_of(base).__module__.startswith("torch.distributions.") and not is_transformed(base)


def holds_modules(thing: object, seen: set[int] | None = None) -> bool:
    """Whether a distribution draws or scores with networks (a flow's): it computes when it is asked."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return False
    seen.add(id(thing))
    if isinstance(thing, torch.nn.Module):
        return True
    if isinstance(thing, list | tuple):
        return any(holds_modules(item, seen) for item in thing)
    if isinstance(thing, Distribution | dist.Distribution | torch.distributions.Transform):
        return any(holds_modules(item, seen) for item in vars(thing).values())
    return False


def _check_inference(what: str, role: str, message: Mapping[str, Any], observed: bool) -> None:
    infer = message["infer"] or {}
    if infer.get("enumerate"):
        raise UsageError(
            f"{what} is enumerated (infer={{'enumerate': ...}}): leave that out, and draws are measured"
        )
    if infer.get("is_auxiliary") and not observed:  # as pyro.factor is
        raise UsageError(f"{what} is auxiliary: there is no ELBO of a latent that the model does not have")
    mask = message["mask"]
    if (mask is not None and mask is not True) or isinstance(
        innermost(message["fn"]), dist.MaskedDistribution
    ):
        raise UsageError(
            f"{what} is masked (poutine.mask, .mask or obs_mask): data of which a part is missing are not "
            f"measured"
        )
    if observed and role == "guide":
        raise UsageError(f"{what} is observed: a guide draws latents alone")


def _plate_of(what: str, message: Mapping[str, Any], rows: int) -> str:
    frames = message["cond_indep_stack"]
    if not frames:
        raise UsageError(
            f"{what} is in no plate: with pyro.plate('data', len(x)) the ELBO is a sum over data; what all "
            f"data share is not measured"
        )
    for frame in frames:
        if frame.dim is None:
            raise UsageError(
                f"{what} is in the sequential plate {frame.name!r}: with pyro.plate(...) instead of for"
            )
    if len(frames) > 1:
        names = ", ".join(repr(frame.name) for frame in frames)
        raise UsageError(
            f"{what} is in {len(frames)} plates, {names}: one plate of data is measured; .to_event(1) "
            f"instead of the others"
        )
    frame = frames[0]
    if frame.dim != -1:
        raise UsageError(
            f"{what} is in the plate {frame.name!r} at dim={frame.dim}: leave dim out, and make other "
            f"dimensions part of the event with .to_event"
        )
    if frame.size not in (rows, -1):
        raise UsageError(
            f"{what} is in the plate {frame.name!r} of {frame.size} for {rows} data: "
            f"pyro.plate({frame.name!r}, len(x))"
        )
    return str(frame.name)


def _scale_of(what: str, scale: object) -> float:
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            raise UsageError(f"{what} has a scale for each datum {tuple(scale.shape)}: give a number")
        scale = scale.detach().item()
    assert isinstance(scale, int | float)
    return float(scale)

"""Reading a Pyro model and guide: which latents there are, what depends on what, and the scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from ....estimators.errors import UsageError
from ....estimators.isolation import Draws
from ..buffers import kept_buffers
from .data import Data
from .dependence import dependences
from .discovery import Found, discover, learned
from .learned import Learned
from .posteriors import all_numbers, known, layout_of
from .problem import Batches, Guide, Latent, Model, PyroProblem, repeated, spares
from .running import Rows
from .sites import Site, changing, holds_modules
from .watching import holder

_SHOWN = 8  # data, that the programs are read from


def look(model: Callable[..., object], guide: Callable[..., object], data: object, label: str) -> PyroProblem:
    """`from_pyro`, where Pyro is installed."""
    if isinstance(guide, AutoGuide):
        raise UsageError(
            f"{type(guide).__name__} is not amortized: it learns a value for each datum, or one for all; "
            f"write a guide whose network reads x"
        )
    held = Data(data, (model, guide))
    x = held.first(_SHOWN)
    batches = Batches(x.shape[1:], x.dtype, held.rows)
    with Draws(0).scope(), torch.inference_mode(False):
        of_guide = discover("guide", guide, batches.rows(x), {})
        drawn = _latents(of_guide)
        of_model = discover("model", model, batches.rows(x), drawn)
        _check_sites(of_guide, of_model)
        encoder, decoder = learned(Guide, of_guide, of_model), learned(Model, of_model, of_guide)
        with kept_buffers(encoder), kept_buffers(decoder):
            return _read(encoder, decoder, of_guide, of_model, x, batches, held, label or _label(model))


def _read(
    encoder: Guide,
    decoder: Model,
    of_guide: Found,
    of_model: Found,
    x: Tensor,
    batches: Batches,
    held: Data,
    label: str,
) -> PyroProblem:
    values, rows = _latents(of_guide), batches.rows(x)
    in_guide = dependences("guide", partial(_at, encoder, rows), values, of_guide.sites)
    in_model = dependences("model", partial(_at, decoder, rows), values, of_guide.sites)
    observed = [site for site in of_model.sites.values() if site.observed]
    single = len(values) == 1
    latents = []
    for name, value in values.items():
        fn = of_guide.sites[name].fn
        parents = tuple(n for n in values if n in in_guide[name])
        # A lone number is a vector of one, where both programs' distributions of it can be told so.
        scalar = single and known(of_model.sites[name].fn)
        layout = None if parents or holds_modules(fn) else layout_of(fn, scalar)
        numbers = [] if parents else all_numbers(fn)
        latents.append(
            Latent(
                name,
                fn.event_shape,
                None if value.is_floating_point() else value.dtype,
                value[0].detach().clone(),
                parents,
                tuple(n for n in values if n in in_model[name]),
                layout,
                sum(part.shape[-1] for part in numbers) if layout is None else layout.width,
            )
        )
    reads = tuple(n for n in values if any(n in in_model[site.name] for site in observed))
    weights, kl_weight = _weights(of_guide, of_model, observed)
    encoder.latents = decoder.latents = tuple(latents)
    encoder.batches = decoder.batches = batches
    decoder.weights = weights
    _check_rows(decoder, x, values, kl_weight, of_guide)
    return PyroProblem(
        encoder,
        decoder,
        tuple(latents),
        None if single else reads,
        kl_weight,
        held,
        label,
        held.batch_size,
    )


def _at(side: Learned, rows: Rows, values: Mapping[str, Tensor]) -> dict[str, Site]:
    def unknown(site: Site) -> Tensor:
        raise changing(site.name, side.program.role)

    return side.run(rows, values, unknown)


def _latents(found: Found) -> dict[str, Tensor]:
    return {
        name: site.value for name, site in found.sites.items() if not site.observed and site.value is not None
    }


def _check_sites(guide: Found, model: Found) -> None:
    """Raise UsageError where the programs have not the same latents in one plate."""
    drawn, scored = _latents(guide), _latents(model)
    if not drawn:
        raise UsageError("the guide draws nothing: it has no pyro.sample statement")
    for name in drawn:
        if name in model.sites and model.sites[name].observed:
            raise UsageError(f"site {name!r} is drawn by the guide and observed by the model")
        if name not in scored:
            raise UsageError(
                f"the guide draws {name!r}, which the model does not have ({_listed(scored)}): use one name"
            )
    for name in scored:
        if name not in drawn:
            raise UsageError(
                f"the model draws {name!r}, which the guide does not ({_listed(drawn)}): each latent needs a "
                f"statement in both"
            )
    if not any(site.observed for site in model.sites.values()):
        raise UsageError("the model observes nothing: pyro.sample(..., obs=x) scores the data")
    plates = {site.plate for found in (guide, model) for site in found.sites.values()}
    if len(plates) > 1:
        raise UsageError(
            f"the sites are in several plates, {', '.join(map(repr, sorted(plates)))}: one plate of data is "
            f"measured, of one name in model and guide"
        )


def _listed(names: Mapping[str, object]) -> str:
    return f"it has {', '.join(map(repr, names))}" if names else "it has none"


def _weights(
    guide: Found, model: Found, observed: list[Site]
) -> tuple[dict[str, float], float | dict[str, float]]:
    """Of each observed statement and of each latent's KL, relative to the scale of the first observed one."""
    reference = observed[0].scale
    found = {}
    for name in _latents(guide):
        ours, theirs = guide.sites[name].scale, model.sites[name].scale
        if not math.isclose(ours, theirs, rel_tol=1e-6):
            raise UsageError(
                f"site {name!r} is scaled by {ours:g} in the guide and by {theirs:g} in the model: one scale "
                f"in both weighs its KL"
            )
        found[name] = _ratio(theirs, reference)
    weights = {site.name: _ratio(site.scale, reference) for site in observed}
    alike = len(set(found.values())) == 1
    return weights, next(iter(found.values())) if alike else found


def _ratio(scale: float, reference: float) -> float:
    return float(f"{scale / reference:.12g}")


def _check_rows(
    decoder: Model, x: Tensor, values: Mapping[str, Tensor], kl_weight: object, guide: Found
) -> None:
    """See that the model takes another number of rows, as samples and replicates ask of it."""
    lead = torch.Size((2, len(x)))
    twice = {name: v.expand(2, *v.shape).reshape(-1, *v.shape[1:]) for name, v in values.items()}
    with torch.no_grad():
        sites = decoder.run(decoder.batches.rows(repeated(x, lead)), twice, spares(decoder.latents, "model"))
    observed = [site for site in sites.values() if site.observed]
    for name in values:
        now = _ratio(sites[name].scale, observed[0].scale)
        before = kl_weight[name] if isinstance(kl_weight, dict) else kl_weight
        if now != before:
            raise UsageError(
                f"site {name!r} has {before:g} times the likelihood's scale for {len(x)} data and {now:g} "
                f"times for {2 * len(x)}: a scale that changes with the number of data is no weight"
            )


def _label(model: Callable[..., object]) -> str:
    of = holder(model)
    name = str(getattr(of, "__name__", type(of).__name__))
    return "Pyro model" if name == "<lambda>" else name

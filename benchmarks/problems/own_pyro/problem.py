"""What `from_pyro` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ....estimators.base import Target
from ....estimators.posteriors.layered import Layered
from .learned import Learned
from .posteriors import Conditional, Layout, all_numbers, vector
from .running import Rows
from .sites import Site, changing, is_plain


class Latent(NamedTuple):
    """A latent of both programs.

    Attributes:
        name: the programs'.
        event: its shape for a datum, () for a number.
        dtype: an integer type, or None for floating-point numbers.
        spare: a value (*event) it may have, for runs in which it plays no part.
        guide_parents: latents that its distribution in the guide depends on.
        model_parents: the same in the model.
        layout: where its parameters lie in η; None where the guide has to be run for its distribution.
        width: numbers in η.
    """

    name: str
    event: torch.Size
    dtype: torch.dtype | None
    spare: Tensor
    guide_parents: tuple[str, ...]
    model_parents: tuple[str, ...]
    layout: Layout | None
    width: int

    def value(self, z: Tensor) -> Tensor:
        """As the programs take it."""
        return z if self.dtype is None else z.to(self.dtype)


class Batches(NamedTuple):
    """What a batch is made of.

    Attributes:
        shape: of a datum, in a batch (B, *shape).
        dtype: of a batch.
        rows: from a batch (N, *shape) to what the programs are given.
    """

    shape: torch.Size
    dtype: torch.dtype
    rows: Callable[[Tensor], Rows]


class Guide(Learned):
    """x (B, ...) -> eta (B, P): what a guide computes, and then x itself where it has to be run again."""

    latents: tuple[Latent, ...]
    batches: Batches
    called = ""

    def forward(self, x: Tensor) -> Tensor:
        """Eta (B, P)."""
        parts = []
        roots = [latent for latent in self.latents if not latent.guide_parents]
        sites = self.run(self.batches.rows(x), {}, spares(self.latents, self.program.role), roots[-1].name)
        for latent in roots:
            fn = sites[latent.name].fn
            parts += all_numbers(fn) if latent.layout is None else [latent.layout.numbers(fn)]
        if self.runs_again:
            parts.append(x.reshape(len(x), -1).to(self.dtype))
        return torch.cat(parts, -1)

    @property
    def runs_again(self) -> bool:
        """Whether some latent's distribution is not told by η alone."""
        return any(latent.layout is None for latent in self.latents)

    def data_in(self, eta: Tensor) -> Tensor:
        """x, (*batch, n), of eta (*batch, P)."""
        return eta[..., eta.shape[-1] - self.batches.shape.numel() :]

    def given(
        self, latent: Latent, data: Tensor, rows: torch.Size, values: Mapping[str, Tensor]
    ) -> Distribution:
        """What a latent is drawn from, (N,), given others (N, *event), for data (*batch, n) of eta."""
        x = data.expand(*rows, data.shape[-1]).reshape(-1, *self.batches.shape)
        x = x if self.batches.dtype.is_floating_point else x.round().to(self.batches.dtype)
        return _given(self, latent, self.batches.rows(x), values)


class Model(Learned):
    """log p(x|z) and p(z) of a model.

    Attributes:
        weights: of each observed statement's log density, by name.
    """

    latents: tuple[Latent, ...]
    batches: Batches
    weights: Mapping[str, float]

    def forward(self, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """log p(x|z), (N,), of rows x (N, ...) and latents (N, *event)."""
        sites = self.run(self.batches.rows(x), values, spares(self.latents, self.program.role))
        seen = {name: site for name, site in sites.items() if site.observed}
        if seen.keys() != self.weights.keys():
            name = sorted(seen.keys() ^ self.weights.keys())[0]
            raise changing(name, "model")
        plain = all(is_plain(site.fn) for site in seen.values())
        with nullcontext() if plain else self.standing_in():
            found = [self.weights[name] * _log_prob(site) for name, site in seen.items()]
        return torch.stack(found).sum(0)

    def given(
        self, latent: Latent, x: Tensor, rows: torch.Size, values: Mapping[str, Tensor]
    ) -> Distribution:
        """What a latent is drawn from, (N,), given others (N, *event), for x (B, ...)."""
        return _given(self, latent, self.batches.rows(repeated(x, rows)), values)


class PyroProblem:
    """A Pyro model and guide as a `Problem`; see `from_pyro`.

    Attributes:
        encoder: holds φ, the guide's parameters.
        decoder: holds θ, the model's.
    """

    def __init__(
        self,
        encoder: Guide,
        decoder: Model,
        latents: tuple[Latent, ...],
        reads: tuple[str, ...] | None,
        kl_weight: float | Mapping[str, float],
        data: Any,
        label: str,
        default_batch_size: int | None,
    ) -> None:
        self.encoder, self.decoder, self.latents = encoder, decoder, latents
        self.reads, self.kl_weight, self.data, self.label = reads, kl_weight, data, label
        self.latent_dim = sum(max(1, latent.event.numel()) for latent in latents)
        if default_batch_size is not None:
            self.default_batch_size = default_batch_size

    @property
    def eta_parts(self) -> Mapping[str, slice]:
        """What the coordinates of eta are."""
        parts: dict[str, slice] = {}
        start = 0
        for latent in self.latents:
            if latent.layout is None:
                start += latent.width
                continue
            for name, where in latent.layout.parts(start).items():
                parts[name if len(self.latents) == 1 else f"{latent.name}.{name}"] = where
            start += latent.width
        if self.encoder.runs_again:
            parts["x"] = slice(start, start + self.encoder.batches.shape.numel())
        return parts

    def posterior(self, eta: Tensor) -> Distribution:
        """q for eta (*batch, P)."""
        layers: dict[str, Distribution | Conditional] = {}
        start = 0
        for latent in self.latents:
            if latent.layout is not None:
                layers[latent.name] = latent.layout.posterior(eta[..., start : start + latent.width])
            else:
                run = partial(self.encoder.given, latent, self.encoder.data_in(eta))
                layers[latent.name] = self._layer(self.encoder, latent.guide_parents, run, eta.shape[:-1])
            start += latent.width
        return self._joined(layers)

    def target(self, x: Tensor) -> Target:
        """log p(x|z) of a batch x (B, ...), and the prior."""
        layers: dict[str, Distribution | Conditional] = {}
        for latent in self.latents:
            run = partial(self.decoder.given, latent, x)
            layer = self._layer(self.decoder, latent.model_parents, run, x.shape[:1])
            if latent.layout is not None and latent.layout.scalar:
                assert isinstance(layer, Distribution)
                layer = vector(layer)
            layers[latent.name] = layer
        prior = self._joined(layers)
        features = x.reshape(len(x), -1).to(self.encoder.dtype)
        return Target(
            partial(self._log_likelihood, x, prior),
            prior,
            features=features,
            kl_weight=self.kl_weight,
            reads=self.reads,
        )

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over the data of a split, x (B, ...) at a time."""
        for x, _ in self.indexed_batches(split, batch_size, generator):
            yield x

    def indexed_batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the index of each datum in its split, (B,)."""
        return self.data.indexed_batches(split, batch_size, generator)

    def _log_likelihood(self, x: Tensor, prior: Distribution, z: Tensor) -> Tensor:
        lead = z.shape[:-1] if isinstance(prior, Layered) else z.shape[: z.dim() - len(prior.event_shape)]
        parts = prior.split(z) if isinstance(prior, Layered) else {self.latents[0].name: z}
        values = {
            latent.name: latent.value(parts[latent.name].reshape(-1, *latent.event))
            for latent in self.latents
        }
        found: Tensor = self.decoder(repeated(x, lead), values)
        return found.reshape(lead)

    def _layer(
        self, side: Learned, parents: tuple[str, ...], run: Any, batch: torch.Size
    ) -> Distribution | Conditional:
        events = {latent.name: latent.event for latent in self.latents}
        layer = Conditional(parents, run, batch, {name: events[name] for name in parents}, side.standing_in)
        return layer if parents else layer()

    def _joined(self, layers: Mapping[str, Distribution | Conditional]) -> Distribution:
        (first, *others) = self.latents
        if others or (not first.event and (first.layout is None or not first.layout.scalar)):
            return Layered(layers)
        (layer,) = layers.values()
        assert isinstance(layer, Distribution)
        return layer


def _log_prob(site: Site) -> Tensor:
    assert site.value is not None
    return site.fn.log_prob(site.value)


def repeated(x: Tensor, lead: torch.Size) -> Tensor:
    """Rows (N, ...) of x (B, ...) for leading dimensions that end in B and have N entries."""
    return x.expand(*lead, *x.shape[1:]).reshape(-1, *x.shape[1:])


def spares(latents: tuple[Latent, ...], role: str) -> Callable[[Site], Tensor]:
    """A value of each latent for runs in which it plays no part, the same for all data."""
    known = {latent.name: latent.spare for latent in latents}

    def of(site: Site) -> Tensor:
        if site.name not in known:
            raise changing(site.name, role)
        spare = known[site.name]
        like = next((p for p in vars(site.fn).values() if isinstance(p, Tensor)), spare)
        spare = spare.to(like.device, like.dtype if spare.is_floating_point() else spare.dtype)
        return spare.expand(*site.fn.batch_shape, *spare.shape)

    return of


def _given(side: Guide | Model, latent: Latent, data: Rows, values: Mapping[str, Tensor]) -> Distribution:
    parents = latent.guide_parents if isinstance(side, Guide) else latent.model_parents
    known = {other.name: other for other in side.latents}
    sites = side.run(
        data,
        {name: known[name].value(values[name]) for name in parents},
        spares(side.latents, side.program.role),
        latent.name,
    )
    if latent.name not in sites:
        raise changing(latent.name, side.program.role)
    return sites[latent.name].fn

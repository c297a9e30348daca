"""`from_vae`: a user's VAE, read from one pass of a few of its data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ....estimators.base import FreeBits
from ....estimators.errors import UsageError
from ....estimators.kl_weight import checked
from ..placement import DEFAULT_BATCH_SIZE
from .callees import Callee, names_in
from .data import Source, sources
from .likelihoods import OfDistribution, likelihood_of
from .packing import Packing, Plain
from .priors import Prior
from .problem import VAEProblem, check_finite, chosen
from .readings import reading_of
from .shown import Showing, shown_to
from .sides import DecoderSide, Decoding, EncoderSide, Encoding
from .splitting import free_name, name_modules, split

_SHOWN = 8  # data, that the model is read from


def from_vae(
    encoder: object,
    decoder: object = None,
    data: object = None,
    *,
    posterior: str | Callable[[Any], Any] | None = None,
    likelihood: str | Callable[[Any, Tensor], Tensor] | None = None,
    prior: Distribution | nn.Module | Callable[..., Distribution] | None = None,
    kl_weight: float | Mapping[str, float] | FreeBits = 1.0,
    scale: float | str | None = None,
    categories: int | None = None,
    condition: bool | Callable[[Tensor], Tensor] | None = None,
    teacher_forcing: bool = False,
) -> VAEProblem:
    """A VAE as people have it, as a problem that can be measured.

    Nothing of the model is copied or changed. It is shown eight of the data once, to see how its outputs are
    to be read; what does not fit is told in one line. The decoder is given (N, ...) latents whatever the
    number of samples and replicates is.

    Args:
        encoder: a module, or a method of one (``vae.encode``; parameters are sorted into φ and θ by which
            side reaches them); a list of modules is called one after the other, and a tuple in it side by
            side: ``[vae.body, (vae.fc_mu, vae.fc_var)]``. A module that has ``encode`` and ``decode``, or
            ``encoder`` and ``decoder``, may stand for both: ``from_vae(vae, data=data)``. It may return (μ,
            log σ²) as a pair, or as one tensor of two halves (B, 2D), a dict or named tuple that says what it
            holds (mu, logvar, ...), or a distribution. Where it takes flat data alone it is given
            ``x.flatten(1)``.
        decoder: the same, of latents (N, ...), each in the shape that the encoder's μ or logits have for a
            datum. It may return one tensor with as many numbers as x, in any shape, or a distribution.
        data: a tensor x (N, ...), a pair of tensors (x, y), a Dataset, a list of x or of (x, y), a DataLoader
            (whose data set and batch size are taken, and whose order follows the seed), or {"train": ...,
            "test": ...} of these. Of data that are not split a tenth, always the same, is held out as "test".
            Labels y are dropped unless there is a condition.
        posterior: what the encoder returns, where it is not (μ, log σ²): "gaussian-logvar" (the default),
            "gaussian-logscale" (log σ), "gaussian-scale" (σ), "gaussian-variance" (σ²); "bernoulli" or
            "categorical" (logits; one-hot latents), "bernoulli-probs", "categorical-probs"; or a function
            that makes a distribution, or something that can be read, of the encoder's output:
            ``lambda out: out[1:]``. One that makes a distribution whose parameters are not known here is
            called with what the encoder returns in leading dimensions (R, B) as well.
        likelihood: of what the decoder returns: "bernoulli" (logits, the default), "bernoulli-probs" (after a
            sigmoid); "gaussian" (the mean; σ is ``scale``), "gaussian-logvar", "gaussian-logscale",
            "gaussian-scale", "gaussian-variance" (mean and spread, as a pair or as two halves);
            "continuous-bernoulli", "continuous-bernoulli-probs"; "categorical" (K logits for each integer of
            x, in the last dimension, or in the one after the first as in `cross_entropy`); or a function, a
            module or a method, (output, x) -> log p of each datum, (N,) or (N, ...), which is summed; x has
            the output's shape where it has as many numbers. Logits that come out of a sigmoid are refused;
            "bernoulli-logits" and the like say that they are logits.
        prior: p(z): N(0, I), fair coins or fair dice where none is given; a distribution; or a module, or a
            method of one, that returns a distribution, or has a method ``log_prob``: its parameters belong to
            θ. Where there is a condition, one that takes an argument is given it.
        kl_weight: what the KL is multiplied by (a beta-VAE's β); or `FreeBits`. See
            `elbograd.estimators.Target`.
        scale: σ of "gaussian", 1 where none is given, or "learned": one σ, in θ. Half the squared error is 1,
            the squared error ½ ** 0.5.
        categories: K of one-hot latents, where the encoder returns (B, D·K) and not (B, D, K).
        condition: True where encoder and decoder take y as well: ``encoder(x, y)``, ``decoder(z, y)``; or a
            function of y (B, ...) that makes what they take.
        teacher_forcing: whether the decoder takes x: ``decoder(z, x)``; before the condition.

    Returns:
        A problem. Its ``encoder`` and ``decoder`` hold the user's parameters, under their names.

    Raises:
        UsageError: in one line, what does not fit, and what to do.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from elbograd.benchmarks import measure_variance
        >>> from elbograd.benchmarks.problems import from_vae
        >>> _ = torch.manual_seed(0)
        >>> encoder, decoder = nn.Linear(12, 2 * 3), nn.Linear(3, 12)  # (μ, log σ²), and logits
        >>> problem = from_vae(encoder, decoder, torch.rand(100, 12).round())
        >>> v = measure_variance(problem, "leave-one-out", num_samples=4, replicates=100)
        >>> v.total > 0
        True
    """
    kl_weight = checked(kl_weight)
    encoder, decoder = _both(encoder, decoder, data)
    callees = _Callees(encoder, decoder, posterior, likelihood, prior)
    likely = likelihood_of(likelihood, scale, callees.likelihood)
    held, batch_size = sources(data)
    x, y = _first(held["train"], condition)
    encoding = Encoding(callees.encoder, Plain() if y is None else Packing(x, y))
    decoding = Decoding(callees.decoder, likely, torch.Size(), teacher_forcing)
    phi, theta = EncoderSide(encoding), DecoderSide(decoding)
    with shown_to(callees.owners()) as showing:
        batch = showing.placed(encoding.packing.pack(x, y))
        x, y = encoding.packing.unpack(batch)
        with showing.noting() as called:
            output = _encoded(encoding, batch, x, y)
            encoding.reading = reading_of(output, len(x), posterior, categories)
            eta = encoding.reading.eta(output)
            q = encoding.reading.posterior(eta.detach())
            by_posterior = _reached_by_posterior(showing, q)
        decoding.latent = encoding.reading.latent
        decoding.prior = Prior(prior, callees.prior, q, y is not None)
        with showing.noting() as called_after:
            f = _log_likelihood(decoding, q.sample(), x, y, likelihood is not None)
            g = decoding.prior(eta.detach(), y).log_prob(q.sample())
        reached = showing.reached(eta) | by_posterior, showing.reached(f), showing.reached(g)
        split(phi, theta, callees.of_phi(), callees.of_theta(), reached, (called, called_after), showing)
    if any(True for _ in likely.parameters()):
        theta.add_module(free_name(theta, "likelihood"), likely)
    names = names_in(sys._getframe(1))
    name_modules(phi, callees.encoder.owner, names)
    name_modules(theta, callees.decoder.owner, names)
    size = min(batch_size or DEFAULT_BATCH_SIZE, held["train"].size)
    return VAEProblem(phi, theta, held, condition, kl_weight, size)


class _Callees:
    """All that is called of the user's."""

    def __init__(
        self, encoder: object, decoder: object, posterior: object, likelihood: object, prior: object
    ) -> None:
        self.encoder, self.decoder = Callee(encoder, "encoder"), Callee(decoder, "decoder")
        self.posterior = Callee(posterior, "posterior") if callable(posterior) else None
        named = likelihood is None or isinstance(likelihood, str)
        self.likelihood = None if named else Callee(likelihood, "likelihood")
        fixed = prior is None or isinstance(prior, Distribution)
        self.prior = None if fixed else Callee(prior, "prior")

    def of_phi(self) -> list[Callee]:
        """Those whose parameters are φ."""
        return [c for c in (self.encoder, self.posterior) if c is not None]

    def of_theta(self) -> list[Callee]:
        """Those whose parameters are θ."""
        return [c for c in (self.decoder, self.likelihood, self.prior) if c is not None]

    def owners(self) -> list[nn.Module]:
        """The modules that they are, or belong to, each once."""
        held = {id(c.owner): c.owner for c in (*self.of_phi(), *self.of_theta()) if c.owner is not None}
        return list(held.values())


def _both(encoder: object, decoder: object, data: object) -> tuple[object, object]:
    """Encoder and decoder, of one module where it stands for both.

    Raises:
        UsageError: it has no such parts, or data stand in the decoder's place.
    """
    if isinstance(encoder, type):
        raise UsageError(
            f"encoder is the class {encoder.__name__}: give an instance, {encoder.__name__}(...)"
        )
    if decoder is None:
        for names in (("encode", "decode"), ("encoder", "decoder")):
            parts = [getattr(encoder, name, None) for name in names]
            if all(map(callable, parts)):
                return parts[0], parts[1]
        raise UsageError(
            f"decoder is missing, and {type(encoder).__name__} has neither encode and decode nor encoder and "
            f"decoder: from_vae(encoder, decoder, data)"
        )
    if data is None and not callable(decoder) and not _are_modules(decoder):
        raise UsageError(
            f"data is missing, and decoder is a {type(decoder).__name__}: from_vae(vae, data=...) or "
            f"from_vae(vae.encode, vae.decode, data)"
        )
    return encoder, decoder


def _are_modules(thing: object) -> bool:
    return isinstance(thing, list) and any(isinstance(part, nn.Module) for part in thing)


def _first(source: Source, condition: object) -> tuple[Tensor, Tensor | None]:
    index = torch.arange(min(_SHOWN, source.size))
    x, y = chosen(source, index, condition)
    check_finite(x, index)
    return x, y


def _encoded(encoding: Encoding, batch: Tensor, x: Tensor, y: Tensor | None) -> Any:
    """What the encoder returns; given flat data where it does not take them as they are."""
    _check_takes(encoding.callee, 1 if y is None else 2, y is not None, False)
    try:
        return encoding(batch)
    except UsageError as error:
        if x.dim() < 3:
            raise _with_remedy(error, x) from None
        first = error
    encoding.flattens = True
    try:
        return encoding(batch)
    except UsageError:
        raise _with_remedy(first, x) from None


def _with_remedy(error: UsageError, x: Tensor) -> UsageError:
    if x.is_floating_point():
        return error
    return UsageError(f"{error}: {'x / 255' if x.dtype == torch.uint8 else 'x.float()'} may be meant")


def _reached_by_posterior(showing: Showing, q: Distribution) -> set[int]:
    """Ids of the parameters that q has beside eta: of networks between latents, or of a flow."""
    z = q.rsample() if q.has_rsample else q.sample()
    found = showing.reached(z)
    try:
        return found | showing.reached(q.log_prob(z.detach()))
    except NotImplementedError:  # a flow that knows log q of its own draws alone
        return found


def _log_likelihood(decoding: Decoding, z: Tensor, x: Tensor, y: Tensor | None, explicit: bool) -> Tensor:
    """log p(x|z) (B,) of z (B, *event), once what the decoder returns is seen to fit x."""
    positions = 1 + decoding.forced + (y is not None)
    _check_takes(decoding.callee, positions, y is not None, decoding.forced)
    leading = x.shape[:1]
    output = decoding(z, x, y, leading)
    if isinstance(output, Distribution):
        if explicit:
            raise UsageError("the decoder returns a distribution: leave out likelihood=")
        decoding.likelihood = OfDistribution()
    decoding.likelihood.check(output, x)
    f = decoding.log_likelihood(z, x, y, leading)
    if bool(f.isnan().any()):
        raise UsageError("log p(x|z) is NaN at draws of q: look at the decoder's weights")
    return f


def _check_takes(callee: Callee, positions: int, conditional: bool, forced: bool) -> None:
    """Raise UsageError unless encoder or decoder takes so many arguments."""
    if callee.takes(positions):
        return
    unused = [] if conditional else ["condition=True gives it y as well"]
    if callee.role == "decoder" and not forced:
        unused.append("teacher_forcing=True gives it x")
    if not callee.takes_fewer(positions):
        more = f": {', '.join(unused)}" if unused else ""
        raise UsageError(f"the {callee.role} does not take one argument alone{more}")
    first, given = ("z", "x" * forced) if callee.role == "decoder" else ("x", "")
    arguments = ", ".join(part for part in (first, given, "y" * conditional) if part)
    raise UsageError(
        f"the {callee.role} does not take ({arguments}), which condition= and teacher_forcing= give it: a "
        f"module that takes them, or without"
    )

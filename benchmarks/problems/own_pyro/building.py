"""`from_pyro`: a Pyro model and guide, read from a few runs of each on a few of their data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ....estimators.errors import UsageError
from ..arguments import shown

if TYPE_CHECKING:
    from .problem import PyroProblem


def from_pyro(
    model: Callable[..., object], guide: Callable[..., object], data: object, *, label: str = ""
) -> PyroProblem:
    """A Pyro model and guide, as a problem that can be measured.

    Both are programs of one plate of data, called with the rows of a batch, ``model(x)``. φ are the guide's
    parameters, θ the model's: of the modules that they call and tell Pyro of (`pyro.module`, a
    `PyroModule`), and of `pyro.param`, where the unconstrained numbers are what is learned. Their values
    are copied as they are now, those of `pyro.param` from Pyro's store if it has them; neither the modules
    nor the store are changed.

    What is measured is the mean over a batch of each datum's ELBO, E log p(x|z) − KL. Pyro's `Trace_ELBO`
    adds up the data, times a plate's size / subsample size and times `poutine.scale`: its loss is −B times
    this, or −N times where a plate of N data shows B of them. A scale that a latent has in both programs,
    relative to that of the likelihood, is its ``kl_weight`` (a beta-VAE's β).

    The rows of a batch, of its replicates and its samples are given to the programs as one long plate: what
    is in it has to act on each row alone.

    Args:
        model: latent and observed sample statements in one plate, whose dimension is the last of the batch.
        guide: the same latents. Where their distributions are functions of x alone, the factorized route is
            taken; where one depends on another's value, φ enters through more than η and the full one is. Of
            several latents the posterior is a `Layered`.
        data: as for `from_vae`: a tensor x (N, ...), a pair of tensors (x, y), a Dataset, a DataLoader, or
            {"train": ..., "test": ...} of these. Labels y are dropped where the programs take x alone; where
            both have a second argument, with no default or None, they are given ``(x, y)``.
        label: how results call it; "" for the name of what the model is a method of, or of the model.

    Raises:
        UsageError: in one line, what of them cannot be measured, and what to do; or Pyro is not installed.

    Example:
        >>> import pyro, torch
        >>> from pyro import distributions as dist
        >>> from torch import nn
        >>> from elbograd.benchmarks import measure_variance
        >>> from elbograd.benchmarks.problems import from_pyro
        >>> encoder, decoder = nn.Linear(12, 2 * 3), nn.Linear(3, 12)
        >>> def model(x):
        ...     pyro.module("decoder", decoder)
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)
        >>> def guide(x):
        ...     pyro.module("encoder", encoder)
        ...     with pyro.plate("data", len(x)):
        ...         loc, log_scale = encoder(x).chunk(2, -1)
        ...         pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
        >>> problem = from_pyro(model, guide, torch.rand(100, 12).round())
        >>> v = measure_variance(problem, "leave-one-out", num_samples=4, replicates=100)
        >>> v.total > 0
        True
    """
    for role, program in (("model", model), ("guide", guide)):
        if isinstance(program, type) or not callable(program):
            raise UsageError(f"the {role} is {shown(program)}, not a function of data or a PyroModule")
    try:
        from .looking import look
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "pyro":
            raise
        raise UsageError(
            "from_pyro needs Pyro, which is not installed: pip install 'elbograd[pyro]'"
        ) from None
    return look(model, guide, data, label)

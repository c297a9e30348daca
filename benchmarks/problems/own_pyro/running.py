"""Running a Pyro program for its sample statements, with latents put in and nothing left changed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger, _Subsample
from torch import Tensor
from torch.distributions import constraints, transform_to

from ....estimators.errors import UsageError
from ....estimators.text import one_line
from .sites import Site, site_of

#: What a program is given: x (N, ...), and y (N, ...) where there is one.
Rows = tuple[Tensor, ...]

#: The value of a parameter: of its name, its first value and its constraint.
Parameter = Callable[[str, Any, constraints.Constraint], Tensor]


class Stopped(BaseException):
    """The program came to the statement it was run for."""


class Run(Messenger):  # type: ignore[misc]
    """Outermost handler of one run: puts latents in, notes what each statement says.

    Args:
        role: "guide" or "model".
        rows: N.
        values: of a latent (N, *event), by name.
        fresh: the value of a latent that has none there.
        parameter: the value of a `pyro.param`.
        until: the latent at which to stop, or None.

    Attributes:
        sites: by name, in the program's order.
        registered: name -> a module's parameter that the program told Pyro of.
    """

    def __init__(
        self,
        role: str,
        rows: int,
        values: Mapping[str, Tensor],
        fresh: Callable[[Site], Tensor],
        parameter: Parameter,
        until: str | None = None,
    ) -> None:
        super().__init__()
        self.role, self.rows, self.values, self.until = role, rows, values, until
        self.fresh, self.parameter = fresh, parameter
        self.sites: dict[str, Site] = {}
        self.registered: dict[str, Tensor] = {}

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        if isinstance(message["fn"], _Subsample) or (message["infer"] or {}).get("_deterministic"):
            return
        site = site_of(message, self.role, self.rows)
        if site.name == self.until:
            self.sites[site.name] = site
            raise Stopped()
        if not site.observed:
            value = self._put_in(site) if site.name in self.values else self.fresh(site)
            message["value"], message["done"] = value, True
            site = site._replace(value=value)
        self.sites[site.name] = site

    def _put_in(self, site: Site) -> Tensor:
        value = self.values[site.name]
        if value.shape[1:] != site.fn.event_shape:
            ours, theirs = tuple(value.shape[1:]), tuple(site.fn.event_shape)
            raise UsageError(
                f"site {site.name!r} has event shape {ours} in the guide and {theirs} in the {self.role}: "
                f"the same .to_event in both"
            )
        return value

    def _pyro_param(self, message: dict[str, Any]) -> None:
        name, arguments = str(message["name"]), message["args"]
        first = arguments[1] if len(arguments) > 1 else None
        if isinstance(first, Tensor):
            self.registered[name] = first
        if "$$$" in name:
            value = first  # of pyro.module
        elif first is None and (
            message["fn"] != pyro.get_param_store().get_param or name in pyro.get_param_store()
        ):
            return  # of a PyroModule, which holds the tensor itself
        else:
            self._check_amortized(message)
            value = self.parameter(name, first, message["kwargs"].get("constraint", constraints.real))
        message["value"], message["done"] = value, True

    def _check_amortized(self, message: dict[str, Any]) -> None:
        if message["cond_indep_stack"] and message["kwargs"].get("event_dim") is not None:
            raise UsageError(
                f"pyro.param {message['name']!r} of the {self.role} has a value for each datum of its plate: "
                f"what is measured is amortized; give the {self.role} a network that reads x"
            )


def run(program: Callable[..., object], data: Rows, handler: Run) -> dict[str, Site]:
    """Run a program on data; its sample statements by name.

    Raises:
        UsageError: what cannot be measured, or the program fails.
    """
    x = data[0]
    with _apart(handler.rows), handler:
        try:
            program(*data)
        except Stopped:
            pass
        except UsageError:
            raise
        except Exception as error:  # a user's program may raise anything
            plate = "inside plate" in str(error)
            remedy = ": .to_event(1) for all but the data, and pyro.plate('data', len(x))" if plate else ""
            raise UsageError(
                f"the {handler.role} fails for x of shape {tuple(x.shape)} ({type(error).__name__}: "
                f"{one_line(error)}){remedy}"
            ) from error
    return handler.sites


def constrained(value: Tensor, constraint: constraints.Constraint) -> Tensor:
    """A parameter as its program sees it, of the unconstrained numbers that are learned."""
    return transform_to(constraint)(value)


@contextmanager
def _apart(rows: int) -> Iterator[None]:
    """Inside, Pyro's global store is another one, its validation is off, and plates take every row.

    A plate that draws which of its data to take (subsample_size) takes those that it is shown.
    """
    subsample = SubsampleMessenger.__dict__["_subsample"]

    def of_all_rows(
        name: str, size: int | None = None, subsample_size: int | None = None, *rest: Any, **named: Any
    ) -> Any:
        if subsample_size is None or (rest and rest[0] is not None):
            return subsample.__func__(name, size, subsample_size, *rest, **named)
        return size, rows, torch.arange(rows)

    with pyro.validation_enabled(False), pyro.get_param_store().scope(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        SubsampleMessenger._subsample = staticmethod(of_all_rows)
        try:
            yield
        finally:
            SubsampleMessenger._subsample = subsample

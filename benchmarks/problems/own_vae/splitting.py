"""Which of a user's parameters are φ and which θ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ....estimators.errors import UsageError
from .callees import Callee
from .shown import Showing
from .views import View, show


def split(
    phi: View,
    theta: View,
    of_phi: Sequence[Callee],
    of_theta: Sequence[Callee],
    reached: tuple[set[int], set[int], set[int]],
    called: tuple[set[int], set[int]],
    showing: Showing,
) -> None:
    """Show each side what is its own: a module given whole is, and of one given by a method what it reaches.

    Args:
        phi: the encoder's side, which shows nothing yet.
        theta: the decoder's.
        of_phi: what is called on the encoder's; the encoder first.
        of_theta: what is called on the decoder's; the decoder first.
        reached: ids of the parameters that eta, log p(x|z) and log p(z) reach.
        called: ids of the modules called on each side.
        showing: of all modules.

    Raises:
        UsageError: a parameter is reached by both encoder and decoder.
    """
    by_eta, by_likelihood, by_prior = reached
    mine = by_eta | _whole(of_phi)
    prior = next((c for c in of_theta if c.role == "prior"), None)
    theirs = by_likelihood | _whole([c for c in of_theta if c is not prior])
    _check_apart(mine & theirs, showing)
    # A prior made with the encoder, such as VampPrior's, leaves the encoder's parameters in φ.
    theirs |= (by_prior | _whole([] if prior is None else [prior])) - mine
    _show(phi, of_phi, mine, theirs, called[0])
    _show(theta, of_theta, theirs, mine, called[1])


def _whole(callees: Sequence[Callee]) -> set[int]:
    owners = [callee.owner for callee in callees if callee.whole]
    return {id(p) for owner in owners if owner is not None for p in owner.parameters()}


def _check_apart(both: set[int], showing: Showing) -> None:
    for key, (name, _) in showing.parameters().items():
        if key in both:
            raise UsageError(
                f"{name} is reached by the encoder and by the decoder, so its gradient is neither that of φ "
                f"nor that of θ: give each side a copy of its own (copy.deepcopy)"
            )


def _show(side: View, callees: Sequence[Callee], mine: set[int], theirs: set[int], called: set[int]) -> None:
    shown: set[int] = set()
    for callee in callees:
        owner = callee.owner
        if owner is None or id(owner) in shown:
            continue
        first = not shown
        shown.add(id(owner))
        whole = any(c.whole and c.owner is owner for c in callees)
        view = side if first and callee is callees[0] else View()
        show(view, owner, mine, theirs, None if whole else called)
        if view is not side and any(True for _ in (*view.parameters(), *view.buffers())):
            side.add_module(free_name(side, callee.role), view)


def free_name(side: nn.Module, name: str) -> str:
    """A name that no child, parameter or attribute of a module has."""
    while hasattr(side, name):
        name = f"own_{name}"
    return name


def name_modules(side: View, owner: nn.Module | None, names: Mapping[int, str]) -> None:
    """Note how the user's code calls what a side shows."""
    found: dict[str, str] = {}
    for path, module in side.named_modules():
        shown = module._shown[0] if isinstance(module, View) and module._shown else module
        if id(shown) in names:
            found[path] = names[id(shown)]
    side._names = found
    variable = next(iter(found.values()), "").partition(".")[0].partition("[")[0]
    side._called = names.get(id(owner), variable)

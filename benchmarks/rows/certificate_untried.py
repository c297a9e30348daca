"""What a certificate never tried, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .certificate_checks import Check
from .certificate_kinds import IN_MANY_DIMENSIONS, KINDS, Place, kinds_of, place_of

_TOO_FEW = re.compile(r"num_samples of at least \d+")  # the estimator's declared min_samples
_DETAIL = re.compile(r"; |, not |: use ")  # what follows is about one posterior, or advice


def never_tried(checks: Iterable[Check], skipped: Mapping[str, str]) -> dict[str, str]:
    """Kind -> why no check of it ran: what was refused or left out, not what nobody asked for.

    A kind is of latents, dimensions, costs, S, B, floating-point types or modes, see `kinds_of`. That an
    estimator declares a smallest S above 1 is no gap, and not told.

    Args:
        checks: those that were never begun included, with the reason; of others without a verdict the
            certificate's open questions tell.
        skipped: what was left out, see `place_of`, with the reason.
    """
    tried: set[str] = set()
    reasons = [(place_of(where), why) for where, why in skipped.items() if not _TOO_FEW.search(why)]
    for check in checks:
        place = Place(check.problem, check.num_samples, check.batch_size, check.dtype, check.mode)
        if check.holds is not None:
            tried.update(kinds_of(place))
        elif check.problem and not check.draws:
            reasons.append((place, check.reason))
    # A problem left out as a whole says more of its latents than one of its points does.
    reasons.sort(key=lambda pair: pair[0] != Place(pair[0].problem))
    found: dict[str, str] = {}
    for place, why in reasons:
        for kind in kinds_of(place):
            # Of latents that were never tried at all, many dimensions go without saying.
            if kind not in tried and kind.removesuffix(IN_MANY_DIMENSIONS) not in found:
                found[kind] = why
    return {kind: found[kind] for kind in KINDS if kind in found}


def refused_sizes(problem: str, answers: Mapping[int, str | None]) -> dict[str, str]:
    """Of S that an estimator refuses on a problem what is to be told as skipped, with the reason.

    One S of each kind (odd, even, large) of which it supports none; that of the smallest.

    >>> refused_sizes("small-vae", {2: None, 3: "needs pairs", 4: None, 5: "needs pairs", 10: None})
    {'small-vae, S = 3': 'needs pairs'}

    Args:
        problem: its label.
        answers: S -> why not, or None where it is supported.
    """
    told = {kind for s, why in answers.items() if why is None for kind in kinds_of(Place("", s))}
    found = {}
    for s, why in sorted(answers.items()):
        kinds = set(kinds_of(Place("", s))) - told
        if why is not None and kinds:
            found[f"{problem}, S = {s}"] = why
            told |= kinds
    return found


def in_words(untried: Mapping[str, str]) -> str:
    """What was never tried, that of one reason together, each reason in short; "" where there is nothing.

    >>> in_words({"flows": "needs bits, not a flow", "Gammas": "needs bits, not a Gamma", "B = 1": "slow"})
    'flows, Gammas (needs bits); B = 1 (slow)'
    """
    groups: dict[str, list[str]] = {}
    for kind, why in untried.items():
        groups.setdefault(in_short(why), []).append(kind)
    return "; ".join(f"{enumerated(kinds)} ({why})" for why, kinds in groups.items())


def in_short(reason: str) -> str:
    """The part of a reason that is the same for all posteriors.

    >>> in_short("needs a reparameterizable posterior; Bernoulli is not (torch has no rsample for it)")
    'needs a reparameterizable posterior'
    """
    return _DETAIL.split(reason, maxsplit=1)[0]


def enumerated(kinds: Iterable[str]) -> str:
    """Kinds with commas between them; of two with the same last word it is said once.

    >>> enumerated(["Bernoulli latents", "K-ary latents", "flows"])
    'Bernoulli and K-ary latents, flows'
    """
    parts: list[str] = []
    for kind in kinds:
        start, _, last = kind.rpartition(" ")
        before, _, same = parts[-1].rpartition(" ") if parts else ("", "", "")
        if start and before and same == last and " " not in start + before:
            parts[-1] = f"{before} and {kind}"
        else:
            parts.append(kind)
    return ", ".join(parts)

"""Advice in words: no more than the intervals of a ranking justify."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..oracles.references import RELAXED
from .measured import Interval, Measured, cost_ratio, pays_until
from .rank import LEAST_MARGIN, Entry, Ranking

_LISTED = 4

#: Whether interrupted -> what is said where nothing was measured in earnest.
NOTHING = {
    True: "Stopped at the first look: no advice.",
    False: "Nothing could be measured: no advice.",
}


#: Said of relaxed latents that could not be held against the ELBO's gradient.
RELAXED_APART = (
    "How far the mean is from the ELBO's gradient is not known, and every temperature has an objective of "
    "its own: these variances compare with no others."
)


def name_of(measured: Measured, ranking: Ranking) -> str:
    """How the text calls it: with S where S was a choice."""
    return (
        measured.estimator if ranking.num_samples else f"{measured.estimator} with S = {measured.num_samples}"
    )


def advice_on(ranking: Ranking) -> str:
    """What one ranking says to do."""
    sentences = [
        _choice(ranking),
        _of_the_unchecked(ranking),
        RELAXED_APART if ranking.objective.partition("[")[0] == RELAXED else "",
        _of_the_biased(ranking),
        _of_the_noiseless(ranking),
    ]
    return " ".join(filter(None, sentences))


def advice_over(rankings: Sequence[Ranking]) -> str:
    """What rankings of one objective at several steps say together; empty for a single one."""
    if len(rankings) < 2 or not all(r.tied for r in rankings):
        return ""
    unbeaten = [[e.measured.estimator for e in r.tied] for r in rankings]
    common = [name for name in unbeaten[0] if all(name in names for names in unbeaten)]
    steps = _listed([f"step {r.step}" for r in rankings])
    bound = "" if rankings[0].num_samples is None else f", S = {rankings[0].num_samples}"
    start = f"Over training ({rankings[0].objective}{bound}):"
    if common:
        verb = "are" if len(common) > 1 else "is"
        open_ = _listed([f"step {r.step}" for r in rankings if r.unranked] or [""])
        unsure = f", where not enough replicates leave the order open at {open_}" if open_ else ""
        return f"{start} {_listed(common)} {verb} not beaten at {steps}{unsure}."
    each = [f"{r.tied[0].measured.estimator} at step {r.step}" for r in rankings]
    return f"{start} none is unbeaten at {steps}; lowest by estimate: {_listed(each)}."


def _choice(ranking: Ranking) -> str:
    tied = ranking.tied
    if not tied:
        return "" if ranking.noiseless else _without_a_sound_one(ranking)
    first, rest = tied[0], tied[1:]
    name = name_of(first.measured, ranking)
    sound = [e for e in ranking.entries if not e.measured.biased]
    checked = all(e.measured.checked for e in sound)
    if len(sound) == 1:
        what = "unbiased one measured" if checked else "one measured that is not shown or said to be biased"
        return f"{_capital(name)} is the only {what}."
    few = [e for e in tied if e.measured.few is not None]
    known = [e for e in tied if e.measured.few is None]
    if few:
        return f"Undecided: {_of_the_known(known, ranking)}{_of_the_unknown(few, ranking)}."
    if rest:
        return (
            f"A tie: no difference in work can be shown between {_names(tied, ranking)}; the best is one of "
            f"these {len(tied)} of {len(sound)}, at {_level(ranking)}."
        )
    second = next(e for e in sound if e is not first)
    behind = min((e for e in sound if e is not first), key=_least)
    low = _least(behind)
    unbiased = "unbiased ones" if checked else "ones not shown or said to be biased"
    if low <= LEAST_MARGIN:  # beaten, but not by the first itself
        return f"Use {name}: each of the other {len(sound) - 1} {unbiased} was beaten, at {_level(ranking)}."
    margin = f"at least {_rounded_down(low)} times" if low < math.inf else "infinitely many times"
    next_one = name_of(second.measured, ranking)
    return (
        f"Use {name}: every other of the {len(sound)} {unbiased} costs {margin} its work for the same "
        f"precision (the next is {next_one}), at {_level(ranking)}."
    )


def _rounded_down(value: float) -> str:
    """Two digits, three below 1.1, and never more than the value."""
    digits = 2 if value >= 1.1 else 3
    unit = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    rounded = math.floor(value / unit + 1e-9) * unit
    return f"{rounded:.0f}" if 100 <= value < 1e6 else f"{rounded:.{digits}g}"


def _of_the_unchecked(ranking: Ranking) -> str:
    """Whose lack of bias is their own word, of those that are recommended, and who is the best otherwise."""
    open_ = [e for e in ranking.tied if not e.measured.checked]
    if not open_:
        return ""
    sound = [e for e in ranking.entries if not e.measured.biased]
    checked = [e for e in sound if e.measured.checked]
    if not checked:
        return "Bias not shown: of none was it measured well enough, and unbiased is their own word."
    who, verb = _names(open_, ranking), "are" if len(open_) > 1 else "is"
    text = f"Bias not shown: that {who} {verb} unbiased is their own word."
    if checked[0] in ranking.tied:
        return text
    return f"{text} The best whose bias was bounded is {name_of(checked[0].measured, ranking)}."


def _of_the_known(known: Sequence[Entry], ranking: Ranking) -> str:
    if not known:
        return "unbeaten are only "
    verb = "were not beaten" if len(known) > 1 else "was not beaten"
    return f"{_names(known, ranking)} {verb}, but neither was "


def _of_the_unknown(few: Sequence[Entry], ranking: Ranking) -> str:
    needed = max(e.measured.few or 0 for e in few)
    have = "have" if len(few) > 1 else "has"
    text = f"{_names(few, ranking)}, which {have} not enough replicates (at least {needed})"
    if not ranking.unranked:
        return text
    next_one = ranking.unranked[0]
    assert next_one.to_first is not None
    name, value = name_of(next_one.measured, ranking), next_one.to_first.value
    times = f"{value:.3g}" if value < math.inf else "infinitely many"
    lower = f"{name_of(ranking.tied[0].measured, ranking)} is {times} times lower than {name}"
    return f"{text}: by estimate {lower}, which so few do not show; a larger budget draws more"


def _without_a_sound_one(ranking: Ranking) -> str:
    text = "No unbiased estimator was measured: nothing to recommend."
    if not ranking.entries:
        return text
    first = ranking.entries[0].measured
    lowest = f"{name_of(first, ranking)} ({bias_in_words(first)})"
    return f"{text} By estimate {lowest} has the lowest mean squared error × seconds."


def _of_the_biased(ranking: Ranking) -> str:
    """Which have a lower mean squared error than the first, and until when; and which cannot be ranked."""
    parts = []
    if ranking.unknown:
        parts = [f"Not ranked, biased by how much is not known: {_names(ranking.unknown, ranking)}."]
    if ranking.ahead:
        first = ranking.tied[0].measured
        each = [f"{name_of(e.measured, ranking)} ({_of_one(e.measured, first)})" for e in ranking.ahead]
        stays = "A bias is not averaged out, by samples, data or steps."
        parts.insert(0, f"Lower still by mean squared error, but biased: {_listed(each)}. {stays}")
    elif ranking.tied and ranking.biased:
        of = f"Of the {len(ranking.biased)} biased ones none" if len(ranking.biased) > 1 else "The biased one"
        is_not = "is" if len(ranking.biased) > 1 else "is not"
        parts.insert(0, f"{of} {is_not} shown to have a lower mean squared error for its seconds.")
    return " ".join(parts)


def _of_one(biased: Measured, first: Measured) -> str:
    off = biased.bias is not None and biased.bias.relative >= 1
    as_zero = ", as far off as no gradient at all" if off else ""
    return f"{bias_in_words(biased)}{as_zero}; {limit_in_words(biased, first)}"


def limit_in_words(biased: Measured, sound: Measured) -> str:
    """Up to how many averaged estimates a biased one has the lower error in the seconds that both take."""
    most, low, _ = limit = pays_until(biased, sound)
    if low == math.inf:
        return "it pays however many estimates are averaged"
    if most == math.inf:
        return f"it pays up to {_count(low)} averaged estimates at the least"
    if most < 1:
        return "even one estimate does not pay"
    samples = f" of {biased.num_samples} samples" if biased.num_samples > 1 else ""
    return f"it pays up to {limit_as_text(limit)} averaged estimates{samples}"


def limit_as_text(limit: Interval) -> str:
    """A number of estimates with its interval, all rounded down.

    >>> limit_as_text(Interval(14.2, 9.9, math.inf))
    '14 [9, ∞]'
    """
    value, low, high = map(_count, limit)
    return f"{value} [{low}, {high}]"


def _count(number: float) -> str:
    if number == math.inf:
        return "∞"
    return f"{math.floor(number):,}" if number < 1e6 else f"{number:.1g}"


def _of_the_noiseless(ranking: Ranking) -> str:
    if not ranking.noiseless:
        return ""
    one = ranking.noiseless[0]
    biased = f", but is biased ({bias_in_words(one)})" if one.biased else ""
    name = _capital(one.estimator)
    if not ranking.tied:
        return f"{name} has no noise of its own{biased}."
    first = ranking.tied[0].measured
    ratio = cost_ratio(one, first, ranking.confidence)
    other = name_of(first, ranking)
    if ratio.high < 1 / LEAST_MARGIN and not one.biased:
        return f"Better still, {one.estimator}: it has no noise of its own, and is faster than {other}."
    if ratio.low < 1 < ratio.high and not one.biased:
        return f"{name} has no noise of its own; no difference in seconds to {other} can be shown."
    return (
        f"{name} has no noise of its own{biased}, at {ratio.value:.2g} times the seconds of {other}: it pays "
        f"only where that noise counts beside the minibatch's."
    )


def bias_in_words(measured: Measured) -> str:
    """What is known of an estimator's bias."""
    bias = measured.bias
    claim = "" if measured.claims_unbiased else "by its own word"
    if bias is None:
        return f"{claim}, not measured" if claim else "not measured"
    if bias.shown:
        return f"by {bias.relative:.2g} of the gradient" if bias.relative < math.inf else "gradient is 0"
    bound = f"at most {bias.bound:.2g} of the gradient"
    return f"{claim}, {bound}" if claim else bound


def _least(entry: Entry) -> float:
    return entry.to_first.low if entry.to_first is not None else math.inf


def _names(entries: Sequence[Entry], ranking: Ranking) -> str:
    return _listed([name_of(e.measured, ranking) for e in entries])


def _level(ranking: Ranking) -> str:
    pairs = f"all {ranking.comparisons} comparisons" if ranking.comparisons > 1 else "one comparison"
    return f"95% confidence for {pairs}"


def _listed(names: Sequence[str]) -> str:
    shown = (
        list(names) if len(names) <= _LISTED else [*names[: _LISTED - 1], f"{len(names) - _LISTED + 1} more"]
    )
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _capital(text: str) -> str:
    """As a sentence begins, but for the names of modules and files."""
    return text if {":", "."} & {*text} else text[:1].upper() + text[1:]

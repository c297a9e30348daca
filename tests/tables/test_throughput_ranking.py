"""Rates with wide intervals are not ranked above those that are known."""

from __future__ import annotations

import pandas as pd
from elbograd.benchmarks.plots import throughput as plot
from elbograd.benchmarks.report import verdict
from elbograd.benchmarks.report.lines import lines
from elbograd.benchmarks.rows.schema import row
from elbograd.benchmarks.rows.throughput import TOO_NOISY, rank_by, too_noisy
from elbograd.benchmarks.tables.cases import throughput_cases

RATES = {"noisy": (38.0, 12.0, 497.0), "known": (24.0, 21.0, 44.0), "slow": (10.0, 9.0, 11.0)}


def rows(rates=RATES):
    common = {"benchmark": "throughput", "problem": "vae", "latent_dim": 2, "batch_size": 8, "num_samples": 1}
    common |= {"device": "cpu", "dtype": "float32", "mode": "eager", "metric": "steps_per_second", "n": 9}
    return pd.DataFrame(
        [
            row(**common, estimator=name, value=value, ci_low=low, ci_high=high)
            for name, (value, low, high) in rates.items()
        ]
    )


def said(rates):
    (sentence,) = verdict._of_problems(lines(rows(rates)))
    return str(sentence)


def test_a_wide_interval_is_marked_and_comes_last():
    table = throughput_cases(rows())
    assert list(table["estimator"]) == ["known", "slow", "noisy"]
    assert list(table["note"]) == ["", "", TOO_NOISY]
    assert list(lines(rows())["estimator"]) == ["known", "slow", "noisy"]


def test_the_lower_end_ranks():
    rates = {"a": (30.0, 15.0, 60.0), "b": (24.0, 21.0, 44.0)}
    assert list(throughput_cases(rows(rates))["estimator"]) == ["b", "a"]
    table = pd.DataFrame({"r": [3.0, 5.0], "r_low": [float("nan"), 4.0], "r_high": [float("nan"), 6.0]})
    assert list(rank_by(table, "r")) == [3.0, 4.0]
    assert not too_noisy(table, "r").any()


def test_the_verdict_names_no_winner_that_is_not_shown():
    assert "known</strong> makes the most" in said(RATES)
    close = said({"a": (30.0, 28.0, 32.0), "b": (31.0, 27.0, 33.0), "c": (10.0, 9.0, 11.0)})
    assert "are those of <strong>a</strong>, <strong>b</strong>; their 95% intervals overlap" in close


def test_bars_come_in_the_order_of_the_ranking():
    figure = plot.draw(rows())
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["noisy", "slow", "known"]  # from the bottom up

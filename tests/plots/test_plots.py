"""Figures: what is on them, and that they depend on the rows alone."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from certificates import bound, certificate, check, declared, open_, right, rows_of, wrong
from elbograd.benchmarks.plots import FIGURES, draw_all
from elbograd.benchmarks.plots.axes import log_ticks, tick_labels
from elbograd.benchmarks.plots.sheet import WIDTH
from elbograd.benchmarks.plots.style import Style, literal, style_of, styles_of
from elbograd.benchmarks.rows.rankings import pareto_front
from elbograd.benchmarks.rows.schema import COLUMNS, row
from elbograd.benchmarks.rows.seeds import against_seconds, mean_interval
from elbograd.benchmarks.rows.text import interval, number, short_names
from elbograd.benchmarks.rows.wide import at_base, at_default_samples, ordered
from elbograd.estimators import catalogue
from matplotlib.axes import Axes
from matplotlib.axis import XTick
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

BUILTINS = [
    "reparameterization",
    "score-function",
    "constant-baseline",
    "moving-average-baseline",
    "leave-one-out",
    "learned-baseline",
    "optimal-baseline",
    "exact",
]
# name -> (variance of one sample at the initialization, share left after training, milliseconds, samples it needs)
MODEL = {
    "reparameterization": (0.31, 0.50, 0.92, 1),
    "score-function": (412.0, 1.90, 0.61, 1),
    "constant-baseline": (37.2, 2.30, 0.63, 1),
    "moving-average-baseline": (36.1, 2.35, 0.64, 1),
    "leave-one-out": (68.0, 2.20, 0.70, 2),
    "learned-baseline": (29.4, 1.10, 0.95, 1),
    "optimal-baseline": (21.0, 0.80, 4.60, 1),
    "exact": (1e-30, 1.0, 55.0, 1),
}
LAYERS = {"0": 0.68, "2": 0.32}
ETA = {"mean": 3.0, "log_scale": 9.0}
DATA = 8
MINIBATCH = 2.0
GAPS = {0: 22.0, 100: 4.5, 2000: 0.04}
ODD = [
    "score-function[kl=sampled]",
    "/very/long/" + "path/" * 30 + "idea_$x_1$<b>.py:Mine[a=1]",
    "_my$idea.py",
]


def model(name: str) -> tuple[float, float, float, int]:
    return MODEL.get(name, (5.0 + len(name), 1.0, 0.8, 1))


def variance_rows(
    estimators: list[str] = BUILTINS,
    problem: str = "vae",
    latent_dim: int = 8,
    samples: tuple[int, ...] = (1,),
    steps: tuple[int, ...] = (0, 2000),
    **common: Any,
) -> list[dict[str, Any]]:
    rows = []
    for name in estimators:
        total, trained, milliseconds, needs = model(name)
        for s in samples:
            for step in steps:
                case: dict[str, Any] = {
                    "benchmark": "variance",
                    "problem": problem,
                    "estimator": name,
                    "num_samples": s,
                    "batch_size": 64,
                    "latent_dim": latent_dim,
                    "step": step,
                    **common,
                }
                if s < needs:
                    skip = {"status": "skipped", "reason": f"needs at least {needs} samples"}
                    rows.append(row(**case, metric="variance", value=float("nan"), **skip))
                    continue
                v = total / s * (trained if step else 1) * latent_dim / 8
                half = 0.25 if name == "score-function" else 0.04
                warning = (
                    "not enough replicates (at least 52000)" if name == "score-function" and step else ""
                )
                interval = {"ci_low": v * (1 - half), "ci_high": v * (1 + 1.4 * half)}
                rows.append(row(**case, metric="variance", value=v, unit="nats²", reason=warning, **interval))
                rows += breakdown_rows(case, v, warning, half)
                seconds = milliseconds * 1e-3 * (0.7 + 0.3 * s)
                spread = {"ci_low": 0.96 * seconds, "ci_high": 1.05 * seconds}
                rows.append(row(**case, metric="seconds", value=seconds, unit="s", **spread))
                bound = 1e-12 if name == "exact" else 0.0008 * v**0.5
                rows.append(row(**case, metric="bias", value=bound * 0.4))
                rows.append(row(**case, metric="bias_bound", value=bound))
                rows.append(row(**case, metric="snr", value=2.1 / v**0.5))
    return rows


def breakdown_rows(case: dict[str, Any], total: float, warning: str, half: float) -> list[dict[str, Any]]:
    """What comes beside a total."""

    def of(metric: str, value: float, parameter: str = "") -> dict[str, Any]:
        ends = {"ci_low": value * (1 - half), "ci_high": value * (1 + 1.4 * half)}
        return row(**case, metric=metric, parameter=parameter, value=value, reason=warning, **ends)

    data = np.arange(1, DATA + 1) ** 2 / np.sum(np.arange(1, DATA + 1) ** 2)
    rows = [of("variance_by_layer", share * total, name) for name, share in LAYERS.items()]
    rows += [of("variance_by_datum", share * total, str(i)) for i, share in enumerate(data)]
    rows += [of("eta_variance", part * total, name) for name, part in ETA.items()]
    rows.append(of("minibatch_variance", MINIBATCH))
    cosine = 1 / (1 + total) ** 0.5
    rows.append(row(**case, metric="cosine", value=cosine, ci_low=cosine - 0.01, ci_high=cosine + 0.01))
    rows.append(row(**case, metric="kurtosis", value=4.2))
    rows.append(row(**case, metric="heldout_gap", value=GAPS.get(case["step"]), unit="nat"))
    return rows


def convergence_rows(
    estimators: list[str] = BUILTINS[:7], seeds: int = 3, problem: str = "vae", **common: Any
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for name in estimators:
        total, _, milliseconds, _ = model(name)
        for seed in range(seeds):
            level = -19.5 - 0.35 * np.log10(total * 4) + 0.08 * rng.standard_normal()
            for step in range(0, 2001, 100):
                case = {
                    "benchmark": "convergence",
                    "problem": problem,
                    "estimator": name,
                    "num_samples": 2,
                    "batch_size": 64,
                    "latent_dim": 8,
                    "seed": seed,
                    "step": step,
                    **common,
                }
                value = level - 24 * np.exp(-step / 180) - 3 * np.exp(-step / 700) * np.log10(10 + total)
                if name == "score-function" and seed == 1 and step >= 1200:
                    case |= {"status": "diverged", "reason": "the objective is not finite"}
                    value = float("nan")
                rows.append(row(**case, metric="heldout_objective", value=value, unit="nat"))
                rows.append(row(**case, metric="train_objective", value=value + 0.6, unit="nat"))
                rows.append(row(**case, metric="seconds", value=step * milliseconds * 1e-3, unit="s"))
    return rows


def throughput_rows(
    modes: tuple[str, ...] = ("eager", "compiled"), device: str = "cpu"
) -> list[dict[str, Any]]:
    rows = []
    for name in BUILTINS[:7]:
        for speed, mode in enumerate(modes, 1):
            case = {
                "benchmark": "throughput",
                "problem": "vae",
                "estimator": name,
                "num_samples": 2,
                "batch_size": 64,
                "latent_dim": 8,
                "device": device,
                "mode": mode,
            }
            steps = speed * 900 / model(name)[2]
            for metric, value in {"steps_per_second": steps, "gradients_per_second": 1.6 * steps}.items():
                rows.append(
                    row(**case, metric=metric, value=value, ci_low=0.93 * value, ci_high=1.04 * value)
                )
            rows.append(row(**case, metric="peak_memory", value=(180 + 12 * len(name)) * 2.0**20, unit="B"))
    return rows


FULL = variance_rows(samples=(1, 2, 4)) + convergence_rows() + throughput_rows()
DIMS = [
    row_
    for d in (2, 8, 32)
    for row_ in variance_rows(problem=f"vae[latent_dim={d}]", latent_dim=d, samples=(2,), steps=(0,))
]
BATCHES = [r for b in (64, 16, 256) for r in variance_rows(batch_size=b, samples=(4,), steps=(2000,))]
TRAINING = variance_rows(samples=(4,), steps=(0, 100, 2000))
STRANGE = variance_rows(BUILTINS + ODD, steps=(0,)) + convergence_rows(BUILTINS[:2] + ODD, seeds=1)
SMALL = variance_rows(["reparameterization"], steps=(0,)) + convergence_rows(["reparameterization"], seeds=1)
SMALL_FIGURES = (
    "variance",
    "variance-vs-cost",
    "variance-by-layer",
    "variance-by-datum",
    "noise-sources",
    "bias",
    "convergence",
)
MULTI_SAMPLE = ["iwae", "dreg"]
OBJECTIVES = [
    {**r, "value": r["num_samples"] * (22.0 if r["estimator"] == "optimal-baseline" else 1.0)}
    if r["metric"] == "evaluations"
    else r
    for names, objective in ((BUILTINS, "elbo"), (MULTI_SAMPLE, "iwae"))
    for v in variance_rows(names, samples=(2, 8), steps=(0,), objective=objective)
    for r in ([v, {**v, "metric": "evaluations"}] if v["metric"] == "variance" else [v])
]
# Of one name each, an odd one among them, and of one estimator alone.
CERTIFIED = [
    right("leave-one-out"),
    wrong(ODD[1]),
    open_(ODD[2]),
    declared(),
    certificate(estimator="untested"),
]
CATALOGUE = [right(name) for name in [*catalogue()][:30]]
SETS = {
    "certified": rows_of(*CERTIFIED),
    "certified one": rows_of(right()),
    "certified catalogue": rows_of(*CATALOGUE),
    "objectives": OBJECTIVES,
    "full": FULL,
    "dims": DIMS,
    "batches": BATCHES,
    "training": TRAINING,
    "strange": STRANGE,
    "small": SMALL,
}


def draw(name: str, rows: list[dict[str, Any]] | pd.DataFrame) -> Figure | None:
    module = import_module(f"elbograd.benchmarks.plots.{name.replace('-', '_')}")
    figure = module.draw(pd.DataFrame(rows))
    assert figure is None or isinstance(figure, Figure)
    return figure


@pytest.fixture(scope="module")
def drawn() -> dict[tuple[str, str], Figure]:
    """All figures of all the sets of rows."""
    figures = {(kind, name): draw(name, rows) for kind, rows in SETS.items() for name in FIGURES}
    return {key: figure for key, figure in figures.items() if figure is not None}


def markers(axes: Axes, label: str) -> list[Line2D]:
    return [line for line in axes.lines if line.get_label() == label]


# What is drawn


def test_each_figure_is_drawn_where_there_are_rows_for_it(drawn: dict[tuple[str, str], Figure]) -> None:
    of = {kind: {name for k, name in drawn if k == kind} for kind in SETS}
    sweeps = {name for name in FIGURES if "-vs-" in name or "-along-" in name} - {"variance-vs-cost"}
    tuned = {"tuning", "time-to-target", "training-profile"}
    others = {"convergence", "throughput", "verdicts", *tuned}
    problems = {"performance-profile", "verdicts", *tuned}
    for kind in ("certified", "certified one", "certified catalogue"):
        assert of[kind] == {"verdicts", "bias-bound-vs-time"}
    assert of["full"] == set(FIGURES) - sweeps - problems | {"variance-vs-samples", "variance-along-training"}
    assert of["dims"] == set(FIGURES) - sweeps - others | {"variance-vs-latent-dim"}
    assert of["batches"] == set(FIGURES) - sweeps - others - problems | {"variance-vs-batch-size"}
    assert of["training"] == set(FIGURES) - sweeps - others - problems | {"variance-along-training"}
    assert of["small"] == {*SMALL_FIGURES}
    assert of["objectives"] == set(FIGURES) - sweeps - others - problems | {
        "variance-vs-samples",
        "variance-vs-evaluations",
    }


@pytest.mark.parametrize("name", ["variance", "variance-vs-cost", "variance-vs-evaluations", "bias"])
def test_each_objective_has_a_panel_of_its_own(drawn: dict[tuple[str, str], Figure], name: str) -> None:
    figure = drawn["objectives", name]
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["ELBO", "objective iwae"]
    for axes, shown in zip(figure.axes, (set(BUILTINS) - {"exact"}, set(MULTI_SAMPLE)), strict=True):
        assert {n for n in (*BUILTINS, *MULTI_SAMPLE) if markers(axes, n)} == shown


def test_that_it_is_about_the_elbo_goes_without_saying(drawn: dict[tuple[str, str], Figure]) -> None:
    for kind in ("full", "small"):
        words = [t.get_text() for t in drawn[kind, "variance"].findobj(Text)]
        assert not any("ELBO" in word or "objective" in word for word in words)


def test_variance_is_drawn_against_evaluations_where_they_are_not_the_samples(
    drawn: dict[tuple[str, str], Figure],
) -> None:
    axes = drawn["objectives", "variance-vs-evaluations"].axes[0]
    for name, at in (("leave-one-out", (2, 8)), ("optimal-baseline", (44, 176))):
        (line,) = [line for line in axes.lines if line.get_label() == f"{name} line"]
        np.testing.assert_allclose(line.get_xdata(), at, rtol=0.2)
    assert draw("variance-vs-evaluations", variance_rows(samples=(1, 4), steps=(0,))) is None


@pytest.mark.parametrize("name", ["variance", "variance-vs-samples", "variance-vs-cost", "bias"])
def test_every_estimator_but_the_deterministic_one_is_in_every_panel(
    drawn: dict[tuple[str, str], Figure], name: str
) -> None:
    figure = drawn["full", name]
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert {label for label in BUILTINS if markers(axes, label)} == set(BUILTINS) - {"exact"}
    assert any("exact" in text.get_text() for text in figure.texts)


def test_panels_say_where_and_axes_have_units(drawn: dict[tuple[str, str], Figure]) -> None:
    figure = drawn["full", "variance"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["initialization", "after 2000 steps"]
    assert all(axes.get_xlabel() == "variance, tr Cov(ĝ) (nats²)" for axes in figure.axes)
    assert any("vae · D = 8 · B = 64 · S = 2" in text.get_text() for text in figure.texts)


def test_the_least_noisy_estimator_is_on_top(drawn: dict[tuple[str, str], Figure]) -> None:
    names = [label.get_text() for label in drawn["full", "variance"].axes[0].get_yticklabels()]
    assert names == sorted(set(BUILTINS) - {"exact"}, key=lambda n: -model(n)[0])


def test_the_default_number_of_samples_is_the_smallest_that_the_most_estimators_share() -> None:
    points = pd.DataFrame(
        {"problem": "p", "num_samples": [1, 1, 2, 2, 2, 4, 4, 4], "estimator": list("ababcabc")}
    )
    assert set(at_default_samples(points)["num_samples"]) == {2}


def test_a_marker_is_hollow_where_there_is_a_warning(drawn: dict[tuple[str, str], Figure]) -> None:
    start, trained = drawn["full", "variance"].axes
    assert markers(start, "score-function")[0].get_markerfacecolor() != "white"
    assert markers(trained, "score-function")[0].get_markerfacecolor() == "white"
    assert markers(trained, "leave-one-out")[0].get_markerfacecolor() != "white"
    texts = " ".join(text.get_text() for text in drawn["full", "variance"].texts)
    assert "Hollow marker: not enough replicates." in texts


def test_a_skipped_estimator_is_named_with_its_reason(drawn: dict[tuple[str, str], Figure]) -> None:
    texts = " ".join(text.get_text() for text in drawn["strange", "variance"].texts)
    assert "Not measured: leave-one-out (needs at least 2 samples)." in texts


@pytest.mark.parametrize("low", [0.0, -3.0, float("nan"), 1e-300])
@pytest.mark.parametrize("name", ["variance", "variance-vs-samples", "variance-vs-cost"])
def test_an_interval_that_reaches_zero_does_not_stretch_a_logarithmic_axis(name: str, low: float) -> None:
    frame = pd.DataFrame(variance_rows(BUILTINS[:3], samples=(1, 2), steps=(0,)))
    before = draw(name, frame)
    frame.loc[(frame["estimator"] == "score-function") & (frame["metric"] == "variance"), "ci_low"] = low
    after = draw(name, frame)
    assert before is not None
    assert after is not None
    for limits in ("get_xlim", "get_ylim"):
        assert getattr(after.axes[0], limits)() == pytest.approx(getattr(before.axes[0], limits)(), rel=0.5)


def test_an_infinite_end_is_drawn_to_the_edge() -> None:
    frame = pd.DataFrame(variance_rows(BUILTINS[:2], steps=(0,)))
    frame.loc[frame["estimator"] == "score-function", "ci_high"] = np.inf
    figure = draw("variance", frame)
    assert figure is not None
    assert np.isfinite(figure.axes[0].get_xlim()).all()


def test_layers_come_in_order_with_shares_that_add_up(drawn: dict[tuple[str, str], Figure]) -> None:
    layers, eta = drawn["full", "variance-by-layer"].axes[:2]
    assert [label.get_text() for label in layers.get_yticklabels()] == ["layer 0", "layer 2"]
    assert [label.get_text() for label in eta.get_yticklabels()] == ["mean", "log_scale"]
    assert [text.get_text() for text in layers.texts] == ["68%"] * 7 + ["32%"] * 7
    assert [text.get_text() for text in eta.texts] == ["25%"] * 7 + ["75%"] * 7
    top, bottom = markers(layers, "leave-one-out")
    assert top.get_xdata()[0] / bottom.get_xdata()[0] == pytest.approx(0.68 / 0.32)
    assert top.get_ydata()[0] > bottom.get_ydata()[0]


def test_of_many_layers_the_largest_are_drawn() -> None:
    case = {"benchmark": "variance", "problem": "vae", "estimator": "a", "step": 0}
    rows = [row(**case, metric="variance", value=210.0)]
    rows += [row(**case, metric="variance_by_layer", parameter=str(i), value=1.0 + i) for i in range(20)]
    figure = draw("variance-by-layer", rows)
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        f"layer {i}" for i in range(14, 20)
    ]
    assert any("14 layers" in text.get_text() for text in figure.texts)
    assert figure.axes[0].texts[-1].get_text() == "9.5%"  # of all layers, drawn or not: 20 / 210


def test_the_curve_over_data_is_sorted_and_averages_to_one(drawn: dict[tuple[str, str], Figure]) -> None:
    for axes in drawn["full", "variance-by-datum"].axes:
        (line,) = markers(axes, "leave-one-out")
        assert list(line.get_xdata()) == list(range(1, DATA + 1))
        assert (np.diff(line.get_ydata()) < 0).all()
        assert np.mean(line.get_ydata()) == pytest.approx(1)


def test_noise_sources_say_at_how_many_samples_they_are_equal(drawn: dict[tuple[str, str], Figure]) -> None:
    axes = drawn["full", "noise-sources"].axes[0]
    assert markers(axes, "leave-one-out minibatch")[0].get_xdata()[0] == MINIBATCH
    said = {text.get_position()[1]: text.get_text() for text in axes.texts}
    names = [label.get_text() for label in axes.get_yticklabels()]
    # S = 2 and V = 68/2, so that V·S/2 = 34 samples have a variance of 2.
    assert said[names.index("leave-one-out")] == "S = 34"
    assert said[names.index("reparameterization")] == "S < 1"


def test_training_has_the_initialization_left_of_the_logarithm_and_the_gap_below(
    drawn: dict[tuple[str, str], Figure],
) -> None:
    variance, cosine = drawn["training", "variance-along-training"].axes
    assert [label.get_text() for label in variance.get_xticklabels()] == ["0\n22", "100\n4.5", "2000\n0.040"]
    places = variance.xaxis.get_majorticklocs()
    assert places[1:] == pytest.approx(np.log10([100, 2000]))
    assert places[0] < places[1]
    (line,) = [line for line in variance.lines if line.get_label() == "minibatch"]
    assert list(line.get_ydata()) == [MINIBATCH] * 3
    (line,) = markers(cosine, "reparameterization")
    assert line.get_ydata()[0] == pytest.approx(1 / (1 + model("reparameterization")[0] / 4) ** 0.5)
    assert {label for label in BUILTINS if markers(cosine, label)} == set(BUILTINS) - {"exact"}


def test_a_parameter_of_the_problem_is_an_axis_where_nothing_else_differs() -> None:
    def rows(*problems: str) -> list[dict[str, Any]]:
        return [r for p in problems for r in variance_rows(BUILTINS[:2], problem=p, steps=(0,))]

    figure = draw("variance-vs-parameter", rows("cosine[k=1,loc=2]", "cosine[k=10,loc=2]", "vae"))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlabel() == "k"
    assert "cosine[loc=2]" in " ".join(t.get_text() for t in figure.texts)
    (line,) = [line for line in axes.lines if line.get_label() == "reparameterization line"]
    np.testing.assert_allclose(line.get_xdata(), (1, 10), rtol=0.1)
    for other in (
        ("cosine[k=1,loc=2]", "cosine[k=10,loc=3]"),
        ("cosine[k=-1]", "cosine[k=1]"),
        ("vae[binarization=fixed]", "vae"),
        ("vae[latent_dim=2]", "vae[latent_dim=8]"),
    ):
        assert draw("variance-vs-parameter", rows(*other)) is None


def test_problems_come_in_the_order_of_their_numbers() -> None:
    names = ["cosine[k=1e+1]", "cosine[k=10.5]", "cosine[k=2]", "cosine[k=0.1]", "cosine", "vae"]
    cases = pd.DataFrame([r for name in names for r in variance_rows(["exact"], problem=name, steps=(0,))])
    expected = ["cosine", "cosine[k=0.1]", "cosine[k=2]", "cosine[k=1e+1]", "cosine[k=10.5]", "vae"]
    assert list(ordered(cases)["problem"].unique()) == expected


def test_a_sweep_is_drawn_at_its_own_samples_though_all_estimators_have_fewer_as_well() -> None:
    names = ["reparameterization", "score-function"]
    rows = variance_rows(names, samples=(1, 4)) + variance_rows(names, samples=(4,), steps=(100,))
    rows += variance_rows(names, batch_size=16, samples=(4,), steps=(2000,))
    rows += variance_rows(names, problem="vae[latent_dim=2]", latent_dim=2, samples=(4,), steps=(2000,))
    for figure in ("variance-vs-batch-size", "variance-vs-latent-dim", "variance-along-training"):
        drawn = draw(figure, rows)
        assert drawn is not None, figure
        assert drawn.axes
    training = draw("variance-along-training", rows)
    assert training is not None
    line = next(k for k in training.axes[0].get_lines() if k.get_label() == "reparameterization line")
    assert len(line.get_xdata()) == 3


def test_a_swept_size_has_a_figure_of_its_own_and_no_panel_in_the_others() -> None:
    base = variance_rows(samples=(1, 4))
    swept = variance_rows(batch_size=16, samples=(4,), steps=(2000,))
    swept += variance_rows(problem="vae[latent_dim=2]", latent_dim=2, samples=(4,))
    between = variance_rows(samples=(4,), steps=(100,))
    for name in ("variance", "variance-vs-cost", "bias", "variance-by-datum", "noise-sources"):
        alone, together = draw(name, base), draw(name, base + swept + between)
        assert alone is not None
        assert together is not None
        assert [axes.get_title(loc="left") for axes in together.axes] == [
            axes.get_title(loc="left") for axes in alone.axes
        ]
    training = draw("variance-along-training", base + swept + between)
    assert training is not None
    assert len(training.axes) == 2  # of D = 8 and B = 64, though D = 2 has both ends, too
    sizes = draw("variance-vs-latent-dim", base + swept + between)
    assert sizes is not None
    assert [axes.get_title(loc="left") for axes in sizes.axes] == ["initialization", "after 2000 steps"]
    sizes = draw("variance-vs-batch-size", base + swept + between)
    assert sizes is not None
    assert [label.get_text() for label in sizes.axes[0].get_xticklabels()] == ["16", "64"]
    assert any("after 2000 steps" in text.get_text() for text in sizes.texts)


def test_an_estimator_is_said_not_to_be_drawn_only_where_it_was_measured() -> None:
    base = variance_rows(["reparameterization", "leave-one-out"], samples=(4,))
    swept = variance_rows(
        ["reparameterization", "exact"], problem="vae[latent_dim=2]", latent_dim=2, samples=(4,)
    )
    for rows, said in ((base + swept, False), (swept, True)):
        figure = draw("variance", rows)
        assert figure is not None
        assert any("exact" in text.get_text() for text in figure.texts) == said


def test_sizes_that_are_equally_common_are_all_the_base() -> None:
    points = pd.DataFrame(DIMS)
    points = points[(points["metric"] == "variance") & (points["parameter"] == "")]
    assert set(at_base(points)["latent_dim"]) == {2, 8, 32}


def test_the_latent_dimension_is_written_in_one_way(drawn: dict[tuple[str, str], Figure]) -> None:
    titles = [axes.get_title(loc="left") for axes in drawn["dims", "variance"].axes]
    assert titles == ["D = 2", "D = 8", "D = 32"]
    assert not any("latent_dim" in text.get_text() for text in drawn["dims", "variance"].findobj(Text))


def test_a_mean_curve_ends_where_its_first_seed_diverges(drawn: dict[tuple[str, str], Figure]) -> None:
    steps = drawn["full", "convergence"].axes[0]
    assert markers(steps, "score-function")[0].get_xdata()[-1] == 1100
    assert markers(steps, "reparameterization")[0].get_xdata()[-1] == 2000
    assert any(line.get_marker() == "x" and line.get_xdata()[0] == 1100 for line in steps.lines)
    texts = " ".join(text.get_text() for text in drawn["full", "convergence"].texts)
    assert "×: a seed diverged (score-function 1 of 3)." in texts


def test_two_or_three_seeds_are_thin_lines_and_more_make_a_band(drawn: dict[tuple[str, str], Figure]) -> None:
    few, one = drawn["full", "convergence"].axes[0], drawn["small", "convergence"].axes[0]
    many = draw("convergence", convergence_rows(BUILTINS[:2], seeds=5))
    assert many is not None
    assert [sum(line.get_linewidth() < 1 for line in axes.lines) for axes in (few, one, many.axes[0])] == [
        21,
        0,
        0,
    ]
    assert [len(axes.collections) for axes in (few, one, many.axes[0])] == [0, 0, 2]
    assert "mean over 5 seeds; bands: 95% interval" in " ".join(text.get_text() for text in many.texts)


def test_estimators_trained_with_different_samples_share_a_panel_and_say_so() -> None:
    rows = convergence_rows(BUILTINS[:2], seeds=1) + convergence_rows(["leave-one-out"], seeds=1)
    for r in rows:
        r["num_samples"] = 4 if r["estimator"] == "leave-one-out" else 1
    figure = draw("convergence", rows)
    assert figure is not None
    assert len(figure.axes) == 2
    assert markers(figure.axes[0], "leave-one-out (S = 4)")[0].get_color() == style_of("leave-one-out").color


def test_a_bar_for_each_estimator_and_mode(drawn: dict[tuple[str, str], Figure]) -> None:
    for axes in drawn["full", "throughput"].axes:
        assert len(axes.patches) == 7 * 2
        assert axes.get_xlim()[0] == 0


@pytest.mark.parametrize("status", ["skipped", "failed", "diverged"])
def test_rows_without_a_measurement_draw_nothing(status: str, tmp_path: Path) -> None:
    rows = [
        row(
            benchmark=b,
            problem="vae",
            estimator="a",
            metric=m,
            value=float("nan"),
            status=status,
            reason="why",
            step=0,
        )
        for b, m in (
            ("variance", "variance"),
            ("convergence", "heldout_objective"),
            ("throughput", "steps_per_second"),
        )
    ]
    assert draw_all(pd.DataFrame(rows), tmp_path) == []


@pytest.mark.parametrize("empty", [pd.DataFrame(), pd.DataFrame(columns=list(COLUMNS))])
def test_no_rows_draw_nothing(empty: pd.DataFrame, tmp_path: Path) -> None:
    assert draw_all(empty, tmp_path) == []


def test_the_last_row_of_a_case_counts() -> None:
    rows = variance_rows(["reparameterization"], steps=(0,))
    again = [r | {"value": 7.0} for r in rows if r["metric"] == "variance" and not r["parameter"]]
    figure = draw("variance", rows + again)
    assert figure is not None
    assert markers(figure.axes[0], "reparameterization")[0].get_xdata() == [7.0]


def test_nullable_types_make_no_difference() -> None:
    frame = pd.DataFrame(SMALL)
    plain, nullable = draw("variance", frame), draw("variance", frame.convert_dtypes())
    assert plain is not None
    assert nullable is not None
    assert plain.axes[0].get_xlim() == nullable.axes[0].get_xlim()


# How it looks


def test_the_eight_styles_are_fixed_and_distinct() -> None:
    assert [name for name in catalogue() if name in BUILTINS] == BUILTINS
    styles = [style_of(name) for name in BUILTINS]
    assert len({style.color for style in styles}) == len({style.marker for style in styles}) == 8
    assert styles[0] == Style("#0072B2", "o", "-")


def test_every_built_in_estimator_has_a_style_of_its_own() -> None:
    styles = styles_of(catalogue())
    assert all(styles[name] == style_of(name) for name in catalogue())
    assert len({(style.color, style.marker) for style in styles.values()}) == len(catalogue())


def test_a_style_depends_on_the_name_alone() -> None:
    assert style_of("my_idea.py") == style_of("my_idea.py") == styles_of(["a", "my_idea.py"])["my_idea.py"]
    assert style_of("score-function[kl=sampled]").color == style_of("score-function").color
    code = "from elbograd.benchmarks.plots.style import style_of; print(style_of('my_idea.py'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(style_of("my_idea.py"))


def test_styles_in_one_figure_can_be_told_apart() -> None:
    variants = [f"score-function[a={i}]" for i in range(6)]
    styles = styles_of([*BUILTINS, *variants, *(f"idea-{i}" for i in range(20))])
    assert len({(style.color, style.marker) for style in styles.values()}) == 34
    assert all(styles[name] == style_of(name) for name in BUILTINS)


def test_an_estimator_has_its_colour_in_every_figure(drawn: dict[tuple[str, str], Figure]) -> None:
    for (kind, name), figure in drawn.items():
        for axes in figure.axes:
            for line in axes.lines:
                if line.get_label() in BUILTINS:
                    assert to_hex(line.get_color()).upper() == style_of(line.get_label()).color.upper() or (
                        line.get_linestyle() == "None"
                    ), (kind, name)
                    assert line.get_markeredgecolor() == style_of(line.get_label()).color
                    assert line.get_marker() == style_of(line.get_label()).marker


def visible_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every word on a figure and the box around it; ticks outside the limits are not on it."""
    ticks = [
        tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()
    ]
    labels = {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    shown = [text for text in figure.findobj(Text) if id(text) not in labels and text.get_visible()]
    for tick in ticks:
        low, high = sorted(tick.axes.get_xlim() if isinstance(tick, XTick) else tick.axes.get_ylim())
        if low <= tick.get_loc() <= high and tick.label1.get_rotation() == 0:
            shown.append(tick.label1)
    return [(text.get_text(), Text.get_window_extent(text)) for text in shown if text.get_text().strip()]


@pytest.mark.parametrize("kind", list(SETS))
def test_no_text_is_cut_off_or_covered_by_another(drawn: dict[tuple[str, str], Figure], kind: str) -> None:
    for (of, name), figure in drawn.items():
        if of != kind:
            continue
        assert figure.get_figwidth() == WIDTH
        boxes = visible_texts(figure)
        for text, box in boxes:
            assert figure.bbox.padded(1).contains(box.x0, box.y0), (name, text)
            assert figure.bbox.padded(1).contains(box.x1, box.y1), (name, text)
        for (a, one), (b, other) in combinations(boxes, 2):
            assert not one.padded(-1).overlaps(other.padded(-1)), (name, a, b)


def test_no_text_is_smaller_than_nine_points(drawn: dict[tuple[str, str], Figure]) -> None:
    for key, figure in drawn.items():
        small = [t.get_text() for t in figure.findobj(Text) if t.get_text().strip() and t.get_fontsize() < 9]
        assert not small, key


def test_names_are_printed_as_they_are(drawn: dict[tuple[str, str], Figure]) -> None:
    legend = drawn["strange", "convergence"].legends[0]
    assert literal("_my$idea.py") in [text.get_text() for text in legend.get_texts()]
    names = [label.get_text() for label in drawn["strange", "variance"].axes[0].get_yticklabels()]
    assert all(len(name) <= 34 for name in names)
    assert len(set(names)) == len(BUILTINS + ODD) - 2  # less exact and leave-one-out


# Certificates


def test_verdicts_come_the_worst_first_each_in_its_colour_with_its_bound(
    drawn: dict[tuple[str, str], Figure],
) -> None:
    (axes,) = drawn["certified", "verdicts"].axes
    names = [label.get_text() for label in axes.get_yticklabels()][::-1]
    assert names[1:] == [literal(ODD[2]), "untested", "leave-one-out", "straight-through"]
    texts = {t.get_text() for t in axes.texts}
    assert {"≥ 11%", "≤ 2%", "≤ 0.29%", "3.1% … 12%", "not shown, bias not measured", "5 min"} <= texts
    of = {line.get_label().rpartition(".py")[2]: line for line in axes.lines}
    shown = {label: (line.get_markeredgecolor(), line.get_marker()) for label, line in of.items()}
    looks = {
        "leave-one-out holds": ("#009E73", "o"),
        " not shown": ("#767676", "s"),
        "straight-through holds, biased as declared": ("#0072B2", "D"),
        ":Mine[a=1] fails": ("#D55E00", "X"),
    }
    assert looks.items() <= shown.items()


def test_a_point_for_each_place_of_a_certificate(drawn: dict[tuple[str, str], Figure]) -> None:
    (axes,) = drawn["certified one", "bias-bound-vs-time"].axes
    points = {
        line.get_label(): [*zip(line.get_xdata(), line.get_ydata(), strict=True)] for line in axes.lines
    }
    assert points["float32"] == [(2.0, 0.0021)]
    assert points["B of 4 or more"] == [(9.0, 0.00281)]
    assert points["elsewhere"][0] == (4.0, 0.0012)
    assert next(tick.get_text() for tick in axes.get_yticklabels()) == "exact"
    assert points["elsewhere"][1] == (0.1, axes.get_yticks()[0])  # what was proven


def test_a_bound_that_is_merely_small_is_not_called_exact() -> None:
    small = check(bias=bound(1e-12), seconds=1.0, point="scales")
    for checks, word in (
        ((small,), "less"),
        ((small, check(bias=bound(0.0), exact=True, seconds=1.0, point="middle")), "less"),
    ):
        figure = draw(
            "bias-bound-vs-time", rows_of(certificate(*checks, check(bias=bound(0.001), seconds=1.0)))
        )
        assert figure is not None
        assert next(tick.get_text() for tick in figure.axes[0].get_yticklabels()) == word
        assert any("than the axis shows" in " ".join(text.get_text().split()) for text in figure.texts)


def test_what_failed_is_crossed_and_what_is_biased_as_declared_is_named(
    drawn: dict[tuple[str, str], Figure],
) -> None:
    figure = drawn["certified", "bias-bound-vs-time"]
    crossed = [markers(axes, "fails") for axes in figure.axes]
    assert [len(lines) for lines in crossed] == [0, 1, 0]
    assert [*crossed[1][0].get_ydata()] == [0.13]
    assert any("straight-through" in text.get_text() for text in figure.texts)


def test_of_many_estimators_the_panels_are_kinds_of_corners(drawn: dict[tuple[str, str], Figure]) -> None:
    figure = drawn["certified catalogue", "bias-bound-vs-time"]
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["float32", "B of 4 or more", "elsewhere"]
    assert [len(markers(a, t)[0].get_xdata()) for a, t in zip(figure.axes, titles, strict=True)] == [
        30,
        30,
        60,
    ]


def test_certificates_with_nothing_to_draw() -> None:
    untimed = rows_of(certificate(check(bias=bound(0.001))))
    assert draw("bias-bound-vs-time", untimed) is None
    for odd in (bound(float("inf")), bound(0.0), bound(1e9)):
        assert draw("verdicts", rows_of(certificate(check(bias=odd)))) is not None
    raised = certificate(check(holds=False, reason="raises ValueError", seconds=1.0))
    assert draw("verdicts", rows_of(raised)) is not None
    figure = draw("bias-bound-vs-time", rows_of(raised))
    assert figure is not None
    assert markers(figure.axes[0], "fails")


# Files


def test_files_are_written_and_the_same_every_time(tmp_path: Path) -> None:
    frame = pd.DataFrame(SMALL)
    first = draw_all(frame, tmp_path / "a" / "figures")
    second = draw_all(frame, tmp_path / "b")
    assert [path.name for path in first] == [
        f"{name}.{extension}" for name in SMALL_FIGURES for extension in ("png", "svg")
    ]
    for one, other in zip(first, second, strict=True):
        assert one.stat().st_size > 1000
        assert one.read_bytes() == other.read_bytes()


def test_the_user_s_settings_neither_matter_nor_change(tmp_path: Path) -> None:
    frame = pd.DataFrame(variance_rows(BUILTINS[:2], steps=(0,)))
    plain = draw_all(frame, tmp_path / "plain", formats=["svg"])
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        odd = draw_all(frame, tmp_path / "odd", formats=["svg"])
        assert dict(matplotlib.rcParams) == before
    assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in odd]


def test_neither_importing_nor_drawing_imports_torch(tmp_path: Path) -> None:
    pd.DataFrame(SMALL).to_json(tmp_path / "rows.json", orient="records")
    code = f"""
import sys
import pandas as pd
from elbograd.benchmarks import plots
assert "matplotlib" not in sys.modules
from pathlib import Path
paths = plots.draw_all(pd.read_json({str(tmp_path / "rows.json")!r}), Path({str(tmp_path)!r}), formats=["png"])
assert len(paths) == {len(SMALL_FIGURES)}
from importlib import import_module
for name in plots.FIGURES:
    import_module("elbograd.benchmarks.plots." + name.replace("-", "_"))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Parts


def test_where_there_are_many_estimators_the_legend_names_them_and_the_panel_its_front() -> None:
    names = [*BUILTINS[:7], *(f"idea-{i}" for i in range(8))]
    figure = draw("variance-vs-cost", variance_rows(names, samples=(2,), steps=(0,)))
    assert figure is not None
    legend = {text.get_text() for one in figure.legends for text in one.get_texts()}
    assert set(names) <= legend
    beside = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert 0 < len(beside & set(names)) < 6
    few = draw("variance-vs-cost", variance_rows(names[:5], samples=(2,), steps=(0,)))
    assert few is not None
    assert not {t.get_text() for one in few.legends for t in one.get_texts()} & set(names)


def test_the_pareto_front_is_what_nothing_beats() -> None:
    points = pd.DataFrame({"milliseconds": [1, 2, 3, 4, 1, 2], "variance": [9.0, 5.0, 6.0, 1.0, 10.0, 5.0]})
    front = pareto_front(points)
    assert list(zip(front["milliseconds"], front["variance"], strict=True)) == [(1, 9.0), (2, 5.0), (4, 1.0)]


def test_the_interval_of_a_mean_is_student_s() -> None:
    mean, low, high = mean_interval([1.0, 3.0])
    # t at 97.5% with one degree of freedom is 12.7062; the standard error is 1.
    assert (mean, low, high) == pytest.approx((2, 2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert np.isnan(mean_interval([1.0])[1])


def test_a_curve_against_seconds_interpolates_each_seed() -> None:
    steps = [0, 1, 2, 3]
    values = pd.DataFrame({0: [0.0, 1.0, 2.0, 3.0], 1: [0.0, 2.0, 4.0, 6.0]}, index=steps)
    seconds = pd.DataFrame({0: [0.0, 1.0, 2.0, 3.0], 1: [0.0, 2.0, 4.0, 6.0]}, index=steps)
    curve = against_seconds(values, seconds)
    assert curve.x[[0, -1]] == pytest.approx([2, 3])  # from the first second that all have to the last
    assert curve.mean == pytest.approx(curve.x)


@pytest.mark.parametrize("ratio", [1.05, 1.5, 3, 8, 40, 1e3, 1e7, 1e20])
@pytest.mark.parametrize("low", [3e-12, 0.7, 1.0, 4.4e6])
def test_a_logarithmic_axis_has_a_few_round_ticks(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio, most=6)
    assert 2 <= len(ticks) <= 7
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert len(set(tick_labels(ticks))) == len(ticks)
    assert max(map(len, tick_labels(ticks))) < 25


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12.345, "12.3"),
        (-19.694, "-19.7"),
        (0.00099996, "0.00100"),
        (99999, "1.00e5"),
        (3e-9, "3.00e-9"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((12.3456, 11.91, 12.84), "12.3 [11.9, 12.8]"),
        ((21.0, 20.0, 22.02), "21.0 [20.0, 22.0]"),
        ((412.2, 309.0, 556.0), "412 [309, 556]"),
        ((-0.5, -3.0, 2.0), "-0.5 [-3.0, 2.0]"),
        ((1.23e-6, 1.19e-6, 1.28e-6), "1.23e-6 [1.19e-6, 1.28e-6]"),
        ((5.0, float("nan"), float("nan")), "5.00"),
        ((5.0, 5.0, 5.0), "5.00"),
        ((5.0, 1.0, float("inf")), "5.00"),
        ((float("nan"), 0.0, 1.0), ""),
    ],
)
def test_an_interval_has_the_digits_that_it_warrants(numbers: tuple[float, float, float], text: str) -> None:
    assert interval(*numbers) == text


def test_long_names_stay_distinct() -> None:
    names = short_names(["x" * 100 + "a" + "y" * 100, "x" * 100 + "b" + "y" * 100, "short"], 20)
    assert len(set(names.values())) == 3
    assert all(len(name) <= 20 for name in names.values())
    assert names["short"] == "short"

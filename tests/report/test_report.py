"""The report: what is on the page, that nothing breaks out of it, and that it needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
from elbograd.benchmarks import plots
from elbograd.benchmarks.cli.main import main
from elbograd.benchmarks.plots import performance_profile
from elbograd.benchmarks.plots.style import _BUILTINS, _COLORS, styles_of
from elbograd.benchmarks.report import command, load_runs, page, write_report
from elbograd.benchmarks.report.figures.marks import DARK, contrast, on_dark
from elbograd.benchmarks.report.lines import lines
from elbograd.benchmarks.report.verdict import verdict
from elbograd.benchmarks.rows.rankings import profile, ranked, ratios
from elbograd.benchmarks.rows.schema import row
from elbograd.benchmarks.store import read_rows
from elbograd.benchmarks.store.table import write_table
from elbograd.estimators.errors import UsageError
from report_rows import (
    BREAKOUT,
    DATA,
    ENVIRONMENT,
    MODEL,
    SCRIPT,
    case,
    claim_rows,
    everything,
    training_rows,
    variance_rows,
    write_run,
)

VOID = {"meta", "link", "input", "br", "path", "hr", "img"}


class Element:
    """An element of a page: its tag, attributes, parents' tags, and the text in it."""

    def __init__(self, tag: str, attributes: dict[str, str], parents: list[Element]) -> None:
        self.tag, self.attributes, self.parents, self.text = tag, attributes, parents, ""

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def inside(self, tag: str) -> bool:
        return any(parent.tag == tag for parent in self.parents)


class Page(HTMLParser):
    """The elements of a page, as a browser's parser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, list(self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}, list(self._open)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [
            e
            for e in self.elements
            if e.tag == tag and all(e.attributes.get(k.rstrip("_")) == v for k, v in attributes.items())
        ]

    @property
    def data(self) -> dict[str, Any]:
        (script,) = self.all("script", id="data")
        found: dict[str, Any] = json.loads(script.text)
        return found


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run(tmp_path_factory.mktemp("runs") / f"run <i>{'&'}")
    return write_report(load_runs([folder]), folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(text: str) -> Page:
    return Page(text)


def parse(tmp_path: Path, rows: list[dict[str, Any]]) -> Page:
    return Page(page.render(load_runs([write_run(tmp_path / "run", rows)])))


# Nothing breaks out


def harm(text: str) -> list[str]:
    """What a page has in it that we did not write."""
    parsed = Page(text)
    found = [f"{e.tag} in {[p.tag for p in e.parents[-2:]]}" for e in parsed.all("img") + parsed.all("b")]
    found += [f"{len(parsed.all('script'))} scripts"] if len(parsed.all("script")) != 3 else []
    found += [f"{e.tag} {name}" for e in parsed.elements for name in e.attributes if name.startswith("on")]
    return found


def test_names_from_plugins_and_files_are_text(text: str, parsed: Page) -> None:
    assert harm(text) == []
    names = {e.text for e in parsed.all("code")}
    assert {SCRIPT, BREAKOUT} <= names
    assert {e["value"] for e in parsed.all("input", name="estimator")} >= {SCRIPT, BREAKOUT}
    body = parsed.all("body")[0].text
    assert f"ValueError: {DATA} {SCRIPT}" in body
    assert f"Linux {SCRIPT}" in body
    assert ENVIRONMENT["command"] in body
    assert "run <i>&" in parsed.all("h1")[0].text


def test_without_escaping_the_same_names_break_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    careless = jinja2.Environment(
        loader=jinja2.FileSystemLoader(page._FOLDER), autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    monkeypatch.setattr(page, "_environment", lambda: careless)
    runs = load_runs([write_run(tmp_path / "run")])
    try:
        found = harm(page.render(runs))
    except AssertionError:  # not even well-formed
        return
    assert found


def test_no_name_ends_the_data_s_script(text: str) -> None:
    start = text.index('<script type="application/json" id="data">')
    inside = text[start + 42 : text.index("</script>", start)]
    assert "<" not in inside
    assert len(json.loads(inside)) == len(Page(text).all("figure"))


def test_hover_labels_hold_no_markup_but_ours(parsed: Page) -> None:
    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [s for key, v in value.items() if key != "meta" for s in strings(v)]
        if isinstance(value, list):
            return [s for v in value for s in strings(v)]
        return [value] if isinstance(value, str) else []

    found = strings(parsed.data)
    assert any("&lt;script&gt;alert(1)" in s for s in found)
    for s in found:
        assert "<" not in re.sub(r"</?b>|<br>", "", s)
    # Templates would be filled in a second time: what is shown is given whole.
    assert not any("template" in key for panel in parsed.data.values() for t in panel["data"] for key in t)


# It needs nothing else


def test_the_page_refers_to_nothing_outside(parsed: Page) -> None:
    for element in parsed.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            target = element.attributes.get(name, "")
            assert not target or target.startswith(("#", "data:,")), (element.tag, target)
    (style,) = parsed.all("style")
    assert "url(" not in style.text
    assert "@import" not in style.text
    anchors = {e["href"] for e in parsed.all("a")}
    assert anchors <= {f"#{e.attributes['id']}" for e in parsed.elements if "id" in e.attributes}


def test_the_policy_allows_the_page_s_own_scripts_and_no_request(parsed: Page) -> None:
    (policy,) = [e["content"] for e in parsed.all("meta") if e.attributes.get("http-equiv")]
    assert "default-src 'none'" in policy
    hashes = re.findall(r"'sha256-([^']+)'", policy)
    scripts = [e.text for e in parsed.all("script") if "type" not in e.attributes]
    assert hashes == [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    (allowed,) = [part for part in policy.split("; ") if part.startswith("script-src")]
    assert "unsafe" not in allowed
    assert [len(s) > 10**6 for s in scripts] == [True, False]  # plotly's once, and ours


def test_a_run_without_figures_needs_no_plotly_script(tmp_path: Path) -> None:
    text = page.render(load_runs([write_run(tmp_path / "run", claim_rows())]))
    assert len(text) < 100_000
    assert "1 of 2 claims of 1 published results hold" in text


# What is on it


def test_the_verdict_comes_first_then_figures_then_how_it_was_measured(parsed: Page) -> None:
    headings = [e.text for e in parsed.all("h2")]
    assert headings == [
        "Verdict",
        "Variance against samples S",
        "Variance against latent dimension D",
        "Variance against cost",
        "Convergence",
        "Performance profiles",
        "Throughput",
        "Certification",
        "Published results",
        "All tables",
        "How it was measured",
    ]


def test_the_sentences_of_the_verdict(parsed: Page) -> None:
    sentences = " ".join(e.text for e in parsed.elements if e.attributes.get("class") == "verdict")
    # At S = 2: 0.25 × 1 ms against 5 × 0.5 ms for leave-one-out.
    assert (
        "On vae (D = 8 · B = 64 · S = 2 · initialization), reparameterization has the least variance × time, "
        "10 times below leave-one-out, the next." in sentences
    )
    assert "Training ended highest with reparameterization: held-out objective -20.4" in sentences
    assert f"the claims of 1 of 2 estimators hold; fail: {SCRIPT}" in sentences
    assert "1 of 2 claims of 1 published results hold" in sentences


def cells(parsed: Page, table: str) -> list[dict[str, Element]]:
    """The lines of a table: heading -> cell."""
    inside = [e for e in parsed.elements if any(p.attributes.get("id") == table for p in e.parents)]
    heads = [e.text for e in inside if e.tag == "button"]
    body = [e for e in inside if e.tag in ("td", "th") and e.inside("tbody")]
    return [dict(zip(heads, body[i : i + len(heads)], strict=True)) for i in range(0, len(body), len(heads))]


def test_the_table_has_all_that_was_measured_of_a_case(parsed: Page) -> None:
    table = cells(parsed, "verdict-table")
    (line,) = [
        r
        for r in table
        if r["estimator"].text == "leave-one-out" and r["D"].text == "8" and r["S"].text == "2"
    ]
    assert line["objective"].text == "elbo"
    assert line["variance"].text == "5.00 [4.75, 5.30]"
    assert float(line["variance"]["data-sort"]) == 5.0
    assert line["bias ≤"].text == "0.42%"
    assert line["time (ms)"].text == "0.500 [0.485, 0.520]"
    assert line["evals"].text == "2"
    assert line["var × ms"].text == "2.50 [2.33, 2.70]"
    assert line["final objective, S = 2"].text.startswith("-21.0")
    assert line["steps/s"].text == "1800 [1620, 1980]"
    assert line["note"].text == ""
    warned = [r["note"].text for r in table if r["estimator"].text == "score-function"]
    assert set(warned) == {"not enough replicates (at least 52000)"}
    assert table[0]["estimator"].text == "reparameterization"  # the best first, at the settings most share


def test_only_what_the_run_has_is_a_column(tmp_path: Path) -> None:
    rows = [r for r in variance_rows("leave-one-out", step=0) if r["metric"] == "variance"]
    (line,) = cells(parse(tmp_path, rows), "verdict-table")
    assert list(line) == ["estimator", "objective", "variance", "bias"]
    assert line["bias"].text == "not checked"


def test_every_heading_is_explained(parsed: Page) -> None:
    explained = {e.text for e in parsed.all("dt")}
    assert set(cells(parsed, "verdict-table")[0]) - {"device"} <= explained


def test_another_objective_is_not_ranked_with_the_elbo(tmp_path: Path) -> None:
    rows = [
        r
        for name in ("leave-one-out", "score-function", "reparameterization")
        for r in variance_rows(name, step=0)
    ]
    for r in rows:
        if r["estimator"] == "reparameterization":
            r["objective"] = "iwae"
    runs = load_runs([write_run(tmp_path / "run", rows)])
    said = verdict(runs)
    assert " · ELBO), <strong>leave-one-out</strong> has the least" in said.sentences[0]
    objectives = {line.cells[0].text: line.cells[1].text for line in said.grid.lines}
    assert objectives == {"leave-one-out": "elbo", "score-function": "elbo", "reparameterization": "iwae"}


def test_a_verdict_on_another_objective_says_so(tmp_path: Path) -> None:
    rows = [
        {**r, "objective": "iwae"}
        for name in ("leave-one-out", "score-function")
        for problem in ("one", "two", "three", "four")
        for r in variance_rows(name, problem=problem, step=0)
    ]
    (sentence,) = verdict(load_runs([write_run(tmp_path / "run", rows)])).sentences
    assert "over 4 problems (objective iwae): <strong>leave-one-out</strong> on 4" in sentence
    few = [r for r in rows if r["problem"] == "one"]
    (sentence,) = verdict(load_runs([write_run(tmp_path / "few", few)])).sentences
    assert "initialization · objective iwae), <strong>leave-one-out</strong> has the least" in sentence


def test_a_count_of_problems_says_of_which_objective(tmp_path: Path) -> None:
    names = ("leave-one-out", "score-function", "reparameterization", SCRIPT)
    rows = [
        {**r, "case": f"{r['case']}{k}", "problem": f"cosine[k={k}]", "num_samples": 2}
        for name in names
        for k in range(4)
        for r in variance_rows(name, step=0)
    ]
    (sentence,) = verdict(load_runs([write_run(tmp_path / "one", rows)])).sentences
    assert sentence.startswith("Least variance × time over 4 problems: <strong>reparameterization")
    for r in rows:
        r["objective"] = "elbo" if r["estimator"] == "reparameterization" else "iwae"
    (sentence,) = verdict(load_runs([write_run(tmp_path / "two", rows)])).sentences
    assert sentence.startswith(
        "Least variance × time over 4 problems (objective iwae): <strong>leave-one-out"
    )


def test_overlapping_intervals_are_not_a_verdict(tmp_path: Path) -> None:
    rows = [r for name in ("leave-one-out", SCRIPT) for r in variance_rows(name, step=0)]
    for r in rows:
        r |= {"value": 1.0, "ci_low": 0.9, "ci_high": 1.1 if r["estimator"] == SCRIPT else 1.2}
    (sentence,) = verdict(load_runs([write_run(tmp_path / "run", rows)])).sentences
    assert "their 95% intervals overlap" in sentence
    assert "times below" not in sentence


def test_lines_join_training_at_another_s_and_keep_what_matches_none(tmp_path: Path) -> None:
    rows = variance_rows("leave-one-out", step=0, num_samples=4) + training_rows("leave-one-out")
    rows += training_rows("score-function")
    table = lines(pd.DataFrame(rows)).set_index("estimator")
    assert len(table) == 2
    joined = table.loc["leave-one-out"]
    assert (joined["num_samples"], joined["trained_samples"]) == (4, 2)
    end = -20 - 10**0.5 / 4 + 0.005 - 8 * 0.5**5  # the mean of two seeds
    assert joined["heldout_objective"] == pytest.approx(end)
    assert np.isnan(table.loc["score-function", "variance"])
    several = lines(pd.DataFrame(rows + training_rows("leave-one-out", num_samples=4)))
    same = several[(several["estimator"] == "leave-one-out")]
    assert sorted(zip(same["num_samples"], same["variance"].notna(), strict=True)) == [(2, False), (4, True)]


def test_certification_and_reproductions_have_their_tables(parsed: Page) -> None:
    table = {r["estimator"].text: r for r in cells(parsed, "certify-0")}
    assert table["reparameterization"]["verdict"].text == "holds"
    assert table[SCRIPT]["verdict"].text == "fails"
    claims = cells(parsed, "reproduce-0")
    assert [r["verdict"].text for r in claims] == ["holds", "fails"]
    assert [r["expected"].text for r in claims] == ["-1", "below 0.1"]


def test_warnings_and_lost_cases_are_told_with_their_reasons(parsed: Page) -> None:
    (warning,) = [r for r in cells(parsed, "warnings") if r["of"].text == "variance: variance"]
    assert warning["warning"].text == "not enough replicates"
    assert (warning["cases"].text, warning["needed"].text) == ("5", "52000")
    lost = {(r["status"].text, r["estimator"].text): r["reason"].text for r in cells(parsed, "missing")}
    assert lost["skipped", "leave-one-out"] == "needs num_samples of at least 2, not 1"
    assert lost["failed", "broken"] == f"ValueError: {DATA} {SCRIPT}"


def test_rows_of_another_environment_are_pointed_out(tmp_path: Path) -> None:
    now = {"command": "b", "commit": "222", "cpu_count": 2, "packages": {"torch": "2.13.0", "numpy": "2"}}
    then = {"command": "a", "commit": "111", "cpu_count": 2, "packages": {"torch": "2.12.0", "numpy": "2"}}
    odd = [then, {**now, "command": SCRIPT}, SCRIPT, {**now, "commit": SCRIPT}, None]
    rows = variance_rows("leave-one-out", step=0)
    for name, earlier, values in (("odd", odd, ["111, torch 2.12.0", SCRIPT]), ("bad", SCRIPT, [])):
        text = page.render(load_runs([write_run(tmp_path / name, rows, {**now, "earlier": earlier})]))
        found = [e.text for e in Page(text).all("p") if e.attributes.get("class") == "warning"]
        assert found == [
            f"Some rows were measured in an earlier session: commit {value}." for value in values
        ]
        assert "earlier" not in [e.text for e in Page(text).all("dt")]
        assert SCRIPT not in text


def test_the_environment_is_told(parsed: Page) -> None:
    facts = " ".join(e.text for e in parsed.all("dd"))
    for value in (
        "0123456789ab",
        "3.11.7",
        "some CPU",
        "torch\N{NO-BREAK SPACE}2.13.0",
        "of schema version 4",
    ):
        assert value in facts
    assert "seed = 7" in parsed.all("pre")[0].text


# Figures


def test_a_figure_s_numbers_are_the_rows(parsed: Page) -> None:
    panel = parsed.data["against-num-samples-0"]
    (trace,) = [t for t in panel["data"] if t["meta"]["estimator"] == "reparameterization"]
    assert trace["x"] == [1, 2, 4]
    assert trace["y"] == pytest.approx([0.5, 0.25, 0.125])
    assert trace["error_y"]["array"] == pytest.approx([0.06 * v for v in (0.5, 0.25, 0.125)])
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.05 * v for v in (0.5, 0.25, 0.125)])
    (warned,) = [t for t in panel["data"] if t["meta"]["estimator"] == "score-function"]
    assert all(s.endswith("-open") for s in warned["marker"]["symbol"])
    dims = parsed.data["against-latent-dim-0"]["data"]
    assert {t["meta"]["estimator"]: t["x"] for t in dims}["reparameterization"] == [2, 8, 32]


def test_the_front_is_of_the_points_that_no_other_beats(parsed: Page) -> None:
    front, *points = parsed.data["against-cost-0"]["data"]
    assert len(points) == len(MODEL)
    # milliseconds and variance at S = 2, fastest first; the two odd names are slower and noisier
    assert list(zip(front["x"], front["y"], strict=True)) == [
        (0.4, 200.0),
        (0.4, 200.0),
        (0.5, 200.0),
        (0.5, 5.0),
        (1.0, 5.0),
        (1.0, 0.25),
        (2.5, 0.25),
    ] or front["x"] == pytest.approx([0.4, 0.4, 0.5, 0.5, 1.0, 1.0, 2.5])
    assert sorted(set(front["y"])) == pytest.approx([0.25, 5.0, 200.0])


def test_convergence_is_against_steps_and_seconds(parsed: Page) -> None:
    steps, seconds = (parsed.data[f"convergence-{i}"] for i in range(2))
    assert (steps["log"], seconds["log"]) == ({"x": False, "y": None}, {"x": True, "y": None})

    def thick(panel: dict[str, Any]) -> dict[str, Any]:
        return {t["meta"]["estimator"]: t for t in panel["data"] if t["line"]["width"] > 1}

    line = thick(steps)["leave-one-out"]
    assert line["x"] == [0, 100, 200, 300, 400, 500]
    assert line["y"][-1] == pytest.approx(-20 - 10**0.5 / 4 + 0.005 - 8 * 0.5**5)
    assert thick(seconds)["leave-one-out"]["x"][-1] == pytest.approx(0.25)
    assert len(steps["data"]) == 3 * len(MODEL)  # two thin lines, the seeds, and their mean


def test_every_figure_has_its_text_and_its_data(parsed: Page) -> None:
    figures = parsed.all("figure")
    assert len(figures) == len(parsed.data) > 6
    for figure in figures:
        inside = [e for e in parsed.elements if figure in e.parents]
        (plot,) = [e for e in inside if e.attributes.get("role") == "img"]
        (caption,) = [e for e in inside if e.tag == "figcaption"]
        assert caption.text
        assert plot["aria-label"].endswith(caption.text)
        (table,) = [e for e in inside if e.tag == "table"]
        assert table.inside("details")
        told = {e.text for e in inside if e.tag == "code"}
        drawn = {t["name"] for t in parsed.data[plot["id"]]["data"] if "name" in t}
        assert {
            name.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;") for name in told
        } == drawn


def test_an_estimator_s_colour_is_the_same_everywhere(parsed: Page) -> None:
    names = [e["value"] for e in parsed.all("input", name="estimator")]
    styles = styles_of(names)
    swatches = {e.text: e["style"] for e in parsed.all("label") if "style" in e.attributes}
    for name in names:
        assert f"--light: {styles[name].color};" in swatches[name]
        used = {
            t["meta"]["color"]
            for panel in parsed.data.values()
            for t in panel["data"]
            if t["meta"].get("estimator") == name
        }
        assert used <= {styles[name].color}
    assert len({(s.color, s.marker) for s in styles.values()}) == len(names)


def test_every_colour_stands_out_from_the_dark_ground() -> None:
    ground = [int(DARK[i : i + 2], 16) for i in (1, 3, 5)]
    for color in {*(style.color for style in _BUILTINS.values()), *_COLORS}:
        mixed = on_dark(color)
        assert contrast([int(mixed[i : i + 2], 16) for i in (1, 3, 5)], ground) >= 3
    assert contrast([255, 255, 255], [0, 0, 0]) == pytest.approx(21)


# Performance profiles


def test_a_performance_profile_by_hand() -> None:
    work = {"a": [1.0, 4.0, 3.0, 1.0], "b": [2.0, 1.0, 3.0, np.nan]}
    rows = [
        row(
            **case("variance", name, problem=f"p[k={10**i}]", step=0, num_samples=1),
            metric=metric,
            value=value,
        )
        for name, values in work.items()
        for i, value in enumerate(values)
        if not np.isnan(value)
        for metric in ("variance", "seconds", "work_normalized_variance")
    ]
    table = ratios(pd.DataFrame(rows))
    assert table["a"].tolist() == [1, 4, 1, 1]
    assert table["b"].tolist() == [2, 1, 1, np.inf]
    tau, rho = profile(table["a"])
    assert (tau.tolist(), rho.tolist()) == ([1, 4], [0.75, 1])
    tau, rho = profile(table["b"])
    assert (tau.tolist(), rho.tolist()) == ([1, 2], [0.5, 0.75])  # never reaches 1: one problem is not solved
    assert ranked(table) == ["a", "b"]
    figure = performance_profile.draw(pd.DataFrame(rows))
    assert figure is not None
    (axes,) = figure.axes
    (line,) = [k for k in axes.lines if k.get_label() == "b line"]
    assert np.asarray(line.get_ydata()).tolist() == [0.5, 0.75, 0.75]


def test_one_problem_has_no_profile() -> None:
    rows = [r for name in ("leave-one-out", "score-function") for r in variance_rows(name, step=0)]
    assert ratios(pd.DataFrame(rows)).empty
    assert performance_profile.draw(pd.DataFrame(rows)) is None


# Accessibility


def test_the_bones_of_an_accessible_page(parsed: Page) -> None:
    assert parsed.all("html")[0]["lang"] == "en"
    assert parsed.all("title")[0].text
    assert [e["content"] for e in parsed.all("meta", name="viewport")] == [
        "width=device-width, initial-scale=1"
    ]
    levels = [int(e.tag[1]) for e in parsed.elements if re.fullmatch(r"h\d", e.tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [e["id"] for e in parsed.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in parsed.elements:
        for name in element.attributes.get("aria-labelledby", "").split():
            assert name in ids
        if element.tag == "th":
            assert element["scope"] in ("col", "row")
        if element.tag == "button":
            assert element["type"] == "button"
            assert element.text.strip()
        if element.tag in ("input", "select"):
            assert element.inside("label")
    first = parsed.all("a")[0]
    assert (first["class"], first["href"]) == ("skip", "#main")
    assert all(
        e.inside("button") or e.tag == "button" for e in parsed.elements if "arrow" in e.attributes.values()
    )


# Several runs


def test_runs_are_kept_apart_and_named(tmp_path: Path) -> None:
    rows = [
        r
        for name in ("leave-one-out", "score-function")
        for s in (2, 4)
        for r in variance_rows(name, step=0, num_samples=s)
    ]
    one = write_run(tmp_path / "a" / "run", rows)
    two = write_run(tmp_path / "b" / "run", rows, {**ENVIRONMENT, "cpu": "another CPU"})
    parsed = Page(page.render(load_runs([one, two, one])))
    names = [e["value"] for e in parsed.all("input", name="run")]
    assert names == ["a/run", "b/run"]
    table = cells(parsed, "verdict-table")
    assert len(table) == 8
    assert {r["run"].text for r in table} == set(names)
    traces = parsed.data["against-num-samples-0"]["data"]
    of = {(t["meta"]["estimator"], t["meta"]["run"]): t for t in traces}
    assert len(of) == 4
    first, second = of["leave-one-out", "a/run"], of["leave-one-out", "b/run"]
    assert first["meta"]["color"] == second["meta"]["color"]
    assert first["marker"]["symbol"] != second["marker"]["symbol"]
    assert "The runs differ in CPU" in parsed.all("body")[0].text
    sentences = [e.text for e in parsed.elements if e.attributes.get("class") == "verdict"]
    assert "a/run: On vae" in sentences[0]
    assert "b/run: On vae" in sentences[0]


# The command


@pytest.fixture
def elbograd(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        plots, "FIGURES", ("variance",)
    )  # the others take their time and have tests of their own

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["elbograd", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call


SMALL = [r for name in ("leave-one-out", "reparameterization") for r in variance_rows(name, step=0)]


def test_problems_with_settings_of_their_own_begin_at_each_one_s(tmp_path: Path) -> None:
    rows = [
        r
        for name in ("leave-one-out", "reparameterization")
        for problem, samples in (("vae", (2, 4)), ("quadratic", (4, 8)))
        for s in samples
        for r in variance_rows(name, problem=problem, num_samples=s, step=0)
    ]
    said = verdict(load_runs([write_run(tmp_path / "run", rows)]))
    assert [(f.setting, f.chosen) for f in said.filters] == [("default", "1"), ("num_samples", "")]
    shown = {
        (line.filters["problem"], line.filters["num_samples"])
        for line in said.grid.lines
        if line.filters["default"] == "1"
    }
    assert shown == {("vae", "2"), ("quadratic", "4")}
    one = verdict(load_runs([write_run(tmp_path / "one", [r for r in rows if r["problem"] == "vae"])]))
    assert [(f.setting, f.chosen) for f in one.filters] == [("num_samples", "2")]


def test_the_command_writes_page_figures_and_tables(elbograd: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SMALL)
    write_table(read_rows(run / "rows.jsonl"), run / "rows.parquet")
    (run / "rows.jsonl").unlink()  # as in a published run
    before = sorted(run.iterdir())
    code, out, err = elbograd("report", "run", "-o", "there", "--formats", "png,svg,pdf")
    assert (code, err) == (0, "")
    assert "report in there/report.html (" in out
    there = tmp_path / "there"
    assert (there / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    figures = {f.name for f in (there / "figures").iterdir()}
    assert figures == {"variance.png", "variance.svg", "variance.pdf"}
    assert {"tables.md", "variance.csv", "variance.tex"} <= {f.name for f in (there / "tables").iterdir()}
    assert sorted(run.iterdir()) == before


def test_two_runs_make_one_report(elbograd: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name, SMALL)
    code, _, _ = elbograd("report", "one", "two", "--formats", "svg")
    assert code == 0
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "two" / "figures" / "variance.svg").is_file()
    assert not (tmp_path / "two" / "report.html").exists()


def test_without_plotly_all_but_the_page_is_written(
    elbograd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", SMALL)
    monkeypatch.setitem(sys.modules, "plotly", None)
    code, out, err = elbograd("report", "run", "--formats", "svg")
    assert code == 0
    assert err.strip().splitlines() == [
        "elbograd: no report.html: report.html needs plotly: pip install plotly"
    ]
    assert (tmp_path / "run" / "figures" / "variance.svg").is_file()
    assert "all tables in" in out
    assert not (tmp_path / "run" / "report.html").exists()
    with pytest.raises(UsageError, match="needs plotly"):
        write_report(load_runs([tmp_path / "run"]), tmp_path)


def broken(column: str, value: Any) -> str:
    return json.dumps({**SMALL[0], "schema_version": 2, column: value}) + "\n"  # which knew no checksum


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "no results in run: expected a run folder with a rows.jsonl"),
        ("", "no rows in run"),
        ("not json\n{\n", "run/rows.jsonl: line 1 is damaged (1 more with it): it is not JSON"),
        (broken("value", "many"), "run/rows.jsonl: line 1 is damaged: its value is not a number"),
        (broken("num_samples", 1.5), "its num_samples is not a number"),
        (broken("num_samples", [1]), "its num_samples is not a number"),
        (broken("parameters", "[1"), "parameters that are not JSON"),
        (broken("parameters", "[1]"), "parameters that are not JSON"),
        (broken("schema_version", 99), "run/rows.jsonl has schema version 99"),
    ],
)
def test_what_is_no_run_is_told_in_one_line(
    elbograd: Any, tmp_path: Path, rows: str | None, message: str
) -> None:
    (tmp_path / "run").mkdir()
    if rows is not None:
        (tmp_path / "run" / "rows.jsonl").write_text(rows, encoding="utf-8")
    code, out, err = elbograd("report", "run")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "no results in nowhere"),
        (("file",), "file is not a run folder"),
        (("file", "--formats", "svg,gif"), "--formats 'svg,gif': choose from png, svg, pdf"),
        (("file", "--formats", ""), "choose from png, svg, pdf"),
        ((), "RUN"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    elbograd: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = elbograd("report", *arguments)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_a_damaged_folder_is_reported_with_remarks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SMALL)
    with (run / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"schema_version": 3, "run": "run", "case": "x", "sta')
    (run / "environment.json").write_text("[1, 2")
    (run / "config.toml").unlink()
    parsed = Page(page.render(load_runs([run])))
    told = [e.text for e in parsed.all("p", class_="warning")]
    assert told == [
        "environment.json could not be read.",
        "The folder has no config.toml.",
        "The run was stopped in the middle of a case, which is left out.",
    ]


@pytest.mark.parametrize("kind", ["variance", "convergence", "throughput", "certify", "reproduce"])
def test_a_run_of_one_benchmark_has_its_page(tmp_path: Path, kind: str) -> None:
    parsed = parse(tmp_path, [r for r in everything() if r["benchmark"] == kind])
    assert [e.text for e in parsed.elements if e.attributes.get("class") == "verdict"]


def test_a_run_in_which_nothing_was_measured_has_its_page(tmp_path: Path) -> None:
    rows = []
    for status in ("failed", "skipped", "diverged"):
        rows.append(
            row(**case("variance", status, step=0), metric="variance", status=status, reason="why <not>")
        )
        training = case("convergence", status, step=0, seed=0)
        rows.append(row(**training, metric="heldout_objective", status=status))
    parsed = parse(tmp_path, rows)
    assert parsed.data == {}
    assert {(r["status"].text, r["estimator"].text) for r in cells(parsed, "missing")} == {
        (status, status) for status in ("failed", "skipped", "diverged")
    }
    assert [r["variance"].text for r in cells(parsed, "verdict-table")] == ["diverged", "failed", "skipped"]


def test_numbers_at_the_edges_of_floating_point(tmp_path: Path) -> None:
    rows = []
    for value in (0.0, 1e-300, 1e300, -1.0, float("inf"), float("nan")):
        for name, s in (("leave-one-out", 2), ("score-function", 4)):
            for r in variance_rows(name, step=0, num_samples=s, problem=f"p{len(rows)}"):
                rows.append({**r, "value": value, "ci_low": -value, "ci_high": float("inf")})
    parsed = parse(tmp_path, rows)
    json.dumps(parsed.data, allow_nan=False)
    assert len(cells(parsed, "verdict-table")) == 12


def test_reporting_imports_no_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SMALL)
    code = f"""
import sys
from pathlib import Path
from elbograd.benchmarks import plots
from elbograd.benchmarks.report.command import write
plots.FIGURES = ("variance",)
write([Path({str(run)!r})], formats="svg")
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert command.__doc__

"""The report as it is used: in a browser, by mouse and by keyboard, wide and narrow, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elbograd.benchmarks.plots.style import style_of
from elbograd.benchmarks.report import load_runs, write_report
from elbograd.benchmarks.report.figures.marks import on_dark
from report_rows import BREAKOUT, MODEL, SCRIPT, variance_rows, write_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in _NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(_NAMES)}")

ROWS = "#verdict-table tbody tr:not([hidden])"
FIGURE = "#against-num-samples-0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "a run")
    return write_report(load_runs([folder]), folder)


class Visit:
    """Pages of one test, and what they said and asked for."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(self, file: Path, width: int = 1200, height: int = 800, **options: Any) -> Any:
        context = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector(f"{ROWS} >> nth=0")
        return page


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Whatever a test does with the page, it is silent and asks nobody for anything."""
    found = Visit(browser)
    yield found
    for context in browser.contexts:
        context.close()
    assert found.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in found.requests)
    assert len({url for url in found.requests if url.startswith("file:")}) == 1


def column(page: Any, heading: str) -> list[str]:
    """The visible cells of a column of the verdict."""
    heads = [text.strip() for text in page.locator("#verdict-table thead button").all_inner_texts()]
    place = [head.rstrip("↕↑↓") for head in heads].index(heading) + 1
    return [text.strip() for text in page.locator(f"{ROWS} > :nth-child({place})").all_inner_texts()]


def head(page: Any, heading: str) -> Any:
    return page.locator("#verdict-table thead button").get_by_text(heading, exact=True)


def drawn(page: Any, figure: str = FIGURE) -> Any:
    """A figure, once it is drawn."""
    plot = page.locator(figure)
    plot.scroll_into_view_if_needed()
    page.wait_for_function("id => document.querySelector(id).data", arg=figure)
    return plot


def shown(page: Any, figure: str = FIGURE) -> set[str]:
    """The estimators that a figure shows."""
    script = "id => document.querySelector(id).data.filter(t => t.visible).map(t => t.meta.estimator)"
    return {name for name in page.evaluate(script, figure) if name}


def test_names_of_scripts_run_nothing_and_are_read_as_they_are(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    assert {SCRIPT, BREAKOUT} <= set(column(page, "estimator"))
    assert page.locator("img").count() == 0
    for figure in page.locator(".plot").all():
        drawn(page, f"#{figure.get_attribute('id')}")


def test_sorting_by_number_up_and_down_with_what_is_missing_last(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    for choice in page.locator("select.setting").all():
        choice.select_option("")

    def values() -> list[float]:
        texts = column(page, "variance")
        assert {"skipped", "failed"} <= set(texts)
        return [
            float("nan") if text in ("", "skipped", "failed") else float(text.split()[0]) for text in texts
        ]

    head(page, "variance").click()
    up = values()
    known = [v for v in up if v == v]
    assert known == sorted(known)
    assert up[: len(known)] == known
    assert len(known) < len(up)  # the skipped and failed ones
    assert page.locator("#verdict-table th[aria-sort]").get_attribute("aria-sort") == "ascending"
    head(page, "variance").click()
    down = values()
    assert down[: len(known)] == sorted(known, reverse=True)
    assert [v for v in down[len(known) :] if v == v] == []
    head(page, "estimator").click()
    names = column(page, "estimator")
    assert names.index("leave-one-out") < names.index("reparameterization") < names.index("score-function")


def test_one_filter_for_all_tables_and_figures(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    drawn(page)
    before = shown(page)
    assert before == set(MODEL)
    page.locator('input[name=estimator][value="score-function"]').uncheck()
    assert "score-function" not in column(page, "estimator")
    assert shown(page) == before - {"score-function"}
    drawn(page, "#throughput-0")
    assert shown(page, "#throughput-0") == before - {"score-function"}
    page.locator("#none").click()
    assert column(page, "estimator") == []
    assert shown(page) == set()
    page.locator("#all").click()
    assert shown(page) == before
    assert "score-function" in column(page, "estimator")


def test_choosing_settings_and_searching(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    assert set(column(page, "S")) == {"2"}  # at first the settings that the most estimators share
    samples = page.locator('select[data-setting="num-samples"]')
    samples.select_option("4")
    assert set(column(page, "S")) == {"4"}
    samples.select_option("")
    assert set(column(page, "S")) == {"1", "2", "4"}
    page.locator("#search").fill("LEAVE-one needs")
    assert column(page, "estimator") == ["leave-one-out"]
    assert column(page, "note") == ["skipped: needs num_samples of at least 2, not 1"]
    assert page.locator("#count").inner_text().startswith("1 of ")


def test_hovering_tells_the_value_and_its_interval(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    drawn(page)
    for name in ("reparameterization", SCRIPT):
        place = page.evaluate(
            """([id, name]) => {
                const plot = document.querySelector(id), trace = plot.data.find(t => t.meta.estimator === name);
                const box = plot.getBoundingClientRect(), {xaxis, yaxis, _size} = plot._fullLayout;
                return [box.left + _size.l + xaxis.d2p(trace.x[1]), box.top + _size.t + yaxis.d2p(trace.y[1])];
            }""",
            [FIGURE, name],
        )
        page.mouse.move(*place)
        label = page.locator(f"{FIGURE} .hovertext").first
        label.wait_for()
        text = label.text_content()
        value = MODEL[name][0] / 2
        assert text.startswith(f"{name}S = 2variance {value:.4g}"[: len(name) + 15])
        assert "95% interval" in text
        page.mouse.move(5, 5)


def test_axes_are_logarithmic_or_not_and_zoom(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    plot = drawn(page)
    kind = f"document.querySelector('{FIGURE}').layout.yaxis.type"
    assert page.evaluate(kind) == "log"
    box = page.locator(f'[data-panel="{FIGURE[1:]}"] [data-log=y]')
    box.uncheck()
    assert page.evaluate(kind) == "linear"
    box.check()
    assert page.evaluate(kind) == "log"
    limits = f"document.querySelector('{FIGURE}')._fullLayout.yaxis.range"
    before = page.evaluate(limits)
    area = plot.bounding_box()
    page.mouse.move(area["x"] + 150, area["y"] + 100)
    page.mouse.down()
    page.mouse.move(area["x"] + 350, area["y"] + 220, steps=5)
    page.mouse.up()
    page.wait_for_function(f"JSON.stringify({limits}) !== {str(before)!r}.replaceAll(' ', '')")
    after = page.evaluate(limits)
    assert before[0] < after[0] < after[1] < before[1]


def test_the_front_follows_the_estimators_shown(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    drawn(page, "#against-cost-0")
    front = """() => {
        const line = document.querySelector('#against-cost-0').data.find(t => t.meta.role === 'front');
        return [...new Set(line.x)];
    }"""
    assert page.evaluate(front) == pytest.approx([0.4, 0.5, 1.0, 2.5])
    page.locator('input[name=estimator][value="reparameterization"]').uncheck()
    assert page.evaluate(front) == pytest.approx([0.4, 0.5, 2.5])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_from_the_system_and_by_the_button(visit: Visit, report: Path, scheme: str) -> None:
    page = visit.open(report, color_scheme=scheme)
    drawn(page)

    def looks() -> tuple[str, str]:
        name = "leave-one-out"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        script = (
            f"document.querySelector('{FIGURE}').data.find(t => t.meta.estimator === {name!r}).line.color"
        )
        return ground, page.evaluate(script)

    color = style_of("leave-one-out").color
    light, dark = ("rgb(255, 255, 255)", color), ("rgb(20, 23, 28)", on_dark(color))
    first, second = (light, dark) if scheme == "light" else (dark, light)
    assert looks() == first
    page.locator("#theme").click()
    assert looks() == second
    assert page.locator("#theme").inner_text() == f"{'Light' if scheme == 'light' else 'Dark'} theme"
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    assert looks() == second  # the choice stays
    assert page.evaluate("localStorage.length") == 0
    page.reload()
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == first[0]


CONTRAST = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => {
        const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (e) => {
        for (; e; e = e.parentElement) {
            const color = parse(getComputedStyle(e).backgroundColor);
            if (color.length === 3 || color[3] > 0) return color.slice(0, 3);
        }
    };
    const worst = [];
    for (const e of document.querySelectorAll("p, th, td, button, dd, dt, code, label, summary, h1, h2, h3, a, li")) {
        if (!e.offsetParent || !e.innerText.trim()) continue;
        const [a, b] = [light(parse(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) worst.push(`${e.tagName} ${e.innerText.slice(0, 30)} ${ratio}`);
    }
    return worst;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit: Visit, report: Path, scheme: str) -> None:
    page = visit.open(report, color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 375])
def test_a_narrow_screen_scrolls_only_inside_tables(visit: Visit, report: Path, width: int) -> None:
    page = visit.open(report, width, 640, has_touch=True, is_mobile=True)
    page.evaluate("document.querySelectorAll('details').forEach((e) => (e.open = true))")
    for figure in page.locator(".plot").all():
        drawn(page, f"#{figure.get_attribute('id')}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator(".scroll").first
    assert table.evaluate("e => e.scrollWidth > e.clientWidth")
    sizes = page.eval_on_selector_all(
        ".plot .main-svg, .plot, figure, .scroll", "all => all.map(e => e.getBoundingClientRect().right)"
    )
    assert max(sizes) <= width
    # Axis titles are whole.
    cut = page.eval_on_selector_all(
        ".plot .xtitle, .plot .ytitle",
        """all => all.filter(e => {
            const own = e.getBoundingClientRect(), plot = e.closest(".plot").getBoundingClientRect();
            return own.left < plot.left - 1 || own.right > plot.right + 1
                || own.top < plot.top - 1 || own.bottom > plot.bottom + 1;
        }).map(e => e.textContent)""",
    )
    assert cut == []


def test_everything_is_reached_and_worked_by_keyboard(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        active = "document.activeElement"
        reached.append(page.evaluate(f"({active}.name || {active}.textContent).trim()"))
        outline = page.evaluate(
            f"getComputedStyle({active}).outlineStyle + getComputedStyle({active}).outlineWidth"
        )
        assert outline.startswith(("solid", "auto")), reached[-1]
        assert not outline.endswith("0px"), reached[-1]
        if reached[-1].startswith("variance"):
            break
    assert {"All", "None", "estimator"} <= set(reached)
    assert reached[-1].startswith("variance")
    page.keyboard.press("Enter")
    assert page.locator("#verdict-table th[aria-sort]").inner_text().startswith("variance")
    page.keyboard.press("Space")
    assert page.locator("#verdict-table th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_two_runs_are_told_apart_and_filtered(visit: Visit, tmp_path: Path) -> None:
    rows = [
        r
        for s in (2, 4)
        for name in ("leave-one-out", "score-function")
        for r in variance_rows(name, num_samples=s, step=0)
    ]
    runs = load_runs([write_run(tmp_path / name, rows) for name in ("one", "two")])
    page = visit.open(write_report(runs, tmp_path))
    drawn(page)
    assert set(column(page, "run")) == {"one", "two"}
    page.locator("input[name=run][value=two]").uncheck()
    assert set(column(page, "run")) == {"one"}
    script = f"document.querySelector('{FIGURE}').data.filter(t => t.visible).map(t => t.meta.run)"
    assert set(page.evaluate(script)) == {"one"}


def test_without_scripts_the_tables_are_there(visit: Visit, report: Path) -> None:
    page = visit.open(report, java_script_enabled=False)
    assert page.locator("#verdict-table tbody tr").count() > 20
    assert not page.locator("#theme").is_visible()
    assert page.get_by_text("Scripts are switched off").is_visible()


def test_on_paper_every_figure_is_drawn(visit: Visit, report: Path) -> None:
    page = visit.open(report)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("[...document.querySelectorAll('.plot')].every(p => p.data)")

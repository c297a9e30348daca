"""Everything on one page: no file but this one is needed to read it, and no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ..plots.style import styles_of
from ..rows.wide import family
from .figures import cost, profiles, scaling, speed, training, tuned
from .figures.marks import on_dark
from .figures.panel import Section
from .marker_shapes import path_of
from .provenance import differences, missing, provenance, warnings
from .runs import Run
from .tables import benchmarks, certification, certification_notes, reproductions
from .verdict import verdict

_FOLDER = Path(__file__).parent / "page"


def render(runs: Sequence[Run]) -> str:
    """The page about these runs."""
    sections = [section for module in _FIGURES for section in module.sections(runs)]
    told = verdict(runs)
    first = [line.filters["estimator"] for line in told.grid.lines]  # the best first
    others = [name for run in runs for name in run.rows["estimator"].dropna()]
    names = [name for name in dict.fromkeys([*first, *others]) if name]
    styles = styles_of(names)
    data = {panel_id: _spec(panel) for panel_id, panel in _numbered(sections)}
    scripts = [get_plotlyjs(), (_FOLDER / "report.js").read_text(encoding="utf-8")] if data else []
    if not data:
        scripts = [(_FOLDER / "report.js").read_text(encoding="utf-8")]
    scripts = [text.replace("\r\n", "\n").replace("</script", "<\\/script") for text in scripts]
    problems = sorted({family(str(p)) for run in runs for p in _problems(run)})
    legend = [
        {
            "name": name,
            "color": styles[name].color,
            "dark": on_dark(styles[name].color),
            "path": path_of(styles[name].marker),
        }
        for name in names
    ]
    return _environment().get_template("report.html").render(
        title=" and ".join(run.name for run in runs[:3]) + (" and others" if len(runs) > 3 else ""),
        runs=[run.name for run in runs],
        problems=problems if len(problems) > 1 else [],
        verdict=told,
        legend=legend,
        sections=sections,
        certification=certification(runs),
        certification_notes=certification_notes(runs),
        reproductions=reproductions(runs),
        benchmarks=benchmarks(runs),
        provenance=[provenance(run) for run in runs],
        differences=differences(runs),
        warnings=warnings(runs),
        missing=missing(runs),
        css=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in scripts],
        policy=_policy(scripts),
        data=data,
    )  # fmt: skip


_FIGURES = (scaling, cost, training, tuned, profiles, speed)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _numbered(sections: Sequence[Section]) -> list[tuple[str, Any]]:
    """The panels with their places in the page."""
    return [(f"{s.id}-{i}", panel) for s in sections for i, panel in enumerate(s.panels)]


def _spec(panel: Any) -> dict[str, Any]:
    """What the page's script draws."""
    made = json.loads(panel.figure.to_json())
    return {
        "data": made["data"],
        "layout": made["layout"],
        "log": {"x": panel.log[0], "y": panel.log[1]},
        "pareto": panel.pareto,
    }


def _problems(run: Run) -> list[str]:
    frame = run.rows[run.rows["benchmark"].isin(["variance", "convergence", "throughput"])]
    return [p for p in frame["problem"].dropna().unique() if p]


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy: no request whatever, and no script but the page's own."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts
    )
    allowed = [
        "default-src 'none'",
        f"script-src {hashes}",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "base-uri 'none'",
    ]
    return "; ".join(allowed)

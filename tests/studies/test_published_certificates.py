"""Publishing a run of certifications, and the README's table of verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from elbograd.benchmarks import load_results
from elbograd.benchmarks.rows.certificate import Certificate
from elbograd.benchmarks.rows.certificate_checks import BiasBound, Check
from elbograd.benchmarks.store.table import write_table
from elbograd.benchmarks.studies.published_certificates import main, table

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results" / "published" / "certification"


def certified(name, high=0.002):
    place = {
        "problem": "small-vae[posterior=bernoulli]",
        "point": "middle",
        "num_samples": 2,
        "batch_size": 3,
    }
    bias = BiasBound(0.0, 0.0, high, 0.01)
    checks = (
        Check("finite[gaussian]", True),
        Check("gradient", True, bias=bias, seconds=75.0, draws=4096, **place),
        Check("value", True, exact=True, **place),
    )
    return Certificate(name, "elbo", True, checks, 0.99, 0.003, 1e-3)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    both = certified("vargrad"), certified("reparameterization", 0.0123)
    write_table([{**row, "case": "c"} for one in both for row in one.rows()], folder / "rows.parquet")
    (folder / "config.toml").write_text("[certify]\n")
    command = "elbograd certify -o '/home/me/a run' -j 2"
    (folder / "environment.json").write_text(json.dumps({"command": command, "threads": 1}))
    return folder


LINES = [
    "| estimator | verdict | relative bias | worst at | checks ran | proofs | time |",
    "|---|---|---|---|---:|---:|---:|",
    "| `reparameterization` | not shown | ≤ 1.3% | `small-vae[posterior=bernoulli]`, middle, S = 2, B = 3 "
    "| 3 of 3 | 1 | 1 min |",
    "| `vargrad` | holds | ≤ 0.2% | `small-vae[posterior=bernoulli]`, middle, S = 2, B = 3 | 3 of 3 | 1 | 1 min |",
]


def test_the_table_has_those_shown_in_their_order(run):
    assert table(load_results(run)).splitlines() == LINES


def test_a_run_is_published_and_the_readme_follows(run, tmp_path, capsys):
    readme, published = tmp_path / "README.md", tmp_path / "published"
    readme.write_text("# Top\n\n| estimator | verdict | old |\n|---|---|---|\n| `x` | fails | 1 |\n\nend\n")
    assert main([str(run), "-o", str(published), "--readme", str(readme)]) == 0
    assert readme.read_text(encoding="utf-8").splitlines() == ["# Top", "", *LINES, "", "end"]
    assert (published / "config.toml").exists()
    environment = json.loads((published / "environment.json").read_text(encoding="utf-8"))
    assert environment == {"command": "elbograd certify -j 2", "threads": 1}
    assert list(pd.read_csv(published / "certify.csv")["verdict"]) == ["holds", "not shown"]
    assert "| `vargrad` |" in (published / "certification.md").read_text(encoding="utf-8")
    assert table(load_results(published)).splitlines() == LINES
    before = readme.read_text(encoding="utf-8")
    assert main([str(run), "-o", str(published), "--readme", str(readme)]) == 0
    assert readme.read_text(encoding="utf-8") == before


def test_what_cannot_be_published_is_said(run, tmp_path, capsys):
    (tmp_path / "none.md").write_text("no table\n")
    assert main([str(run), "-o", str(tmp_path / "out"), "--readme", str(tmp_path / "none.md")]) == 2
    assert "has 0 tables of verdicts, not one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([str(tmp_path / "no-run")]) == 2
    assert "error: " in capsys.readouterr().err


def test_the_readme_shows_what_is_published():
    if not (PUBLISHED / "rows.parquet").exists():
        pytest.skip("the rows of the published run are not there")
    assert table(load_results(PUBLISHED)) in (ROOT / "README.md").read_text(encoding="utf-8")

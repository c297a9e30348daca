"""The comparison of the whole catalogue leaves no estimator out."""

from __future__ import annotations

import pytest
from elbograd.benchmarks.problems.specifications import label_of_text
from elbograd.benchmarks.studies import whole_catalogue
from elbograd.benchmarks.studies.whole_catalogue import RUNS, VARIANTS, main
from elbograd.estimators import create
from elbograd.estimators.plugins.registry import BUILTIN_NAMES
from typer import Exit


def test_every_estimator_meets_every_step_and_every_number_of_samples():
    cases = RUNS["training"].grid()
    found = {(c.estimator, c.num_samples, c.settings.step) for c in cases}
    names = {*BUILTIN_NAMES, *map(label_of_text, VARIANTS)}
    assert found == {(e, s, step) for e in names for s in (1, 4, 16) for step in (0, 500, 10_000)}
    assert len(found) == len(cases)
    assert {tuple(c.settings.steps) for c in cases} == {(0, 500, 10_000)}


def test_variants_exist_and_differ_from_the_defaults():
    for variant in VARIANTS:
        assert create(variant).label not in BUILTIN_NAMES


def test_costs_from_smooth_to_rough():
    cases = RUNS["roughness"].grid()
    assert len({c.problem for c in cases}) == 11
    assert {c.dtype for c in cases} == {"float64"}


def test_the_command_prints_runs_and_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("elbograd.benchmarks.running.forecast.PILOT_SECONDS", 0)  # has tests of its own
    with pytest.raises(Exit) as stop:
        main(dry_run=True, quick=True, output=tmp_path)
    assert stop.value.exit_code == 0
    assert "score-function[draws=sobol], S=4, cosine[k=100] at step 0" in capsys.readouterr().out
    with pytest.raises(Exit) as stop:
        main(["speed"])
    assert stop.value.exit_code == 2
    assert capsys.readouterr().err == "error: no comparison 'speed': choose from " + ", ".join(RUNS) + "\n"
    seen = []
    monkeypatch.setattr(whole_catalogue, "run", lambda request: seen.append(request) or True)
    with pytest.raises(Exit):
        main(["roughness"], tmp_path, 2)
    assert [(r.output, r.engine.jobs) for r in seen] == [(tmp_path / "roughness", 2)]

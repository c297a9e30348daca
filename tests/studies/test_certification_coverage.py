"""The study of certification's level and coverage: counts on right estimators, and on wrong ones."""

from __future__ import annotations

import csv
import math

import pytest
from elbograd.benchmarks.studies.certification_coverage import __main__ as study
from elbograd.benchmarks.studies.certification_coverage import level as of_level
from elbograd.benchmarks.studies.certification_coverage.coverage import BIAS_CELLS, BiasCell, biased, coverage
from elbograd.benchmarks.studies.certification_coverage.level import LEVEL_CELLS, LevelCell, levels
from elbograd.benchmarks.studies.certification_coverage.places import place
from elbograd.estimators.plugins.registry import BUILTIN_NAMES

pytestmark = pytest.mark.usefixtures("unchecked_shapes")  # of thousands of calls a test
QUADRATIC = "quadratic[loc=0.7,scale=0.6,k=1.5]"
RIGHT = LevelCell("normal", "measure-valued", QUADRATIC, "initial", 1, 1)
BIASED = BiasCell("measure-valued", QUADRATIC, "initial", 1, 1, factor=1.05)


def test_a_right_estimator_keeps_the_level():
    """2% of 40 looks should pass 1% on either side, with both means; more than 7 do with probability 1e-6."""
    (found,) = [one for one in levels(RIGHT, 40, math.inf) if one.claim == "gradient"]
    assert found.looks == 40
    # The scale's coordinate and the projection; features explain the location's.
    assert found.means == 80 >= found.judged >= 70
    assert found.above[0] <= 14
    assert found.above[0] >= found.above[1] >= found.above[2]
    assert found.screens <= 3


def test_a_wrong_one_is_seen_not_to(monkeypatch):
    oracle, warm = place("measure-valued", QUADRATIC, "initial", 1, 1)
    monkeypatch.setattr(of_level, "place", lambda *where: (oracle, lambda: biased(warm(), 1.05, 0.0)))
    (found,) = [one for one in levels(RIGHT, 5, math.inf) if one.claim == "gradient"]
    assert found.above[0] >= 5  # the gradient in one of two coordinates, and along the exact one
    assert found.screens == 5


@pytest.mark.parametrize(("factor", "shift"), [(1.05, 0.0), (1.0, 0.1)])
def test_a_known_bias_is_held(factor, shift):
    """Either end misses with probability 1e-2 at most: once in 100 seeds of one repetition."""
    found = coverage(BiasCell("measure-valued", QUADRATIC, "initial", 1, 1, factor, shift), 2, math.inf)
    oracle, _ = place("measure-valued", QUADRATIC, "initial", 1, 1)
    truth = 0.05 if factor > 1 else 0.1 / float(oracle.eta_grad.norm())  # in the location alone
    assert found.truth == pytest.approx(truth, rel=1e-6)
    assert (found.repetitions, found.below, found.above) == (2, 0, 0)
    assert found.failed == 2
    assert truth < found.bound < 1.5 * truth


def test_the_cells_are_of_estimators_of_the_catalogue():
    names = {cell.estimator.partition("[")[0] for cell in (*LEVEL_CELLS, *BIAS_CELLS)}
    assert names <= set(BUILTIN_NAMES)
    families = " ".join(cell.family for cell in LEVEL_CELLS)
    kinds = ("normal", "uniform", "exponential", "bits", "states", "gamma", "pairs")
    assert all(kind in families for kind in kinds)


def test_the_command_writes_both_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "LEVEL_CELLS", (RIGHT,))
    monkeypatch.setattr(study, "BIAS_CELLS", (BIASED,))
    assert study.main(["-r", "3", "-o", str(tmp_path)]) == 0
    assert "found wrong" not in capsys.readouterr().out
    (line,) = csv.DictReader((tmp_path / "coverage.csv").open())
    assert (line["factor"], line["repetitions"], line["below"], line["failed"]) == ("1.05", "1", "0", "1")
    assert line["above"] == "0"
    (line, *_) = csv.DictReader((tmp_path / "level.csv").open())
    assert (line["estimator"], line["claim"], line["looks"]) == ("measure-valued", "gradient", "3")
    assert "| normal | measure-valued" in (tmp_path / "level-and-coverage.md").read_text(encoding="utf-8")
    (tmp_path / "file").write_text("")
    assert study.main(["-o", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err

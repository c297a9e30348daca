"""Rooms stand on floors: an import from one room to another runs to a lower floor, and never in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest
from floors import circle, crossings, modules, room_of

ROOT = Path(__file__).parents[1]

#: From the ground up; rooms of one floor know nothing of each other.
FLOORS = {
    "estimators": (
        ("errors", "text"),
        ("isolation", "kl_weight", "posteriors"),
        ("network",),
        ("base",),
        ("plugins", "support"),
        ("pieces",),
        ("methods",),
        ("testing",),
        ("estimators",),
    ),
    "benchmarks": (
        ("statistics", "linalg", "seeds", "vmapping"),
        ("rows",),
        ("store", "problems"),
        ("gradients",),
        ("jacobians", "training"),
        ("variance",),
        ("oracles", "throughput"),
        ("certification", "plots", "tables"),
        ("report", "comparison", "advice"),
        ("cases", "examination"),
        ("running",),
        ("studies",),
        ("cli",),
        ("benchmarks",),
    ),
}


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_its_floor(package):
    rooms = {room_of(name) for name in modules(ROOT, package)}
    assert rooms == {room for floor in FLOORS[package] for room in floor}


@pytest.mark.parametrize("package", FLOORS)
def test_imports_run_downstairs(package):
    assert crossings(ROOT, package, FLOORS[package]) == []


@pytest.mark.parametrize("package", FLOORS)
def test_no_modules_import_each_other_in_a_circle(package):
    assert circle(ROOT, package) == []


@pytest.mark.parametrize(
    "statement", ["from ..cli import main", "from .. import cli", "def f():\n    from ..cli.main import x"]
)
def test_an_import_that_runs_upstairs_is_found(tmp_path, statement):
    for name in ("benchmarks", "benchmarks/rows", "benchmarks/cli"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "benchmarks/cli/main.py").write_text("from ..rows import schema\n")
    (tmp_path / "benchmarks/rows/schema.py").touch()
    assert crossings(tmp_path, "benchmarks", FLOORS["benchmarks"]) == []
    (tmp_path / "benchmarks/rows/schema.py").write_text(f"{statement}\n")
    (found,) = crossings(tmp_path, "benchmarks", FLOORS["benchmarks"])
    assert found.startswith("benchmarks.rows.schema imports benchmarks.cli")


def test_a_circle_is_found(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    for a, b in (("one", "two"), ("two", "three"), ("three", "one")):
        (tmp_path / f"benchmarks/{a}.py").write_text(f"from .{b} import x\n")
    assert set(circle(tmp_path, "benchmarks")) == {f"benchmarks.{name}" for name in ("one", "two", "three")}

"""The rules that carry the architecture: who imports whom, what is imported lazily, what is in the wheel."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from elbograd.estimators import catalogue, create

ROOT = Path(__file__).parents[1]
PACKAGES = ("estimators", "benchmarks")


def imports(file):
    """(level, module) of every import in a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name


def sources(package):
    return sorted((ROOT / package).rglob("*.py"))


def stubs(package):
    return sorted((ROOT / package).rglob("*.pyi"))


@pytest.mark.parametrize("file", sources("estimators"), ids=lambda f: f.name)
def test_estimators_know_nothing_of_benchmarks(file):
    depth = len(file.relative_to(ROOT).parts) - 1
    for level, module in imports(file):
        assert level <= depth, f"{file} imports from outside its package"
        assert "benchmarks" not in module


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_nobody_imports_the_bare_names(package):
    for file in sources(package):
        for level, module in imports(file):
            assert level or module.split(".")[0] not in PACKAGES, f"{file} imports {module}"
            if package in PACKAGES:
                assert level or module.split(".")[0] != "elbograd", (
                    f"{file}: relative imports inside the package"
                )


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import elbograd.estimators as e; e.catalogue()",
        "import elbograd.benchmarks.problems as p; p.problem_catalogue()",
        "from elbograd.benchmarks import load_results",
        "import elbograd.benchmarks.cli.main",
        "import elbograd.benchmarks.plots.style, elbograd.benchmarks.tables",
    ],
)
def test_torch_is_not_imported(code):
    assert run_python(f"{code}\nimport sys; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("name", ["estimators", "benchmarks", "benchmarks.problems"])
def test_lazy_names_are_listed_and_there(name):
    code = f"import elbograd.{name} as package; print(*dir(package))"
    names = run_python(code).split()
    assert len(names) >= 3
    package = importlib.import_module(f"elbograd.{name}")
    assert names == sorted(package.__all__)
    assert all(hasattr(package, name) for name in names)


def test_summaries_are_the_docstrings_first_lines():
    for name, summary in catalogue().items():
        assert inspect.getdoc(type(create(name))).splitlines()[0] == summary


def test_the_wheel_holds_the_two_packages_and_nothing_else(tmp_path):
    copy = tmp_path / "source"  # a build folder left in the checkout could put old files into the wheel
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {
        f"elbograd/{f.relative_to(ROOT)}"
        for package in PACKAGES
        for f in (*sources(package), *stubs(package))
    }
    page = {f"elbograd/benchmarks/report/page/report.{kind}" for kind in ("html", "css", "js")}
    assert names == expected | page | {f"elbograd/{package}/py.typed" for package in PACKAGES}

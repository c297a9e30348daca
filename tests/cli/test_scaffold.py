"""What `new-estimator` and `new-problem` write works, its test passes, and nothing is spoilt."""

from __future__ import annotations

import subprocess
import sys

import pytest
from elbograd.benchmarks import examine_problem
from elbograd.benchmarks.cli.scaffold import write_estimator
from elbograd.benchmarks.cli.scaffold_problem import write_problem
from elbograd.estimators import UsageError, catalogue, create


def run(*arguments, cwd):
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_written_test_passes_from_any_folder(tmp_path):
    source, test = write_estimator("my-idea", tmp_path / "ideas")
    assert (source.name, test.name) == ("my_idea.py", "test_my_idea.py")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(test), cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "125 passed" in done.stdout
    assert "skipped" not in done.stdout


def test_written_test_names_the_property_that_an_edit_breaks(tmp_path):
    source, test = write_estimator("my-idea", tmp_path)
    text = source.read_text(encoding="utf-8")
    broken = text.replace("* log_q).mean(0)", "* log_q).sum(0)")
    assert broken != text
    source.write_text(broken, encoding="utf-8")
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", test.name, "-k", "bernoulli", cwd=tmp_path)
    assert done.returncode == 1
    assert "FAILED test_my_idea.py::test_my_idea[unbiased[bernoulli]]" in done.stdout


def test_written_estimator_is_created_from_its_file(tmp_path):
    source, _ = write_estimator("ratio-2-trick", tmp_path)
    estimator = create(f"{source}[decay=0.5]")
    assert type(estimator).__name__ == "Ratio2Trick"
    assert estimator.decay == 0.5


def test_written_files_are_clean_under_the_projects_linter(tmp_path):
    paths = (*write_estimator("my-idea", tmp_path), *write_problem("my-model", tmp_path))
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert max(map(len, text.splitlines())) <= 110
        assert "@" not in text.replace("@torch.no_grad()", "").replace("@pytest.mark", "")
        compile(text, str(path), "exec")


def test_written_problem_is_sound_and_its_test_passes_from_any_folder(tmp_path):
    source, test = write_problem("my-model", tmp_path / "models")
    assert (source.name, test.name) == ("my_model.py", "test_my_model.py")
    found = examine_problem(str(source))
    assert found.sound, str(found)
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(test), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_written_problem_says_what_an_edit_breaks(tmp_path):
    source, _ = write_problem("my-model", tmp_path)
    text = source.read_text(encoding="utf-8")
    for old, new, line in (
        ("nn.Linear(HIDDEN, PIXELS)", "nn.Linear(HIDDEN, 60)", "60"),
        ("nn.Tanh())\n        self.mean", "nn.Dropout())\n        self.mean", "is in train mode"),
        ('"gaussian-logvar"', '"gausian"', "gausian"),
    ):
        assert old in text
        source.write_text(text.replace(old, new), encoding="utf-8")
        (fault,) = examine_problem(str(source)).faults
        assert line in fault.text


@pytest.mark.parametrize(
    "name", ["My-Idea", "my_idea", "my--idea", "-idea", "idea-", "2nd", "", "my idea", "é"]
)
def test_name_that_is_not_kebab_case_is_refused(name, tmp_path):
    refused(name, tmp_path, "is not kebab-case")


@pytest.mark.parametrize("name", ["class", "lambda", "none", "true"])
def test_python_keyword_is_refused(name, tmp_path):
    refused(name, tmp_path, "is a Python keyword")


@pytest.mark.parametrize(
    "name", ["torch", "random", "elbograd", "estimator", "target", "test-me", "conftest"]
)
def test_name_that_hides_another_is_refused(name, tmp_path):
    refused(name, tmp_path, "would hide another Python name")


def test_name_of_a_built_in_is_refused(tmp_path):
    for name in catalogue():
        refused(name, tmp_path, "is taken")


@pytest.mark.parametrize("name", ["My-Model", "vae", "class", "torch", "encoder", "sklearn"])
def test_bad_name_of_a_problem_is_refused(name, tmp_path):
    refused(name, tmp_path, f"problem name {name!r} ", write_problem)


def refused(name, folder, reason, write=write_estimator):
    with pytest.raises(UsageError) as refusal:
        write(name, folder)
    assert reason in str(refusal.value)
    assert repr(name) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("write", [write_estimator, write_problem])
@pytest.mark.parametrize("present", ["my_idea.py", "test_my_idea.py"])
def test_existing_file_is_never_overwritten(present, write, tmp_path):
    (tmp_path / present).write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=f"{present} exists already"):
        write("my-idea", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text(encoding="utf-8") == "mine"


def test_folder_that_cannot_be_written_to_is_refused(tmp_path):
    occupied = tmp_path / "occupied"
    occupied.write_text("a file", encoding="utf-8")
    for folder in (occupied, occupied / "inside"):
        with pytest.raises(UsageError, match=r"cannot write to .*occupied") as refusal:
            write_estimator("my-idea", folder)
        assert "\n" not in str(refusal.value)


def test_scaffold_does_not_import_torch(tmp_path):
    for module in ("scaffold", "scaffold_problem"):
        code = f"import sys, elbograd.benchmarks.cli.{module}; sys.exit('torch' in sys.modules)"
        assert run("-c", code, cwd=tmp_path).returncode == 0

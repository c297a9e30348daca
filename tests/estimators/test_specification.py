"""Names in brackets, and finding what they name."""

from __future__ import annotations

import contextlib

import pytest
from elbograd.benchmarks.problems import load_problem
from elbograd.estimators import Estimator, UsageError, create, register
from elbograd.estimators.plugins import registry
from elbograd.estimators.plugins.finding import Builtin
from elbograd.estimators.plugins.registry import BUILTIN_NAMES, REGISTRY
from elbograd.estimators.plugins.specification import Specification, expand, parse
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)
VALUES = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True).filter(
        lambda t: t not in ("true", "false", "none", "nan", "inf", "infinity")
    ),
)


@given(NAMES, st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(str.isidentifier), VALUES))
def test_what_is_written_is_read(name, parameters):
    specification = Specification(name, parameters)
    assert parse(str(specification)) == specification


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(UsageError):
        expand(text)


@pytest.mark.parametrize(
    "text",
    ["", "[", "name[", "name]", "name[a]", "name[a=]", "name[a=1", "name[a=1,a=2]", "name[a=[1]", "x[=1]"],
)
def test_malformed_brackets(text):
    with pytest.raises(UsageError, match="malformed"):
        expand(text)


def test_a_list_is_a_grid():
    grid = [str(s) for s in expand("vae[latent_dim=[2,8],hidden=[4,5]]")]
    assert grid == [f"vae[latent_dim={d},hidden={h}]" for d in (2, 8) for h in (4, 5)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score-functoin", "did you mean score-function?"),
        ("score-function[decay=1]", "unknown parameter 'decay' of score-function: choose from kl"),
        ("score-function[kl=both]", "kl='both' is not one of analytic, sampled"),
        ("moving-average-baseline[decay=1.0]", "decay=1.0 is not in [0, 1)"),
        ("learned-baseline[hidden=0]", "hidden=0 is not a positive integer"),
        ("optimal-baseline[pilot=many]", "pilot='many' is not a positive integer"),
        ("exact[method=guess]", "method='guess' is not one of"),
        ("constant-baseline[value=high]", "value='high' is not a number"),
        ("moving-average-baseline[decay=fast]", "decay='fast' is not a number"),
        ("nowhere.py", "nowhere.py: no such file"),
        ("os:path", "os:path takes no parameters"),
        ("no.such.module:Thing", "does not load: ModuleNotFoundError"),
        ("score-function[kl=[analytic,sampled]]", "kl is a list"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text, message):
    with pytest.raises(UsageError) as error:
        create(text, **({"a": 1} if text == "os:path" else {}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


PLUGIN = """
import torch
from elbograd.estimators import Estimate, Estimator

class MyIdea(Estimator):
    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.gain = gain

    def forward(self, q, target, num_samples):
        value = target.log_likelihood(q.rsample((num_samples,))).mean(0)
        return Estimate(value, value)
"""


@pytest.mark.parametrize("folder", ["plain", "odd[1]"])
def test_a_file_with_one_class(tmp_path, folder):
    (tmp_path / folder).mkdir()
    file = tmp_path / folder / "my_estimator.py"
    file.write_text(PLUGIN)
    for text in (f"{file}", f"{file}:MyIdea", f"{file}[gain=2.5]"):
        estimator = create(text)
        assert type(estimator).__name__ == "MyIdea"
        assert str(tmp_path) not in estimator.label
    assert create(f"{file}[gain=2.5]").gain == 2.5
    with pytest.raises(UsageError, match="no 'Other' there"):
        create(f"{file}:Other")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "does not load: line 1"),
        ("raise SystemExit(3)", "does not load: SystemExit"),
        ("1/0", "ZeroDivisionError"),
        ("x = 1", "expected one estimator in the file, found none"),
        (PLUGIN + "class Second(MyIdea): pass", "found MyIdea, Second; add :name"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, text, message):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        create(str(file))
    assert "\n" not in str(error.value)


def test_every_file_of_the_methods_is_an_estimator_of_the_catalogue():
    names = [file.stem.replace("_", "-") for file in registry._METHODS.glob("[!_]*.py")]
    assert sorted(BUILTIN_NAMES) == sorted(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "half_written.py has no class halfwritten, in any case"),
        ("class Other: ...", "half_written.py has no class halfwritten, in any case"),
        ("class HalfWritten(", "half_written.py is no Python: '(' was never closed"),
        ("\0", "half_written.py is no Python: source code string cannot contain null bytes"),
    ],
)
def test_an_unfinished_file_of_the_methods_is_told_when_it_is_asked_for(tmp_path, monkeypatch, text, message):
    file = tmp_path / "half_written.py"
    file.write_text(text)
    monkeypatch.setattr(REGISTRY, "builtins", {**REGISTRY.builtins, "half-written": registry._builtin(file)})
    assert registry.catalogue()["half-written"].startswith(f"cannot be used: {message}")
    assert create("exact").label == "exact"
    with pytest.raises(UsageError, match=r"^estimator 'half-written' cannot be used: ") as error:
        create("half-written")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ('"""Halves."""', "Halves."),
        ('"""\n    Halves.\n\n    All.\n    """', "Halves."),
        ("'Halves.'", "Halves."),
        ("x = 1", "HalfWritten"),
    ],
)
def test_a_class_of_the_methods_is_read_however_its_docstring_begins(tmp_path, docstring, summary):
    file = tmp_path / "half_written.py"
    file.write_text(f"class HalfWritten(\n    Estimator\n):\n    {docstring}\n")
    found = registry._builtin(file)
    assert found.location == "elbograd.estimators.methods.half_written:HalfWritten"
    assert (found.summary, found.unusable) == (summary, "")


def test_a_class_of_the_methods_that_does_not_load_is_one_line(monkeypatch):
    nowhere = Builtin("elbograd.estimators.methods.half_written:HalfWritten", "Halves.")
    monkeypatch.setattr(REGISTRY, "builtins", {**REGISTRY.builtins, "half-written": nowhere})
    with pytest.raises(UsageError, match="estimator 'half-written': does not load: ModuleNotFoundError"):
        create("half-written")


def test_registering(monkeypatch):
    monkeypatch.setattr(REGISTRY, "registered", dict(REGISTRY.registered))

    @register("test-only-idea")
    class Idea(Estimator):
        """An idea."""

    assert type(create("test-only-idea")) is Idea
    with pytest.raises(UsageError, match="already taken"):
        register("test-only-idea", Idea)
    with pytest.raises(UsageError, match="already taken"):
        register("score-function", Idea)
    with pytest.raises(UsageError, match="not kebab-case"):
        register("My_Idea", Idea)


def test_entry_points_are_listed_unseen_loaded_when_chosen_and_never_shadow(tmp_path, monkeypatch):
    (tmp_path / "third_party.py").write_text(PLUGIN)
    (tmp_path / "broken_party.py").write_text("raise RuntimeError('boom')")
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[elbograd.estimators]\nfrom-elsewhere = third_party:MyIdea\nbroken = broken_party:Thing\n"
        "score-function = third_party:MyIdea\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import sys

    from elbograd.estimators import catalogue

    lines = catalogue()
    assert "third-party (third_party:MyIdea)" in lines["from-elsewhere"]
    assert "third_party" not in sys.modules
    assert type(create("from-elsewhere")).__name__ == "MyIdea"
    with pytest.raises(UsageError, match="boom"):
        create("broken")
    with pytest.raises(UsageError, match="ambiguous"):
        create("score-function")


def test_problems_are_found_the_same_way(tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text(
        "from elbograd.benchmarks.problems.linear_gaussian import LinearGaussianVAE\n"
        "problem = LinearGaussianVAE(latent_dim=2)\n"
        "def make(latent_dim=3):\n    return LinearGaussianVAE(latent_dim=latent_dim)\n"
        "nonsense = 3\n"
    )
    assert load_problem(f"{file}").latent_dim == 2
    assert load_problem(f"{file}:problem").latent_dim == 2
    assert load_problem(f"{file}:make[latent_dim=5]").latent_dim == 5
    with pytest.raises(UsageError, match="is not a problem: it has no encoder"):
        load_problem(f"{file}:nonsense")
    with pytest.raises(UsageError, match="latent_dim=0 is not a positive integer"):
        load_problem("vae[latent_dim=0]")
    with pytest.raises(UsageError, match="unknown problem 'vea': did you mean vae"):
        load_problem("vea")

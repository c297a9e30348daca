"""Files of users: executed under a seed, with the files beside them, wherever they lie and whatever they are called."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.registry import load_under
from elbograd.estimators import UsageError, create
from elbograd.estimators.isolation import Draws, drawing_from
from elbograd.estimators.plugins.registry import create_under, label_of
from elbograd.estimators.plugins.specification import parse, split_place

MODEL = """
import random
import numpy as np
import torch
from torch import nn
from elbograd.benchmarks.problems.linear_gaussian import LinearGaussianVAE
{before}

class Model(LinearGaussianVAE):
    def __init__(self):
        super().__init__(latent_dim=2, data_dim=3)
        self.encoder = nn.Linear(3, 4)
        self.numbers = [np.random.rand(), random.random()]

def make():
    return Model()

problem = Model()
"""
ESTIMATOR = """
import torch
from elbograd.estimators import Estimate, Estimator

class Mine(Estimator):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Linear(3, 1)

    def forward(self, q, target, num_samples):
        value = target.log_likelihood(q.rsample((num_samples,))).mean(0)
        return Estimate(value, value)
"""


def global_draws():
    return torch.rand(2).tolist(), np.random.rand(), random.random()


def drawn(problem):
    return problem.encoder.weight.tolist(), problem.numbers


def test_draws_go_on_where_they_were_and_leave_the_global_generators_alone():
    with drawing_from(3):
        expected = [global_draws() for _ in range(3)]
    draws, found = Draws(3), []
    for _ in range(3):
        torch.rand(5), random.random(), np.random.rand()
        with drawing_from(8):  # as these do between two scopes
            first = global_draws()
            with draws.scope():
                found.append(global_draws())
            second = global_draws()
        with drawing_from(8):
            assert [first, second] == [global_draws(), global_draws()]
    assert found == expected


@pytest.mark.parametrize("name", ["problem", "Model", "make"])
def test_a_seed_makes_the_same_weights_whatever_ran_before(tmp_path, name):
    file = tmp_path / "my_model.py"
    file.write_text(MODEL.format(before=""))
    first = drawn(load_under(4, f"{file}:{name}"))
    other = drawn(load_under(5, f"{file}:{name}"))
    global_draws()
    assert drawn(load_under(4, f"{file}:{name}")) == first
    assert other[0] != first[0]
    assert all(a != b for a, b in zip(other[1], first[1], strict=True))
    with drawing_from(4):  # by hand
        namespace = {"__name__": "by_hand"}
        exec(compile(file.read_text(), "by_hand", "exec"), namespace)
        by_hand = namespace["problem"]
    if name == "problem":
        assert drawn(by_hand) == first


def test_what_is_made_at_import_is_handed_out_as_a_copy(tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text(MODEL.format(before=""))
    trained = load_problem(f"{file}:problem")
    before = drawn(trained)
    torch.nn.init.zeros_(trained.encoder.weight)
    assert drawn(load_problem(f"{file}:problem")) == before
    file.write_text(MODEL.format(before="") + f"problem.file = open({str(file)!r})\n")  # which has no copy
    again = tmp_path / "again.py"
    again.write_text(file.read_text())
    torch.nn.init.zeros_(load_problem(f"{again}:problem").encoder.weight)
    assert drawn(load_problem(f"{again}:problem")) == before


def test_a_problem_that_is_a_module_is_not_called(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        MODEL.format(before="") + "class Whole(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.encoder, self.decoder = nn.Linear(3, 4), nn.Linear(2, 3)\n"
        "    posterior = target = batches = lambda self, *_: None\n"
        "whole = Whole()\n"
    )
    assert type(load_problem(f"{file}:whole")).__name__ == "Whole"


def test_a_module_that_made_a_problem_makes_it_anew_for_each_seed(tmp_path, monkeypatch):
    (tmp_path / "installed_model.py").write_text(MODEL.format(before=""))
    monkeypatch.syspath_prepend(tmp_path)
    numbers = [drawn(load_under(seed, "installed_model:problem")) for seed in (1, 2, 1)]
    assert numbers[0] == numbers[2]
    assert numbers[0][0] != numbers[1][0]
    assert drawn(load_under(1, "installed_model:Model")) != drawn(load_under(2, "installed_model:Model"))
    del sys.modules["installed_model"]


def test_an_estimators_network_is_drawn_under_a_seed(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(ESTIMATOR)
    first = create(str(file)).network.weight
    global_draws()
    assert torch.equal(create(str(file)).network.weight, first)
    assert torch.equal(create_under(0, str(file)).network.weight, first)
    assert not torch.equal(create_under(1, str(file)).network.weight, first)


def test_a_file_that_has_changed_is_executed_anew(tmp_path):
    file = tmp_path / "mine.py"
    made = []
    for number in (1, 2, 2):  # within one second, and as long as before
        file.write_text(ESTIMATOR + f"Mine.number = {number}\n")
        made.append(create(str(file)))
    assert [one.number for one in made] == [1, 2, 2]
    assert type(made[1]) is type(made[2])


def test_a_file_that_registers_may_be_executed_under_several_seeds(tmp_path):
    from elbograd.estimators.plugins.registry import REGISTRY

    file = tmp_path / "both.py"
    text = MODEL.format(before="from elbograd.estimators import register\n" + ESTIMATOR)
    file.write_text(text + "register('drawn-twice')(Mine)\n")
    try:
        load_under(0, f"{file}:problem"), load_under(1, f"{file}:problem")
        assert type(create("drawn-twice")).__name__ == "Mine"
        other = tmp_path / "other.py"
        other.write_text(
            ESTIMATOR + "from elbograd.estimators import register\nregister('drawn-twice')(Mine)\n"
        )
        with pytest.raises(UsageError, match="already taken"):
            create(str(other))
    finally:
        REGISTRY.registered.pop("drawn-twice", None)


# Places


@pytest.mark.parametrize(
    ("text", "place", "attribute", "parameters"),
    [
        ("C:\\models\\my_model.py:problem", "C:\\models\\my_model.py", "problem", {}),
        ("C:/my models/v1.py[k=2]", "C:/my models/v1.py", "", {"k": 2}),
        ("C:\\a[1]\\b.py:make[k=[1,2]]", "C:\\a[1]\\b.py", "make", {"k": [1, 2]}),
        ("~/odd[1]/x.py.d/y.py:p", "~/odd[1]/x.py.d/y.py", "p", {}),
        ("../m.py:p[place=C:/x.py]", "../m.py", "p", {"place": "C:/x.py"}),
        ("a.py[1]/b.py", "a.py[1]/b.py", "", {}),
        ("m[1].py:p", "m[1].py", "p", {}),
        ("package.module:Thing[k=x.py]", "package.module", "Thing", {"k": "x.py"}),
        ("score-function[kl=sampled]", "score-function", "", {"kl": "sampled"}),
    ],
)
def test_a_place_is_told_from_what_is_in_it(text, place, attribute, parameters):
    parsed = parse(text)
    assert split_place(parsed.name) == (place, attribute)
    assert parsed.parameters == parameters
    assert parse(str(parsed)) == parsed
    parse(label_of(parsed))  # results are read by their labels


@pytest.mark.parametrize("text", ["a.py[", "a.py]", "a[1]/b.py[k", "C:\\a.py:p[", "a.py:p[k=1]x"])
def test_malformed_places_are_told(text):
    with pytest.raises(UsageError, match="malformed"):
        parse(text)


@pytest.mark.parametrize("folder", ["with space", "odd[1]", "back\\slash", "C:\\models", "x.py"])
def test_files_are_found_wherever_they_lie(tmp_path, monkeypatch, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "C:\\mine.py").write_text(ESTIMATOR)
    monkeypatch.chdir(tmp_path)
    assert type(create(f"{folder}/C:\\mine.py:Mine")).__name__ == "Mine"
    monkeypatch.chdir(folder)
    assert type(create("C:\\mine.py:Mine")).__name__ == "Mine"
    assert type(create(f"../{folder}/C:\\mine.py")).__name__ == "Mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert type(create(f"~/{folder}/C:\\mine.py")).__name__ == "Mine"


# Neighbours


def folder_of(path, width):
    path.mkdir()
    (path / "my_layers.py").write_text("import my_widths\nWIDTH = my_widths.WIDTH\n")
    (path / "my_widths.py").write_text(f"import my_layers\nWIDTH = {width}\n")  # in a circle
    (path / "late.py").write_text("def late():\n    import later\n    return later.VALUE\n")
    (path / "later.py").write_text(f"VALUE = {width}\n")
    (path / "package").mkdir()
    (path / "package" / "__init__.py").write_text("from . import inner\nfrom .inner import VALUE\n")
    (path / "package" / "inner.py").write_text(f"import my_widths\nVALUE = {width} + my_widths.WIDTH\n")
    (path / "my_model.py").write_text(
        MODEL.format(
            before="from my_layers import WIDTH\nimport package.inner\nfrom package import VALUE\n"
            "from late import late\ndef here():\n    import later\n    return later.VALUE\n"
        )
    )
    return path / "my_model.py"


@pytest.fixture
def modules():
    before = dict(sys.modules), list(sys.path)
    yield
    for name in sys.modules.keys() - before[0].keys():
        if "torch" not in name:
            del sys.modules[name]
    sys.path[:] = before[1]


@pytest.mark.usefixtures("modules")
def test_a_file_imports_its_neighbours_and_nobody_elses(tmp_path):
    files = [folder_of(tmp_path / name, width) for name, width in (("a", 2), ("b", 3))]
    models = [sys.modules[type(load_problem(f"{file}:problem")).__module__] for file in files]
    assert [m.WIDTH for m in models] == [2, 3]
    assert [m.VALUE for m in models] == [m.package.inner.VALUE for m in models] == [4, 6]
    for _ in range(2):  # imports inside functions, of the file and of a neighbour, in any order
        assert [m.late() for m in reversed(models)] == [3, 2]
        assert [m.here() for m in models] == [2, 3]


@pytest.mark.usefixtures("modules")
def test_neighbours_are_drawn_under_the_seed_too(tmp_path):
    (tmp_path / "my_net.py").write_text("import torch\nW = torch.rand(2)\n")
    (tmp_path / "my_model.py").write_text(MODEL.format(before="import my_net") + "problem.w = my_net.W\n")
    one, two, again = (load_under(s, f"{tmp_path}/my_model.py:problem").w.tolist() for s in (1, 2, 1))
    assert one == again != two


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", ["random", "torch", "numpy"])
def test_a_neighbour_called_like_a_library_hides_it_from_nobody(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('mine')\n")
    file = tmp_path / "my_model.py"
    file.write_text(MODEL.format(before=""))
    with pytest.raises(
        UsageError, match=rf"{name}.py has the name of the module {name} .* rename it"
    ) as error:
        load_problem(f"{file}:problem")
    assert "\n" not in str(error.value)
    file.write_text("from elbograd.benchmarks.problems.conjugate import ConjugateGaussian as Model\n")
    load_problem(f"{file}:Model")  # which does not ask for it
    assert getattr(sys.modules[name], "__file__", "") != str(tmp_path / f"{name}.py")
    assert sys.path[0] != str(tmp_path)
    import this  # noqa: F401 - the library's still comes first

"""`examine_problem` and `elbograd check-problem`: each fault of a file is found, and all of them in one run."""

from __future__ import annotations

import copy
import json
import sys

import pytest
import torch
from elbograd.benchmarks import examine_problem, measure_variance
from elbograd.benchmarks.cli.main import main
from elbograd.benchmarks.problems import load_problem, problem_catalogue
from elbograd.estimators import UsageError, create
from torch import nn

SOUND = '''"""A VAE on noise."""
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal

from elbograd.estimators import Target

D, PIXELS = 2, 6


class Mine:
    def __init__(self):
        self.encoder = nn.Sequential(nn.Linear(PIXELS, 8), nn.Tanh(), nn.Linear(8, 2 * D))
        self.decoder = nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, PIXELS))
        self.data = {"train": torch.rand(200, PIXELS).round(), "test": torch.rand(70, PIXELS).round()}

    def posterior(self, eta):
        loc, log_scale = eta.chunk(2, -1)
        return Independent(Normal(loc, log_scale.exp()), 1)

    def target(self, x):
        def log_likelihood(z):
            return Bernoulli(logits=self.decoder(z)).log_prob(x).sum(-1)

        return Target(log_likelihood, Independent(Normal(x.new_zeros(D), x.new_ones(D)), 1), x)

    def batches(self, split, batch_size, generator=None):
        data = self.data[split]
        if generator is not None:
            data = data[torch.randperm(len(data), generator=generator)]
        yield from data.split(batch_size)


problem = Mine()
'''
ENCODER = "nn.Sequential(nn.Linear(PIXELS, 8), nn.Tanh(), nn.Linear(8, 2 * D))"
DECODER = "nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, PIXELS))"
POSTERIOR = "return Independent(Normal(loc, log_scale.exp()), 1)"
LIKELIHOOD = "return Bernoulli(logits=self.decoder(z)).log_prob(x).sum(-1)"
PRIOR = "Independent(Normal(x.new_zeros(D), x.new_ones(D)), 1)"
FEATURES = ", x)\n"
SHUFFLED = "data = data[torch.randperm(len(data), generator=generator)]"
YIELD = "yield from data.split(batch_size)"
TUPLE = """class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc, self.log_scale = nn.Linear(PIXELS, D), nn.Linear(PIXELS, D)

    def forward(self, x):
        return self.loc(x), self.log_scale(x)


class Mine:"""
WRAP = "and not yet a problem: wrap it, problem = from_vae("

# what is wrong -> replacements in SOUND, and the lines that are said of it, in order
FAULTS = {
    "posterior and batches are missing": (
        {"def posterior(": "def q(", "def batches(": "def data_of("},
        ["Mine has no posterior: it is a method", "Mine has no batches: it is a method"],
    ),
    "the encoder is missing": ({"self.encoder =": "self.encode ="}, ["Mine has no encoder: it is a torch.nn.Module"]),
    "the encoder is a function": ({ENCODER: "lambda x: x"}, ["Mine.encoder is a function, not a torch.nn.Module"]),
    "the decoder is a class": ({DECODER: "nn.Linear"}, ["Mine.decoder is a class, Linear: make one, Linear(...)"]),
    "the target is no method": ({"def target(": "target = 3\n\n    def of("}, ["Mine.target is a int, not a method"]),
    "a property fails": (
        {"    def posterior(": "    @property\n    def label(self):\n        return 1 / 0\n\n    def posterior("},
        ["Mine.label fails (ZeroDivisionError: division by zero)"],
    ),
    "a shared weight": (
        {"        self.data =": "        self.decoder[0].bias = self.encoder[0].bias\n        self.data ="},
        ["encoder.0.bias is also decoder.0.bias"],
    ),
    "nothing to train": ({f"{ENCODER}\n": f"{ENCODER}.requires_grad_(False)\n"}, ["no trainable parameters in its encoder"]),
    "pairs": ({YIELD: "yield from ((x, x[:, 0]) for x in data.split(batch_size))"}, ["batches yields a tuple, not a tensor"]),
    "no data": ({YIELD: "yield from ()"}, ["batches('train', 64, ...) yields nothing"]),
    "few data": (
        {"torch.rand(200, PIXELS)": "torch.rand(20, PIXELS)"},
        ["batch size 64 exceeds the 20 data of the first training batch"],
    ),
    "the batch size is not asked": ({YIELD: "yield data"}, ["batches('train', 64, ...) yields 200 data at a time"]),
    "nothing is held out": ({'"test": torch.rand(70,': '"test": torch.rand(0,'}, ["serve held-out data"]),
    "no split of that name": ({'"test":': '"valid":'}, ["batches('test', 64, ...) fails (KeyError: 'test')"]),
    "an order of its own": (
        {SHUFFLED: "data = data[torch.randperm(len(data), generator=self.own)]", "        self.data =": "        self.own = torch.Generator()\n        self.data ="},
        ["batches serves other data under the same generator"],
    ),
    "an encoder that returns a tuple": (
        {"class Mine:": TUPLE, ENCODER: "Pair()"},
        ["the encoder returns a tuple, not one tensor"],
    ),
    "an encoder of another width": ({"nn.Linear(PIXELS, 8)": "nn.Linear(7, 8)"}, ["the encoder fails for x of shape (64, 6)"]),
    "an encoder of NaN": (
        {f"{ENCODER}\n": f"{ENCODER}\n        self.encoder[2].bias.data[0] = torch.nan\n"},
        ["eta is not finite (NaN or infinity): look at the encoder's weights"],
    ),
    "BatchNorm in train mode": (
        {"nn.Linear(PIXELS, 8), nn.Tanh()": "nn.Linear(PIXELS, 8), nn.BatchNorm1d(8)"},
        ["encoder.1 (BatchNorm1d) is in train mode: call encoder.eval() first"],
    ),
    "dropout on both sides": (
        {ENCODER: f"{ENCODER[:-1]}, nn.Dropout())", DECODER: f"{DECODER[:-1]}, nn.Dropout())"},
        ["encoder.3 (Dropout) is in train mode", "decoder.3 (Dropout) is in train mode"],
    ),
    "an encoder that couples data": (
        {"        self.data =": "        self.encoder.append(Centre())\n        self.data =", "class Mine:": "class Centre(nn.Module):\n    def forward(self, eta):\n        return eta - eta.mean(0)\n\n\nclass Mine:"},
        ["the encoder gives a datum another eta in a batch than alone"],
    ),
    "a posterior over the batch": ({POSTERIOR: "return Normal(loc, log_scale.exp())"}, ["the posterior has batch shape (64, 2)"]),
    "a posterior that is a tuple": ({POSTERIOR: "return loc, log_scale"}, ["posterior returns a tuple"]),
    "no leading dimensions of eta": (
        {"eta.chunk(2, -1)": "eta[:, :D], eta[:, D:]"},
        ["index eta from the last dimension (eta[..., :D]"],
    ),
    "no leading dimensions of z": (
        {LIKELIHOOD: "return Bernoulli(logits=torch.stack([self.decoder(s.view(64, D)) for s in z])).log_prob(x).sum(-1)"},
        ["log_likelihood fails for z of shape (S, *batch, *event) = (2, 2, 64, 2)"],
    ),
    "weights of latents that are not there": ({FEATURES: ", kl_weight={'z1': 2})\n"}, ["kl_weight has a number for each latent, and the posterior has none by name"]),
    "a target that is a function": ({"return Target(log_likelihood": "return log_likelihood  # ("}, ["target returns a function"]),
    "a sum over the batch": (
        {LIKELIHOOD: LIKELIHOOD.replace(".sum(-1)", ".sum()")},
        ["log_likelihood has shape () for one sample of 64 data, expected (S, *batch) = (1, 64)"],
    ),
    "pixels that are not summed": ({LIKELIHOOD: LIKELIHOOD[: -len(".sum(-1)")]}, ["log_likelihood has shape (1, 64, 6)"]),
    "a likelihood of NaN": ({LIKELIHOOD: f"{LIKELIHOOD} * torch.nan"}, ["log_likelihood is not finite (NaN)"]),
    "an impossible x": ({LIKELIHOOD: f"{LIKELIHOOD} - torch.inf"}, ["log_likelihood is minus infinity for all data"]),
    "a likelihood with noise": (
        {"logits=self.decoder(z)": "logits=self.decoder(z + 0.1 * torch.randn_like(z))"},
        ["log_likelihood gives the same z another value each time"],
    ),
    "a prior of another event": (
        {PRIOR: "Normal(x.new_zeros(D), x.new_ones(D))"},
        ["the prior has event shape (), the posterior (2,): Independent(prior, 1)"],
    ),
    "a prior of other data": (
        {PRIOR: "Independent(Normal(x.new_zeros(3, D), x.new_ones(3, D)), 1)"},
        ["the prior has batch shape (3,) for 64 data, expected () or (64,)"],
    ),
    "a prior that is a number": ({PRIOR: "1.0"}, ["the prior is a float"]),
    "a prior on half the line": (
        {PRIOR: "Independent(torch.distributions.Exponential(x.new_ones(D)), 1)"},
        ["the prior's log_prob fails at draws of the posterior"],
    ),
    "features of another size": ({FEATURES: ", x[:3])\n"}, ["the target's features are (3, 6), expected (B, F) = (64, F)"]),
    "eta_parts beyond eta": ({"    def __init__": '    eta_parts = {"mean": slice(0, 9)}\n\n    def __init__'}, ["eta_parts['mean'] = slice(0, 9, None)"]),
    "everything at once": (
        {
            "class Mine:": TUPLE,
            ENCODER: "Pair()",
            DECODER: f"{DECODER[:-1]}, nn.Dropout())",
            YIELD: "yield from ((x, x[:, 0]) for x in data.split(batch_size))",
            PRIOR: "Normal(x.new_zeros(D), x.new_ones(D))",
            LIKELIHOOD: LIKELIHOOD.replace(".sum(-1)", ".sum()"),
            FEATURES: ", x[:3])\n",
            '"test":': '"valid":',
        },
        [
            "batches yields a tuple, not a tensor",
            "batches('test', 64, ...) fails",
            "decoder.3 (Dropout) is in train mode",
            "the encoder returns a tuple, not one tensor",
            "log_likelihood has shape ()",
            "the target's features are (3, 6)",
            "the prior has event shape ()",
        ],
    ),
    # What is no problem at all.
    "a syntax error": ({"class Mine:": "class Mine"}, ["does not load: line 11: expected ':'"]),
    "an import that fails": ({"import torch\n": "import torch\nimport nowhere_at_all\n"}, ["does not load: ModuleNotFoundError: No module named 'nowhere_at_all'"]),
    "a constructor that fails": ({"problem = Mine()": "", "self.decoder = ": "self.decoder = self.nothing or "}, ["AttributeError: 'Mine' object has no attribute 'nothing'"]),
    "a constructor with arguments": ({"problem = Mine()": "", "def __init__(self)": "def __init__(self, width)"}, ["needs a value for width"]),
    "a bare module": ({SOUND: TUPLE.replace("class Mine:", "model = Pair()").replace("class", "from torch import nn\nPIXELS, D = 3, 2\nclass", 1)}, [f"Pair is a torch.nn.Module {WRAP}encoder, decoder, data) of its two halves"]),
    "a bare module with halves": ({SOUND: "from torch import nn\nclass VAE(nn.Module):\n    def encode(self, x): ...\n    def decode(self, z): ...\n"}, [f"VAE is a torch.nn.Module {WRAP}model, data=data)"]),
    "an empty file": ({SOUND: ""}, ["the file is empty: build one, problem = from_vae("]),
    "a file of something else": ({SOUND: "import math\nx = 3\n"}, ["there is no problem in the file"]),
}  # fmt: skip


def written(folder, replacements):
    """The sound file with these replacements, each of which replaces something."""
    text = SOUND
    for old, new in replacements.items():
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    file = folder / "my_model.py"
    file.write_text(text, encoding="utf-8")
    # The class and the instance would be two problems.
    return f"{file}:problem" if "problem = Mine()" in text else str(file)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_and_no_other(name, tmp_path):
    replacements, expected = FAULTS[name]
    found = examine_problem(written(tmp_path, replacements))
    told = [finding.text for finding in found.faults]
    assert len(told) == len(expected), told
    for line, part in zip(told, expected, strict=True):
        assert part in line
        assert "\n" not in line
    assert not found.sound
    assert str(found).count(told[0]) == 1


def test_what_depends_on_a_fault_is_not_looked_at_and_said_so(tmp_path):
    text = str(examine_problem(written(tmp_path, FAULTS["an encoder of another width"][0])))
    for about in ("the posterior", "log_likelihood", "leading dimensions"):
        assert f"  {about}: not looked at, because of " in text
    assert "the posterior: not looked at, because of the encoder" in text


def test_a_sound_file_is_told_what_it_is(tmp_path):
    found = examine_problem(written(tmp_path, {}))
    told = {finding.about: finding.text for finding in found}
    assert told["data"] == "B = 64 of shape (6,), float32; 200 to train with, 70 held out"
    assert told["φ and θ"] == "92 parameters and 78 parameters"
    assert told["z"] == "D = 2, event shape (2,)"
    assert told["prior"] == "Normal, KL in closed form"
    assert told["route"].startswith("factorized: ")
    assert told["exact"].startswith("yes, by quadrature")
    assert "reparameterization, score-function" in told["estimators"]
    refused = [finding.text for finding in found if finding.about == "not"]
    assert any("local-expectation" in line and line.endswith("not a Normal posterior") for line in refused)
    assert found.command.endswith("-e reparameterization -e leave-one-out -s 4 -r 2000")


def test_what_depends_on_shared_draws_is_told_so():
    found = examine_problem("bayesian-vae[latent_dim=2,hidden=3,weights=both]", batch_size=2)
    told = {finding.about: finding.text for finding in found}
    assert told["prior"].endswith("KL of each latent in closed form, given those it depends on")
    assert told["objective"] == "E_q[log p(x|z)] − 1 · KL of u − 1 · KL of w − 1500 · KL of z"
    assert told["route"] == "full: the data of a batch share their draws"


@pytest.mark.parametrize("name", ["categorical-vae[latent_dim=2]", "gamma-poisson", "quadratic"])
def test_what_is_said_to_be_usable_is_measured(name):
    """The first and the last of the estimators listed, and not the first of the refused ones."""
    found = examine_problem(name, batch_size=1)
    assert found.sound, str(found)
    told = [finding.text for finding in found if finding.about == "estimators"]
    usable = told[0].partition(": ")[2].split(", ")
    problem = load_problem(name)
    assert all(any(measured(problem, e, size) for size in (1, 2, 4, 8)) for e in (usable[0], usable[-1]))
    refused = next(finding.text for finding in found if finding.about == "not").partition(":")[0].split(", ")
    assert not any(measured(problem, refused[0], size) for size in (1, 2, 4, 8))


def measured(problem, estimator, num_samples):
    try:
        measure_variance(
            problem, create(estimator), num_samples=num_samples, replicates=2, warmup=0, batch_size=1
        )
    except UsageError:
        return False
    return True


@pytest.fixture
def faults_alone(monkeypatch):
    monkeypatch.setattr("elbograd.benchmarks.examination.examine.facts", lambda *_: iter(()))


def test_every_problem_of_the_catalogue_is_sound(faults_alone):
    for name in problem_catalogue():
        found = examine_problem(name)
        assert found.sound, str(found)


def test_nothing_is_changed(tmp_path):
    model = load_problem(written(tmp_path, FAULTS["BatchNorm in train mode"][0]))
    before, state = copy.deepcopy(model.encoder.state_dict()), torch.get_rng_state()
    assert not examine_problem(model).sound
    assert all(module.training for module in model.encoder.modules())
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad for p in model.encoder.parameters())


def test_train_mode_is_no_fault_on_the_full_route(tmp_path):
    found = examine_problem(written(tmp_path, FAULTS["BatchNorm in train mode"][0]), route="full")
    assert found.sound, str(found)
    assert found.command.endswith("--route full")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 256])
def test_any_batch_and_type(size, dtype, tmp_path, faults_alone):
    model = load_problem(written(tmp_path, {"D, PIXELS = 2, 6": "D, PIXELS = 128, 6"}))
    for side in (model.encoder, model.decoder):
        side.to(dtype)
    found = examine_problem(model, torch.rand(size, 6).round())
    assert found.sound, str(found)


def test_what_a_measurement_refuses_is_among_the_faults(tmp_path):
    """The measurement raises the first of the same list."""
    model = load_problem(written(tmp_path, FAULTS["dropout on both sides"][0]))
    with pytest.raises(UsageError) as error:
        measure_variance(model, "reparameterization", replicates=10)
    assert str(error.value) == examine_problem(model).faults[0].text


def test_things_that_are_no_problem():
    assert "this is a int, with none of encoder" in str(examine_problem(3))
    assert "Linear is a torch.nn.Module and not yet a problem" in str(examine_problem(nn.Linear(2, 2)))
    assert "Tanh is a class: give an instance, Tanh(...)" in str(examine_problem(nn.Tanh))


def said(*words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["elbograd", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return stop.value.code, out, err


def test_exit_status_of_the_command(tmp_path, monkeypatch, capsys):
    tools = {"monkeypatch": monkeypatch, "capsys": capsys}
    sound = written(tmp_path, {})
    code, out, err = said("check-problem", sound, **tools)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"next: {examine_problem(sound).command}"
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    replacements, expected = FAULTS["everything at once"]
    code, out, err = said("check-problem", written(wrong, replacements), **tools)
    assert (code, err) == (1, "")
    assert out.splitlines()[0].endswith(f": {len(expected)} faults")
    (tmp_path / "cells.ipynb").write_text(json.dumps({"cells": []}))
    (tmp_path / "model.txt").write_text(SOUND)
    for place, line in {
        tmp_path: "is a folder: give a file in it, such as",
        tmp_path / "cells.ipynb": "is a notebook: save what builds it as a .py file",
        tmp_path / "model.txt": "is no .py file: rename it",
        tmp_path / "none.py": "no such file",
        f"{tmp_path / 'my_model.py'}:nobody": "no 'nobody' there (problems found: Mine, problem)",
        tmp_path / "my_model.py": "expected one problem in the file, found Mine, problem; add :name",
        "vea": "unknown problem 'vea': did you mean vae?",
    }.items():
        code, out, err = said("check-problem", place, **tools)
        assert (code, out) == (2, "")
        assert line in err
        assert err.count("\n") == 1
    assert said("check-problem", sound, "--route", "fast", **tools)[0] == 2


@pytest.mark.parametrize("command", ["variance", "convergence"])
@pytest.mark.parametrize(
    "name", ["a sum over the batch", "a likelihood of NaN", "an encoder that returns a tuple"]
)
def test_commands_tell_a_fault_once_and_write_nothing(command, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    replacements, (line,) = FAULTS[name]
    two = ["-e", "leave-one-out", "-e", "score-function", "-s", "2,4", "-o", "run"]
    place = written(tmp_path, replacements)
    code, out, err = said(command, "-p", place, *two, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.count(line) == err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_why_cases_failed_is_printed_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])
    (tmp_path / "mine.py").write_text(
        "from elbograd.estimators import Estimator\nclass Mine(Estimator):\n"
        "    def forward(self, q, target, num_samples):\n        return 3\n"
    )
    words = [
        "variance",
        "-p",
        "quadratic",
        "-r",
        "50",
        "-e",
        "mine.py",
        "-e",
        "mine.py:Mine",
        "-s",
        "2",
        "-o",
        "run",
    ]
    code, out, err = said(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1
    assert " ".join(out.split()).count("forward returned a int, not an Estimate") == 1
    assert err.count("forward returned a int, not an Estimate") == 2  # as each case ends

"""The same misuses, sent to every public function: each is answered in one line that names the bad value."""

from __future__ import annotations

import inspect
import threading
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from elbograd.benchmarks import (
    advise,
    certify,
    measure_ratio,
    measure_throughput,
    measure_variance,
    train,
)
from elbograd.estimators import Estimator, EstimatorError, Target, UsageError, create
from elbograd.estimators.testing import check_estimator
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal

LONG = "x" * 10_000
DATA = torch.linspace(-1, 1, 24).reshape(12, 2)


class Model:
    """A problem of twelve data, to be damaged."""

    default_batch_size = 4

    def __init__(self):
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(2, 2), nn.Linear(1, 2)

    def posterior(self, eta):
        return Independent(Normal(eta[..., :1], eta[..., 1:].exp()), 1)

    def target(self, x):
        return Target(lambda z: -(self.decoder(z) - x).square().sum(-1), self.prior())

    def prior(self):
        weight = self.decoder.weight
        return Independent(Normal(weight.new_zeros(1), weight.new_ones(1)), 1)

    def batches(self, split, batch_size, generator=None):
        yield from DATA.split(batch_size)


def changed(**members):
    """A model with these members in place of its own; a function becomes a method."""
    model = type("Damaged", (Model,), {k: v for k, v in members.items() if inspect.isfunction(v)})()
    for name, value in members.items():
        if not inspect.isfunction(value):
            setattr(model, name, value)
    return model


def without(name):
    model = Model()
    delattr(model, name)
    return model


def made_in_inference_mode():
    with torch.inference_mode():
        return Model()


def with_property(name):
    """A model of which one property fails."""
    kept = Model()
    members = {key: value for key, value in vars(kept).items() if key != name}
    model = type("WithProperty", (Model,), {name: property(fails), "__init__": lambda self: None})()
    vars(model).update(members)
    return model


class Uncopyable(Estimator):
    """An estimator that holds a lock."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class WithoutForward(Estimator):
    """An estimator that lacks what makes it one."""


class Returns(Estimator):
    """An estimator that returns something else."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, q, target, num_samples):
        return self.answer


class ReturnsAndLearns(Returns):
    """One that has to be warmed up."""

    def update(self, estimate):
        raise AssertionError("what is no estimate is not used")


def fails(*_, **__):
    raise RuntimeError("no such thing\nand a second line")


FUNCTIONS = {
    "measure_variance": measure_variance,
    "measure_ratio": measure_ratio,
    "train": train,
    "measure_throughput": measure_throughput,
    "certify": certify,
    "advise": advise,
    "check_estimator": check_estimator,
}
# What a misuse is called by the function that it is sent to.
NAMES = {
    "certify": {"problem": "problems"},
    "advise": {"estimator": "estimators"},
    "check_estimator": {"estimator": "factory"},
}
QUICK = {
    "measure_variance": {"replicates": 4},
    "measure_ratio": {"replicates": 4, "relative_to": "reparameterization"},
    "train": {"steps": 1},
    "measure_throughput": {"seconds": 1e-3},
    "certify": {"budget": 1e-3},
    "advise": {"budget": 1e-3, "num_samples": (1,)},
    "check_estimator": {"factory": "exact"},
}

#: name -> (arguments, what the line must name)
PROBLEMS = {
    "an object": (object, "object is not a problem: it has no encoder, decoder, posterior"),
    "a class": (lambda: Model, "Model is a class: give an instance"),
    "no encoder": (partial(without, "encoder"), "it has no encoder"),
    "an encoder that is none": (lambda: changed(encoder=3), "encoder is a int, not a torch.nn.Module"),
    "an unknown name": (lambda: "veal", "unknown problem 'veal'"),
    "a missing file": (lambda: "missing/model.py", "missing/model.py: no such file"),
    "a file of no path": (lambda: "no\0thing/model.py", "no thing/model.py: no such file"),
    "a module of no name": (lambda: "no\0thing:problem", "no thing:problem: does not load"),
    "a long file": (lambda: f"{LONG}/model.py", "xxx…: no such file"),
    "a long name": (lambda: LONG, "unknown problem 'xxx"),
    "a long bracket": (lambda: f"vae[{LONG}", "malformed 'vae[xxx"),
    "a long parameter": (lambda: f"vae[{LONG}=1]", "unknown parameter 'xxx"),
    "a long module": (lambda: f"{LONG}:problem", "xxx…: does not load: ModuleNotFoundError"),
    "a bad bracket": (lambda: "vae[latent_dim=2", "malformed 'vae[latent_dim=2'"),
    "a grid": (lambda: "vae[latent_dim=[2,4]]", "latent_dim is a list"),
    "an empty name": (lambda: "", "malformed ''"),
    "no data": (lambda: changed(batches=lambda *_: iter(())), "training data"),
    "batches that return nothing": (lambda: changed(batches=lambda *_: None), "fails (TypeError"),
    "batches that fail": (lambda: changed(batches=fails), "fails (RuntimeError: no such thing)"),
    "batches of pairs": (lambda: changed(batches=lambda *_: iter([(DATA, DATA)])), "batches yields a tuple"),
    "NaN": (lambda: changed(batches=lambda *_: iter([DATA * torch.nan])), "x holds NaN"),
    "a batch shape": (
        lambda: changed(posterior=lambda self, eta: Normal(eta[..., :1], 1.0)),
        "the posterior has batch shape (",
    ),
    "a posterior that is none": (
        lambda: changed(posterior=lambda self, eta: eta),
        "posterior returns a Tensor",
    ),
    "a posterior that fails": (lambda: changed(posterior=fails), "posterior fails for shape"),
    "a target that is none": (lambda: changed(target=lambda self, x: x), "target returns a Tensor"),
    "a target that fails": (lambda: changed(target=fails), "target fails for shape"),
    "a likelihood that fails": (
        lambda: changed(target=lambda self, x: Target(fails, self.prior())),
        "fails for z",
    ),
    "a likelihood of NaN": (
        lambda: changed(
            target=lambda self, x: Target(lambda z: self.decoder(z).sum(-1) * torch.nan, self.prior())
        ),
        "log_likelihood is not finite (NaN)",
    ),
    "an encoder of another width": (
        lambda: changed(encoder=nn.Linear(3, 2)),
        "the encoder fails for x of shape",
    ),
    "an eta of none": (
        lambda: changed(encoder=nn.Sequential(nn.LazyLinear(4), nn.Flatten(0))),
        "eta has shape",
    ),
    "a default batch size": (
        lambda: changed(default_batch_size="all"),
        "default_batch_size must be an integer",
    ),
    "a default batch size of none": (
        lambda: changed(default_batch_size=None),
        "Damaged.default_batch_size must be an integer of at least 1, not None",
    ),
    "a property that fails": (lambda: with_property("encoder"), "WithProperty.encoder fails (RuntimeError"),
    "a label that fails": (lambda: with_property("label"), "WithProperty.label fails (RuntimeError"),
    "a latent dimension that fails": (lambda: with_property("latent_dim"), "WithProperty.latent_dim fails"),
    "a default batch size that fails": (
        lambda: with_property("default_batch_size"),
        "WithProperty.default_batch_size fails (RuntimeError: no such thing)",
    ),
    "the meta device": (
        lambda: changed(encoder=nn.Linear(2, 2, device="meta")),
        "encoder.weight is on the meta device",
    ),
    "inference tensors": (made_in_inference_mode, "was made under torch.inference_mode"),
}
ESTIMATORS = {
    "an object": (object, "object"),
    "nothing": (lambda: None, "None"),
    "a number": (lambda: 3, ""),
    "an unknown name": (lambda: "reparametrisation", "unknown estimator 'reparametrisation'"),
    "a missing file": (lambda: "missing/mine.py", "missing/mine.py: no such file"),
    "a bad bracket": (lambda: "score-function[kl=", "malformed 'score-function[kl='"),
    "an unknown parameter": (lambda: "score-function[colour=red]", "unknown parameter 'colour'"),
}
NOT_INSTANCES = {
    "a class": (lambda: type(create("reparameterization")), "is not an Estimator: give an instance"),
    "a module": (lambda: nn.Linear(1, 1), "is not an Estimator: give an instance"),
    "what cannot be copied": (Uncopyable, "Uncopyable cannot be deep-copied"),
}
BROKEN = {
    "no forward": (WithoutForward, "WithoutForward.forward is missing"),
    "None": (lambda: Returns(None), "forward returned a NoneType, not an Estimate"),
    "a tuple": (lambda: Returns((DATA, DATA)), "forward returned a tuple, not an Estimate"),
    "a tensor": (lambda: ReturnsAndLearns(DATA), "forward returned a Tensor, not an Estimate"),
}
OTHERS = {
    "x empty": ({"x": torch.zeros(0, 2)}, "not of shape (0, 2)"),
    "x a list": ({"x": [1.0, 2.0]}, "not [1.0, 2.0]"),
    "x a scalar": ({"x": torch.tensor(1.0)}, "not of shape ()"),
    "x complex": ({"x": DATA.to(torch.complex64)}, "torch.complex64"),
    "x of integers": ({"x": DATA.long()}, "dtype int64"),
    "x of NaN": ({"x": DATA * torch.nan}, "x holds NaN"),
    "x of another width": ({"x": torch.zeros(4, 3)}, "x of shape (4, 3)"),
    "x of another batch size": ({"x": DATA, "batch_size": 5}, "batch_size=5 is not the 12 data of x"),
    "S = 0": ({"num_samples": 0}, "num_samples must be an integer of at least 1, not 0"),
    "S = 1.5": ({"num_samples": 1.5}, "not 1.5"),
    "S = None": ({"num_samples": None}, "not None"),
    "S of NumPy's floats": ({"num_samples": np.float64(2)}, "num_samples must be an integer of at least 1"),
    "S = True": ({"num_samples": True}, "not True"),
    "R = 0": ({"replicates": 0}, "replicates must be an integer of at least 2, not 0"),
    "R = None": ({"replicates": None}, "replicates must be an integer of at least 2, not None"),
    "R a string": ({"replicates": "many"}, "not 'many'"),
    "warmup -1": ({"warmup": -1}, "warmup must be an integer of at least 0, not -1"),
    "steps 0.5": ({"steps": 0.5}, "steps must be an integer of at least 1, not 0.5"),
    "steps None": ({"steps": None}, "steps must be an integer of at least 1, not None"),
    "evaluate_every 0": ({"evaluate_every": 0}, "evaluate_every must be an integer of at least 1, not 0"),
    "importance_samples -1": ({"importance_samples": -1}, "importance_samples"),
    "importance_samples None": ({"importance_samples": None}, "importance_samples"),
    "train_steps None": ({"train_steps": None}, "train_steps must be an integer of at least 0, not None"),
    "train_steps -1": ({"train_steps": -1}, "train_steps must be an integer of at least 0, not -1"),
    "stream True": ({"stream": True}, "stream must be an integer of at least 0, not True"),
    "stream a string": ({"stream": "2"}, "stream must be an integer of at least 0, not '2'"),
    "stream -1": ({"stream": -1}, "stream must be an integer of at least 0, not -1"),
    "stream NaN": ({"stream": float("nan")}, "stream must be an integer of at least 0, not nan"),
    "stream a tensor": (
        {"stream": torch.tensor(2)},
        "stream must be an integer of at least 0, not tensor(2)",
    ),
    "chunk 0": ({"chunk": 0}, "chunk must be an integer of at least 1, not 0"),
    "batch size 0": ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
    "batch size 13": ({"batch_size": 13}, "batch size 13 exceeds the 12 training data"),
    "seed -1": ({"seed": -1}, "seed must be an integer from 0 to 2**63 - 1, not -1"),
    "seed 2**64": ({"seed": 2**64}, f"not {2**64}"),
    "seed 0.5": ({"seed": 0.5}, "not 0.5"),
    "seed None": ({"seed": None}, "not None"),
    "an unknown device": ({"device": "tpu"}, "unknown device 'tpu'"),
    "a device of another type": ({"device": 3}, "unknown device '3'"),
    "an absent device": ({"device": "cuda:99"}, "cuda:99"),
    "an unknown dtype": ({"dtype": "float8"}, "unknown dtype 'float8'"),
    "a dtype of integers": ({"dtype": torch.int64}, "unknown dtype torch.int64"),
    "a dtype of another type": ({"dtype": 3}, "unknown dtype 3"),
    "an unknown route": ({"route": "scenic"}, "route='scenic' is not one of"),
    "a route of another type": ({"route": []}, "route=[] is not one of"),
    "an unknown wrt": ({"wrt": "psi"}, "wrt='psi' is not one of"),
    "precision 2": ({"precision": 2.0}, "precision must be between 0 and 1, not 2.0"),
    "precision a string": ({"precision": "high"}, "not 'high'"),
    "an unknown optimizer": ({"optimizer": "lion"}, "optimizer='lion' is not one of"),
    "learning rate NaN": (
        {"learning_rate": float("nan")},
        "learning_rate must be a positive number, not nan",
    ),
    "learning rate a string": ({"learning_rate": "fast"}, "not 'fast'"),
    "learning rate too large": ({"learning_rate": 10**400}, "learning_rate must be a positive number, not 1"),
    "an unknown mode": ({"mode": "jit"}, "unknown mode 'jit'"),
    "a long mode": ({"mode": LONG}, "unknown mode 'xxx"),
    "a mode of another type": ({"mode": None}, "unknown mode None"),
    "seconds 0": ({"seconds": 0}, "seconds must be a positive number, not 0"),
    "seconds too many": ({"seconds": 10**400}, "seconds must be a positive number, not 1"),
    "seconds a string": ({"seconds": "long"}, "not 'long'"),
    "budget -1": ({"budget": -1}, "budget must be a positive number of seconds, not -1"),
    "budget too large": ({"budget": 10**400}, "budget must be a positive number of seconds, not 1"),
    "budget a string": ({"budget": "small"}, "not 'small'"),
    "confidence 2": ({"confidence": 2}, "confidence must be between 0.5 and 1, not 2"),
    "confidence a string": ({"confidence": "high"}, "'high'"),
    "tolerance 0": ({"tolerance": 0}, "tolerance must be between 0 and 1, not 0"),
    "no problems": ({"problems": []}, "problems is empty"),
    "no estimators": ({"estimators": []}, "not []"),
    "estimators a string": ({"estimators": "exact"}, "not 'exact'"),
    "estimators of bytes": ({"estimators": b"exact"}, "not b'exact'"),
    "problems of bytes": ({"problems": b"quadratic"}, "bytes is not a problem"),
    "on_progress a number": ({"on_progress": 3}, "on_progress must be a function, not 3"),
    "on_step a number": ({"on_step": 3}, "on_step must be a function, not 3"),
}


def calls(*given):
    """As `misuses`, as a list."""
    return list(misuses(*given))


def misuses(table, argument=None, functions=FUNCTIONS):
    """(function, arguments, message) of every misuse whose argument the function has."""
    for what, (given, message) in table.items():
        for name in functions:
            own = NAMES.get(name, {}).get(argument, argument)
            arguments = {own: given} if argument else given
            if arguments.keys() <= inspect.signature(FUNCTIONS[name]).parameters.keys():
                yield pytest.param(name, arguments, message, id=f"{what}-{name}")


def call(name, arguments):
    function = FUNCTIONS[name]
    given = {"problem": Model(), "estimator": "reparameterization", **QUICK[name], **arguments}
    taken = inspect.signature(function).parameters
    return function(**{key: value for key, value in given.items() if key in taken})


def is_told(name, arguments, message, documented=UsageError):
    """The function raises what it documents, in one line that holds the message."""
    with pytest.raises((UsageError, AssertionError) if name == "check_estimator" else documented) as caught:
        call(name, arguments)
    line = str(caught.value).removeprefix("1 of 1 checks failed:\n  ")
    assert message in line
    assert "\n" not in line
    assert len(line) < len(LONG)


@pytest.mark.parametrize(("name", "arguments", "message"), calls(PROBLEMS, "problem"))
def test_what_is_no_problem(name, arguments, message):
    is_told(name, {key: build() for key, build in arguments.items()}, message)


@pytest.mark.parametrize(("name", "arguments", "message"), calls(ESTIMATORS, "estimator"))
def test_what_is_no_estimator(name, arguments, message):
    built = {key: build() for key, build in arguments.items()}
    is_told(name, {k: [v] if k == "estimators" else v for k, v in built.items()}, message)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    calls(
        NOT_INSTANCES,
        "estimator",
        ("measure_variance", "measure_ratio", "train", "measure_throughput", "advise"),
    ),
)
def test_what_is_no_instance(name, arguments, message):
    built = {key: build() for key, build in arguments.items()}
    is_told(name, {k: [v] if k == "estimators" else v for k, v in built.items()}, message)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    calls(BROKEN, "estimator", ("measure_variance", "measure_ratio", "train", "measure_throughput")),
)
def test_what_breaks_the_protocol(name, arguments, message):
    is_told(name, {key: build() for key, build in arguments.items()}, message, EstimatorError)


@pytest.mark.parametrize(("name", "arguments", "message"), calls(OTHERS))
def test_other_arguments(name, arguments, message):
    if name == "advise" and "num_samples" in arguments:
        arguments = {"num_samples": (arguments["num_samples"],)}
    is_told(name, arguments, message)


ALONE = {
    "no problem at all": ("measure_variance", {"problem": None}, "NoneType is not a problem"),
    "a single S": ("advise", {"num_samples": 4}, "num_samples must be a list of S, such as (1, 4), not 4"),
    "S of bytes": (
        "advise",
        {"num_samples": b"12"},
        "num_samples must be a list of S, such as (1, 4), not b",
    ),
    "no S": ("advise", {"num_samples": ()}, "num_samples is empty"),
    "the other estimator": ("measure_ratio", {"relative_to": 3}, "3 is not an Estimator"),
    "a merge without a stream": ("measure_variance", {"merge": [1]}, "merge needs stream"),
    "a merge of numbers": (
        "measure_variance",
        {"merge": [1], "stream": 1},
        "the sums of other results, not 1",
    ),
    "no data held out": (
        "train",
        {"problem": changed(batches=lambda _, split, *__: iter([DATA[:4]] if split == "train" else []))},
        "no data to evaluate on: batches('test', ...) yields none",
    ),
    "no problem of several": ("certify", {"problems": ["quadratic", 3]}, "int is not a problem"),
}


@pytest.mark.parametrize(("name", "arguments", "message"), ALONE.values(), ids=ALONE)
def test_what_one_function_alone_takes(name, arguments, message):
    is_told(name, arguments, message)


ON_A_PROBLEM = [name for name in FUNCTIONS if name != "check_estimator"]


@pytest.mark.parametrize("name", ON_A_PROBLEM)
def test_an_estimator_that_does_not_support_the_posterior(name):
    discrete = changed(posterior=lambda self, eta: Independent(Bernoulli(logits=eta[..., :1]), 1))
    chosen = {NAMES.get(name, {}).get("estimator", "estimator"): "reparameterization"}
    if name == "advise":
        chosen = {"estimators": ["reparameterization"]}
    is_told(name, {NAMES.get(name, {}).get("problem", "problem"): discrete, **chosen}, "reparameteriz")


@pytest.mark.parametrize(
    ("mode", "problem"), [(torch.no_grad, lambda: "quadratic"), (torch.inference_mode, Model)]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_called_where_gradients_are_switched_off(mode, problem, name):
    given = {NAMES.get(name, {}).get("problem", "problem"): problem()}
    if name == "advise":
        given["estimators"] = ["exact"]
    with mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(name, given)
        assert not torch.is_grad_enabled()


def test_data_made_in_inference_mode():
    given = {"problem": Model(), "replicates": 100}
    with torch.inference_mode():
        inside = call("measure_variance", {**given, "x": DATA.clone()}).total
    assert inside == call("measure_variance", {"x": DATA, "replicates": 100}).total


@pytest.mark.parametrize(
    "name", ["measure_variance", "measure_ratio", "train", "measure_throughput", "advise"]
)
def test_numpy_counts(name):
    two = np.int64(2)
    given = {
        "problem": changed(default_batch_size=np.int64(4)),
        **dict.fromkeys(
            ("replicates", "steps", "importance_samples", "train_steps", "warmup", "stream"), two
        ),
        "num_samples": (two,) if name == "advise" else two,
        "seed": np.int64(3),
        "estimators": ["reparameterization"],
    }
    call(name, given)
    call(name, {**given, "batch_size": np.int64(4)})


def test_numpy_seed_of_a_certificate():
    call("certify", {"seed": np.int64(3), "problems": ["quadratic"]})

"""`elbograd list --long`: claims, cost and reference of every estimator."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
from elbograd.benchmarks.cli.listing import cost_in_words, describe_estimators, reference_of
from elbograd.estimators import Estimate, Estimator, analytic_kl, catalogue, create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.plugins.registry import REGISTRY

_BIAS = r" bias (\S+)%(?: … (\S+)%)? of the gradient( of the ELBO)?, (exactly|measured) \("


class Greedy(Estimator):
    """Looks at log p(x|z) five times, in three calls.

    References:
        Nobody, A Title That Goes
        On, 1900, eq. 1.
        Somebody, Another, 1901.
    """

    min_samples = 3
    unbiased = False

    def forward(self, q, target, num_samples):
        z = q.sample((num_samples,))
        f = target.log_likelihood(z) + target.log_likelihood(z.repeat(3, 1, 1))[:num_samples]
        f = (f + target.log_likelihood(z)).detach() / 3
        kl = analytic_kl(q, target)
        return Estimate(surrogate=(f * q.log_prob(z)).mean(0) - kl, value=f.mean(0) - kl)


class Nameless(Greedy):
    """No section of that name."""


def test_every_estimator_has_all_of_it_at_80_columns(elbograd):
    code, out, _ = elbograd("list", "--long")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    paragraphs = {p.splitlines()[0]: p for p in out.strip().split("\n\n")}
    assert list(paragraphs) == list(catalogue())
    for name in paragraphs:
        for label in ("gradient of", "needs", "cost", "reference"):
            assert re.search(rf"^    {label} +\S", paragraphs[name], re.MULTILINE), (name, label)
        assert "cannot be used" not in paragraphs[name]
    assert "the IWAE bound, biased" in paragraphs["iwae-sticking-the-landing"]
    assert "S ≥ 2, no derivative of log p(x|z) in z, iid draws" in paragraphs["leave-one-out"]
    assert " even S ≥ 2, no derivative" in paragraphs["disarm"]
    in_line = {name: " ".join(text.split()).replace("- ", "-") for name, text in paragraphs.items()}
    assert "its mean depends on log p(x|z) off the support" in in_line["reinmax"]
    assert "its mean depends" not in in_line["muprop"]
    for name in paragraphs:
        estimator = create(name)
        told = not estimator.unbiased or estimator.objective == "relaxed"
        found = re.search(_BIAS, in_line[name])
        assert (found is not None) == told, in_line[name]
        if found is not None:
            assert float(found[2] or math.inf) > float(found[1]) >= 0
            of_elbo = estimator.objective in ("elbo", "relaxed")
            assert (found[3] is not None) == of_elbo
    assert "exactly (small-vae[posterior=bernoulli], S = 2)" in in_line["straight-through-gumbel-softmax"]
    assert "measured (small-vae[posterior=bernoulli], S = 2)" in in_line["gumbel-softmax"]


@pytest.mark.parametrize(
    ("estimator", "cost"),
    [
        (Greedy(), "5 S evaluations of log p(x|z) in 3 calls"),
        (create("reparameterization"), "S evaluations of log p(x|z) in 1 call "),
        (create("measure-valued"), "3 D S + S evaluations of log p(x|z) in 2 calls"),
        (create("optimal-baseline[pilot=16]"), "S + 16 evaluations of log p(x|z) in 2 calls"),
        (create("exact[method=enumeration]"), "8 (at D = 3, S = 8) evaluations of log p(x|z) in 1 call"),
        (
            create("local-expectation"),
            "D S + S evaluations of log p(x|z) in 2 calls (Bernoulli q, D dimensions); "
            "2 D S + S evaluations in 2 calls (3-ary q, D dimensions)",
        ),
        (create("arsm"), "2 S evaluations of log p(x|z) in 2 calls (Bernoulli q); 4 S evaluations"),
        (create("unordered-set"), "S evaluations of log p(x|z) in 1 call (Bernoulli q)"),
        (create("carms"), "S evaluations of log p(x|z) in 1 call (Bernoulli q)"),
    ],
    ids=lambda value: value.label if isinstance(value, Estimator) else "",
)
def test_the_cost_is_what_is_counted(estimator, cost):
    assert cost_in_words(estimator).startswith(cost)


def test_the_reference_is_the_first_entry_of_the_docstring():
    assert reference_of(Greedy()) == "Nobody, A Title That Goes On, 1900, eq. 1."
    assert reference_of(Nameless()) == "-"


def test_a_broken_plugin_is_one_line_and_breaks_nothing(monkeypatch):
    def broken():
        raise RuntimeError("no idea\nat all")

    monkeypatch.setattr(REGISTRY, "registered", {"broken": (broken, "-"), "fine": (Nameless, "-")})
    *others, failed, fine = describe_estimators(())
    assert len(others) == len(catalogue()) - 2
    assert failed == "broken\n  cannot be used: broken: RuntimeError: no idea"
    assert fine.endswith("reference    -")


class Quits(Greedy):
    """Rings \x07 the bell\x1b[31m."""

    def forward(self, q, target, num_samples):
        raise SystemExit(0)


class Rings(Quits):
    forward = Greedy.forward

    __doc__ = Quits.__doc__


@pytest.mark.parametrize("name", ["reinforce", "x\x1b[31m", "os:system", "quits"])
def test_what_was_asked_for_and_cannot_be_used_is_bad_usage(elbograd, monkeypatch, name):
    monkeypatch.setattr(REGISTRY, "registered", {"quits": (Quits, "-")})
    code, out, err = elbograd("list", "--long", "-e", name)
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
    assert err.strip().isprintable()


def test_what_plugins_say_of_themselves_rings_no_bell(elbograd, monkeypatch):
    monkeypatch.setattr(REGISTRY, "registered", {"rings": (Rings, "two\nlines\x1b[31m")})
    for arguments in (["list"], ["list", "--long", "-e", "rings"]):
        code, out, _ = elbograd(*arguments)
        assert code == 0
        assert all(line.isprintable() for line in out.split("\n"))
        assert "rings" in out


def test_third_parties_are_imported_when_asked_for(monkeypatch):
    class Point:
        name, value, module, dist = "from-afar", "nowhere:Nothing", "json", None

        @staticmethod
        def load():
            raise ImportError("nowhere to be found")

    monkeypatch.setattr("elbograd.estimators.plugins.finding._installed", lambda *_: [Point])
    assert (
        list(describe_estimators(()))[-1] == "from-afar\n  from ? (nowhere:Nothing); -e from-afar shows more"
    )
    with pytest.raises(UsageError, match="nowhere to be found"):
        list(describe_estimators(["from-afar"]))


def test_the_short_list_stays_fast_and_names_go_with_long(elbograd):
    code = (
        "import sys; sys.argv = ['elbograd', 'list']\n"
        "from elbograd.benchmarks.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"
    status, out, _ = elbograd("list", "--long", "-e", "dreg")
    assert (status, out.count("reference")) == (0, 1)
    assert elbograd("list", "-e", "dreg")[0] == 2


def test_the_module_is_a_command_too():
    command = [sys.executable, "-m", "elbograd.benchmarks.cli.main", "list"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.startswith("estimators:")


@pytest.mark.parametrize(("command", "said"), [("list", "stopped"), ("variance", "goes on from here")])
def test_an_interrupt_says_what_goes_on(elbograd, monkeypatch, command, said):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("elbograd.benchmarks.problems.registry.problem_catalogue", interrupted)
    monkeypatch.setattr("elbograd.benchmarks.cases.variance.Variance.grid", interrupted)
    code, _, err = elbograd(command)
    assert (code, err.strip().endswith(said)) == (130, True)

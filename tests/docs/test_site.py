"""The site under docs/: it builds without a warning, needs no network, and leaves no estimator out."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest
from docutils import nodes
from elbograd.benchmarks.cli.listing import describe_estimators
from elbograd.estimators.plugins.registry import BUILTIN_NAMES, REGISTRY, catalogue
from filelock import FileLock
from pages import ROOT, Page

sys.path.insert(0, str(ROOT / "docs" / "extensions"))
import formulas
import links
import mathml
import reference

README = Page("README.md").text


@pytest.fixture(scope="module")
def site(tmp_path_factory, worker_id):
    """The site, built once; Sphinx stops at a warning, of a link, an anchor, a docstring or TeX."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "site"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
            built = subprocess.run(
                [*command, "-c", "docs", ".", str(folder)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert built.returncode == 0, built.stderr
    return folder


def test_every_page_and_every_estimator_is_there(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.stem for path in (site / "docs").glob("*.html")}
    built = {path.stem for path in (site / "docs" / "estimators").glob("*.html")}
    assert built == {*BUILTIN_NAMES, "index"}
    home = (site / "docs" / "index.html").read_text(encoding="utf-8")
    assert all(f'href="estimators/{name}.html"' in home for name in BUILTIN_NAMES)


def test_nothing_is_fetched(site):
    """No script, style, font or image of another host, in no page and no style sheet."""
    fetched = re.compile(
        r"""(?:\bsrc|<link\b[^>]*\bhref)=["'](?:https?:)?//|url\(["']?(?:https?:)?//|@import"""
    )
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > len(BUILTIN_NAMES)
    assert [path.name for path in files if fetched.search(path.read_text(encoding="utf-8"))] == []
    assert fetched.search('<script src="https://cdn.example/x.js">')


def test_mathematics_is_mathml(site):
    tutorial = (site / "docs" / "tutorial.html").read_text(encoding="utf-8")
    assert tutorial.count("<math") > 20
    for page in (site / "docs").glob("*.html"):
        article = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", article[0] if article else "", flags=re.DOTALL)
        assert "$" not in text, page.name
        assert "\\frac" not in text


@pytest.mark.parametrize(
    ("tex", "space"), [(r"\log p", True), (r"\log(p)", False), (r"\nabla \log", False), ("p", False)]
)
def test_an_operator_stands_apart_from_its_argument(tex, space):
    assert ("mspace" in mathml.translated(nodes.math("", tex), as_block=False)) == space


def test_each_estimator_is_in_one_group():
    found = [name for names in reference.groups(README).values() for name in names]
    assert sorted(found) == sorted(BUILTIN_NAMES)


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_pages_say_what_the_code_says(name):
    page = reference.estimator_page(name)
    assert reference.escape(catalogue()[name]) in page
    (told,) = describe_estimators([name])
    facts = reference.facts(name)
    bias = ["bias"] if "bias" in facts else []
    assert list(facts) == ["gradient of", *bias, "needs", "cost", "reference"]
    assert all(" ".join(text.split()) in " ".join(told.split()) for text in facts.values())
    assert facts["reference"].rstrip(".")[:40] in page.replace("\\", "")


def test_the_estimate_is_displayed_whole_and_nothing_is_lost():
    formula = "ĝ = (1/S) Σ_s (f(z_s) − 1/(S−1) Σ_{t≠s} f(z_t)) ∇_η log q(z_s) − ∇_η KL."
    assert f".. code-block:: formula\n\n    {formula}\n\nUnbiased" in reference.estimator_page(
        "leave-one-out"
    )
    for name in BUILTIN_NAMES:
        body, _ = reference.split_docstring(inspect.getdoc(REGISTRY.find(name)))
        assert reference.display(body).split() == body.split()


def test_options_are_those_of_the_constructor():
    page = reference.estimator_page("thermodynamic")
    assert "``thermodynamic[partitions=" in page
    assert "* - ``smallest``" in page
    assert "Options" not in reference.estimator_page("vargrad")


def test_public_names_are_documented():
    page = reference.api_page()
    for name in ("elbograd.benchmarks.measure_variance", "elbograd.estimators.Estimator"):
        assert re.search(rf"^\.\. auto\w+:: {re.escape(name)}$", page, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "set_as"),
    [
        ("Σ_s f(z_s)", "Σ<s> f(z<s>)"),
        ("E_{π_β}[log w]", "E<π<β>>[log w]"),
        ("σ^4 and w_k^β", "σ{4} and w<k>{β}"),
        ("num_samples, log_likelihood, my_idea.py", "num_samples, log_likelihood, my_idea.py"),
        ("∇_η KL", "∇<η> KL"),
        ("Σ_{t≠s} f(z_t)", "Σ<t≠s> f(z<t>)"),
        ("J_iᵀ h_i, ŵ_k² b*_k", "J<i>ᵀ h<i>, ŵ<k>² b*<k>"),
    ],
)
def test_formulas_are_set(text, set_as):
    def flat(node):
        inside = "".join(map(flat, node.children)) or node.astext()
        kind = type(node).__name__
        return {"subscript": f"<{inside}>", "superscript": f"{{{inside}}}"}.get(kind, inside)

    assert "".join(map(flat, formulas.typeset(text))) == set_as


def test_links_to_folders_lead_to_their_readme():
    rewritten = links.LINK.sub(
        lambda found: links.link_to_readme(found, ROOT / "docs"), "[rows](../results/published)"
    )
    assert rewritten == "[rows](../results/README.md)"


def test_the_home_page_is_the_navigation():
    tree = links.navigation("# T\n\n## Learn\n\n- [a](a.md), [b](b.md)\n\n## Reference\n\n[c](../c.md)\n")
    assert re.findall(r"^(\w.*) <(.+)>$", tree, flags=re.MULTILINE) == [
        ("A", "a.md"),
        ("B", "b.md"),
        ("C", "../c.md"),
        ("Estimators", "estimators/index"),
        ("Python interface", "api"),
    ]


def test_tex_that_is_not_understood_is_a_warning(monkeypatch):
    warned = []
    monkeypatch.setattr(mathml.logger, "warning", lambda *args, **kwargs: warned.append(args))
    assert mathml.translated(nodes.math("", r"\nosuchcommand{x}"), as_block=False) == ""
    assert len(warned) == 1
    assert mathml.translated(nodes.math("", r"\nabla_\phi"), as_block=False).startswith("<math")
    assert len(warned) == 1

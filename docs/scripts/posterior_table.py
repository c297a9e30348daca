"""Writes the tables of docs/posteriors.md: which estimator works under which posterior, and why not.

python docs/scripts/posterior_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.estimators import Target, catalogue, create
from torch import distributions as td

PAGE = Path(__file__).parents[2] / "docs" / "posteriors.md"
BEGIN, END = "<!-- posteriors -->\n", "<!-- end of posteriors -->\n"
DISCRETE_BEGIN, DISCRETE_END = "<!-- discrete posteriors -->\n", "<!-- end of discrete posteriors -->\n"
PROBLEMS = {
    "Gaussian": "small-vae",
    "full Gaussian": "small-vae[posterior=full-gaussian]",
    "Gamma": "gamma-poisson",
    "Beta": "small-vae[posterior=beta]",
    "flow": "small-vae[posterior=flow]",
    "von Mises": "small-vae[posterior=von-mises]",
    "Bernoulli": "small-vae[posterior=bernoulli]",
    "categorical": "small-vae[posterior=categorical]",
}


#: Column -> problem; of integers there is none, an estimator meets them where a user brings them.
INTEGERS = "integers"
DISCRETE = {
    "Bernoulli": "small-vae[posterior=bernoulli]",
    "K-ary, one-hot": "small-vae[posterior=categorical]",
    "K-ary, integers": INTEGERS,
    "two layers": "sigmoid-belief-network",
}


def reason(specification: str, problem: str) -> str | None:
    """Why the estimator cannot be used on the problem, or None."""
    if problem == INTEGERS:
        return _reason_of_integers(specification)
    loaded = load_problem(problem)
    x = first_batch(loaded, 3, 0)
    estimator = create(specification)
    num_samples = max(2, estimator.min_samples)
    return estimator.supports(loaded.posterior(loaded.encoder(x)), loaded.target(x), num_samples)


def _reason_of_integers(specification: str) -> str | None:
    """The same of two variables of three states, `Categorical`, with a prior of the same kind."""

    def independent(logits: torch.Tensor) -> td.Distribution:
        return td.Independent(td.Categorical(logits=logits, validate_args=False), 1, validate_args=False)

    estimator = create(specification)
    q, prior = independent(torch.zeros(4, 2, 3, requires_grad=True)), independent(torch.zeros(2, 3))
    target = Target(lambda z: z.float().sum(-1), prior, features=torch.zeros(4, 1))
    return estimator.supports(q, target, max(2, estimator.min_samples))


def cell(name: str, problem: str, notes: dict[str, int]) -> str:
    """✓, ✓ˢ where it takes kl=sampled, or the number of the reason."""
    why = reason(name, problem)
    if why is None:
        return "✓"
    if "kl=sampled" in why:
        if reason(f"{name}[kl=sampled]", problem) is None:
            return "✓ˢ"
        why = str(reason(f"{name}[kl=sampled]", problem))
    why = why if problem == INTEGERS else _without_the_family(why)
    return f"[{notes.setdefault(why, len(notes) + 1)}]"


def _without_the_family(why: str) -> str:
    """The reason, less what it says of the posterior at hand."""
    why = re.sub(r"(, not an? |; the posterior is a |; \w+ is not ).*", "", why)
    return re.sub(r"a \w+ posterior cannot be", "the posterior cannot be", why)


def table() -> str:
    """The table in Markdown, and the reasons below it."""
    notes: dict[str, int] = {}
    lines = [["estimator", *PROBLEMS], ["---", *(":---:" for _ in PROBLEMS)]]
    lines += [[f"`{name}`", *(cell(name, p, notes) for p in PROBLEMS.values())] for name in catalogue()]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    reasons = "\n".join(f"- [{number}] {why}" for why, number in notes.items())
    return (
        f"{grid}\n\n✓ˢ: with `kl=sampled`. What each says of itself where it cannot be used:\n\n{reasons}\n"
    )


def discrete_table() -> str:
    """What works on discrete latents, what it claims and what it asks of f, and the reasons below."""
    notes: dict[str, int] = {}
    lines = [
        ["estimator", *DISCRETE, "objective", "unbiased", "f off the support"],
        ["---", *(":---:" for _ in DISCRETE), "---", ":---:", "---"],
    ]
    for name in catalogue():
        cells = [cell(name, problem, {}) for problem in DISCRETE.values()]
        if not {"✓", "✓ˢ"} & {*cells}:
            continue
        estimator = create(name)
        uses = {
            "its mean depends on it": estimator.depends_off_support,
            "evaluated": estimator.relaxes_target,
            "differentiated": estimator.derivatives > 0 and not estimator.deterministic,
        }
        use = next((words for words, holds in uses.items() if holds), "")
        objective = estimator.objective.partition("[")[0]
        cells = [cell(name, problem, notes) for problem in DISCRETE.values()]
        lines.append([f"`{name}`", *cells, objective, "✓" if estimator.unbiased else "no", use])
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    reasons = "\n".join(f"- [{number}] {why}" for why, number in notes.items())
    return f"{grid}\n\n✓ˢ: with `kl=sampled`.\n\n{reasons}\n"


def page_with_tables(text: str) -> str:
    """The page, both tables made anew."""
    for begin, end, made in ((BEGIN, END, table), (DISCRETE_BEGIN, DISCRETE_END, discrete_table)):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{made()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

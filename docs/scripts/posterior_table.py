"""Writes the table of docs/posteriors.md: which estimator works under which posterior, and why not.

python docs/scripts/posterior_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch
from elbograd.estimators import catalogue, create

PAGE = Path(__file__).parents[2] / "docs" / "posteriors.md"
BEGIN, END = "<!-- posteriors -->\n", "<!-- end of posteriors -->\n"
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


def reason(specification: str, problem: str) -> str | None:
    """Why the estimator cannot be used on the problem, or None."""
    loaded = load_problem(problem)
    x = first_batch(loaded, 3, 0)
    estimator = create(specification)
    num_samples = max(2, estimator.min_samples)
    return estimator.supports(loaded.posterior(loaded.encoder(x)), loaded.target(x), num_samples)


def cell(name: str, problem: str, notes: dict[str, int]) -> str:
    """✓, ✓ˢ where it takes kl=sampled, or the number of the reason."""
    why = reason(name, problem)
    if why is None:
        return "✓"
    if "kl=sampled" in why:
        if reason(f"{name}[kl=sampled]", problem) is None:
            return "✓ˢ"
        why = str(reason(f"{name}[kl=sampled]", problem))
    return f"[{notes.setdefault(_without_the_family(why), len(notes) + 1)}]"


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


if __name__ == "__main__":
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")

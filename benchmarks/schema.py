"""The long rows that results are made of: one measured value a row. Imports neither torch nor pandas."""

from __future__ import annotations

from typing import Any

SCHEMA_VERSION = 2

#: column -> (type, default, meaning). ``None`` is "does not apply".
COLUMNS: dict[str, tuple[type, Any, str]] = {
    "schema_version": (int, SCHEMA_VERSION, "version of this table"),
    "run": (str, "", "name of the run folder"),
    "case": (str, "", "stable identifier of the case within any run"),
    "benchmark": (str, "", "variance, convergence, throughput, certify or reproduce"),
    "problem": (str, "", "problem specification"),
    "estimator": (str, "", "estimator specification"),
    "objective": (str, "", "what a variance is of the gradient of: elbo, iwae, ..."),
    "parameters": (str, "{}", "the case's other settings, as JSON"),
    "num_samples": (int, None, "S, samples an estimate"),
    "batch_size": (int, None, "B, data a batch"),
    "latent_dim": (int, None, "D, size of the latent variable"),
    "seed": (int, None, "seed of this repetition"),
    "step": (int, None, "training step at which it was measured; 0 is the initialization"),
    "device": (str, "cpu", "device"),
    "dtype": (str, "float32", "floating-point type"),
    "mode": (str, "eager", "eager, compiled or cuda-graph"),
    "parameter": (str, "", "the part: an encoder parameter, layer, datum, ...; empty for the whole of phi"),
    "metric": (str, "", "what was measured"),
    "value": (float, None, "the measured value"),
    "stderr": (float, None, "its standard error"),
    "ci_low": (float, None, "lower end of its interval (95% unless the metric says otherwise)"),
    "ci_high": (float, None, "upper end of its interval"),
    "n": (int, None, "independent repetitions behind the value"),
    "unit": (str, "", "unit of the value"),
    "status": (str, "done", "done, skipped, diverged, failed"),
    "reason": (str, "", "why it was skipped or failed; a warning when done"),
}


def row(**values: Any) -> dict[str, Any]:
    """A complete row: ``values`` over the defaults.

    Raises:
        KeyError: a column that is not in the schema.
    """
    unknown = values.keys() - COLUMNS.keys()
    if unknown:
        raise KeyError(f"not a column of the results: {', '.join(sorted(unknown))}")
    return {name: values.get(name, default) for name, (_, default, _) in COLUMNS.items()}

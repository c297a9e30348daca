"""Measuring ELBO-gradient estimators: variance, bias, correctness, convergence and throughput.

Importing this package does not import torch; the first use of a name does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .store import load_results

if TYPE_CHECKING:
    from .advice.advise import advise
    from .advice.result import Advice
    from .certification.certify import certify
    from .rows.certificate import Certificate
    from .statistics.ratios import Ratio
    from .throughput.measure import ThroughputResult, measure_throughput
    from .training.train import TrainResult, train
    from .variance.measure import measure_variance
    from .variance.ratio import measure_ratio
    from .variance.result import VarianceResult

_LAZY = {
    "Advice": "advice.result",
    "advise": "advice.advise",
    "Certificate": "rows.certificate",
    "certify": "certification.certify",
    "TrainResult": "training.train",
    "train": "training.train",
    "Ratio": "statistics.ratios",
    "measure_ratio": "variance.ratio",
    "ThroughputResult": "throughput.measure",
    "measure_throughput": "throughput.measure",
    "VarianceResult": "variance.result",
    "measure_variance": "variance.measure",
}

__all__ = [
    "Advice",
    "Certificate",
    "Ratio",
    "ThroughputResult",
    "TrainResult",
    "VarianceResult",
    "advise",
    "certify",
    "load_results",
    "measure_ratio",
    "measure_throughput",
    "measure_variance",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

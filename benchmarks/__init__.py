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
    from .certification.result import Certificate
    from .convergence import TrainResult, train
    from .paired import measure_ratio
    from .ratios import Ratio
    from .throughput import ThroughputResult, measure_throughput
    from .variance import VarianceResult, measure_variance

_LAZY = {
    "Advice": "advice.result",
    "advise": "advice.advise",
    "Certificate": "certification.result",
    "certify": "certification.certify",
    "TrainResult": "convergence",
    "train": "convergence",
    "Ratio": "ratios",
    "measure_ratio": "paired",
    "ThroughputResult": "throughput",
    "measure_throughput": "throughput",
    "VarianceResult": "variance",
    "measure_variance": "variance",
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

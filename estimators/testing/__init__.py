"""The conformance suite: what a plugin author's test calls."""

from .check import PROPERTIES, check_estimator, estimator_checks

__all__ = ["PROPERTIES", "check_estimator", "estimator_checks"]

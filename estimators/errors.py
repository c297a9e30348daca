"""The one exception that means "you asked for something that cannot be done"."""

from __future__ import annotations


class UsageError(ValueError):
    """What the user got wrong, in one line that names the bad value and the valid ones.

    The command line prints the message and exits with status 2.
    """


class EstimatorError(RuntimeError):
    """An estimator broke its contract while it ran: a wrong shape, no gradient, NaN."""

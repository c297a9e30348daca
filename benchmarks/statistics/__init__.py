"""Intervals, tests and ratios."""

"""Distributions and what can be done with them: cutting, drawing, integrating."""

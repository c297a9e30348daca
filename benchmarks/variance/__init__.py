"""Measuring gradient variance, by two routes."""

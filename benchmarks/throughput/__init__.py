"""Timing training steps and gradients."""

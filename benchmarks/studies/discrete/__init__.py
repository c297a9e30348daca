"""Estimators for discrete latents compared at equal evaluations of the decoder: runs, points, figures."""

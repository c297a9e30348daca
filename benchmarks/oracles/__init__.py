"""Exact answers: objectives, gradients and variances by algebra, quadrature and enumeration."""

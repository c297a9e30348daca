"""Which published results can be rerun. Imports no torch."""

from __future__ import annotations

#: name -> (module, what is claimed there).
REPRODUCTIONS = {
    "gradient-variance": (
        "gradient_variance",
        "variance of the three main estimators for three costs (Mohamed et al. 2020, figures 2, 3)",
    ),
    "logistic-regression": (
        "logistic_regression",
        "the same three on Bayesian logistic regression (Mohamed et al. 2020, section 8.3)",
    ),
    "importance-weighted-snr": (
        "importance_weighted_snr",
        "signal-to-noise in φ falls like 1/√K, in θ grows like √K (Rainforth et al. 2018)",
    ),
    "sticking-the-landing": (
        "sticking_the_landing",
        "no variance where q is the true posterior (Roeder et al. 2017)",
    ),
    "vargrad": (
        "vargrad",
        "the log-variance gradient is leave-one-out's, sample by sample (Richter et al. 2020)",
    ),
}

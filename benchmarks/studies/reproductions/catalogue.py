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
    "disarm-toy": (
        "disarm_toy",
        "200 Bernoulli variables: DisARM, ARM, leave-one-out and their closed forms (Dong et al. 2020)",
    ),
    "unordered-set-toy": (
        "unordered_set_toy",
        "three variables with one logit: sampling without replacement (Kool et al. 2020)",
    ),
    "binary-toy": (
        "binary_toy",
        "one Bernoulli variable: five unbiased estimators and their exact variances (Tucker et al. 2017)",
    ),
    "reinmax-polynomials": (
        "reinmax_polynomials",
        "ReinMax is right for squares, straight-through descends to the wrong place (Liu et al. 2023)",
    ),
    "straight-through-bias": (
        "straight_through_bias",
        "(straight-through) Gumbel-softmax has the wrong sign at temperature 1 (Jang et al. 2017)",
    ),
    "local-expectation-budget": (
        "local_expectation_budget",
        "local expectation against leave-one-out at equal evaluations (De Smet et al. 2023)",
    ),
    "local-reparameterization": (
        "local_reparameterization",
        "draws of weights shared by a batch keep a covariance, local ones none (Kingma et al. 2015)",
    ),
}

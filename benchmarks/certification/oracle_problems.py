"""The oracle problems that `certify` runs when it is not told which. Imports no torch."""

from __future__ import annotations

#: Each has an exact value and gradient by algebra, quadrature or enumeration.
ORACLE_PROBLEMS = (
    "quadratic[loc=0.7,scale=0.6,k=1.5]",
    "exponential[loc=0.4,scale=1.3,k=0.8]",
    "cosine[loc=0.9,scale=0.8,k=1.2]",
    "linear-gaussian[latent_dim=1,data_dim=2]",
    "linear-gaussian[latent_dim=3,data_dim=4]",
    "conjugate[latent_dim=2]",
    "small-vae",
    "small-vae[posterior=full-gaussian]",
    "small-vae[posterior=bernoulli]",
    "small-vae[posterior=categorical]",
    "binary-toy[latent_dim=3,target=0.4,probability=0.3]",
    "categorical-toy",
    "small-vae[posterior=flow]",
    "gamma-poisson",
    "bayesian-linear-regression[features=2,data=5,scale=0.5]",
    "small-hierarchy[lower=gaussian,upper=gaussian,direction=top-down]",
    "small-hierarchy[lower=bernoulli,direction=top-down]",
    "waves[latent_dim=4]",
    "waves[latent_dim=7,scale=50,offset=-500]",
    "waves[posterior=full-gaussian,scale=50,offset=-500]",
    "waves[posterior=bernoulli,latent_dim=7,scale=50,offset=-500]",
    "waves[posterior=categorical,latent_dim=4,states=5,scale=50,offset=-500]",
)

#: One for each kind of posterior, on which every corner is tried; on the others every third.
EVERY_CORNER = (
    "linear-gaussian[latent_dim=3,data_dim=4]",
    "small-vae",
    "small-vae[posterior=full-gaussian]",
    "small-vae[posterior=bernoulli]",
    "small-vae[posterior=categorical]",
    "gamma-poisson",
)

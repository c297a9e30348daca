"""Training a model with an estimator: steps, checkpoints, held-out objective."""

"""A user's VAE as a problem: what stands between a model written for a training loop and the protocol."""

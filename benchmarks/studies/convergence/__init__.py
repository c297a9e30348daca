"""Which estimator trains a VAE best: kinds of latents and real images, fairly tuned."""

"""Contenders of the peers benchmark with a slip planted in each, and some that misbehave."""

from __future__ import annotations

import os

import torch
from elbograd.benchmarks.studies.peers.torch_loop import TorchLoop


class SquaredScale(TorchLoop):
    """z = μ + σ² ⊙ ε."""

    def reparameterization(self):
        loc, log_scale = self.encoder(self.x).chunk(2, -1)
        z = loc + (2 * log_scale).exp() * torch.randn(self.s, *loc.shape)
        kl = 0.5 * ((2 * log_scale).exp() + loc.square() - 1 - 2 * log_scale).sum()
        return -(self.log_likelihood(z).mean(0).sum() - kl) / len(self.x)


class DoubledKl(TorchLoop):
    """−2 KL."""

    def reparameterization(self):
        loc, log_scale = self.encoder(self.x).chunk(2, -1)
        z = loc + log_scale.exp() * torch.randn(self.s, *loc.shape)
        kl = ((2 * log_scale).exp() + loc.square() - 1 - 2 * log_scale).sum()
        return -(self.log_likelihood(z).mean(0).sum() - kl) / len(self.x)


class NoKl(TorchLoop):
    """The reconstruction alone."""

    def surrogate(self, f, log_q, kl):
        return super().surrogate(f, log_q, 0.0)


class HalfTheScale(TorchLoop):
    """A sum over the data divided by twice their number."""

    def read(self, gradients):
        return super().read(gradients) / 2


class OwnSampleInBaseline(TorchLoop):
    """b = the mean over all S samples, a factor (S − 1)/S too small."""

    def __init__(self, shared, method):
        super().__init__(shared, method)
        self.baseline = lambda f: f.mean(0)


class NoBaseline(TorchLoop):
    """Unbiased, but of a larger variance."""

    def __init__(self, shared, method):
        super().__init__(shared, method)
        self.baseline = lambda f: 0.0


class Chatty(TorchLoop):
    """Prints while it works."""

    def step(self):
        print("noise on standard output")
        os.write(1, b"and from below\n")
        return super().step()


class Raises(TorchLoop):
    """Raises in the middle of a round."""

    def read(self, gradients):
        raise ValueError("this contender raises\nand says more")


class Dies(TorchLoop):
    """Ends its process."""

    def read(self, gradients):
        os._exit(7)

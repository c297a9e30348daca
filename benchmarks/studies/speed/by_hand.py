"""The suite's training steps written by hand in plain PyTorch, without anything that is not needed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .models import SizedVAE

Step = Callable[[Tensor], None]


def _log_likelihood(decoder: nn.Module, z: Tensor, x: Tensor) -> Tensor:
    logits = decoder(z)
    return (x * logits - softplus(logits)).sum(-1)


def _encode(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """μ, log σ, σ and the KL against N(0, I)."""
    mu, log_sigma = encoder(x).chunk(2, -1)
    sigma = log_sigma.exp()
    kl = 0.5 * (mu**2 + sigma**2 - 1 - 2 * log_sigma).sum(-1)
    return mu, log_sigma, sigma, kl


def reparameterization(problem: SizedVAE, optimizer: torch.optim.Optimizer, samples: int) -> Step:
    """Gradient through z = μ + σ ε."""

    def step(x: Tensor) -> None:
        mu, _, sigma, kl = _encode(problem.encoder, x)
        z = mu + sigma * torch.randn(samples, *mu.shape)
        loss = (kl - _log_likelihood(problem.decoder, z, x).mean(0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def score_function(problem: SizedVAE, optimizer: torch.optim.Optimizer, samples: int) -> Step:
    """REINFORCE for the encoder, the likelihood's gradient for the decoder, in one loss."""
    return _reinforce(problem, optimizer, samples, decay=None)


def moving_average_baseline(problem: SizedVAE, optimizer: torch.optim.Optimizer, samples: int) -> Step:
    """The same with a running mean of earlier costs taken off, bias-corrected as in Adam."""
    return _reinforce(problem, optimizer, samples, decay=0.99)


def _reinforce(
    problem: SizedVAE, optimizer: torch.optim.Optimizer, samples: int, decay: float | None
) -> Step:
    average, weight = torch.zeros(()), 0.0

    def step(x: Tensor) -> None:
        nonlocal average, weight
        mu, log_sigma, sigma, kl = _encode(problem.encoder, x)
        with torch.no_grad():
            z = mu + sigma * torch.randn(samples, *mu.shape)
        f = _log_likelihood(problem.decoder, z, x)
        cost = f.detach()
        log_q = (-0.5 * ((z - mu) / sigma) ** 2 - log_sigma).sum(-1)
        centred = cost - average / weight if weight else cost
        loss = (kl - (centred * log_q).mean(0) - f.mean(0)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if decay is not None:
            average = decay * average + (1 - decay) * cost.mean()
            weight = decay * weight + (1 - decay)

    return step


STEPS = {
    "reparameterization": reparameterization,
    "score-function": score_function,
    "moving-average-baseline": moving_average_baseline,
}

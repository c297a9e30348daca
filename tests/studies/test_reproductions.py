"""Published results: the formulas they are held against, that each passes, and that a wrong estimator fails."""

from __future__ import annotations

import math

import pytest
import torch
from elbograd.benchmarks.studies.reproductions.catalogue import REPRODUCTIONS
from elbograd.benchmarks.studies.reproductions.command import reproduce
from elbograd.benchmarks.studies.reproductions.figure import draw
from elbograd.benchmarks.studies.reproductions.gradient_variance import exact_variance
from elbograd.estimators import Estimate
from elbograd.estimators.errors import UsageError
from elbograd.estimators.methods import (
    iwae,
    local_reparameterization,
    reparameterization,
    sticking_the_landing,
    vargrad,
)
from elbograd.estimators.network import affine

WRONG_CLAIMS = {
    "gradient-variance": "variances agree with their closed forms",
    "logistic-regression": "reparameterization has the exact gradient's mean",
    "importance-weighted-snr": "signal-to-noise ratio in φ",
    "sticking-the-landing": "no variance where q is the true posterior",
    "vargrad": "the same gradient for every draw",
    "local-reparameterization": "the variance falls like 1/B",
}


def plant(name, monkeypatch):
    """A wrong estimator under the name that the reproduction asks for."""
    pathwise = reparameterization.Reparameterization

    def squared_scale(self, q, target, num_samples):
        noise = torch.randn(num_samples, *q.mean.shape, dtype=q.mean.dtype)
        f = target.log_likelihood(q.mean + q.variance * noise).mean(0)
        return Estimate(f, f)

    def mean_of_logs(self, q, target, num_samples):
        return pathwise.forward(self, q, target, num_samples)

    def shared_noise(weights, inputs, rows):
        layer, noise = weights.layer, torch.randn(*rows[:-1], 1, weights.layer.outputs, dtype=inputs.dtype)
        mean, spread = (
            affine(part, layer.matrix(moment), layer.offset(moment), weights.together)
            for part, moment in ((inputs, weights.loc), (inputs.square(), weights.scale.square()))
        )
        return mean + spread.sqrt() * noise

    def biased_normalization(self, q, target, num_samples):
        estimate = correct(self, q, target, num_samples)
        value = estimate.value.detach()
        return Estimate(value + (estimate.value - value) * (num_samples - 1) / num_samples, value)

    if name in ("gradient-variance", "logistic-regression"):
        monkeypatch.setattr(pathwise, "forward", squared_scale)
    elif name == "importance-weighted-snr":
        monkeypatch.setattr(iwae.IWAE, "forward", mean_of_logs)
    elif name == "local-reparameterization":  # the noise of the first datum for all
        monkeypatch.setattr(
            local_reparameterization.LocalReparameterization, "outputs", staticmethod(shared_noise)
        )
    elif name == "sticking-the-landing":
        monkeypatch.setattr(sticking_the_landing, "cut", lambda q: q)
    else:
        correct = vargrad.VarGrad.forward
        monkeypatch.setattr(vargrad.VarGrad, "forward", biased_normalization)


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_a_reproduction_passes_and_draws(name):
    result = reproduce(name, quick=True)
    assert result.name == name
    assert [c for c in result.claims if not c.holds] == []
    assert result.source
    assert result.setting
    assert draw(result) is not None


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_a_wrong_estimator_fails_it(name, monkeypatch):
    plant(name, monkeypatch)
    failed = [c.what for c in reproduce(name, quick=True).claims if not c.holds]
    assert any(WRONG_CLAIMS[name] in what for what in failed), failed


def test_the_quadrature_gives_the_closed_forms_of_the_quadratic():
    for k in (-2.0, 0.5, 3.0):
        d = 1 - k
        expected = {
            ("score-function", "mean"): d**4 + 14 * d**2 + 15,
            ("score-function", "scale"): 2 * d**4 + 60 * d**2 + 74,
            ("reparameterization", "mean"): 4,
            ("reparameterization", "scale"): 4 * d**2 + 8,
            ("measure-valued", "mean"): (16 / math.pi - 4) * d**2,
            ("measure-valued", "scale"): 4 * d**2 + 4,
        }
        for (estimator, part), value in expected.items():
            assert exact_variance("quadratic", estimator, part, k) == pytest.approx(value, rel=1e-9)


def test_an_unknown_name_is_told_in_one_line():
    with pytest.raises(
        UsageError, match="unknown reproduction 'cold-fusion': choose from gradient-variance, "
    ):
        reproduce("cold-fusion")

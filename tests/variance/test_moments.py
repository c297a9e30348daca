"""Streamed and merged sums against moments taken at once."""

from __future__ import annotations

import pickle

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.variance.moments import PowerSums, Sums
from elbograd.estimators import UsageError
from scipy import stats


def sample():
    """Vectors h (B, R, P) and contributions u (B, R) of no special kind."""
    torch.manual_seed(0)
    h = torch.randn(3, 1000, 2, dtype=torch.float64) * torch.tensor([1.0, 5.0]) + 7
    gram = torch.randn(3, 2, 2, dtype=torch.float64)
    u = (h @ gram @ gram.mT * h).sum(-1)
    return h, u


def sums_of(h, u, centre, shift, size=130):
    sums = Sums.about(centre, shift)
    for part in torch.arange(h.shape[1]).split(size):
        sums.add(h[:, part] - centre.unsqueeze(1), u[:, part])
    return sums


def assert_moments(sums, h, u):
    torch.testing.assert_close(sums.mean(), h.mean(1))
    torch.testing.assert_close(sums.contributions.mean(), u.mean(1))
    for i in range(3):
        joint = torch.cov(torch.cat([h[i], u[i].unsqueeze(-1)], 1).T)
        torch.testing.assert_close(sums.covariance()[i], joint[:2, :2])
        torch.testing.assert_close(sums.cross_covariance()[i], joint[:2, 2])
        variance, third, fourth = (float(m[i]) for m in sums.contributions.central())
        assert variance == pytest.approx(u[i].numpy().var(ddof=1))
        assert third == pytest.approx(stats.moment(u[i].numpy(), 3))
        assert fourth == pytest.approx(stats.moment(u[i].numpy(), 4))


def test_sums_in_chunks_equal_moments_at_once():
    h, u = sample()
    assert_moments(sums_of(h, u, h[:, :100].mean(1), u[:, :100].mean(1)), h, u)


def test_merged_sums_equal_moments_at_once():
    h, u = sample()
    centre, shift = h[:, :100].mean(1), u[:, :100].mean(1)
    sums = sums_of(h[:, :350], u[:, :350], centre, shift)
    sums.merge(sums_of(h[:, 350:], u[:, 350:], centre, shift))
    assert sums.n == 1000
    assert_moments(sums, h, u)


def test_sums_about_different_centres_are_not_merged():
    h, u = sample()
    one, other = (sums_of(h, u, h[:, :k].mean(1), u[:, :k].mean(1)) for k in (100, 200))
    with pytest.raises(UsageError, match="only sums of one measurement"):
        one.merge(other)


def test_a_shift_keeps_digits_that_plain_power_sums_lose():
    u = 1e10 + torch.arange(1000, dtype=torch.float64).reshape(1, -1)
    sums = PowerSums.about(u[:, :10].mean(-1))
    sums.add(u)
    assert float(sums.central()[0]) == pytest.approx(u.numpy().var(ddof=1), rel=1e-12)
    plain = PowerSums.about(torch.zeros(1, dtype=torch.float64))
    plain.add(u)
    assert float(plain.central()[0]) != pytest.approx(u.numpy().var(ddof=1), rel=1e-3)


def stream(number, merge=(), replicates=2000):
    return measure_variance(
        "vae[latent_dim=2,hidden=8]",
        "score-function",
        replicates=replicates,
        batch_size=5,
        stream=number,
        merge=merge,
    )


def test_streams_of_other_processes_combine_to_one_measurement():
    first, second = stream(1), stream(2)
    carried = pickle.loads(pickle.dumps(first.sums))
    both, reversed_order = stream(2, [carried]), stream(1, [second.sums])
    assert both.replicates == 4000
    assert both.total == pytest.approx(reversed_order.total, rel=1e-9)
    assert both.ci_low == pytest.approx(reversed_order.ci_low, rel=1e-9)
    assert both.kurtosis == pytest.approx(reversed_order.kurtosis, rel=1e-9)
    # Different draws, the same truth: the whole lies between its halves, up to the drift of the means.
    assert first.total != pytest.approx(second.total, rel=1e-9)
    assert both.total == pytest.approx((first.total + second.total) / 2, rel=1e-3)
    assert both.ci_high - both.ci_low < 0.8 * (first.ci_high - first.ci_low)


def test_streams_that_do_not_fit_are_refused():
    other = measure_variance(
        "vae[latent_dim=2,hidden=8]", "score-function", replicates=50, batch_size=5, stream=3
    )
    with pytest.raises(UsageError, match=r"only sums of one (measurement|model)"):
        measure_variance(
            "vae[latent_dim=2,hidden=8]",
            "score-function",
            batch_size=5,
            seed=1,
            stream=4,
            merge=[other.sums],
        )
    joined = stream(5, [stream(4).sums])
    for number, merge in ((4, [joined.sums]), (6, [joined.sums, joined.sums]), (5, [joined.sums])):
        with pytest.raises(UsageError, match=r"^stream [45] would be counted twice") as error:
            stream(number, merge)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="merge needs stream"):
        measure_variance("quadratic", "score-function", merge=[other.sums])
    with pytest.raises(UsageError, match="factorized route"):
        measure_variance("quadratic", "score-function", route="full", stream=1)

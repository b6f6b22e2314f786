"""Prove the latent measures against closed forms, torch.distributions, and known collapses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from eval import Score
from eval.latents import active_units, measure_latents, mutual_information, swap_gain


def test_active_units_by_hand_over_the_whole_set():
    """A variance of exactly 0.01 counts; batch-wise variances would have missed dimension 2."""
    means = torch.tensor([[0.0, 3.0, -1.0], [0.0, 3.0, -1.0], [0.2, 3.0, 1.0], [0.2, 3.05, 1.0]])
    assert active_units(means).tolist() == [True, False, True]
    edge = np.array([[-0.1], [0.1], [-0.1], [0.1]]) * math.sqrt(3 / 4)
    assert edge.var(ddof=1) == pytest.approx(0.01)
    assert active_units(edge + 1e-12 * np.sign(edge)).all()
    assert not active_units(edge * 0.99).any()


def test_mutual_information_is_the_cap_when_posteriors_are_far_apart():
    means = torch.arange(64.0)[:, None] * 100
    information = mutual_information(means, torch.ones(64, 1))
    assert information.nats == pytest.approx(math.log(64))
    assert information.cap == pytest.approx(math.log(64))
    assert "cap log N = 4.16" in str(information)


def test_mutual_information_is_zero_when_all_posteriors_are_one():
    information = mutual_information(torch.zeros(50, 4), torch.ones(50, 4))
    assert information.nats == pytest.approx(0, abs=1e-9)


def test_mutual_information_of_a_gaussian_channel_has_its_closed_form():
    """Means N(0, 1) seen through noise of std 0.5 carry ½ log(1 + 1/0.25) nats a dimension."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(4000, 2, generator=generator)
    information = mutual_information(means, torch.full_like(means, 0.5), generator=generator)
    exact = math.log(5)
    assert information.nats == pytest.approx(exact, abs=5 * information.stderr)
    assert information.nats < information.cap


def test_mutual_information_agrees_with_torch_distributions_in_every_chunk():
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(7, 2, 3, generator=generator, dtype=torch.float64)
    stds = torch.rand(7, 2, 3, generator=generator, dtype=torch.float64) + 0.1
    z = means + stds * torch.randn(
        7, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    ).view_as(means)
    log_q = Normal(means, stds).log_prob(z[:, None]).flatten(2).sum(2)
    expected = (log_q.diagonal() - log_q.logsumexp(1) + math.log(7)).mean()
    for chunk in (1, 3, 100):
        generator = torch.Generator().manual_seed(5)
        result = mutual_information(means, stds, generator=generator, chunk=chunk)
        assert result.nats == pytest.approx(float(expected))


def test_mutual_information_refuses_a_deterministic_code():
    with pytest.raises(ValueError, match="deterministic code has none"):
        mutual_information(torch.zeros(3, 2), torch.zeros(3, 2))


def test_swap_gain_is_the_difference_of_two_log_probs_and_zero_when_the_code_is_ignored():
    x, h = torch.randn(5, 1, 2, 2), torch.randn(5, 3)
    other = h.roll(-1, dims=0)

    def reads(x, h):
        return -(x.flatten(1)[:, :3] - h).square().sum(1)

    expected = reads(x, h) - torch.stack(
        [reads(x[i : i + 1], h[[(i + 1) % 5]])[0] for i in range(5)]
    )
    torch.testing.assert_close(swap_gain(reads, x, h, other), expected)
    assert not swap_gain(lambda x, h: -x.flatten(1).sum(1), x, h, other).any()
    with pytest.raises(ValueError, match="expected two codes for each of"):
        swap_gain(reads, x, h, other[:1])


def posterior(active: int, idle: int):
    generator = torch.Generator().manual_seed(0)
    means = torch.cat([torch.randn(40, active, generator=generator), torch.zeros(40, idle)], 1)
    return means, torch.full_like(means, 0.5)


@pytest.mark.parametrize(
    ("rates", "units", "gain", "words"),
    [
        ([[2.0, 0.0]], [(1, 1)], 3.0, "The code is used: 1 of 2 dimensions active"),
        ([[0.01, 0.01]], [(0, 2)], None, "Posterior collapse"),
        ([[2.0, 0.5]], [(0, 2)], None, "Posterior collapse"),
        ([[2.0, 2.0]], [(2, 0)], 0.1, "The decoder ignores the code"),
        ([[0.0], [5.0, 1.0]], [(0, 1), (2, 0)], 4.0, "Level 1 (from the top) has collapsed"),
    ],
)
def test_the_verdict_says_it_in_plain_words(rates, units, gain, words):
    score = None if gain is None else Score(gain + np.array([-1.0, 1.0] * 8))
    kl = [np.array(level) for level in rates]
    latents = measure_latents(60.0, kl, [posterior(*unit) for unit in units], score)
    assert words in latents.verdict
    assert latents.rate == pytest.approx(sum(map(sum, rates)))
    assert latents.count == 40
    assert json.loads(json.dumps(latents.to_json()))["verdict"] == latents.verdict


def test_a_deterministic_code_is_free_and_has_no_mutual_information():
    means, _ = posterior(2, 1)
    latents = measure_latents(60.0, None, [(means, torch.zeros_like(means))])
    assert latents.verdict == "The code is used: 2 of 3 dimensions active, a free code."
    assert latents.levels[0].rate is None
    assert latents.levels[0].mutual_information is None
    assert "same for every image" in measure_latents(60.0, None, [(0 * means, means)]).verdict


def test_no_latent_is_no_collapse_and_mismatched_levels_are_named():
    assert measure_latents(60.0, [], []).verdict == "The model has no latent."
    with pytest.raises(ValueError, match="expected 1 levels of posteriors, got 0"):
        measure_latents(60.0, [np.zeros(2)], [])
    with pytest.raises(ValueError, match="expected rates of 2 dimensions, got 3"):
        measure_latents(60.0, [np.zeros(3)], [posterior(2, 0)])

"""Training objective: warm-up, free bits, and that split batches add up to the whole."""

from itertools import pairwise

import pytest
import torch

from eval import Terms
from pipelines.training.objective import adjust, kl_weights, level_rates, surrogate


def terms_of(kl_top, kl_bottom, distortion):
    rate = kl_top.sum(1) + kl_bottom.flatten(1).sum(1)
    return Terms(distortion, rate, -rate, (kl_top, kl_bottom))


@pytest.fixture
def terms():
    torch.manual_seed(0)
    top = torch.rand(6, 3, dtype=torch.float64, requires_grad=True)
    bottom = torch.rand(6, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    return terms_of(top, bottom, torch.rand(6, dtype=torch.float64))


def test_without_options_the_objective_is_the_bound(terms):
    torch.testing.assert_close(surrogate(terms, (1.0, 1.0)), terms.distortion + terms.rate)


def test_level_rates_add_up_to_the_rate(terms):
    torch.testing.assert_close(level_rates(terms).sum(0), terms.rate)


def test_a_model_without_latents_has_one_rate_of_zero():
    plain = Terms(torch.ones(2), torch.zeros(2), torch.zeros(2))
    assert surrogate(plain, kl_weights(0, 1, warmup=100)).tolist() == [1.0, 1.0]


def test_warm_up_starts_above_zero_rises_and_stays_at_one():
    common = [kl_weights(step, 2, 4, 8) for step in range(20)]
    assert common[0] == (1 / 32, 1 / 4)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(common))
    assert common[-1] == (1.0, 1.0)
    assert all(top <= bottom for top, bottom in common)


def test_a_single_level_knows_no_slower_top():
    assert kl_weights(0, 1, warmup=4, warmup_top=1000) == (0.25,)


def test_free_bits_put_the_batch_mean_inside_the_maximum(terms):
    means = level_rates(terms).detach().mean(1)
    floor = float(means.mean())  # between the two levels' means
    loss = surrogate(terms, (1.0, 1.0), free_bits=floor, mean_rates=means).mean()
    expected = terms.distortion.mean() + means.clamp(min=floor).sum()
    torch.testing.assert_close(loss.detach(), expected)
    top, bottom = torch.autograd.grad(loss, terms.kl, materialize_grads=True)
    below = means < floor
    assert (top.abs().sum() == 0) == bool(below[0])
    assert (bottom.abs().sum() == 0) == bool(below[1])


def test_parts_of_a_batch_add_up_to_its_gradient_with_free_bits(terms):
    means = level_rates(terms).detach().mean(1)
    options = {"free_bits": float(means.mean()), "mean_rates": means}
    whole = surrogate(terms, (0.5, 0.7), **options).sum()
    expected = torch.autograd.grad(whole, terms.kl, materialize_grads=True, retain_graph=True)
    found = [torch.zeros_like(kl) for kl in terms.kl]
    for part in (slice(0, 1), slice(1, 6)):
        some = terms_of(terms.kl[0][part], terms.kl[1][part], terms.distortion[part])
        loss = surrogate(some, (0.5, 0.7), **options).sum()
        gradients = torch.autograd.grad(loss, terms.kl, materialize_grads=True)
        found = [a + b for a, b in zip(found, gradients, strict=True)]
    torch.testing.assert_close(found, list(expected))


def test_an_auxiliary_loss_is_added_for_each_image(terms):
    auxiliary = torch.arange(6.0, dtype=torch.float64)
    loss = surrogate(terms._replace(auxiliary=auxiliary), (0.5, 0.7))
    torch.testing.assert_close(loss, surrogate(terms, (0.5, 0.7)) + auxiliary)
    with pytest.raises(ValueError, match=r"auxiliary loss .* shape \(6,\), got \(\)"):
        surrogate(terms._replace(auxiliary=auxiliary.mean()), (0.5, 0.7))


def test_free_bits_without_the_batch_mean_are_an_error(terms):
    with pytest.raises(ValueError, match="mean rate of each level"):
        surrogate(terms, (1.0, 1.0), free_bits=1.0)


def test_a_wrong_number_of_weights_is_an_error(terms):
    with pytest.raises(ValueError, match="each of 2 levels, got 1"):
        surrogate(terms, (1.0,))


def test_soft_free_bits_steer_a_rate_to_its_target():
    scales = (1.0,)
    for _ in range(200):
        rate = 1.0 / scales[0]  # a model that uses more nats the cheaper they are
        scales = adjust(scales, (rate,), target=4.0)
    assert 4.0 * 0.9 < 1.0 / scales[0] < 4.0 * 1.2

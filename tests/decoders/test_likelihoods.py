"""Prove that each likelihood head is normalized, follows the chain rule and draws what it says."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import Tensor
from torch.distributions import Normal

from decoders import Categorical, DeconvDecoder, DiagonalGaussian, DiscretizedLogisticMixture
from decoders.likelihoods import Discrete

HEADS = [
    Categorical(2),
    Categorical(256),
    Categorical(300),
    DiscretizedLogisticMixture(2, 1),
    DiscretizedLogisticMixture(8, 3),
    DiscretizedLogisticMixture(256, 10),
]
heads = pytest.mark.parametrize("head", HEADS, ids=repr)


def pixels(head: Discrete, count: int, channels: int = 3) -> Tensor:
    x = torch.randint(head.num_levels, (count, channels))
    return x.to(torch.uint8 if head.num_levels <= 256 else torch.int64)


@pytest.mark.parametrize("levels", [2, 17, 256, 300])
def test_a_head_of_zeros_is_exactly_log2_levels_bits_per_dim(levels: int):
    decoder = DeconvDecoder((3, 5, 7), num_levels=levels)  # its constant parameters begin at zero
    x = torch.randint(levels, (4, 3, 5, 7)).to(decoder.dtype)
    per_dim = -decoder.log_prob(x).double() / (3 * 5 * 7 * math.log(2))
    torch.testing.assert_close(per_dim, torch.full_like(per_dim, math.log2(levels)))
    each = Categorical(levels).log_prob(torch.zeros(4, 3 * levels, 5, 7, dtype=torch.float64), x)
    torch.testing.assert_close(each, torch.full_like(each, -math.log(levels)), rtol=0, atol=1e-14)


@heads
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_levels_of_a_sub_pixel_sum_to_one(head: Discrete, dtype: torch.dtype, tolerance: float):
    params = 3 * torch.randn(40, head.num_params(3), dtype=dtype)
    x = pixels(head, 40)
    for channel in range(3):
        log_probs = head.level_log_probs(params, x, channel)
        assert log_probs.dtype == dtype
        assert log_probs.shape == (40, head.num_levels)
        total = log_probs.exp().sum(dim=1)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=tolerance)


@pytest.mark.parametrize("head", [Categorical(8), DiscretizedLogisticMixture(8, 4)], ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_all_pixels_of_three_channels_sum_to_one(
    head: Discrete, dtype: torch.dtype, tolerance: float
):
    """All 8³ colors under 5 random parameter vectors."""
    params = 2 * torch.randn(1, head.num_params(3), 5, 1, dtype=dtype)
    levels = torch.arange(8, dtype=torch.uint8)
    x = torch.cartesian_prod(levels, levels, levels).t()[None, :, None]  # (1, 3, 1, 512)
    log_prob = head.log_prob(params.expand(-1, -1, 5, 512), x.expand(-1, -1, 5, 512))
    total = log_prob.sum(dim=1).exp().sum(dim=-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=tolerance)


@heads
def test_log_prob_is_the_chain_of_its_levels(head: Discrete):
    """log_prob picks, channel by channel, the level that x has given the earlier channels."""
    params = torch.randn(2, head.num_params(3), 4, 5, dtype=torch.float64)
    x = pixels(head, 2 * 4 * 5).reshape(2, 4, 5, 3).movedim(-1, 1)
    log_prob = head.log_prob(params, x)
    assert log_prob.shape == (2, 3, 4, 5)
    for channel in range(3):
        levels = head.level_log_probs(params, x, channel)
        picked = levels.gather(1, x[:, channel, None].long())[:, 0]
        torch.testing.assert_close(log_prob[:, channel], picked, rtol=1e-10, atol=1e-10)


@heads
def test_a_level_looks_at_earlier_channels_alone(head: Discrete):
    params, x = torch.randn(20, head.num_params(3)), pixels(head, 20)
    for channel in range(3):
        other = x.clone()
        other[:, channel:] = pixels(head, 20)[:, channel:]
        before = head.level_log_probs(params, x, channel)
        assert torch.equal(before, head.level_log_probs(params, other, channel))
        if channel and head.orders_channels:
            other[:, 0] = head.num_levels - 1 - x[:, 0]
            assert not torch.allclose(before, head.level_log_probs(params, other, channel))


@heads
@pytest.mark.parametrize("size", [1e-4, 30.0, 1e4])
def test_extreme_parameters_stay_finite_with_their_gradients(head: Discrete, size: float):
    params = (size * torch.randn(30, head.num_params(3))).requires_grad_()
    x = pixels(head, 30)
    x[0], x[1] = 0, head.num_levels - 1
    log_prob = head.log_prob(params, x)
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert params.grad is not None
    assert params.grad.isfinite().all()
    assert (log_prob <= 1e-6).all()


def test_logistic_bins_are_differences_of_sigmoids():
    """One component, by the definition: σ at the upper edge minus σ at the lower."""
    mean, log_scale = 0.2, -1.5
    head = DiscretizedLogisticMixture(16, 1)
    params = torch.tensor([[0.3, mean, log_scale]], dtype=torch.float64)
    levels = head.level_log_probs(params, torch.zeros(1, 1, dtype=torch.uint8), 0)[0].exp()
    edges = (torch.arange(15, dtype=torch.float64) + 0.5) * (2 / 15) - 1
    cdf = torch.sigmoid((edges - mean) / math.exp(log_scale))
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torch.diff(torch.cat([ends[:1], cdf, ends[1:]]))
    torch.testing.assert_close(levels, expected, rtol=1e-12, atol=1e-14)


def test_logistic_channels_move_with_the_earlier_ones():
    """With one narrow component and coefficient 1, green repeats red."""
    head = DiscretizedLogisticMixture(256, 1)
    params = torch.zeros(1, head.num_params(2))
    params[0, 3:5] = -6.0  # log-scales
    params[0, 5] = 20.0  # tanh of the coefficient is 1
    for red in (0, 100, 255):
        x = torch.tensor([[red, 0]], dtype=torch.uint8)
        assert int(head.level_log_probs(params, x, 1).argmax()) == red


def test_gaussian_agrees_with_torch_distributions():
    head = DiagonalGaussian(bound=5.0)
    params = torch.randn(4, head.num_params(3), 2, 2, dtype=torch.float64)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    mean, raw = params.unflatten(1, (3, 2)).unbind(dim=2)
    expected = Normal(mean, torch.exp(5 * torch.tanh(raw / 5))).log_prob(x)
    torch.testing.assert_close(head.log_prob(params, x), expected)


def test_gaussian_scale_stays_within_its_bound():
    head = DiagonalGaussian(bound=2.0)
    for raw, log_std in ((1e6, 2.0), (-1e6, -2.0)):
        log_prob = head.log_prob(torch.tensor([[0.0, raw]]), torch.zeros(1, 1))
        assert float(log_prob) == pytest.approx(-log_std - 0.5 * math.log(2 * math.pi))


@pytest.mark.parametrize(
    "head", [Categorical(6), DiscretizedLogisticMixture(6, 3)], ids=["categorical", "logistic"]
)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_draws_follow_the_probabilities_at_any_temperature(head: Discrete, temperature: float):
    params, x = torch.randn(1, head.num_params(2)), torch.tensor([[4, 0]], dtype=torch.uint8)
    count = 20_000
    for channel in range(2):
        noise = torch.rand(count)
        many = params.expand(count, -1), x.expand(count, -1)
        drawn = head.sample(*many, channel, noise, temperature).bincount(minlength=6)
        log_probs = head.level_log_probs(params, x, channel)[0].double()
        expected = torch.softmax(log_probs / temperature, dim=0) * count
        assert chisquare(drawn.numpy(), expected.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("levels", [2, 3, 5, 256])
def test_a_mixture_draws_by_halving_what_listing_its_levels_draws(levels: int):
    head = DiscretizedLogisticMixture(levels, 3)
    params = 2 * torch.randn(2000, head.num_params(3), dtype=torch.float64)
    x, noise = pixels(head, 2000), torch.rand(2000, dtype=torch.float64)
    for channel in range(3):
        listed = Discrete.sample(head, params, x, channel, noise)
        assert torch.equal(head.sample(params, x, channel, noise), listed)
        assert listed.min() == 0
        assert listed.max() == levels - 1


@heads
def test_temperature_zero_is_the_mode(head: Discrete):
    params, x, noise = torch.randn(50, head.num_params(3)), pixels(head, 50), torch.rand(50)
    for channel in range(3):
        mode = head.level_log_probs(params, x, channel).argmax(dim=1)
        assert torch.equal(head.sample(params, x, channel, noise, 0.0), mode)


@pytest.mark.parametrize("noise", [0.0, 1 - 2**-24])
def test_noise_at_its_ends_draws_a_level_that_has_probability(noise: float):
    logits = torch.full((1, 6), -float("inf"))
    logits[0, 2:4] = 0.0
    level = Categorical(6).sample(
        logits, torch.zeros(1, 1, dtype=torch.uint8), 0, torch.tensor([noise])
    )
    assert level.tolist() == [2 if noise == 0 else 3]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_gaussian_draws_follow_the_density(temperature: float):
    head = DiagonalGaussian()
    params = torch.tensor([[1.0, -0.5, -2.0, 0.7]]).expand(5000, 4)  # mean, log std of 2 channels
    for channel, (mean, log_std) in enumerate([(1.0, -0.5), (-2.0, 0.7)]):
        drawn = head.sample(params, torch.zeros(5000, 2), channel, torch.rand(5000), temperature)
        if temperature == 0:
            assert torch.equal(drawn, torch.full_like(drawn, mean))
            continue
        std = temperature * math.exp(5 * math.tanh(log_std / 5))
        assert kstest(drawn.numpy(), "norm", (mean, std)).pvalue > 1e-3


def test_gaussian_draws_are_finite_for_noise_at_its_ends():
    noise = torch.tensor([0.0, 1 - 2**-24])
    drawn = DiagonalGaussian().sample(torch.zeros(2, 2), torch.zeros(2, 1), 0, noise)
    assert drawn.isfinite().all()


@pytest.mark.parametrize("head", [*HEADS, DiagonalGaussian()], ids=repr)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_parameters_are_scored_in_float32(head, half: torch.dtype):
    params = torch.randn(4, head.num_params(3)).to(half)
    x = torch.randn(4, 3) if head.num_levels is None else pixels(head, 4)
    log_prob = head.log_prob(params, x)
    assert log_prob.dtype == torch.float32
    assert torch.equal(log_prob, head.log_prob(params.float(), x))


@pytest.mark.parametrize("levels", [256, 257, 1024, 4096, 65536])
def test_a_level_can_be_as_likely_among_many_levels_as_among_256(levels: int):
    """A component as narrow as it gets, at the middle of a bin: 0.04 bits, not 6.9."""
    head = DiscretizedLogisticMixture(levels, 1)
    middle = levels // 2
    params = torch.tensor([[0.0, 2 * middle / (levels - 1) - 1, -99.0]], dtype=torch.float64)
    top = head.level_log_probs(params, torch.zeros(1, 1, dtype=torch.int64), 0)[0, middle]
    assert -float(top) / math.log(2) == pytest.approx(0.0391, abs=1e-3)


@pytest.mark.parametrize("levels", [2, 3, 17, 255, 256])
def test_up_to_256_levels_scales_end_where_they_did(levels: int):
    """Where it was narrow beside a bin, a level may stay certain, and no published number moves."""
    head = DiscretizedLogisticMixture(levels, 1)
    assert head.lowest_log_scale == -7.0
    x = torch.full((1, 1), levels // 2, dtype=torch.uint8)
    mean = 2 * (levels // 2) / (levels - 1) - 1
    bounded, beyond = (
        head.log_prob(torch.tensor([[0.0, mean, scale]], dtype=torch.float64), x)
        for scale in (-7.0, -50.0)
    )
    assert torch.equal(bounded, beyond)
    assert float(bounded) > math.log(0.97)


@pytest.mark.parametrize("levels", [4096, 65536])
@pytest.mark.parametrize("log_scale", [-20.0, -9.0, -2.0])
def test_many_levels_sum_to_one_in_float32(levels: int, log_scale: float):
    head = DiscretizedLogisticMixture(levels, 1)
    params = torch.zeros(8, head.num_params(1))
    params[:, 1], params[:, 2] = torch.linspace(-0.9, 0.9, 8), log_scale
    x = torch.zeros(8, 1, dtype=torch.int64)
    log_probs = head.level_log_probs(params, x, 0)
    assert log_probs.dtype == torch.float32
    total = log_probs.double().exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=5e-6)
    x[:, 0] = log_probs.argmax(dim=1)
    own = head.log_prob(params, x)
    assert own.dtype == torch.float32
    torch.testing.assert_close(own[:, 0], log_probs.amax(dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("levels", [256, 65536])
def test_a_mixture_draws_its_tails(levels: int, dtype: torch.dtype):
    """Each of the smallest and largest uniforms draws the level in which its quantile is."""
    head = DiscretizedLogisticMixture(levels, 2)
    params = torch.randn(1, head.num_params(1), dtype=torch.float64)
    params[:, 2:4] /= 2  # means
    params[:, 4:] = torch.tensor([-3.0, -4.5])
    params = params.float().to(dtype)
    x = torch.zeros(1, 1, dtype=torch.int64)
    log_probs = head.level_log_probs(params.double(), x, 0)[0]
    upto = log_probs.logcumsumexp(dim=0).exp()  # up to each level
    beyond = log_probs.flip(0).logcumsumexp(dim=0).flip(0).exp()  # from each level on
    tails = 2.0**-24 * torch.tensor([1, 2, 3, 10, 100, 1000], dtype=torch.float64)
    noise = torch.cat([tails, 1 - tails]).to(dtype)
    drawn = head.sample(params.expand(12, -1), x.expand(12, -1), 0, noise)
    low, high = drawn[:6], drawn[6:]
    slack = 1e-9
    assert (upto[low] > tails * (1 - slack)).all()
    assert (upto[low] - log_probs[low].exp() <= tails * (1 + slack)).all()
    assert (beyond[high] > tails * (1 - slack)).all()
    assert (beyond[high] - log_probs[high].exp() <= tails * (1 + slack)).all()
    assert (high < levels - 1).all()


@pytest.mark.parametrize("levels", [17, 256, 65536])
def test_a_mixture_draws_to_the_last_digit_between_two_levels(levels: int):
    """A hair to the left and right of an edge; edges of float32 were 0.2 % of a level off."""
    head = DiscretizedLogisticMixture(levels, 1)
    params = torch.tensor([[0.0, 0.1, -2.0]], dtype=torch.float64)
    x = torch.zeros(1, 1, dtype=torch.int64)
    level = torch.linspace(0.3, 0.7, 40).mul(levels).long()
    edge = (2 * level + 1).double() / (levels - 1) - 1
    below = torch.sigmoid((edge - 0.1) * math.exp(2))
    for hair, expected in ((-1e-12, level), (1e-12, level + 1)):
        drawn = head.sample(params.expand(40, -1), x.expand(40, -1), 0, below + hair)
        assert torch.equal(drawn, expected)


def test_the_largest_uniform_never_draws_what_has_hardly_any_probability():
    """In float32 the distribution function reached 1 before its tail: a level of e⁻³⁶ was drawn."""
    head = DiscretizedLogisticMixture(256, 5)
    params, x = torch.randn(2000, head.num_params(1)), torch.zeros(2000, 1, dtype=torch.uint8)
    params[:, 10:] -= 3
    drawn = head.sample(params, x, 0, torch.full((2000,), 1 - 2**-24))
    log_prob = head.log_prob(params.double(), drawn[:, None].to(torch.uint8))
    # The quantile's level, or one with less than all that is beyond it, is no rarer than that.
    assert float(log_prob.min()) > math.log(2**-24) - 8


@pytest.mark.parametrize("temperature", [5e-324, 1e-41, 1e-6])  # least float64, float32; ordinary
@pytest.mark.parametrize("head", [Categorical(256), DiscretizedLogisticMixture(8, 3)], ids=repr)
def test_the_lowest_temperatures_take_the_mode(head: Discrete, temperature: float):
    params, x, noise = torch.randn(50, head.num_params(3)), pixels(head, 50), torch.rand(50)
    for channel in range(3):
        mode = head.level_log_probs(params.double(), x, channel).argmax(dim=1)
        assert torch.equal(head.sample(params, x, channel, noise, temperature), mode)


@pytest.mark.parametrize("temperature", [1e10, 1e300])  # the latter is infinite in float32
@pytest.mark.parametrize("head", [Categorical(300), DiscretizedLogisticMixture(8, 3)], ids=repr)
def test_the_highest_temperatures_make_all_levels_alike(head: Discrete, temperature: float):
    params, x = torch.randn(1, head.num_params(1)), torch.zeros(1, 1, dtype=torch.uint8)
    count = 50 * head.num_levels
    noise = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = head.sample(params.expand(count, -1), x.expand(count, -1), 0, noise, temperature)
    counts = drawn.bincount(minlength=head.num_levels)
    assert (counts - 50).abs().max() <= 1


def test_a_level_ruled_out_stays_so_at_any_temperature():
    logits = torch.tensor([[0.0, -math.inf, 1.0]]).expand(300, -1)
    x, noise = torch.zeros(300, 1, dtype=torch.uint8), torch.linspace(0, 0.999, 300)
    for temperature in (1e-300, 0.5, 1.0, 2.0, 1e300):
        assert 1 not in Categorical(3).sample(logits, x, 0, noise, temperature)


@pytest.mark.parametrize("head", [Categorical(4), DiscretizedLogisticMixture(4, 2)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.complex64])
def test_levels_that_are_not_integers_are_refused(head: Discrete, dtype: torch.dtype):
    """3.9 would count as level 3."""
    params = torch.randn(4, head.num_params(3))
    x = torch.ones(4, 3, dtype=dtype)
    with pytest.raises(ValueError, match=f"expected integer levels, got {dtype}: turn floats in"):
        head.log_prob(params, x)
    if head.orders_channels:
        with pytest.raises(ValueError, match="expected integer levels"):
            head.level_log_probs(params, x, 1)


@pytest.mark.parametrize("head", [*HEADS, DiagonalGaussian()], ids=repr)
def test_float16_parameters_are_not_trained(head):
    """Their gradients go beyond 65,504, which only autocast's scaler notices."""
    params = torch.zeros(4, head.num_params(3), dtype=torch.float16, requires_grad=True)
    x = torch.randn(4, 3) if head.num_levels is None else pixels(head, 4)
    with pytest.raises(ValueError, match=r"got float16 parameters, .* \.float\(\), or score under"):
        head.log_prob(params, x)
    with torch.no_grad():
        assert head.log_prob(params.detach(), x).isfinite().all()
    with torch.autocast("cpu", torch.float16):
        head.log_prob(params, x).sum().backward()
    assert params.grad is not None
    for other in (torch.float32, torch.bfloat16):
        head.log_prob(params.detach().to(other).requires_grad_(), x).sum().backward()


def test_impossible_heads_are_refused():
    with pytest.raises(ValueError, match="num_levels to be an integer of at least 2, got 1"):
        Categorical(1)
    with pytest.raises(ValueError, match="num_components to be an integer of at least 1, got 0"):
        DiscretizedLogisticMixture(4, 0)

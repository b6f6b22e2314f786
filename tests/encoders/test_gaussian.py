"""The Gaussian encoder's rate and weights are right, and its bound approaches the true value."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from encoders import GaussianEncoder
from encoders.posterior import GaussianPosterior, mean_and_std

SHAPE = (1, 6, 5)


def make(**options) -> tuple[GaussianEncoder, torch.Tensor]:
    torch.manual_seed(0)
    encoder = GaussianEncoder(SHAPE, 3, num_levels=4, hidden_channels=4, **options)
    torch.nn.init.normal_(encoder.head.bias)  # posteriors well away from the prior
    return encoder, torch.randint(0, 4, (6, *SHAPE), dtype=torch.uint8)


def moments(encoder: GaussianEncoder, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    (posterior,) = encoder.posterior(x)
    return posterior.mean, posterior.std


@pytest.mark.parametrize("scale", ["exp", "softsign"])
def test_rate_is_the_kl_divergence_per_dimension(scale):
    encoder, x = make(scale=scale)
    code = encoder(x)
    mean, std = moments(encoder, x)
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
    assert torch.allclose(code.kl[0], expected, atol=1e-6)
    assert torch.allclose(code.rate, expected.sum(1), atol=1e-5)


@pytest.mark.parametrize("scale", ["exp", "softsign"])
def test_log_weight_is_log_p_minus_log_q_at_the_drawn_latent(scale):
    encoder, x = make(scale=scale)
    code = encoder(x)
    mean, std = moments(encoder, x)
    log_q = Normal(mean, std).log_prob(code.z[0]).sum(1)
    log_p = Normal(0.0, 1.0).log_prob(code.z[0]).sum(1)
    assert torch.allclose(code.log_weight, log_p - log_q, atol=1e-4)


def test_the_rate_is_the_mean_of_the_negative_log_weight():
    encoder, x = make()
    with torch.no_grad():
        code = encoder(x[:1].expand(20_000, *SHAPE))
    stderr = float(code.log_weight.std()) / math.sqrt(20_000)
    assert abs(float(code.log_weight.mean()) + float(code.rate[0])) < 4 * stderr


def test_latents_follow_the_posterior():
    mean, std = torch.tensor([0.5, -2.0]), torch.tensor([0.1, 1.5])
    torch.manual_seed(0)
    z = GaussianPosterior(mean.expand(50_000, 2), std.expand(50_000, 2)).sample()
    assert torch.allclose(z.mean(0), mean, atol=0.03)
    assert torch.allclose(z.std(0), std, rtol=0.02)


def test_gradients_pass_through_the_drawn_latent():
    mean = torch.zeros(4, 2, requires_grad=True)
    std = torch.ones(4, 2, requires_grad=True)
    z = GaussianPosterior(mean, std).sample()
    z.sum().backward()
    assert mean.grad is not None
    assert std.grad is not None
    assert torch.equal(mean.grad, torch.ones(4, 2))
    assert torch.allclose(std.grad, z.detach())


def test_softsign_scale_is_pixelvaes_and_never_zero():
    s = torch.tensor([-1e9, -3.0, -0.2, 0.0, 0.7, 5.0])
    _, std = mean_and_std(torch.stack([torch.zeros(6), s])[None], "softsign")
    assert torch.allclose(std.flatten(), (F.softsign(s) + 1) / 2, atol=1e-7)
    assert std.min() > 0
    assert std.max() < 1


def test_density_is_exact_where_the_scale_is_tiny():
    mean, std = torch.full((1, 1), 7.0), torch.full((1, 1), 1e-6)
    torch.manual_seed(0)
    noise = torch.randn(1, 1).double()
    torch.manual_seed(0)
    _, log_q = GaussianPosterior(mean, std).draw()
    expected = Normal(0.0, 1.0).log_prob(noise) - math.log(1e-6)
    assert torch.allclose(log_q.double(), expected, atol=1e-5)


def test_a_posterior_that_is_repeated_or_rounded_is_the_same_distribution():
    params = torch.randn(3, 4, dtype=torch.float64)
    posterior = GaussianPosterior.of(params, "exp")
    z = torch.randn(6, 2, dtype=torch.float64)
    expected = Normal(posterior.mean, posterior.std)
    repeated = posterior.repeat(2)
    assert torch.allclose(repeated.log_prob(z)[::2], expected.log_prob(z[::2]))
    rounded = posterior.in_float32()
    assert torch.equal(rounded.std, params.float()[:, 2:].exp())
    assert torch.equal(repeated.in_float32().mean, posterior.mean.float().repeat_interleave(2, 0))


def test_unknown_scale_is_refused():
    with pytest.raises(ValueError, match='expected scale "exp" or "softsign", got \'log\''):
        GaussianEncoder(SHAPE, 3, scale="log")  # pyright: ignore[reportArgumentType]


def test_importance_weighted_estimate_approaches_the_enumerated_truth():
    """Four images of two binary pixels; p(x) by numerical integration over a scalar z."""
    torch.manual_seed(0)
    encoder = GaussianEncoder((1, 1, 2), 1, num_levels=2, hidden_channels=4)
    images = torch.cartesian_prod(torch.arange(2), torch.arange(2)).to(torch.uint8)
    slope, offset = torch.tensor([1.5, -1.0]), torch.tensor([0.3, 0.8])

    def log_likelihood(x, z):  # log p(x | z) with Bernoulli pixels, for x (..., 2) and z (..., 1)
        return F.logsigmoid((2.0 * x - 1.0) * (z * slope + offset)).sum(-1)

    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    prior = Normal(0.0, 1.0).log_prob(grid[:, 0])
    log_joint = torch.stack([log_likelihood(x, grid) + prior for x in images])
    truth = torch.trapezoid(log_joint.exp(), grid[:, 0]).log()
    assert torch.allclose(truth.exp().sum(), torch.ones((), dtype=torch.float64))

    count = 20_000
    repeated = images.repeat_interleave(count, 0)
    with torch.no_grad():
        code = encoder(repeated.reshape(-1, 1, 1, 2))
    log_p = log_likelihood(repeated, code.z[0]).reshape(4, count).double()
    weights = log_p + code.log_weight.reshape(4, count)
    estimate = weights.logsumexp(1) - math.log(count)
    assert torch.allclose(estimate, truth, atol=0.02)
    bound = (log_p - code.rate.reshape(4, count)).mean(1)
    assert (bound < truth).all()
    assert torch.allclose(bound, weights.mean(1), atol=0.03)
    few = (weights.reshape(4, -1, 10).logsumexp(2) - math.log(10)).mean(1)
    assert ((bound < few) & (few < truth + 0.01)).all()  # ten draws are tighter than one

"""Two levels of latents: their terms against hand computation, and against an integrable truth."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from decoders import DiagonalGaussian, GatedPixelCNN, check_causality
from encoders import HierarchicalEncoder, Upsample

SHAPE, MAP = (3, 8, 8), (2, 4, 4)


class ToyPrior(nn.Module):
    """p(z1 | h): a diagonal Gaussian whose mean is linear in h."""

    def __init__(self, features: int, map_shape: tuple[int, int, int], std: float = 0.7):
        super().__init__()
        self.map_shape, self.std = map_shape, std
        self.linear = nn.Linear(features, math.prod(map_shape))

    def normal(self, h: Tensor) -> Normal:
        return Normal(self.linear(h.flatten(1)).unflatten(1, self.map_shape), self.std)

    def elementwise_log_prob(self, z1: Tensor, h: Tensor) -> Tensor:
        return self.normal(h).log_prob(z1)

    def sample(self, h: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        mean = self.normal(h).mean
        return mean + self.std * torch.randn(mean.shape, generator=generator)


def make(**options) -> tuple[HierarchicalEncoder, Tensor]:
    torch.manual_seed(0)
    options = {"prior": ToyPrior(5, MAP), "scale": "exp", **options}
    encoder = HierarchicalEncoder(SHAPE, map_shape=MAP, latent_dim=5, hidden_channels=4, **options)
    return encoder, torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)


@pytest.mark.parametrize("scale", ["exp", "softsign"])
@pytest.mark.parametrize("expanded", [False, True])
def test_terms_equal_hand_computation(scale, expanded):
    if expanded:
        upsample = Upsample((5,), (6, 4, 4), hidden_channels=8)
        encoder, x = make(scale=scale, prior=ToyPrior(96, MAP), prior_upsample=upsample)
    else:
        upsample = nn.Identity()
        encoder, x = make(scale=scale)
    code = encoder(x)
    z2, z1 = code.z
    q2, q1 = encoder.posterior(x)
    prior = encoder.prior
    assert isinstance(prior, ToyPrior)
    log_p1 = prior.normal(upsample(z2)).log_prob(z1)
    log_q1 = Normal(q1.mean, q1.std).log_prob(z1)
    top = kl_divergence(Normal(q2.mean, q2.std), Normal(0.0, 1.0))
    bottom = (log_q1 - log_p1).flatten(1)
    assert torch.allclose(code.kl[0], top, atol=1e-5)
    assert torch.allclose(code.kl[1], bottom, atol=1e-4)
    assert torch.allclose(code.rate, top.sum(1) + bottom.sum(1), atol=1e-3)
    log_w2 = Normal(0.0, 1.0).log_prob(z2) - Normal(q2.mean, q2.std).log_prob(z2)
    expected = log_w2.sum(1) + (log_p1 - log_q1).flatten(1).sum(1)
    assert torch.allclose(code.log_weight, expected, atol=1e-3)


def test_rate_is_an_unbiased_estimate_of_the_kl_divergence():
    """With this prior, KL(q(z1|x) || p(z1|z2)) has a closed form at each z2."""
    encoder, x = make()
    count = 4000
    with torch.no_grad():
        code = encoder(x[:1].expand(count, *SHAPE))
        _, q1 = encoder.posterior(x[:1])
        assert isinstance(encoder.prior, ToyPrior)
        closed = kl_divergence(Normal(q1.mean, q1.std), encoder.prior.normal(code.z[0]))
    error = code.kl[1].sum(1) - closed.flatten(1).sum(1)
    assert abs(float(error.mean())) < 4 * float(error.std()) / math.sqrt(count)
    total = code.rate + code.log_weight  # both estimate plus and minus the same divergence
    assert abs(float(total.mean())) < 4 * float(total.std()) / math.sqrt(count)


def test_prior_is_a_submodule_and_is_trained():
    encoder, x = make()
    assert "prior.linear.weight" in dict(encoder.named_parameters())
    encoder(x).rate.sum().backward()
    assert isinstance(encoder.prior, ToyPrior)
    assert encoder.prior.linear.weight.grad is not None


def test_prior_samples_have_the_priors_moments():
    encoder, _ = make()
    assert isinstance(encoder.prior, ToyPrior)
    weight, bias = encoder.prior.linear.weight, encoder.prior.linear.bias
    with torch.no_grad():
        h = encoder.sample_prior(20_000, torch.Generator().manual_seed(0)).flatten(1)
    # z1 = W z2 + b + 0.7 noise with z2 ~ N(0, I)
    expected = weight @ weight.T + 0.49 * torch.eye(len(bias))
    assert torch.allclose(h.mean(0), bias, atol=0.04)
    assert torch.allclose(torch.cov(h.T), expected, atol=0.06)


def test_code_depends_on_the_bottom_level_alone():
    encoder, _ = make(upsample=Upsample(MAP, (6, 8, 8), hidden_channels=8))
    z1 = torch.randn(2, *MAP)
    first = encoder.to_h((torch.zeros(2, 5), z1))
    assert first.shape == (2, 6, 8, 8)
    assert torch.equal(first, encoder.to_h((torch.ones(2, 5), z1)))


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"expected a prior that is an nn.Module, got a str"):
        make(prior="gaussian")
    with pytest.raises(ValueError, match=r"expected a map of 8x8 or 4x4 or 2x2 or 1x1, .* got 3x3"):
        HierarchicalEncoder(SHAPE, map_shape=(2, 3, 3), latent_dim=5, prior=ToyPrior(5, MAP))

    class Summed(ToyPrior):
        def elementwise_log_prob(self, z1: Tensor, h: Tensor) -> Tensor:
            return super().elementwise_log_prob(z1, h).flatten(1).sum(1)

    encoder, x = make(prior=Summed(5, MAP))
    with pytest.raises(ValueError, match=r"z1's shape \(3, 2, 4, 4\), got \(3,\)"):
        encoder(x)


def test_the_published_sizes_for_64x64():
    """z1 = 64x16x16 and z2 = 512, with a 16-dimensional embedding of the levels."""
    map_shape = (64, 16, 16)

    class Fixed(nn.Module):
        def elementwise_log_prob(self, z1: Tensor, h: Tensor) -> Tensor:
            return Normal(0.0, 1.0).log_prob(z1)

        def sample(self, h: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            return torch.randn(len(h), *map_shape, generator=generator)

    encoder = HierarchicalEncoder(
        (3, 64, 64),
        map_shape=map_shape,
        latent_dim=512,
        prior=Fixed(),
        hidden_channels=8,
        embedding_dim=16,
        upsample=Upsample(map_shape, (12, 64, 64), hidden_channels=8),
    )
    with torch.no_grad():
        code = encoder(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert code.h.shape == (1, 12, 64, 64)
    assert [tuple(kl.shape) for kl in code.kl] == [(1, 512), (1, 64 * 16 * 16)]


def test_importance_weighted_estimate_approaches_the_enumerated_truth():
    """Four images of two binary pixels; p(x) by numerical integration over (z2, z1)."""
    torch.manual_seed(0)
    prior = ToyPrior(1, (1, 1, 1))
    encoder = HierarchicalEncoder(
        (1, 1, 2),
        map_shape=(1, 1, 1),
        latent_dim=1,
        prior=prior,
        num_levels=2,
        hidden_channels=4,
        scale="exp",
    )
    images = torch.cartesian_prod(torch.arange(2), torch.arange(2)).to(torch.uint8)
    slope, offset = torch.tensor([1.5, -1.0]), torch.tensor([0.3, 0.8])

    def log_likelihood(x, z):
        return F.logsigmoid((2.0 * x - 1.0) * (z[..., None] * slope + offset)).sum(-1)

    axis = torch.linspace(-8, 8, 401, dtype=torch.float64)
    z2, z1 = axis[:, None], axis[None, :]
    weight, bias = prior.linear.weight.item(), prior.linear.bias.item()
    log_prior = Normal(0.0, 1.0).log_prob(z2) + Normal(weight * z2 + bias, 0.7).log_prob(z1)
    joint = torch.stack([(log_prior + log_likelihood(x, z1)).exp() for x in images])
    truth = torch.trapezoid(torch.trapezoid(joint, axis), axis).log()
    assert abs(float(truth.exp().sum()) - 1) < 1e-6

    count = 20_000
    repeated = images.repeat_interleave(count, 0)
    with torch.no_grad():
        for head in (encoder.top_head, encoder.bottom_head):
            head.weight.mul_(0.2)  # away from a std of 0.5, where weights vary without bound
        code = encoder(repeated.reshape(-1, 1, 1, 2))
    log_p = log_likelihood(repeated, code.z[1].flatten()).reshape(4, count).double()
    weights = log_p + code.log_weight.reshape(4, count)
    estimate = weights.logsumexp(1) - math.log(count)
    assert torch.allclose(estimate, truth, atol=0.03)
    bound = (log_p - code.rate.reshape(4, count)).mean(1)
    assert (bound < truth).all()
    assert torch.allclose(bound, weights.mean(1), atol=0.05)


def test_an_autoregressive_decoder_is_a_prior():
    """p(z1 | z2) as a gated PixelCNN over the latent map, as the published model has it."""
    prior = GatedPixelCNN(
        MAP,
        cond_shape=(6, 4, 4),
        likelihood=DiagonalGaussian(),
        hidden_channels=8,
        num_layers=2,
        kernel_size=3,
        first_kernel_size=3,
    )
    encoder, x = make(prior=prior, prior_upsample=Upsample((5,), (6, 4, 4), hidden_channels=8))
    code = encoder(x)
    z2, z1 = code.z
    _, q1 = encoder.posterior(x)
    assert encoder.prior_upsample is not None
    log_p1 = prior.log_prob(z1, encoder.prior_upsample(z2))
    log_q1 = Normal(q1.mean, q1.std).log_prob(z1).flatten(1).sum(1)
    assert torch.allclose(code.kl[1].sum(1), log_q1 - log_p1, atol=1e-3)
    code.rate.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    drawn = encoder.sample_prior(2, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, *MAP)
    assert drawn.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder(x).rate.dtype == torch.float32


def test_an_autoregressive_prior_is_right_after_every_way_of_loading():
    """Its masks are in no file."""

    def build() -> HierarchicalEncoder:
        prior = GatedPixelCNN(
            MAP, cond_shape=(5,), likelihood=DiagonalGaussian(), hidden_channels=8, num_layers=1
        )
        return make(prior=prior)[0]

    encoder, x = build(), make()[1]
    with torch.device("meta"):
        emptied, assigned = build(), build()
    emptied.to_empty(device="cpu").load_state_dict(encoder.state_dict())
    assigned.load_state_dict(encoder.state_dict(), assign=True)
    codes = []
    for each in (encoder, emptied, assigned):
        torch.manual_seed(1)
        codes.append(each(x))
        assert torch.equal(codes[-1].rate, codes[0].rate)
        assert isinstance(each.prior, GatedPixelCNN)
        check_causality(each.prior)

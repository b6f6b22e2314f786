"""Prove that the probabilities of all images sum to one, and that draws have these frequencies."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from decoders import (
    Decoder,
    DeconvDecoder,
    DiagonalGaussian,
    DiscretizedLogisticMixture,
    GatedPixelCNN,
)

TINY = [((1, 2, 3), 3), ((3, 2, 1), 2), ((3, 1, 2), 3)]
tiny = pytest.mark.parametrize(("image_shape", "levels"), TINY, ids=["1x2x3", "3x2x1", "3x1x2"])


def all_images(image_shape: tuple[int, int, int], levels: int) -> Tensor:
    size = image_shape[0] * image_shape[1] * image_shape[2]
    every = torch.tensor(list(product(range(levels), repeat=size)), dtype=torch.uint8)
    return every.reshape(-1, *image_shape)


def probabilities(decoder: Decoder, h: Tensor | None) -> Tensor:
    """p of every image there is under one h (1, *cond_shape), in float64."""
    assert decoder.num_levels is not None
    x = all_images(decoder.image_shape, decoder.num_levels)
    with torch.no_grad():
        h = None if h is None else h.expand(len(x), *h.shape[1:])
        return decoder.log_prob(x, h).exp()


def far_from_uniform(decoder: Decoder) -> Decoder:
    """Larger weights: fresh ones give nearly uniform images, which would hide a fault."""
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return decoder.double()


@tiny
def test_every_network_color_order_and_conditioning_sums_to_one(
    network, colors, cond_shape, image_shape, levels, inputs
):
    decoder = network(image_shape, cond_shape=cond_shape, **colors(levels))
    decoder = far_from_uniform(decoder)
    p = probabilities(decoder, inputs(decoder, 1)[1])
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert float(p.max() / p.min()) > 2


@tiny
@pytest.mark.parametrize("logistic", [False, True], ids=["categorical", "logistic"])
def test_the_deconvolution_baseline_sums_to_one(logistic, cond_shape, image_shape, levels, inputs):
    head = {"likelihood": DiscretizedLogisticMixture(levels, 2)}
    decoder = DeconvDecoder(
        image_shape,
        cond_shape=cond_shape,
        hidden_channels=4,
        **(head if logistic else {"num_levels": levels}),
    )
    p = probabilities(far_from_uniform(decoder), inputs(decoder, 1)[1])
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert float(p.max() / p.min()) > 2


@pytest.mark.parametrize("order", ["groups", "head", "independent"])
def test_a_continuous_pixel_integrates_to_one(order):
    """Two latent channels of one pixel, by the trapezoid rule: the second may see the first."""
    head = DiagonalGaussian(bound=0.5)
    decoder = GatedPixelCNN(
        (2, 1, 1), likelihood=head, color_order=order, hidden_channels=8, num_layers=1
    )
    decoder = far_from_uniform(decoder)
    points = torch.linspace(-12, 12, 121, dtype=torch.float64)
    x = torch.cartesian_prod(points, points)[:, :, None, None]
    with torch.no_grad():
        density = decoder.log_prob(x).exp()
    step = float(points[1] - points[0])
    assert float(density.sum()) * step**2 == pytest.approx(1, abs=1e-4)


def frequencies(decoder: Decoder, drawn: Tensor) -> Tensor:
    """How often each image occurs, in the order of `all_images`."""
    levels = decoder.num_levels
    assert levels is not None
    digits = drawn.flatten(1).long()
    place = levels ** torch.arange(digits.shape[1] - 1, -1, -1)
    return (digits * place).sum(dim=1).bincount(minlength=levels ** digits.shape[1])


def test_draws_have_the_frequencies_of_the_probabilities(network, colors, cond_shape, inputs):
    decoder = far_from_uniform(network((3, 2, 1), cond_shape=cond_shape, **colors(2)))
    h, count = inputs(decoder, 1)[1], 4000
    many = None if h is None else h.expand(count, *h.shape[1:])
    drawn = decoder.sample(many, num=count, generator=torch.Generator().manual_seed(1))
    chi_squared(probabilities(decoder, h), frequencies(decoder, drawn))


@pytest.mark.parametrize("logistic", [False, True], ids=["categorical", "logistic"])
def test_draws_of_the_baseline_have_their_frequencies(logistic, inputs):
    kwargs = {"likelihood": DiscretizedLogisticMixture(2, 2)} if logistic else {"num_levels": 2}
    decoder = far_from_uniform(DeconvDecoder((3, 2, 1), cond_shape=(3,), **kwargs))
    h, count = inputs(decoder, 1)[1], 4000
    drawn = decoder.sample(h.expand(count, 3), generator=torch.Generator().manual_seed(1))
    chi_squared(probabilities(decoder, h), frequencies(decoder, drawn))


def chi_squared(p: Tensor, observed: Tensor) -> None:
    """No sign, at one in a thousand, that the draws come from another distribution than p."""
    order = p.argsort(descending=True)
    expected, observed = p[order] * int(observed.sum()), observed[order]
    common = int((expected >= 5).sum()) - 1  # the last common one takes in all the rare ones
    assert common >= 3
    expected = torch.cat([expected[:common], expected[common:].sum()[None]])
    observed = torch.cat([observed[:common], observed[common:].sum()[None]])
    assert chisquare(observed.numpy(), expected.numpy()).pvalue > 1e-3

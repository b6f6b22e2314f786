"""Prove the order of the sub-pixels by the true Jacobian; `checks` finds the same order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from decoders import (
    DiagonalGaussian,
    FactorizedDecoder,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
    check_causality,
)
from decoders.checks import dependence
from decoders.pixelcnn_pp_layers import Block, FirstLayer
from decoders.pixelsnail_layers import GatedResidual

IMAGES = [(1, 9, 9), (3, 7, 7)]
images = pytest.mark.parametrize("image_shape", IMAGES, ids=["1x9x9", "3x7x7"])


def jacobian(decoder: FactorizedDecoder, h: Tensor | None = None) -> Tensor:
    """How each sub-pixel's parameters change with each sub-pixel of x, (H, W, C, H, W, C) >= 0.

    Levels have no gradient: it is taken with respect to the embedded image, which is the only way
    by which x enters the network. Each example of the batch asks about one pixel.
    """
    channels, height, width = decoder.image_shape
    count = height * width
    rows, cols = torch.arange(count) // width, torch.arange(count) % width
    total = torch.zeros(count, channels, height, width, channels, dtype=torch.float64)
    leaves = []

    def cut(_module: nn.Module, _args: object, embedded: Tensor) -> Tensor:
        leaves.append(embedded.detach().requires_grad_())
        return leaves[-1]

    hook = decoder.embed.register_forward_hook(cut)
    x = random_image(decoder).expand(count, -1, -1, -1)
    params = decoder.params(x, None if h is None else h.expand(count, *h.shape[1:]))
    hook.remove()
    for channel in range(channels):
        own = params
        if not decoder.likelihood.orders_channels:  # else the channels share their parameters
            own = params.unflatten(1, (channels, -1))[:, channel]
        chosen = own[torch.arange(count), :, rows, cols]
        slope = (chosen @ torch.randn_like(chosen[0])).sum()
        (grad,) = torch.autograd.grad(slope, leaves[0], retain_graph=True)
        by_channel = grad.unflatten(1, (channels, -1)).abs().amax(dim=2)
        total[:, channel] = by_channel.permute(0, 2, 3, 1)
    return total.unflatten(0, (height, width))


def awake(decoder: FactorizedDecoder) -> FactorizedDecoder:
    """In float64, with larger biases: a ReLU that is never on would hide a dependence.

    Nor may blocks that begin near the identity lose one in the last digits.
    """
    with torch.no_grad():
        for part in decoder.modules():
            if isinstance(part, (Block, GatedResidual)):
                part.leave.weight.mul_(10)
        for name, parameter in decoder.named_parameters():
            if name.endswith("bias"):
                parameter.add_(1)
    return decoder.double()


def random_image(decoder: FactorizedDecoder) -> Tensor:
    if decoder.num_levels is None:
        return torch.randn(1, *decoder.image_shape, dtype=torch.float64)
    return torch.randint(decoder.num_levels, (1, *decoder.image_shape)).to(decoder.dtype)


def earlier(image_shape: tuple[int, int, int]) -> Tensor:
    """Which sub-pixels come before each, (H, W, C, H, W, C) bool."""
    channels, height, width = image_shape
    place = torch.arange(height * width * channels).reshape(height, width, channels)
    return place[..., None, None, None] > place


def steps(height: int, width: int, rows: range, reach: Callable[[int], range]) -> Tensor:
    """Which pixel a convolution looks at from which, (H·W, H·W) of 0 and 1.

    Args:
        height: of the image.
        width: of the image.
        rows: by how many rows it looks upwards.
        reach: by how many columns to the right it looks, given the rows upwards.
    """
    out = torch.zeros(height, width, height, width)
    for i in range(height):
        for j in range(width):
            for up in rows:
                for right in reach(up):
                    if i - up >= 0 and 0 <= j + right < width:
                        out[i, j, i - up, j + right] = 1
    return out.reshape(height * width, height * width)


def expected_reach(decoder: FactorizedDecoder, first: int, kernel: int, layers: int) -> Tensor:
    """The receptive field by walking over the image, knowing kernels but no weights."""
    channels, height, width = decoder.image_shape
    a, b = first // 2, kernel // 2

    def grid(rows: range, reach: Callable[[int], range]) -> Tensor:
        return steps(height, width, rows, reach)

    if isinstance(decoder, (PixelCNNPlusPlus, PixelSNAIL)):
        seen = torch.ones(height * width, height * width).tril(-1)
    elif isinstance(decoder, GatedPixelCNN):
        vertical = grid(range(1, a + 1), lambda up: range(-a, a + 1))
        seen = vertical + grid(range(1), lambda up: range(-a, 0))
        down = grid(range(b + 1), lambda up: range(-b, b + 1))
        left = grid(range(1), lambda up: range(-b, 1))
        for _ in range(layers):
            vertical = (down @ vertical).clamp(max=1)
            seen = (left @ seen + vertical).clamp(max=1)
    else:
        seen = grid(range(a + 1), lambda up: range(-a, a + 1 if up else 0))
        step = grid(range(b + 1), lambda up: range(-b, b + 1 if up else 1))
        for _ in range(layers):
            seen = (step @ seen).clamp(max=1)
    field = (seen > 0).reshape(height, width, 1, height, width, 1)
    field = field.repeat(1, 1, channels, 1, 1, channels)
    if getattr(decoder, "color_order", "") in ("groups", "head"):
        order = torch.ones(channels, channels).tril(-1) > 0
        for i in range(height):
            for j in range(width):
                field[i, j, :, i, j] = order
    return field


def assert_sees_exactly(decoder: FactorizedDecoder, field: Tensor, h: Tensor | None = None):
    slopes = jacobian(decoder, h)
    assert (slopes[~earlier(decoder.image_shape)] == 0).all(), "sees itself or a later sub-pixel"
    assert (slopes[~field] == 0).all(), "sees more than its kernels reach"
    assert (slopes[field] > 0).all(), "misses an earlier sub-pixel in reach"


def test_the_jacobian_is_zero_but_for_the_earlier_sub_pixels_in_reach(network, colors):
    """Exactly zero at and after each sub-pixel, non-zero at each that the kernels reach."""
    decoder = awake(network((3, 7, 7), **colors(4)))
    assert_sees_exactly(decoder, expected_reach(decoder, first=5, kernel=3, layers=2))


def test_conditioning_opens_no_way_for_pixels(network, colors, cond_shape, inputs):
    decoder = awake(network((3, 4, 5), cond_shape=cond_shape, **colors(4)))
    h = inputs(decoder, 1)[1]
    assert_sees_exactly(decoder, expected_reach(decoder, first=5, kernel=3, layers=2), h)


@images
def test_a_deep_gated_pixelcnn_sees_every_earlier_sub_pixel(image_shape):
    decoder = GatedPixelCNN(
        image_shape,
        num_levels=4,
        hidden_channels=24,
        num_layers=6,
        kernel_size=3,
        first_kernel_size=5,
    )
    assert_sees_exactly(awake(decoder), earlier(image_shape))


@images
def test_a_deep_pixelcnn_misses_the_blind_spot_alone(image_shape):
    """With 3×3 kernels nothing is seen that lies further right than up."""
    decoder = PixelCNN(
        image_shape,
        num_levels=4,
        hidden_channels=24,
        num_layers=8,
        kernel_size=3,
        first_kernel_size=3,
        residual=True,
    )
    _, height, width = image_shape
    rows, cols = torch.arange(height), torch.arange(width)
    up = (rows[:, None] - rows).reshape(height, 1, 1, height, 1, 1)
    right = (cols - cols[:, None]).reshape(1, width, 1, 1, width, 1)
    seen = earlier(image_shape) & (right <= up)
    assert_sees_exactly(awake(decoder), seen)


ODD_SIZES = [(1, 5, 6, 1), (1, 7, 9, 1), (1, 3, 10, 1), (1, 4, 17, 2), (2, 5, 14, 2), (1, 6, 16, 1)]


@pytest.mark.parametrize(("channels", "height", "width", "blocks"), ODD_SIZES)
def test_a_pixelcnn_plus_plus_sees_every_earlier_sub_pixel(channels, height, width, blocks):
    decoder = PixelCNNPlusPlus(
        (channels, height, width), num_levels=3, hidden_channels=16, num_blocks=blocks
    )
    assert_sees_exactly(awake(decoder), earlier(decoder.image_shape))


@pytest.mark.parametrize("image_shape", [(1, 1, 7), (1, 7, 1), (2, 5, 7), (1, 3, 17)])
def test_a_pixelsnail_of_one_block_sees_every_earlier_sub_pixel(image_shape):
    decoder = PixelSNAIL(
        image_shape, num_levels=3, hidden_channels=16, num_blocks=1, num_layers=1, norm=True
    )
    assert_sees_exactly(awake(decoder), earlier(image_shape))


@pytest.mark.parametrize("size", [28, 32])
def test_the_last_pixel_of_an_image_sees_the_whole_image(size):
    """Also the last pixel of the row above, that only keys and values made of pixels show."""
    decoder = awake(PixelSNAIL((1, size, size), num_levels=2, hidden_channels=6, num_blocks=1))
    leaves = []
    decoder.embed.register_forward_hook(
        lambda _module, _args, embedded: (
            leaves.append(embedded.detach().requires_grad_()) or leaves[-1]
        )
    )
    params = decoder.params(random_image(decoder))
    for row, col in [(size - 1, size - 1), (size - 1, 0), (1, 0)]:
        (grad,) = torch.autograd.grad(params[0, 0, row, col], leaves, retain_graph=True)
        before = torch.arange(size * size) < row * size + col
        assert torch.equal(grad.flatten() != 0, before)


@pytest.mark.parametrize(("size", "missing"), [(32, 9), (28, 5)])
def test_first_kernels_of_three_pixels_miss_the_far_ends_of_odd_rows(size, missing):
    """The widened ones of the class see them; those of the paper's model, with 5 blocks, do not."""
    for reach, gap in ((None, 0), (1, missing)):
        decoder = PixelCNNPlusPlus((1, 2, size), num_levels=2, hidden_channels=6, num_blocks=5)
        decoder.first = FirstLayer(2, 6, reach or decoder.first.reach)
        slopes = jacobian(awake(decoder))
        first_of_odd_row = slopes[1, 0, 0, 0, :, 0]
        assert int((first_of_odd_row == 0).sum()) == gap
        assert (first_of_odd_row[: size - gap] > 0).all()


@pytest.mark.parametrize("order", ["groups", "head"])
def test_green_sees_red_and_blue_sees_both_of_its_own_pixel(order, network):
    decoder = awake(network((3, 3, 3), num_levels=4, color_order=order))
    own = jacobian(decoder)[1, 1, :, 1, 1] > 0
    assert own.tolist() == [[False, False, False], [True, False, False], [True, True, False]]


OPTIONS = [
    (GatedPixelCNN, {"embedding_dim": 3}),
    (GatedPixelCNN, {"embedding_dim": 3, "color_order": "head"}),
    (GatedPixelCNN, {"weight_norm": True}),
    (GatedPixelCNN, {"residual": False, "skip": False}),
    (GatedPixelCNN, {"gated": False, "hidden_channels": 24}),
    (GatedPixelCNN, {"likelihood": DiagonalGaussian(), "num_levels": None}),
    (PixelCNN, {"norm": True, "residual": True, "hidden_channels": 36}),
    (PixelCNN, {"gated": True, "weight_norm": True, "embedding_dim": 3}),
    (PixelCNN, {"likelihood": DiagonalGaussian(), "num_levels": None}),
]


@pytest.mark.parametrize(
    ("kind", "options"), OPTIONS, ids=lambda v: "-".join(v) if isinstance(v, dict) else v.__name__
)
def test_no_option_moves_the_jacobian(kind, options):
    """In training mode too: no statistics over other pixels. Channel groups are what may break."""
    defaults = {"num_levels": 4, "hidden_channels": 24, "num_layers": 2, "kernel_size": 3}
    options = {**defaults, **options}
    decoder = awake(kind((3, 5, 5), first_kernel_size=5, **options))
    assert decoder.training
    assert_sees_exactly(decoder, expected_reach(decoder, first=5, kernel=3, layers=2))


def test_check_causality_agrees(network, colors, cond_shape):
    decoder = awake(network((3, 3, 4), cond_shape=cond_shape, **colors(4)))
    check_causality(decoder)
    field = expected_reach(decoder, first=5, kernel=3, layers=2)
    if decoder.likelihood.orders_channels:
        for i in range(3):
            for j in range(4):
                field[i, j, :, i, j] = torch.ones(3, 3).tril(-1) > 0
    seen = dependence(decoder) > 0
    assert torch.equal(seen.reshape(field.shape), field)


@pytest.mark.parametrize("order", ["groups", "head", "independent"])
def test_check_causality_of_continuous_channels(network, order):
    decoder = network((3, 3, 3), likelihood=DiagonalGaussian(), color_order=order)
    awake(decoder)
    check_causality(decoder)
    field = expected_reach(decoder, first=5, kernel=3, layers=2)
    assert torch.equal((dependence(decoder) > 0).reshape(field.shape), field)

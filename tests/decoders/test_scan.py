"""Prove that the cached scan is the network: same parameters, same samples, completion in order."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoders import (
    Categorical,
    DeconvDecoder,
    DiagonalGaussian,
    FactorizedDecoder,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
)
from decoders.scan import Chooser, Draw, PlainScan, Scan, run


def own_params(decoder: FactorizedDecoder, params: Tensor, channel: int) -> Tensor:
    """What of a pixel's parameters (B, P, …) the distribution of one channel is made of."""
    if decoder.likelihood.orders_channels:
        return params
    return params.unflatten(1, (decoder.image_shape[0], -1))[:, channel]


def largest_difference(decoder: FactorizedDecoder, x: Tensor, h: Tensor | None) -> float:
    """Between the parameters of each step, x being pushed, and those of one pass over x."""
    decoder.eval()
    with torch.no_grad():
        expected = decoder.params(x, h)
        scan = decoder.scan(h, len(x))
        assert not isinstance(scan, PlainScan)
        worst = 0.0
        for row, col, channel in places(decoder):
            if col == channel == 0:
                scan.begin_row(row)
            step = own_params(decoder, scan.params(row, col, channel), channel)
            whole = own_params(decoder, expected[:, :, row, col], channel)
            assert step.dtype == whole.dtype
            worst = max(worst, float((step - whole).abs().max()))
            scan.push(row, col, channel, x[:, channel, row, col])
    return worst


def places(decoder: FactorizedDecoder) -> Iterable[tuple[int, int, int]]:
    channels, height, width = decoder.image_shape
    return product(range(height), range(width), range(channels))


def plain_sample(
    decoder: FactorizedDecoder,
    h: Tensor | None,
    noise: Tensor,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """A sample by running the whole network for each sub-pixel."""
    decoder.eval()
    draw = Draw(decoder.likelihood, noise, known=known)
    with torch.no_grad():
        scan = PlainScan(decoder, h, len(noise))
        return run(scan, draw, decoder.image_shape, len(noise), decoder.dtype)


def assert_is_the_network(decoder: FactorizedDecoder, x: Tensor, h: Tensor | None) -> None:
    """In float32 up to rounding, in float64 up to far less."""
    assert largest_difference(decoder, x, h) < 1e-4
    decoder.double()
    assert largest_difference(decoder, x, None if h is None else h.double()) < 1e-10


def test_each_step_equals_the_whole_network(network, colors, cond_shape, inputs):
    """For every trunk, every order of colors, and every way by which h comes in."""
    decoder = network((3, 5, 7), cond_shape=cond_shape, **colors(5))
    assert_is_the_network(decoder, *inputs(decoder, 3))


@pytest.mark.parametrize(
    ("image_shape", "batch"),
    [
        ((1, 7, 4), 1),  # one channel, one image
        ((2, 1, 1), 3),  # a single pixel
        ((3, 1, 5), 2),  # a single row: nothing above
        ((1, 3, 70), 2),  # more than SMALL_ROWS pixels in a row: rows are convolved
    ],
)
def test_each_step_equals_the_whole_network_at_any_size(network, image_shape, batch, inputs):
    decoder = network(image_shape, num_levels=4)
    assert_is_the_network(decoder, *inputs(decoder, batch))


SMALL = {"hidden_channels": 12, "num_layers": 2, "kernel_size": 3, "first_kernel_size": 5}
PLUS_PLUS: dict[str, Any] = {"hidden_channels": 12, "num_blocks": 1}
SNAIL: dict[str, Any] = {"hidden_channels": 12, "num_blocks": 2, "num_layers": 1}
SMALL_OF: dict[Any, dict[str, Any]] = {PixelCNNPlusPlus: PLUS_PLUS, PixelSNAIL: SNAIL}
OPTIONS: list[tuple[Any, dict[str, Any]]] = [
    # what a trunk's scan computes in its own way
    (GatedPixelCNN, {"residual": False}),
    (GatedPixelCNN, {"skip": False}),
    (GatedPixelCNN, {"gated": False}),
    (GatedPixelCNN, {"gated": False, "skip": False, "residual": False, "weight_norm": True}),
    (GatedPixelCNN, {"kernel_size": 1}),
    (GatedPixelCNN, {"kernel_size": 7, "first_kernel_size": 3}),
    (GatedPixelCNN, {"num_layers": 0}),
    (PixelCNN, {"norm": True}),
    (PixelCNN, {"gated": True, "residual": False}),
    (PixelCNN, {"gated": True, "norm": True}),
    (PixelCNN, {"kernel_size": 7, "first_kernel_size": 3, "residual": False}),
    (PixelCNN, {"num_layers": 0}),
    (PixelCNNPlusPlus, {"num_blocks": 2}),
    (PixelSNAIL, {"num_layers": 2, "norm": True}),
    (PixelSNAIL, {"num_heads": 3, "key_channels": 9, "value_channels": 6}),
    (PixelSNAIL, {"num_blocks": 1, "first_kernel_size": 7}),
    # what each scan reads off its layers: weights, and nothing of dropout
    (GatedPixelCNN, {"weight_norm": True}),
    (PixelCNN, {"weight_norm": True}),
    (PixelCNNPlusPlus, {"weight_norm": True}),
    (PixelSNAIL, {"weight_norm": True}),
    (GatedPixelCNN, {"dropout": 0.5}),
    (PixelCNN, {"dropout": 0.5}),
    (PixelCNNPlusPlus, {"dropout": 0.5}),
    (PixelSNAIL, {"dropout": 0.5}),
    # what each hands on: h at the image's size, the embedded pixels
    (GatedPixelCNN, {"resize": "bilinear"}),
    (PixelCNN, {"resize": "bilinear"}),
    (PixelCNNPlusPlus, {"resize": "bilinear"}),
    (PixelSNAIL, {"resize": "bilinear"}),
    (GatedPixelCNN, {"embedding_dim": 3}),
    (PixelCNN, {"embedding_dim": 3}),
    (PixelCNNPlusPlus, {"embedding_dim": 3}),
    (PixelSNAIL, {"embedding_dim": 3}),
    # the head, once for all
    (GatedPixelCNN, {"embedding_dim": 3, "color_order": "head"}),
    (GatedPixelCNN, {"head_channels": 17}),
    (PixelCNN, {"head_channels": 17, "hidden_channels": 13}),
    (GatedPixelCNN, {"num_levels": 300}),
]


def option_id(value: object) -> str:
    return "-".join(value) if isinstance(value, dict) else getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=option_id)
def test_each_step_equals_the_whole_network_with_every_option(kind, options, inputs):
    small = SMALL_OF.get(kind, SMALL)
    decoder = kind((3, 5, 6), **{"num_levels": 4, **small, "cond_shape": (2, 3, 2), **options})
    decoder.double()
    x, h = inputs(decoder, 2)
    assert largest_difference(decoder, x, h) < 1e-10


@pytest.mark.parametrize("order", ["groups", "independent"])
@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_each_step_equals_the_whole_network_for_continuous_channels(kind, order, inputs):
    """Values enter as they are, and are drawn as floats."""
    decoder = kind((3, 4, 5), likelihood=DiagonalGaussian(), color_order=order, **SMALL).double()
    x, _ = inputs(decoder, 2)
    assert largest_difference(decoder, x, None) < 1e-10
    noise = torch.rand(2, 3, 4, 5)
    difference = decoder.sample(noise=noise) - plain_sample(decoder, None, noise)
    assert float(difference.abs().max()) < 1e-10


def test_same_noise_gives_the_plain_scans_samples(network, colors, inputs):
    """Symbol for symbol, in float64."""
    decoder = network((3, 4, 5), cond_shape=(3,), **colors(6)).double()
    h, noise = inputs(decoder, 3)[1], torch.rand(3, 3, 4, 5)
    sample = decoder.sample(h, num=3, noise=noise)
    assert torch.equal(sample, plain_sample(decoder, h, noise))
    assert len(sample.unique()) == 6


def test_two_samples_leave_nothing_behind(network):
    """The second does not depend on the first, nor on weights of before."""
    decoder = network((3, 3, 4), num_levels=6).double()
    noise = torch.rand(2, 3, 3, 4)
    first = decoder.sample(noise=noise)
    decoder.sample(num=5)
    assert torch.equal(decoder.sample(noise=noise), first)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    again = decoder.sample(noise=noise)
    assert not torch.equal(again, first)
    assert torch.equal(again, plain_sample(decoder, None, noise))


@pytest.mark.parametrize("colors", ["head", "logistic"], indirect=True)
def test_known_sub_pixels_stay_and_the_rest_is_drawn_given_those_before(network, colors, inputs):
    """Each unknown sub-pixel is what its noise draws from the network's view of the result.

    Within a pixel, known channels reach the others through the head, or through the likelihood.
    """
    decoder = network((3, 4, 5), **colors(6)).double()
    x, _ = inputs(decoder, 3)
    noise, mask = torch.rand(3, 3, 4, 5), torch.rand(3, 3, 4, 5) < 0.5
    image = decoder.sample(num=3, noise=noise, known=(x, mask))
    assert torch.equal(image[mask], x[mask])
    assert torch.equal(image, plain_sample(decoder, None, noise, known=(x, mask)))
    with torch.no_grad():
        params = decoder.params(image, None)
    for channel in range(3):
        drawn = decoder.likelihood.sample(params, image, channel, noise[:, channel])
        free = ~mask[:, channel]
        assert torch.equal(drawn[free], image[:, channel][free].long())


def test_what_is_known_changes_only_what_comes_after():
    decoder = GatedPixelCNN((1, 6, 5), num_levels=8, **SMALL).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2)
    noise, mask = torch.rand(64, 1, 6, 5), torch.zeros(1, 6, 5, dtype=torch.bool)
    mask[:, 2, 3] = True
    free = decoder.sample(noise=noise)
    zeros, sevens = (torch.full_like(free, level) for level in (0, 7))
    dark = decoder.sample(noise=noise, known=(zeros, mask))
    bright = decoder.sample(noise=noise, known=(sevens, mask))
    before = torch.arange(30).reshape(6, 5) < 13
    for image in (dark, bright):
        assert torch.equal(image[..., before], free[..., before])
    assert (dark[:, 0, 2, 3] == 0).all()
    assert (bright[:, 0, 2, 3] == 7).all()
    after = torch.arange(30).reshape(6, 5) > 13
    assert not torch.equal(dark[..., after], bright[..., after])


@pytest.mark.parametrize("kind", [GatedPixelCNN, DeconvDecoder])
def test_a_sample_completed_from_its_own_top_is_itself(kind):
    decoder = kind((3, 5, 4), num_levels=8, hidden_channels=12)
    noise, mask = torch.rand(4, 3, 5, 4), torch.zeros(3, 5, 4, dtype=torch.bool)
    mask[:, :3] = True
    sample = decoder.sample(noise=noise)
    assert torch.equal(decoder.sample(noise=noise, known=(sample, mask)), sample)
    everything = torch.ones_like(mask)
    other = torch.randint(8, sample.shape, dtype=torch.uint8)
    assert torch.equal(decoder.sample(num=4, known=(other, everything)), other)
    assert torch.equal(decoder.sample(known=(other, everything)), other)  # num from the images


class RunningMean(FactorizedDecoder):
    """A user's decoder with `params` alone: levels likely near the mean of all earlier rows."""

    def __init__(self):
        super().__init__((1, 4, 3), Categorical(5), (2,))
        self.bias = nn.Parameter(torch.zeros(5))
        self.project = nn.Linear(2, 5)

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        assert h is not None
        rows = x[:, 0].to(self.bias.dtype).mean(dim=2, keepdim=True).cumsum(dim=1)
        above = nn.functional.pad(rows[:, :-1], (0, 0, 1, 0)) / torch.arange(1, 5)[:, None]
        level = torch.arange(5).view(5, 1, 1)
        closeness = -(level - above.unsqueeze(1)).square()
        bias = (self.bias + self.project(h))[:, :, None, None]
        return (closeness + bias).expand(-1, -1, -1, 3)


def test_a_users_decoder_samples_by_the_plain_scan():
    decoder, h = RunningMean(), torch.randn(3, 2)
    assert isinstance(decoder.scan(h, 3), PlainScan)
    x = decoder.sample(h, generator=torch.Generator().manual_seed(0))
    assert x.shape == (3, 1, 4, 3)
    assert x.dtype == torch.uint8
    noise = torch.rand(3, 1, 4, 3)
    with torch.no_grad():
        image = decoder.sample(h, noise=noise)
        drawn = decoder.likelihood.sample(decoder.params(image, h), image, 0, noise[:, 0])
    assert torch.equal(drawn, image[:, 0].long())


def test_independent_pixels_take_one_pass_of_the_network():
    class Counted(DeconvDecoder):
        passes = 0

        def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
            self.passes += 1
            return super().params(x, h)

    decoder = Counted((3, 4, 5), num_levels=4, cond_shape=(2,), hidden_channels=4)
    decoder.sample(torch.randn(3, 2))
    assert decoder.passes == 1


def test_a_scan_serves_any_chooser():
    """Coding is a chooser: told each sub-pixel of x, the scan gives log p(x) exactly."""
    decoder = GatedPixelCNN((3, 4, 4), num_levels=6, **SMALL).double().eval()
    x = torch.randint(6, (2, 3, 4, 4), dtype=torch.uint8)
    total = torch.zeros(2, dtype=torch.float64)

    class Read(Chooser):
        def __call__(
            self, params: Tensor, pixel: Tensor, row: int, col: int, channel: int
        ) -> Tensor:
            value = x[:, channel, row, col]
            levels = decoder.likelihood.level_log_probs(params, pixel, channel)
            total.add_(levels.gather(1, value[:, None].long())[:, 0])
            return value

    with torch.no_grad():
        image = run(decoder.scan(None, 2), Read(), (3, 4, 4), 2, torch.uint8)
        expected = decoder.log_prob(x)
    assert torch.equal(image, x)
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-10)


def test_progress_wraps_the_rows():
    rows = []

    def watch(every: Iterable[int]) -> Iterable[int]:
        for row in every:
            rows.append(row)
            yield row

    GatedPixelCNN((1, 3, 2), num_levels=2, **SMALL).sample(progress=watch)
    assert rows == [0, 1, 2]


def test_caches_grow_with_the_height_by_what_attention_keeps_alone(network):
    def size(height: int) -> int:
        decoder = network((1, height, 6), num_levels=4, cond_shape=(3,))
        with torch.no_grad():
            scan = decoder.scan(torch.zeros(2, 3), 2)
            return cache_bytes(scan)

    # For a pixel: keys and values of two blocks and two images; a mask, and where the pixel is.
    kept = {PixelSNAIL: 2 * 2 * (4 + 6) + 1 + 2}.get(network.func, 0)
    assert size(64) - size(4) == 60 * 6 * kept * torch.float32.itemsize


def cache_bytes(scan: Scan) -> int:
    """The memory of all tensors that a scan holds, the decoder's own apart."""
    storages: dict[int, int] = {}
    seen: set[int] = set()

    def visit(value: object) -> None:
        if id(value) in seen or isinstance(value, nn.Module):
            return
        seen.add(id(value))
        if isinstance(value, Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, (list, tuple)):
            for item in value:
                visit(item)
        elif hasattr(value, "__dict__"):
            for item in vars(value).values():
                visit(item)

    visit(scan)
    return sum(storages.values())

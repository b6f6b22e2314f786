"""Coding is exact for every decoder, as long as the likelihood says, and of one batch shape."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from decoders import Decoder, DeconvDecoder, DiagonalGaussian, GatedPixelCNN, coding

DATA = Path(
    os.environ.get("PIXEL_DECODERS_DATA")
    or Path(__file__).resolve().parents[2].parent / "shared" / "data"
)


def coded(decoder: Decoder, x: torch.Tensor, h: torch.Tensor | None = None, **options):
    coder = coding.RangeEncoder()
    coding.encode(decoder, x, coder, h, **options)
    return coder.get_compressed()


def decoded(decoder: Decoder, num: int, words, h: torch.Tensor | None = None, **options):
    return coding.decode(decoder, num, coding.RangeDecoder(words), h, **options)


def nll_bits(decoder: Decoder, x: torch.Tensor, h: torch.Tensor | None = None) -> float:
    with torch.no_grad():
        return -float(decoder.eval().log_prob(x, h).double().sum()) / math.log(2)


def test_round_trip(network, colors, cond_shape, inputs):
    """Every decoder, head, color order and conditioning gives back the very images."""
    decoder = network((3, 4, 3), cond_shape=cond_shape, **colors(4))
    x, h = inputs(decoder, 3)
    words = coded(decoder, x, h)
    assert torch.equal(decoded(decoder, 3, words, h), x)
    assert abs(32 * len(words) - nll_bits(decoder, x, h)) <= 64


def test_independent_pixels(cond_shape, inputs):
    """So does a decoder without a raster order."""
    decoder = DeconvDecoder((3, 4, 3), num_levels=4, cond_shape=cond_shape, hidden_channels=4)
    x, h = inputs(decoder, 3)
    words = coded(decoder, x, h)
    assert torch.equal(decoded(decoder, 3, words, h), x)
    assert abs(32 * len(words) - nll_bits(decoder, x, h)) <= 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_filled_batches(network, dtype):
    """A last batch that is filled up is coded as if alone, and its filling costs nothing."""
    decoder = network((1, 5, 4), num_levels=5).to(dtype)
    x = torch.randint(5, (7, 1, 5, 4)).to(torch.uint8)
    coder = coding.RangeEncoder()
    coding.encode(decoder, x[:4], coder, batch=4)
    coding.encode(decoder, x[4:], coder, batch=4)
    words = coder.get_compressed()
    reader = coding.RangeDecoder(words)
    parts = [coding.decode(decoder, n, reader, batch=4) for n in (4, 3)]
    assert torch.equal(torch.cat(parts), x)
    assert abs(32 * len(words) - nll_bits(decoder, x)) <= 64


def test_stack(network):
    """What is pushed on a stack is popped again, and what lay below it is there still."""
    decoder = network((3, 3, 4), num_levels=4)
    x = torch.randint(4, (3, 3, 3, 4)).to(torch.uint8)
    below = np.arange(1, 6, dtype=np.uint32)
    coder = coding.AnsCoder(below, seal=True)
    coding.push(decoder, x, coder, batch=4)
    assert torch.equal(coding.decode(decoder, 3, coder, batch=4), x)
    np.testing.assert_array_equal(coder.get_compressed(unseal=True), below)


def test_float64_bridges_arithmetic():
    """In float64 files outlive another batch shape, which changes the last digits of sums."""
    decoder = GatedPixelCNN((1, 8, 8), num_levels=17, hidden_channels=24, num_layers=2).double()
    x = decoder.sample(num=20)
    words = coded(decoder, x, batch=20)
    assert torch.equal(decoded(decoder, 20, words, batch=23), x)


def test_certain_levels():
    """A level of probability zero still has a code, if a long one; a certain level costs none."""
    decoder = GatedPixelCNN((1, 2, 2), num_levels=3, hidden_channels=8, num_layers=1)
    with torch.no_grad():
        decoder.head.output.weight.zero_()
        bias = decoder.head.output.bias
        assert bias is not None
        bias.copy_(torch.tensor([0.0, 1e4, -1e4]))
    certain = torch.ones(100, 1, 2, 2, dtype=torch.uint8)
    assert 32 * len(coded(decoder, certain)) <= 64
    never = torch.tensor([[[[2, 0], [1, 2]]]], dtype=torch.uint8)
    assert torch.equal(decoded(decoder, 1, coded(decoder, never)), never)


@torch.no_grad()
def brief(shape: tuple[int, int, int], levels: int) -> GatedPixelCNN:
    """A decoder with weights large enough that its probabilities are far from uniform."""
    torch.manual_seed(0)
    decoder = GatedPixelCNN(
        shape, num_levels=levels, hidden_channels=12, num_layers=2, kernel_size=3
    )
    for parameter in decoder.parameters():
        parameter.mul_(1.5)
    return decoder


def mnist() -> torch.Tensor:
    file = DATA / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    if not file.is_file():
        pytest.skip("real MNIST is not here: set PIXEL_DECODERS_DATA")
    pixels = np.frombuffer(gzip.decompress(file.read_bytes())[16:], np.uint8)
    return torch.from_numpy((pixels.reshape(-1, 1, 28, 28)[:32] > 127).astype(np.uint8))


def random_binary() -> torch.Tensor:
    return (torch.rand(32, 1, 28, 28) < 0.15).to(torch.uint8)


@pytest.mark.parametrize("images", [mnist, random_binary])
def test_binary_28(images):
    """Images of MNIST's shape, binary: exact, and within 0.5 % of the model's NLL."""
    x, decoder = images(), brief((1, 28, 28), 2)
    words = coded(decoder, x)
    assert torch.equal(decoded(decoder, len(x), words), x)
    assert 32 * len(words) == pytest.approx(nll_bits(decoder, x), rel=0.005)


def photos() -> torch.Tensor:
    files = sorted((DATA / "imagenette64" / "valid").glob("*/*.png"))[:2]
    if not files:
        pytest.skip("photos of 64x64 are not here: set PIXEL_DECODERS_DATA")
    return torch.from_numpy(np.stack([np.array(Image.open(f)).transpose(2, 0, 1) for f in files]))


def random_photos() -> torch.Tensor:
    return torch.randint(256, (1, 3, 64, 64)).to(torch.uint8)


@pytest.mark.parametrize("images", [photos, random_photos])
def test_color_64(images):
    """Photos of 64×64 RGB with 256 levels: exact, and within 0.5 % of the model's NLL."""
    x, decoder = images(), brief((3, 64, 64), 256)
    words = coded(decoder, x)
    assert torch.equal(decoded(decoder, len(x), words), x)
    assert 32 * len(words) == pytest.approx(nll_bits(decoder, x), rel=0.005)


def test_refusals():
    """What can't be coded is refused in a sentence."""
    decoder = GatedPixelCNN((1, 2, 2), num_levels=3, hidden_channels=8, num_layers=1)
    x = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"expected levels 0..2, got 0..3"):
        coded(decoder, x + 3 * torch.eye(2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected 1 to 1 images in a batch of 1, got 2"):
        coded(decoder, x, batch=1)
    continuous = GatedPixelCNN((1, 2, 2), likelihood=DiagonalGaussian(), num_layers=1)
    with pytest.raises(TypeError, match="of integer levels"):
        coded(continuous, torch.zeros(2, 1, 2, 2))
    with torch.no_grad():
        next(decoder.parameters()).fill_(float("nan"))
    with pytest.raises(coding.CodingError, match="NaN"):
        coded(decoder, x)

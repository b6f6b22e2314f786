"""Parameters and codes that are not finite are refused, never drawn as black or white images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from decoders import (
    Categorical,
    Decoder,
    DeconvDecoder,
    DiagonalGaussian,
    DiscretizedLogisticMixture,
    GatedPixelCNN,
    PixelCNN,
    check_causality,
    coding,
    receptive_field,
)
from decoders.scan import Draw, PlainScan, Scan, run

SHAPE = (3, 4, 5)
KINDS = [GatedPixelCNN, PixelCNN, DeconvDecoder]
HEADS = [Categorical(4), DiscretizedLogisticMixture(4, 2), DiagonalGaussian()]
MESSAGE = "expected finite parameters of the decoder, got NaN or infinity"


def build(kind, likelihood, cond_shape=()) -> Decoder:
    return kind(SHAPE, likelihood=likelihood, cond_shape=cond_shape, hidden_channels=12)


@torch.no_grad()
def broken(decoder: Decoder, value: float) -> Decoder:
    """The decoder with one weight, of a bias near its output, that is not finite."""
    list(decoder.parameters())[-1].view(-1)[0] = value
    return decoder


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("likelihood", HEADS, ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_one_broken_weight_stops_sampling_and_completion(kind, likelihood, value):
    decoder = broken(build(kind, likelihood), value)
    with pytest.raises(ValueError, match=MESSAGE):
        decoder.sample(num=2)
    with pytest.raises(ValueError, match=MESSAGE):
        decoder.sample(num=2, temperature=0)
    x = torch.zeros(2, *SHAPE, dtype=decoder.dtype)
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[:, 2:] = False
    with pytest.raises(ValueError, match=MESSAGE):
        decoder.sample(known=(x, mask))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("likelihood", HEADS[:2], ids=repr)
@pytest.mark.parametrize("kind", KINDS)
def test_one_broken_weight_stops_coding(kind, likelihood, value):
    decoder = broken(build(kind, likelihood), value)
    with pytest.raises(coding.CodingError, match="expected finite p"):
        coding.encode(decoder, torch.zeros(1, *SHAPE, dtype=torch.uint8), coding.RangeEncoder())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_code_that_is_not_finite_is_refused(kind, value):
    decoder = build(kind, Categorical(4), (3,))
    h = torch.zeros(2, 3)
    h[1, 2] = value
    x = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    with pytest.raises(ValueError, match="expected a finite h, got NaN or infinity"):
        decoder.sample(h)
    with pytest.raises(ValueError, match="expected a finite h, got NaN or infinity"):
        coding.encode(decoder, x, coding.RangeEncoder(), h)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_noise_outside_0_1_is_refused(kind, value):
    noise = torch.rand(2, *SHAPE)
    noise[1, 0, 2, 3] = value
    with pytest.raises(ValueError, match=r"expected noise in \[0, 1\), got"):
        build(kind, Categorical(4)).sample(noise=noise)


@pytest.mark.parametrize("row", [0, 2, 3])
def test_what_turns_nan_in_the_middle_is_named_by_its_row(row):
    """Also the last pixel of all, which nothing after it sees."""
    decoder = GatedPixelCNN(SHAPE, num_levels=4, cond_shape=(1, 4, 5), hidden_channels=12)
    h = torch.zeros(1, 1, 4, 5)
    h[0, 0, row, 4] = 3e38  # finite, but not what a layer makes of it
    with torch.no_grad():
        for layer in decoder.head.hidden_cond, decoder.head.output_cond:
            assert layer.project is not None
            layer.project.weight.fill_(10.0)
    with pytest.raises(ValueError, match=f"{MESSAGE} in row {row}"):
        decoder.sample(h)


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_a_cached_scan_looks_once_a_row(kind):
    """A look makes the CPU wait for a GPU."""
    looks = []

    class Watched(Categorical):
        def defined(self, params: Tensor) -> Tensor:
            looks.append(params.shape)
            return super().defined(params)

    decoder = kind(SHAPE, likelihood=Watched(4), hidden_channels=12, num_layers=1)
    decoder.sample(num=2)
    assert len(looks) == SHAPE[1]
    assert all(math.prod(shape) == 2 * 12 * SHAPE[2] for shape in looks)


def test_a_users_scan_that_keeps_no_rows_is_looked_at_pixel_by_pixel():
    class Bare(Scan):
        def params(self, row: int, col: int, channel: int) -> Tensor:
            return torch.full((2, 4), math.nan if (row, col) == (1, 0) else 0.0)

        def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
            pass

    draw = Draw(Categorical(4), torch.rand(2, 1, 3, 3))
    with pytest.raises(ValueError, match=f"{MESSAGE} in row 1"):
        run(Bare(), draw, (1, 3, 3), 2, torch.uint8)


def test_levels_ruled_out_by_minus_infinity_are_a_distribution():
    logits = torch.zeros(1, 8, 2, 2)
    logits[:, [0, 2, 5]] = -math.inf
    assert Categorical(4).defined(logits).all()
    logits[:, 4:] = -math.inf
    assert not Categorical(4).defined(logits).all()
    decoder = GatedPixelCNN((1, 3, 3), num_levels=4, hidden_channels=8)
    with torch.no_grad():
        assert decoder.head.output.bias is not None
        decoder.head.output.bias[2] = -math.inf
    assert 2 not in decoder.sample(num=50)
    check_causality(decoder)


@pytest.mark.parametrize("likelihood", HEADS, ids=repr)
@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_the_checks_refuse_a_decoder_that_is_not_finite(kind, likelihood):
    decoder = kind(SHAPE, likelihood=likelihood, hidden_channels=12)
    broken(decoder, math.nan)
    with pytest.raises(ValueError, match=MESSAGE):
        check_causality(decoder)
    with pytest.raises(ValueError, match=MESSAGE):
        receptive_field(decoder)


def test_the_plain_scan_gives_each_row_as_it_was_used():
    decoder = GatedPixelCNN(SHAPE, num_levels=4, hidden_channels=12).eval()
    with torch.no_grad():
        scan = PlainScan(decoder, None, 2)
        used = [scan.params(0, col, 2) for col in range(5)]
        row = scan.row(0)
    torch.testing.assert_close(torch.stack(used, dim=2), row)

"""Prove the first promise: a user's autoencoder takes a decoder of ours by changing two lines."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import decoders
from decoders import (
    DeconvDecoder,
    GatedPixelCNN,
    PixelCNN,
    from_levels,
    requantize,
    to_levels,
)


def users_encoder() -> nn.Module:
    """Any network from images in [0, 1] to codes, untouched."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 16), nn.ReLU(), nn.Linear(16, 8))


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN, DeconvDecoder])
def test_two_lines_swap_the_decoder_of_an_autoencoder(kind):
    x = torch.rand(12, 3, 6, 6).mul(8).floor() / 8
    encoder = users_encoder()
    decoder = kind((3, 6, 6), num_levels=9, cond_shape=(8,), hidden_channels=12)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = -decoder(to_levels(x, 9), h=encoder(x)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item() / (3 * 6 * 6 * math.log(2)))
    assert losses[0] < math.log2(9) + 0.5, "bits per dim begin near those of a uniform guess"
    assert losses[-1] < losses[0] - 0.02
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    reconstruction = decoder.sample(encoder(x))
    assert reconstruction.shape == x.shape
    assert reconstruction.dtype == torch.uint8


def test_floats_are_refused_with_the_name_of_the_cure():
    with pytest.raises(ValueError, match=r"decoders\.to_levels"):
        GatedPixelCNN((3, 6, 6), num_layers=1, hidden_channels=12)(torch.rand(2, 3, 6, 6))


def test_every_public_name_is_there_and_documented():
    for name in decoders.__all__:
        assert getattr(decoders, name).__doc__, name
    assert decoders.__all__ == sorted(decoders.__all__)


@pytest.mark.parametrize("num_levels", [2, 17, 256, 300])
def test_levels_come_back_from_floats(num_levels):
    levels = torch.arange(num_levels)
    back = to_levels(from_levels(levels, num_levels), num_levels)
    assert torch.equal(back.long(), levels)
    assert back.dtype == (torch.uint8 if num_levels <= 256 else torch.int64)


def test_requantized_levels():
    """Fewer: bins of one width. More: spread evenly, ends included. As many: unchanged."""
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(requantize(levels, 256, 256), levels)
    assert requantize(levels, 256, 8).bincount().tolist() == [32] * 8
    few = torch.arange(5, dtype=torch.uint8)
    assert requantize(few, 5, 1001).tolist() == [0, 250, 500, 750, 1000]
    assert requantize(few, 5, 1001).dtype == torch.int64


@pytest.mark.parametrize("convert", [from_levels, lambda x, n: requantize(x, n, 2)])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([4]), r"expected levels 0\.\.3, got 4\.\.4"),
        (torch.tensor([-1, 2]), r"expected levels 0\.\.3, got -1\.\.2"),
        (torch.tensor([0.5]), r"expected integer levels 0\.\.3, got torch.float32"),
    ],
)
def test_what_is_not_a_level_is_refused(convert, x, message):
    with pytest.raises(ValueError, match=message):
        convert(x, 4)

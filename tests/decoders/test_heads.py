"""Prove how levels enter a network: apart from each other, and alike where they are close."""

from __future__ import annotations

import torch

from decoders.heads import PixelEmbedding


def test_embedded_levels_begin_smooth_in_every_channel():
    """Or images would be noise to the network until the table is learned."""
    table = PixelEmbedding(3, 256, dim=4).table
    assert table is not None
    for weight in table.weight.detach().unflatten(0, (3, 256)):
        assert (weight[1:] - weight[:-1]).norm(dim=1).max() < 0.1
        torch.testing.assert_close(weight.T @ weight / 256, torch.eye(4), atol=1e-5, rtol=0)


def test_more_dimensions_than_levels_begin_apart():
    table = PixelEmbedding(1, 2, dim=5).table
    assert table is not None
    assert (table.weight[0] != table.weight[1]).all()

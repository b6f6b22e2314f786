"""Prove how h reaches a layer: a vector everywhere alike, a map at its place, resized unblended."""

from __future__ import annotations

import pytest
import torch

from decoders import DeconvDecoder
from decoders.conditioning import Conditioning, fit_map


def test_a_vector_adds_the_same_bias_everywhere():
    x, h = torch.randn(4, 6, 3, 5), torch.randn(4, 2)
    cond = Conditioning((2,), 6)
    added = cond(x, h) - x
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added), atol=1e-6, rtol=0)
    assert cond.project is not None
    weight = cond.project.weight[:, :, 0, 0]
    torch.testing.assert_close(added[:, :, 0, 0], h @ weight.t(), atol=1e-6, rtol=1e-5)


def test_a_map_adds_at_each_place_what_stands_there():
    x, h = torch.zeros(1, 6, 3, 5), torch.zeros(1, 2, 3, 5)
    h[0, 0, 1, 2] = 1
    added = Conditioning((2, 3, 5), 6)(x, h).abs().sum(dim=1)[0]
    assert added.nonzero().tolist() == [[1, 2]]


def test_without_h_nothing_is_built_or_added():
    cond, x = Conditioning((), 6), torch.randn(2, 6, 3, 3)
    assert not list(cond.parameters())
    assert torch.equal(cond(x, None), x)


def test_a_map_of_classes_grows_by_repeating():
    h = torch.arange(6.0).reshape(1, 1, 2, 3)
    large = fit_map(h, (4, 9), "nearest")
    assert large is not None
    assert torch.equal(large, h.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3))


@pytest.mark.parametrize("size", [(3, 3), (7, 4), (2, 11)])
def test_resizing_blends_no_classes_and_has_no_direction(size):
    """Mirrored in, mirrored out; a shift by half a pixel would show."""
    h = torch.rand(1, 1, 5, 5)
    small = fit_map(h, size, "nearest")
    assert small is not None
    assert small.shape == (1, 1, *size)
    assert set(small.flatten().tolist()) <= set(h.flatten().tolist())
    if size[0] % 2 and size[1] % 2:
        mirrored = fit_map(h.flip(2, 3), size, "nearest")
        assert mirrored is not None
        assert torch.equal(mirrored, small.flip(2, 3))


def test_bilinear_resizing_blends_and_a_fitting_map_passes_unchanged():
    h = torch.tensor([[[[0.0, 1.0]]]])
    large = fit_map(h, (1, 4), "bilinear")
    assert large is not None
    assert large.flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
    same = fit_map(h, (1, 2), "nearest")
    assert same is not None
    assert torch.equal(same, h)
    vector = torch.randn(2, 3)
    assert fit_map(vector, (4, 4), "nearest") is vector
    assert fit_map(None, (4, 4), "nearest") is None


@pytest.mark.parametrize("cond_shape", [(32,), (16, 16, 16)])
def test_new_deconvolutions_let_h_through(cond_shape):
    """A latent that hardly changes what is decoded is ignored, and then removed by its KL."""
    decoder = DeconvDecoder((3, 64, 64), num_levels=4, cond_shape=cond_shape, hidden_channels=32)
    params = decoder.params(torch.zeros(32, 3, 64, 64), torch.randn(32, *cond_shape))
    assert params.std(dim=0).mean() > 0.05

"""Prove what attention alone may break: memory, the first pixel, and sums over large scores."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from decoders import PixelSNAIL
from decoders.pixelsnail_layers import Attention, places

SMALL: dict[str, Any] = {"num_levels": 4, "hidden_channels": 12, "num_blocks": 2, "num_layers": 1}


@pytest.mark.parametrize("options", [{}, {"num_heads": 2, "key_channels": 6, "value_channels": 16}])
def test_no_kernel_that_keeps_all_scores_is_asked_for(options):
    """Forwards and backwards; the others refuse heads of two widths, or features apart."""
    decoder = PixelSNAIL((3, 5, 7), **SMALL, **options)
    x = torch.randint(4, (2, 3, 5, 7)).to(torch.uint8)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        decoder(x).sum().backward()
        with torch.autocast("cpu", torch.bfloat16):
            decoder(x).sum().backward()


def attention(heads: int) -> Attention:
    return Attention(
        3, 8, heads=heads, key_channels=4, value_channels=6, norm=False, dropout=0.0
    ).double()


@pytest.mark.parametrize("heads", [1, 2])
def test_it_is_a_softmax_over_earlier_pixels_and_one_of_zeros(heads):
    """As the equation says, written out with a mask."""
    part = attention(heads)
    features, image = torch.randn(2, 8, 3, 5).double(), torch.randn(2, 3, 3, 5).double()
    place = places(3, 5, image).expand(2, -1, -1, -1)
    seen = torch.cat([features, place], dim=1)
    query = part.query(part.ask(seen))
    key, value = part.key_value(part.tell(torch.cat([seen, image], dim=1))).split([4, 6], dim=1)
    query, key, value = (x.flatten(2).unflatten(1, (heads, -1)) for x in (query, key, value))
    scores = torch.einsum("bhdq,bhdk->bhqk", query, key) * (heads / 4) ** 0.5
    weights = scores.exp().tril(-1)
    weights = weights / (1 + weights.sum(dim=3, keepdim=True))
    expected = torch.einsum("bhqk,bhdk->bhdq", weights, value).reshape(2, 6, 3, 5)
    found = part(features, place, image)
    torch.testing.assert_close(found, expected)
    assert (found[:, :, 0, 0] == 0).all(), "the first pixel sees nothing"


def test_huge_scores_are_finite():
    decoder = PixelSNAIL((1, 3, 5), **SMALL)
    with torch.no_grad():
        for part in decoder.modules():
            if isinstance(part, Attention):
                part.query.weight.mul_(1e6)
                part.key_value.weight.mul_(1e3)
    x = torch.randint(4, (2, 1, 3, 5)).to(torch.uint8)
    decoder(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())
    assert decoder(decoder.sample(num=2)).isfinite().all()


@pytest.mark.parametrize(("num", "cond_shape"), list(product([1, 7], [(3,), (2, 2, 3)])))
def test_each_step_equals_the_whole_network_for_any_batch(num, cond_shape):
    decoder = PixelSNAIL((2, 7, 5), cond_shape=cond_shape, num_heads=2, **SMALL).double().eval()
    x, h = torch.randint(4, (num, 2, 7, 5)).to(torch.uint8), torch.randn(num, *cond_shape).double()
    with torch.no_grad():
        expected, scan = decoder.params(x, h), decoder.scan(h, num)
        for row, col, channel in product(range(7), range(5), range(2)):
            if col == channel == 0:
                scan.begin_row(row)
            found = scan.params(row, col, channel).clone()
            scan.push(row, col, channel, x[:, channel, row, col])
            if channel == 1:
                torch.testing.assert_close(found, expected[:, :, row, col], rtol=1e-12, atol=1e-12)

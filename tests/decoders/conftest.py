"""What the tests of decoders share: small decoders of every kind, and images and h that fit them.

A test that takes `network`, `colors` or `cond_shape` runs for every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from decoders import (
    Decoder,
    DeconvDecoder,
    DiscretizedLogisticMixture,
    FactorizedDecoder,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
)

Build = Callable[..., Any]
SMALL: dict[str, Any] = {
    "hidden_channels": 24,
    "num_layers": 2,
    "kernel_size": 3,
    "first_kernel_size": 5,
}
NETWORKS: dict[str, Build] = {
    "gated": partial(GatedPixelCNN, **SMALL),
    "plain": partial(PixelCNN, **SMALL, residual=False),
    "residual": partial(PixelCNN, **SMALL, residual=True),
    "plusplus": partial(PixelCNNPlusPlus, hidden_channels=12, num_blocks=1),
}
"""The autoregressive networks."""

COLORS: dict[str, Callable[[int], dict[str, Any]]] = {
    "groups": lambda levels: {"num_levels": levels, "color_order": "groups"},
    "head": lambda levels: {"num_levels": levels, "color_order": "head"},
    "independent": lambda levels: {"num_levels": levels, "color_order": "independent"},
    "logistic": lambda levels: {"likelihood": DiscretizedLogisticMixture(levels, 3)},
}
"""How a pixel's channels depend on each other: by the network, or by the likelihood."""

NOT_BUILT = {("plusplus", "groups")}
"""A network and an order of colors that it refuses; no test is made of these."""

CONDS = {"none": (), "vector": (3,), "map": (2, 2, 3)}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights and images in every run, whatever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS.keys())
def network(request: pytest.FixtureRequest) -> Callable[..., FactorizedDecoder]:
    return request.param


@pytest.fixture(
    params=[*NETWORKS.values(), partial(DeconvDecoder, hidden_channels=4)],
    ids=[*NETWORKS.keys(), "deconv"],
)
def any_network(request: pytest.FixtureRequest) -> Callable[..., Decoder]:
    return request.param


@pytest.fixture(params=COLORS.values(), ids=COLORS.keys())
def colors(request: pytest.FixtureRequest) -> Callable[[int], dict[str, Any]]:
    return request.param


@pytest.fixture(params=CONDS.values(), ids=CONDS.keys())
def cond_shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


@pytest.fixture
def inputs() -> Callable[[Decoder, int], tuple[Tensor, Tensor | None]]:
    """A batch of random images and h that fit a decoder, in its own floating-point type."""

    def draw(decoder: Decoder, batch: int) -> tuple[Tensor, Tensor | None]:
        dtype = next(decoder.parameters()).dtype
        shape = (batch, *decoder.image_shape)
        if decoder.num_levels is None:
            x = torch.randn(shape, dtype=dtype)
        else:
            x = torch.randint(decoder.num_levels, shape).to(decoder.dtype)
        h = torch.randn(batch, *decoder.cond_shape, dtype=dtype) if decoder.cond_shape else None
        return x, h

    return draw


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests of what no network is built with."""
    items[:] = [item for item in items if not _is_not_built(item)]


def _is_not_built(item: pytest.Item) -> bool:
    words = item.name.rstrip("]").partition("[")[2].split("-")
    return any(network in words and order in words for network, order in NOT_BUILT)

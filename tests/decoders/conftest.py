"""What the tests of decoders share: small decoders of every kind, and images and h that fit them.

A test that takes `network`, `colors` or `cond_shape` runs for every one of them. One that takes all
three runs for every pair of values, not for every triple: a fault needs one trunk, one head and one
way of conditioning, of which at most two meet in one piece of code.
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
    PixelSNAIL,
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
    "snail": partial(
        PixelSNAIL, hidden_channels=12, num_blocks=2, num_layers=1, num_heads=2, key_channels=4
    ),
}
"""The autoregressive networks."""

COLORS: dict[str, Callable[[int], dict[str, Any]]] = {
    "groups": lambda levels: {"num_levels": levels, "color_order": "groups"},
    "head": lambda levels: {"num_levels": levels, "color_order": "head"},
    "independent": lambda levels: {"num_levels": levels, "color_order": "independent"},
    "logistic": lambda levels: {"likelihood": DiscretizedLogisticMixture(levels, 3)},
}
"""How a pixel's channels depend on each other: by the network, or by the likelihood."""

NOT_BUILT = {("plusplus", "groups"), ("snail", "groups")}
"""A network and an order of colors that it refuses; no test is made of these."""

CONDS = {"none": (), "vector": (3,), "map": (2, 2, 3)}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights and images in every run, whatever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Callable[..., FactorizedDecoder]:
    return NETWORKS[request.param]


@pytest.fixture(
    params=[*NETWORKS.values(), partial(DeconvDecoder, hidden_channels=4)],
    ids=[*NETWORKS.keys(), "deconv"],
)
def any_network(request: pytest.FixtureRequest) -> Callable[..., Decoder]:
    return request.param


@pytest.fixture(params=COLORS)
def colors(request: pytest.FixtureRequest) -> Callable[[int], dict[str, Any]]:
    return COLORS[request.param]


@pytest.fixture(params=CONDS)
def cond_shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return CONDS[request.param]


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
    """Leave out what no network is built with, and triples of which every pair is in another."""
    items[:] = [item for item in items if not (_is_not_built(item) or _is_extra(item))]


def _is_not_built(item: pytest.Item) -> bool:
    values = [value for value in _values(item).values() if isinstance(value, str)]
    return any(network in values and order in values for network, order in NOT_BUILT)


def _is_extra(item: pytest.Item) -> bool:
    """Whether an item is of three fixtures, but not the one way of conditioning of its pair."""
    values = _values(item)
    if not {"network", "colors", "cond_shape"} <= values.keys():
        return False
    place = list(NETWORKS).index(values["network"]) + list(COLORS).index(values["colors"])
    return list(CONDS)[place % len(CONDS)] != values["cond_shape"]


def _values(item: pytest.Item) -> dict[str, Any]:
    """The values by which a test is parametrized."""
    call = getattr(item, "callspec", None)
    return {} if call is None else call.params

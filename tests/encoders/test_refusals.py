"""Wrong arguments of encoders are refused in one sentence: what was expected, and what came."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from encoders import (
    ConvEncoder,
    Deterministic,
    GaussianEncoder,
    HierarchicalEncoder,
    Joint,
    LabelEmbedding,
    MapEncoder,
    TextEncoder,
    Upsample,
)

SHAPE = (1, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ConvEncoder(28), "image_shape (C, H, W), got 28: give a tuple of three"),
        (lambda: ConvEncoder((1, 8.0, 8)), "image_shape (C, H, W), got (1, 8.0, 8): give integers"),
        (lambda: ConvEncoder(SHAPE, code_shape=3), "code_shape (K,) or (K, H', W'), got 3: write"),
        (lambda: ConvEncoder(SHAPE, num_levels=2.5), "num_levels to be an integer of at least 2"),
        (lambda: ConvEncoder(SHAPE, hidden_channels=0), "hidden_channels to be an integer of"),
        (lambda: Deterministic(3, (3,)), "expected a network that is an nn.Module, got 3"),
        (lambda: Deterministic(nn.Flatten(), 64), "code_shape (K,) or (K, H', W'), got 64: write"),
        (lambda: GaussianEncoder(SHAPE, 2.5), "latent_dim to be an integer of at least 1, got 2.5"),
        (lambda: GaussianEncoder(SHAPE, True), "latent_dim to be an integer of at least 1, got Tr"),
        (lambda: LabelEmbedding(2.5, 3), "num_classes to be an integer of at least 1, got 2.5"),
        (lambda: LabelEmbedding(3, -1), "dim to be an integer of at least 1, got -1"),
        (lambda: MapEncoder(3, 16), "expected code_shape (K', H', W'), got 16: give a tuple"),
        (lambda: MapEncoder(0, (2, 4, 4)), "num_channels to be an integer of at least 1, got 0"),
        (lambda: TextEncoder((3,)), "dim to be an integer of at least 1, got (3,)"),
        (
            lambda: HierarchicalEncoder(SHAPE, map_shape=3, latent_dim=2, prior=nn.Linear(1, 1)),
            "expected map_shape (K1, H', W'), got 3: give a tuple of three",
        ),
        (lambda: Joint(nn.Linear(1, 1), nn.Linear(1, 1)), "encoders to join, got a Linear: wrap"),
        (lambda: Upsample(3, (8, 8, 8)), "in_shape (K,) or (K, h, w) and out_shape (K', H', W')"),
        (lambda: ConvEncoder(SHAPE)(torch.zeros(1, *SHAPE).numpy()), "a tensor, got a ndarray"),
    ],
)
def test_a_wrong_argument_is_refused(call, message):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_encoder_must_say_what_its_code_costs():
    class Mute(Deterministic):
        given = ""

    mute = Mute(nn.Flatten(), (64,))
    with pytest.raises(ValueError, match="expected Mute to say what its h costs, got has_latents"):
        Joint(mute, LabelEmbedding(3, 2))


def test_latents_without_a_method_for_them_are_named():
    class Half(Deterministic):
        given, has_latents = "", True

    half = Half(nn.Flatten(), (64,))
    with pytest.raises(TypeError, match="Half has latents, but no method sample_prior"):
        half.sample_prior(2)
    with pytest.raises(TypeError, match="Half has no two levels of latents"):
        half.sample_bottom(torch.zeros(1, 2))

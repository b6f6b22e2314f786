"""Prove that the checks name every leak, pass what is causal, and draw the receptive field."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decoders import (
    Categorical,
    FactorizedDecoder,
    GatedPixelCNN,
    PixelCNN,
    check_causality,
    receptive_field,
)
from decoders.checks import sensitivity, show_field


class Linear(FactorizedDecoder):
    """A user's decoder, of `params` alone: logits linear in all of x, by a matrix that says which
    sub-pixel sees which, both in raster order."""

    def __init__(self, image_shape: tuple[int, int, int], sees: Tensor):
        super().__init__(image_shape, Categorical(3))
        self.weight = nn.Parameter(sees * (1 + torch.rand(sees.shape)))

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        channels, height, width = self.image_shape
        flat = x.to(self.weight.dtype).permute(0, 2, 3, 1).flatten(1)
        score = (flat @ self.weight.t()).reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        level = torch.arange(3, device=x.device).view(1, 1, 3, 1, 1)
        return (score.unsqueeze(2) * level).flatten(1, 2)


def test_a_users_causal_decoder_passes():
    check_causality(Linear((2, 2, 3), torch.ones(12, 12).tril(-1)))


@pytest.mark.parametrize(
    ("target", "source", "message"),
    [
        (0, 0, "(row 0, column 0, channel 0) depends on (row 0, column 0, channel 0), which is it"),
        (0, 1, "(row 0, column 0, channel 0) depends on (row 0, column 0, channel 1), which comes"),
        (5, 6, "(row 0, column 2, channel 1) depends on (row 1, column 0, channel 0), which comes"),
        (4, 11, "(row 0, column 2, channel 0) depends on (row 1, column 2, channel 1), which"),
        (11, 11, "(row 1, column 2, channel 1) depends on (row 1, column 2, channel 1), which is"),
    ],
)
def test_one_leak_is_found_and_named(target: int, source: int, message: str):
    sees = torch.ones(12, 12).tril(-1)
    sees[target, source] = 1
    with pytest.raises(AssertionError) as error:
        check_causality(Linear((2, 2, 3), sees))
    assert message in str(error.value)


class Normalised(PixelCNN):
    """The usual mistake: statistics over all pixels of an image, as in instance normalization."""

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        params = super().params(x, h)
        return params - params.mean(dim=(2, 3), keepdim=True)


def test_statistics_over_pixels_are_a_leak():
    decoder = Normalised((1, 3, 3), num_levels=4, hidden_channels=8, num_layers=1, kernel_size=3)
    with pytest.raises(AssertionError, match=r"row 0, column 0, channel 0\) depends on .* itself"):
        check_causality(decoder)


def test_a_mask_forgotten_is_a_leak():
    """A mask of type B at the first layer shows a pixel itself."""
    decoder = GatedPixelCNN((1, 3, 3), num_levels=4, hidden_channels=8, num_layers=1)
    decoder.layers[0].left = nn.Conv2d(1, 16, (1, 3), padding="same")
    with pytest.raises(AssertionError, match="not causal"):
        check_causality(decoder)


def test_the_check_changes_nothing_of_the_decoder():
    decoder = GatedPixelCNN((1, 3, 3), num_levels=4, hidden_channels=8, num_layers=1, dropout=0.5)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    check_causality(decoder)
    assert decoder.training
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_receptive_fields_as_text_show_the_blind_spot():
    kwargs = {"num_levels": 2, "hidden_channels": 16, "kernel_size": 3, "first_kernel_size": 3}
    target = (4, 3, 0)
    gated = GatedPixelCNN((1, 6, 7), num_layers=5, **kwargs)
    plain = PixelCNN((1, 6, 7), num_layers=5, residual=True, **kwargs)
    complete = ["#######"] * 4 + ["###@...", "......."]
    blind = ["#######", "#######", "######.", "#####..", "###@...", "......."]
    assert show_field(receptive_field(gated, target), target).split("\n") == complete
    assert show_field(receptive_field(plain, target), target).split("\n") == blind


def test_the_receptive_field_of_the_middle_is_the_default():
    decoder = GatedPixelCNN((3, 3, 5), num_levels=4, hidden_channels=24, num_layers=3)
    field = receptive_field(decoder)
    assert field.shape == (3, 5, 3)
    assert field.dtype == torch.bool
    assert torch.equal(field, (torch.arange(45) < 23).reshape(3, 5, 3))


@pytest.mark.parametrize("target", [(3, 0, 0), (0, 5, 0), (0, 0, 1), (-1, 0, 0)])
def test_a_target_outside_the_image_is_refused(target):
    decoder = GatedPixelCNN((1, 3, 5), num_levels=2, hidden_channels=8, num_layers=1)
    with pytest.raises(ValueError, match=r"within \(3, 5, 1\), got"):
        receptive_field(decoder, target)


@pytest.mark.parametrize("color_order", ["groups", "head", "independent"])
@pytest.mark.parametrize("network", [GatedPixelCNN, PixelCNN])
def test_gradients_find_the_receptive_field(network, color_order):
    """Of the middle pixel, whose own earlier colors count in the orders that have any."""
    torch.manual_seed(0)
    decoder = network(
        (3, 5, 7), num_levels=4, cond_shape=(2,), hidden_channels=24, num_layers=2, kernel_size=3,
        first_kernel_size=3, color_order=color_order, embedding_dim=2,
    )  # fmt: skip
    x, h = torch.randint(4, (8, 3, 5, 7), dtype=torch.uint8), torch.randn(8, 2)
    field = receptive_field(decoder).any(dim=-1)
    found = sensitivity(decoder, x, h) > 0
    assert torch.equal(found, field)
    assert all(p.grad is None for p in decoder.parameters())


def test_sensitivity_needs_an_embedding():
    decoder = Linear((2, 2, 3), torch.ones(12, 12).tril(-1))
    with pytest.raises(TypeError, match="PixelEmbedding, got Linear"):
        sensitivity(decoder, torch.zeros(1, 2, 2, 3, dtype=torch.uint8))

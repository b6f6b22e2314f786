"""Prove that wrong input is refused in one sentence that says what was expected and what came."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from decoders import (
    Categorical,
    DeconvDecoder,
    DiagonalGaussian,
    DiscretizedLogisticMixture,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
    check_causality,
    to_levels,
)

SHAPE = (3, 5, 6)


@pytest.fixture
def any_network():
    """One stands for all: arguments are checked in the base classes alone."""
    return partial(GatedPixelCNN, hidden_channels=12, num_layers=1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 1, 5, 6, dtype=torch.uint8), "(B, 3, 5, 6), got (2, 1, 5, 6)"),
        (torch.zeros(2, 3, 6, 5, dtype=torch.uint8), "(B, 3, 5, 6), got (2, 3, 6, 5)"),
        (torch.zeros(3, 5, 6, dtype=torch.uint8), "(B, 3, 5, 6), got (3, 5, 6)"),
        (torch.zeros(2, *SHAPE), "torch.uint8 levels 0..3, got torch.float32; turn floats in"),
        (torch.zeros(2, *SHAPE), "decoders.to_levels"),
        (torch.zeros(2, *SHAPE, dtype=torch.int64), "torch.uint8 levels 0..3, got torch.int64"),
        (torch.full((2, *SHAPE), 4, dtype=torch.uint8), "expected levels 0..3, got 4..4"),
    ],
)
def test_a_wrong_image_is_refused(any_network, x, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below)
        any_network(SHAPE, num_levels=4)(x)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cond_shape", "h", "message"),
    [
        ((3,), None, "expected h of shape (B, 3), got none"),
        ((2, 2, 3), None, "expected h of shape (B, 2, 2, 3), got none"),
        ((), torch.zeros(2, 3), "without conditioning: build it with cond_shape=(3,)"),
        ((3,), torch.zeros(2, 4), "expected h of shape (2, 3), got (2, 4)"),
        ((3,), torch.zeros(3), "expected h of shape (2, 3), got (3,)"),
        ((3,), torch.zeros(5, 3), "expected h of shape (2, 3), got (5, 3)"),
        ((3,), torch.zeros(2, 3, 1, 1), "expected h of shape (2, 3), got (2, 3, 1, 1)"),
        ((2, 2, 3), torch.zeros(2, 2, 3, 2), "(2, 2, 2, 3), got (2, 2, 3, 2)"),
        ((3,), torch.zeros(2, 3, dtype=torch.int64), "floating-point h, got torch.int64: embed"),
        (
            (3,),
            torch.zeros(2, 3, dtype=torch.float64),
            "type torch.float32, got torch.float64",
        ),
    ],
)
def test_a_wrong_h_is_refused(any_network, cond_shape, h, message):
    decoder = any_network(SHAPE, num_levels=4, cond_shape=cond_shape)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        decoder(torch.zeros(2, *SHAPE, dtype=torch.uint8), h)
    assert message in str(error.value)
    with pytest.raises(ValueError, match="h"):
        decoder.sample(h, num=2)


def known(shape: tuple[int, ...] = (2, *SHAPE), dtype: torch.dtype = torch.uint8):
    return torch.zeros(shape, dtype=dtype)


MASK = torch.ones(SHAPE, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, "num, the images to draw, to be an integer of at least 1, got 0"),
        ({"num": -1}, "num, the images to draw, to be an integer of at least 1, got -1"),
        ({"h": torch.zeros(2, 3), "num": 3}, "num=2, the number of h, or no num, got 3"),
        ({"temperature": -1.0}, "finite temperature of at least 0, got -1.0"),
        ({"temperature": float("nan")}, "finite temperature of at least 0, got nan"),
        ({"temperature": float("inf")}, "finite temperature of at least 0, got inf"),
        ({"noise": torch.rand(2, 3, 6, 5)}, "noise of shape (2, 3, 5, 6), got (2, 3, 6, 5)"),
        ({"noise": torch.rand(3, *SHAPE), "num": 2}, "(2, 3, 5, 6), got (3, 3, 5, 6)"),
        ({"num": 2, "known": (known(), MASK.float())}, "type torch.bool, got torch.float32"),
        ({"num": 2, "known": (known(), MASK[0])}, "mask of that shape or (3, 5, 6), got"),
        ({"num": 3, "known": (known(), MASK)}, "known images of shape (3, 3, 5, 6)"),
        ({"num": 2, "known": (known((2, 3, 5, 5)), MASK)}, "(B, 3, 5, 6), got (2, 3, 5, 5)"),
        ({"num": 2, "known": (known(dtype=torch.float32), MASK)}, "decoders.to_levels"),
        ({"num": 2, "known": (known() + 9, MASK)}, "expected levels 0..3, got 9..9"),
    ],
)
def test_a_wrong_argument_of_sample_is_refused(any_network, arguments, message):
    cond_shape = (3,) if "h" in arguments else ()
    decoder = any_network(SHAPE, num_levels=4, cond_shape=cond_shape)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        decoder.sample(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (5, 6)}, "image_shape (C, H, W), got (5, 6)"),
        ({"image_shape": (1, 0, 6)}, "image_shape (C, H, W), got (1, 0, 6)"),
        ({"cond_shape": (3, 4)}, "cond_shape (), (K,) or (K, H', W'), got (3, 4)"),
        ({"kernel_size": 4}, "odd kernel size of at least 1, got 4"),
        ({"first_kernel_size": 0}, "odd kernel size of at least 1, got 0"),
        ({"first_kernel_size": 1}, "at least 3"),
        ({"hidden_channels": 2}, "at least 3 channels, one for each of 3 channel groups, got 2"),
        ({"color_order": "rgb"}, "'groups', 'head' or 'independent', got 'rgb'"),
        ({"num_levels": 1}, "num_levels to be an integer of at least 2, got 1"),
        ({"likelihood": Categorical(5)}, "num_levels=5, as in Categorical(num_levels=5), or no"),
        (
            {"likelihood": DiscretizedLogisticMixture(4), "color_order": "groups"},
            "which orders the channels itself, got 'groups'",
        ),
        (
            {"likelihood": DiagonalGaussian(), "num_levels": None, "embedding_dim": 2},
            "embedding_dim=0 for continuous x",
        ),
    ],
)
def test_an_impossible_network_is_refused(options, message):
    options = {"image_shape": SHAPE, "num_levels": 4, **options}
    with pytest.raises(ValueError) as error:  # noqa: PT011
        GatedPixelCNN(options.pop("image_shape"), **options)
    assert message in str(error.value)


@pytest.mark.parametrize("kind", [PixelCNNPlusPlus, PixelSNAIL])
def test_channel_groups_are_refused_where_there_are_none(kind):
    with pytest.raises(
        ValueError, match="'auto', 'head' or 'independent', got 'groups': 'head' orders"
    ):
        kind(SHAPE, num_levels=4, color_order="groups")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads to divide key_channels, got 3 heads for 16 channels: choose"),
        ({"num_heads": 8, "hidden_channels": 24}, "a divisor, or value_channels=16"),
        ({"num_heads": 0}, "num_heads to be an integer of at least 1, got 0"),
        ({"key_channels": 0}, "key_channels to be an integer of at least 1, got 0"),
        ({"num_layers": 0}, "num_layers to be an integer of at least 1, got 0"),
        ({"num_blocks": 0}, "num_blocks to be an integer of at least 1, got 0"),
        ({"first_kernel_size": 1}, "at least 3 for a layer that sees earlier rows alone, got 1"),
    ],
)
def test_an_impossible_pixelsnail_is_refused(options, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        PixelSNAIL(SHAPE, num_levels=4, **options)
    assert message in str(error.value)


def test_a_masked_stack_of_single_pixels_is_refused():
    with pytest.raises(
        ValueError, match="at least 3 for a layer that sees earlier rows alone, got 1"
    ):
        PixelCNN(SHAPE, num_levels=4, kernel_size=1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([0.5, 1.5]), r"got 0\.5\.\.1\.5: rescale"),
        (torch.tensor([-1.0, 1.0]), r"got -1\.\.1: rescale"),
        (torch.tensor([0.5, float("nan")]), "nan"),
        (torch.tensor([0, 255]), "expected floats in .* got torch.int64"),
    ],
)
def test_to_levels_refuses_what_is_not_in_0_1(x, message):
    with pytest.raises(ValueError, match=message):
        to_levels(x)


IMAGE = torch.zeros(2, *SHAPE, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": 28}, "expected image_shape (C, H, W), got 28: write (1, 28, 28)"),
        ({"image_shape": (1, 28.5, 28)}, "image_shape (C, H, W), got (1, 28.5, 28): give integers"),
        ({"image_shape": "rgb"}, "expected image_shape (C, H, W), got 'rgb'"),
        ({"image_shape": None}, "expected image_shape (C, H, W), got None"),
        ({"cond_shape": 16}, "cond_shape (), (K,) or (K, H', W'), got 16: write (16,)"),
        ({"cond_shape": None}, "cond_shape (), (K,) or (K, H', W'), got None"),
        ({"cond_shape": (0,)}, "got (0,): give integers of at least 1"),
        ({"cond_shape": (2.5,)}, "got (2.5,): give integers of at least 1"),
        ({"cond_shape": (True,)}, "got (True,): give integers of at least 1"),
        ({"num_levels": True}, "num_levels to be an integer of at least 2, got True"),
        ({"num_levels": 2.5}, "num_levels to be an integer of at least 2, got 2.5"),
        ({"num_levels": "4"}, "num_levels to be an integer of at least 2, got '4'"),
        ({"hidden_channels": 2.5}, "hidden_channels to be an integer of at least 1, got 2.5"),
        ({"hidden_channels": 0}, "hidden_channels to be an integer of at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("kind", [GatedPixelCNN, DeconvDecoder])
def test_what_is_no_size_is_refused(kind, arguments, message):
    arguments = {"image_shape": SHAPE, "num_levels": 4, **arguments}
    with pytest.raises(ValueError) as error:  # noqa: PT011
        kind(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": -1}, "num_layers to be an integer of at least 0, got -1"),
        ({"num_layers": 1.0}, "num_layers to be an integer of at least 0, got 1.0"),
        ({"kernel_size": 3.0}, "expected an odd kernel size, an integer, got 3.0"),
        ({"embedding_dim": -1}, "embedding_dim to be an integer of at least 0, got -1"),
        ({"head_channels": 7.5}, "head_channels to be an integer of at least 1, got 7.5"),
        ({"resize": "cubic"}, "expected resize 'nearest' or 'bilinear', got 'cubic'"),
    ],
)
@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_what_is_no_size_of_an_autoregressive_one_is_refused(kind, arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        kind(SHAPE, num_levels=4, **arguments)
    assert message in str(error.value)


def test_numpys_integers_and_lists_are_sizes(any_network):
    decoder = any_network(list(SHAPE), num_levels=np.int64(4), cond_shape=[np.int32(3)])
    assert decoder.image_shape == SHAPE
    assert decoder.cond_shape == (3,)
    assert decoder.sample(torch.zeros(1, 3), num=np.int64(1)).shape == (1, *SHAPE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda d: d.sample(3),
            "expected h to be a tensor, got 3: the number of images to",
        ),
        (lambda d: d(IMAGE, 3), "expected h to be a tensor, got 3"),
        (lambda d: d(IMAGE, [0.5]), "expected h to be a tensor, got (0.5,)"),
        (lambda d: d(IMAGE.numpy()), "expected images to be a tensor, got a ndarray: convert"),
        (lambda d: d([1, 2]), "expected images to be a tensor, got (1, 2)"),
        (lambda d: d(None), "expected images to be a tensor, got None"),
        (lambda d: d.sample(noise=3), "expected noise to be a tensor, got 3"),
        (lambda d: d.sample(known=IMAGE), "expected known=(images, mask), two tensors"),
        (lambda d: d.sample(known=(IMAGE, True)), "two tensors, the mask True where"),
        (lambda d: to_levels([0.5]), "expected floats in [0, 1] to be a tensor, got (0.5,)"),
        (lambda d: check_causality(d.parameters), "a FactorizedDecoder to measure, got a method"),
        (lambda d: GatedPixelCNN(SHAPE, likelihood=5), "a Likelihood, such as decoders.Cat"),  # pyright: ignore
        (lambda d: Categorical(4).log_prob(IMAGE, IMAGE.float()), "expected integer levels"),
    ],
)
def test_another_kind_of_object_is_refused(any_network, call, message):
    with pytest.raises((TypeError, ValueError)) as error:
        call(any_network(SHAPE, num_levels=4))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 2.5}, "num, the images to draw, to be an integer of at least 1, got 2.5"),
        ({"num": True}, "num, the images to draw, to be an integer of at least 1, got True"),
        ({"num": "3"}, "num, the images to draw, to be an integer of at least 1, got '3'"),
        ({"temperature": "0.5"}, "expected a finite temperature of at least 0, got '0.5'"),
        ({"temperature": None}, "expected a finite temperature of at least 0, got None"),
    ],
)
def test_what_is_no_number_is_refused_by_sample(any_network, arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        any_network(SHAPE, num_levels=4).sample(**arguments)
    assert message in str(error.value)

"""A `Model` takes a decoder and an encoder, and says what to do with anything else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from decoders import GatedPixelCNN
from encoders import LabelEmbedding
from pipelines.model import Model


def decoder(**options: Any) -> GatedPixelCNN:
    return GatedPixelCNN((1, 4, 4), num_levels=4, hidden_channels=8, num_layers=1, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Model(decoder(), nn.Sequential(nn.Flatten())),  # pyright: ignore
            "expected an Encoder, got a Sequential: wrap your own network, as in encoders.Determ",
        ),
        (lambda: Model(nn.Linear(1, 1)), "expected a Decoder, got a Linear: subclass one of"),  # pyright: ignore
        (lambda: Model(LabelEmbedding(3, 4)), "expected a Decoder, got a LabelEmbedding"),  # pyright: ignore
        (lambda: Model(decoder(), LabelEmbedding(3, 4)), "expected a decoder with cond_shape=(4,)"),
        (lambda: Model(decoder(), code_dropout="a"), "code_dropout from 0 to below 1"),  # pyright: ignore
        (lambda: Model(decoder()).sample("a"), "num, the images to draw, to be an integer"),  # pyright: ignore
        (lambda: Model(decoder()).sample(2.5), "num, the images to draw, to be an integer"),  # pyright: ignore
    ],
)
def test_another_kind_of_object_is_refused(call, message):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert message in str(error.value)


def test_a_model_exports_with_any_batch():
    model = Model(decoder(cond_shape=(4,)), LabelEmbedding(3, 4)).eval()
    x, y = torch.randint(4, (5, 1, 4, 4)).to(torch.uint8), torch.arange(5) % 3
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (x, y), dynamic_shapes=(batch, batch)).module()
    for size in (1, 3):
        found = program(x[:size], y[:size])
        torch.testing.assert_close(found.distortion, model(x[:size], y[:size]).distortion)
        assert found.rate.shape == (size,)


def test_compiled_parts_are_taken():
    """As for an estimate's many passes; the backend here changes nothing."""
    torch.manual_seed(0)
    plain, labels = decoder(cond_shape=(4,)), LabelEmbedding(3, 4)
    model = Model(torch.compile(plain, backend="eager"), torch.compile(labels, backend="eager"))  # pyright: ignore
    x, y = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2])
    with torch.no_grad():
        assert torch.allclose(model(x, y).distortion, Model(plain, labels)(x, y).distortion)

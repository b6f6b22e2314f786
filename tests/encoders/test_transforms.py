"""Encoders take any batch when exported, and look at values only where that is possible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.func import functional_call, grad, vmap

from encoders import (
    ConvEncoder,
    Deterministic,
    Encoder,
    LabelEmbedding,
    MapEncoder,
    TextEncoder,
)

SHAPE, LEVELS = (2, 9, 6), 5


def images(num: int) -> tuple[Tensor, Any]:
    return torch.randint(0, LEVELS, (num, *SHAPE), dtype=torch.uint8), None


def labels(num: int) -> tuple[Any, Tensor]:
    return None, torch.arange(num) % 3


def maps(num: int) -> tuple[Any, Tensor]:
    return None, torch.randint(0, 4, (num, 9, 6), dtype=torch.uint8)


CASES: dict[str, tuple[Callable[[], Encoder], Callable[[int], tuple[Any, Any]]]] = {
    "conv": (
        lambda: ConvEncoder(SHAPE, num_levels=LEVELS, code_shape=(7,), hidden_channels=4),
        images,
    ),
    "deterministic": (
        lambda: Deterministic(
            nn.Sequential(nn.Flatten(), nn.Linear(108, 7)), (7,), num_levels=LEVELS
        ),
        images,
    ),
    "label": (lambda: LabelEmbedding(3, 6), labels),
    "map": (lambda: MapEncoder(4, (6, 9, 6), hidden_channels=8), maps),
}


class Codes(nn.Module):
    """h alone, as an exported program gives it."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, given: Tensor) -> Tensor:
        from_image = self.encoder.reads_image
        return self.encoder(given if from_image else None, None if from_image else given).h


@pytest.mark.parametrize("name", CASES)
def test_an_exported_encoder_takes_any_batch(name):
    make, annotate = CASES[name]
    module = Codes(make()).eval()
    given = next(part for part in annotate(5) if part is not None)
    program = torch.export.export(
        module, (given,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    ).module()
    for size in (1, 3, 5):
        torch.testing.assert_close(program(given[:size]), module(given[:size]))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_each_example(name):
    make, annotate = CASES[name]
    module = Codes(make())
    given = next(part for part in annotate(3) if part is not None)
    parameters: dict[str, Tensor] = dict(module.named_parameters())

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(module, parameters, (one[None],)).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, given)
    for n in range(3):
        module.zero_grad()
        module(given[n : n + 1]).square().sum().backward()
        for key, parameter in parameters.items():
            torch.testing.assert_close(each[key][n], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("conv", torch.full((1, *SHAPE), LEVELS, dtype=torch.uint8)),
        ("map", torch.full((1, 9, 6), 4, dtype=torch.uint8)),
        ("label", torch.tensor([3])),
    ],
)
def test_numbers_are_looked_at_unless_that_is_switched_off(name, wrong, monkeypatch):
    module = Codes(CASES[name][0]())
    with pytest.raises(ValueError, match=r"expected .* 0\.\.\d, got \d"):
        module(wrong)
    monkeypatch.setattr(Encoder, "check_values", False)
    with contextlib.suppress(IndexError, RuntimeError):  # PyTorch's own, where there is a table
        module(wrong)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch's own
def test_a_compiled_text_encoder_takes_batches_of_any_size():
    """Compiled once for a size and once for all, on both sides of the GRU, PyTorch's own kernel."""
    torch.compiler.reset()
    counter = CompileCounter()
    encoder = TextEncoder(4, embedding_dim=5, hidden_channels=8)
    compiled = torch.compile(encoder, backend=counter)
    counts = []
    for num in (2, 3, 4, 5, 7, 11):
        tokens = torch.randint(1, 90, (num, 12))
        assert torch.equal(compiled(None, tokens).h, encoder(None, tokens).h)
        counts.append(counter.frame_count)
    assert counts[0] == 2
    assert counts[1:] == [4] * 5

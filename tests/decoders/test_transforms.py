"""Decoders export with any batch, vectorise and differentiate per example, and follow shapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from decoders import (
    Decoder,
    DeconvDecoder,
    DiagonalGaussian,
    DiscretizedLogisticMixture,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
)

SHAPE = (3, 3, 4)
HEADS: dict[str, dict[str, Any]] = {
    "4 levels": {"num_levels": 4},
    "256 levels": {"num_levels": 256},
    "300 levels": {"num_levels": 300},
    "logistic": {"likelihood": DiscretizedLogisticMixture(17, 2)},
    "gaussian": {"likelihood": DiagonalGaussian()},
}


SMALL: dict[str, Any] = {"hidden_channels": 12, "num_layers": 1}
MADE: dict[str, Callable[[], Decoder]] = {
    "gated": lambda: GatedPixelCNN(SHAPE, cond_shape=(2,), num_levels=4, **SMALL),
    "plain": lambda: PixelCNN(SHAPE, cond_shape=(2,), num_levels=4, **SMALL),
    "plusplus": lambda: PixelCNNPlusPlus(
        SHAPE, cond_shape=(2,), num_levels=4, hidden_channels=12, num_blocks=1
    ),
    "snail": lambda: PixelSNAIL(SHAPE, cond_shape=(2,), num_levels=4, num_blocks=1, **SMALL),
    **{head: partial(DeconvDecoder, SHAPE, cond_shape=(2,), **HEADS[head]) for head in HEADS},
}
"""Every network, and every head on the smallest of them: neither knows the other."""


@pytest.fixture(params=MADE)
def make(request: pytest.FixtureRequest) -> Callable[[], Decoder]:
    return lambda: MADE[request.param]().eval()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(
            (kind, HEADS["4 levels"])
            for kind in (GatedPixelCNN, PixelCNN, PixelSNAIL, DeconvDecoder)
        ),
        *((DeconvDecoder, HEADS[head]) for head in ("300 levels", "logistic", "gaussian")),
    ],
)
def test_an_exported_decoder_takes_any_batch(kind, options, inputs):
    """As the parameters come about in one way for all heads, each of both is exported once."""
    size = {} if kind is DeconvDecoder else {"num_layers": 1}
    decoder = kind(SHAPE, cond_shape=(2,), hidden_channels=8, **size, **options).eval()
    x, h = inputs(decoder, 5)
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(decoder, (x, h), dynamic_shapes=(batch, batch))
    module = program.run_decompositions({}).module()  # what an export to ONNX goes on from
    for size in (1, 2, 5):
        torch.testing.assert_close(module(x[:size], h[:size]), decoder(x[:size], h[:size]))


@pytest.mark.slow
def test_onnx_takes_any_batch(tmp_path: Path, network, inputs):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    decoder = network(SHAPE, num_levels=4, cond_shape=(2,)).eval()
    x, h = inputs(decoder, 5)
    batch = {0: torch.export.Dim.DYNAMIC}
    file = tmp_path / "decoder.onnx"
    torch.onnx.export(decoder, (x, h), file, dynamo=True, dynamic_shapes=(batch, batch))
    session = runtime.InferenceSession(file)
    names = [given.name for given in session.get_inputs()]
    for size in (1, 2, 5):
        given = dict(zip(names, (x[:size].numpy(), h[:size].numpy()), strict=True))
        found = torch.from_numpy(session.run(None, given)[0])
        torch.testing.assert_close(found, decoder(x[:size], h[:size]), rtol=1e-4, atol=1e-4)


def test_gradients_of_each_example(make, inputs):
    decoder = make()
    x, h = inputs(decoder, 3)
    parameters = dict(decoder.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor, h: Tensor) -> Tensor:
        return -functional_call(decoder, parameters, (x[None], h[None])).sum()

    each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, h)
    for n in range(3):
        decoder.zero_grad()
        (-decoder(x[n : n + 1], h[n : n + 1]).sum()).backward()
        for name, parameter in parameters.items():
            torch.testing.assert_close(each[name][n], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # PyTorch's own, in jvp
def test_codes_are_vectorised_and_differentiated_forwards(make, inputs):
    decoder = make()
    x, h = inputs(decoder, 3)
    several = torch.stack([h, h + 1])
    out = vmap(lambda h: decoder(x, h))(several)
    torch.testing.assert_close(out, torch.stack([decoder(x, h), decoder(x, h + 1)]))
    value, tangent, *_ = jvp(lambda h: decoder(x, h), (h,), (torch.ones_like(h),))
    torch.testing.assert_close(value, decoder(x, h))
    assert tangent.abs().sum() > 0


def test_a_graph_is_made_of_it(make, inputs):
    decoder = make()
    x, h = inputs(decoder, 3)
    graph = make_fx(lambda x, h: decoder(x, h))(x, h)
    torch.testing.assert_close(graph(x, h), decoder(x, h))


@pytest.mark.parametrize("mode", [FakeTensorMode, lambda: torch.device("meta")])
def test_shapes_are_followed_without_numbers(make, mode, inputs):
    x, _ = inputs(make(), 3)
    with mode():
        decoder = make()
        given = torch.zeros(x.shape, dtype=x.dtype), torch.zeros(3, 2)
        assert decoder(*given).shape == (3,)


def test_numbers_are_looked_at_unless_that_is_switched_off(any_network, monkeypatch):
    decoder = any_network(SHAPE, num_levels=4)
    x = torch.full((2, *SHAPE), 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"expected levels 0\.\.3, got 4\.\.4"):
        decoder.check_image(x)
    with pytest.raises(ValueError, match=r"expected levels 0\.\.3, got 4\.\.4"):
        torch.no_grad()(decoder.check_image)(x)
    monkeypatch.setattr(Decoder, "check_values", False)
    decoder.check_image(x)
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        decoder.check_image(x.long())

"""The code decides what a kernel may see: no way of building, loading or copying changes it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decoders import FactorizedDecoder, GatedPixelCNN, PixelCNN, check_causality
from decoders.channel_groups import GroupMask, group_ids
from decoders.layers import PixelLinear

SHAPE = (3, 2, 3)


def fill_memory() -> None:
    """Leave numbers where the next tensors are likely to be."""
    parts = [torch.full((size,), 7.0) for size in range(16, 4000, 8)]
    del parts


def empty_then_loaded(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    with torch.device("meta"):
        module = make()
    fill_memory()
    module.to_empty(device="cpu").load_state_dict(state)
    return module


def assigned(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    with torch.device("meta"):
        module = make()
    module.load_state_dict(state, assign=True)
    return module


def set_one_by_one(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    """As Hugging Face's `from_pretrained` does; buffers that are in no file become empty ones."""
    with torch.device("meta"):
        module = make()
    for name, value in state.items():
        owner, _, own = name.rpartition(".")
        setattr(module.get_submodule(owner), own, nn.Parameter(value.clone()))
    fill_memory()
    for name, buffer in list(module.named_buffers()):
        owner, _, own = name.rpartition(".")
        setattr(module.get_submodule(owner), own, torch.empty_like(buffer, device="cpu"))
    return module


def emptied_after_use(make: Callable[[], Any], state: dict[str, Tensor]) -> nn.Module:
    module = make()
    check_causality(module)
    fill_memory()
    module.to_empty(device="cpu").load_state_dict(state)
    return module


def copied(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    module = make()
    module.load_state_dict(state)
    return copy.deepcopy(module)


def through_types(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    module = make().half().double()
    module.load_state_dict(state)
    return module.float()


def saved_whole(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> nn.Module:
    module, file = make(), io.BytesIO()
    module.load_state_dict(state)
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


LOADED = [
    empty_then_loaded, assigned, set_one_by_one, emptied_after_use, copied, through_types,
    saved_whole,
]  # fmt: skip


@pytest.mark.parametrize("load", LOADED, ids=lambda load: load.__name__)
@pytest.mark.parametrize("network", ["gated", "residual"], indirect=True)
@pytest.mark.parametrize("colors", ["groups", "head"], indirect=True)
def test_masks_are_right_after_every_way_of_loading(network, colors, load, inputs):
    def make() -> FactorizedDecoder:
        return network(SHAPE, cond_shape=(2,), **colors(4))

    decoder = make()
    x, h = inputs(decoder, 4)
    loaded = load(make, decoder.state_dict())
    assert torch.equal(loaded(x, h), decoder(x, h))
    noise = torch.rand(4, *SHAPE)
    assert torch.equal(loaded.sample(h, noise=noise), decoder.sample(h, noise=noise))
    check_causality(loaded)


@pytest.mark.parametrize("load", [empty_then_loaded, assigned])
@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_weight_norm_and_embeddings_load_as_well(kind, load, inputs):
    options: dict[str, Any] = {"num_levels": 4, "embedding_dim": 3, "color_order": "head"}

    def make() -> FactorizedDecoder:
        return kind(SHAPE, hidden_channels=12, num_layers=1, weight_norm=True, **options)

    decoder = make()
    x, _ = inputs(decoder, 4)
    loaded = load(make, decoder.state_dict())
    assert torch.equal(loaded(x), decoder(x))
    check_causality(loaded)


def test_a_mask_made_while_sampling_serves_training():
    decoder = GatedPixelCNN(SHAPE, num_levels=4, hidden_channels=12, num_layers=1)
    decoder.sample()  # in inference mode, whose tensors can't be trained with
    (-decoder(torch.zeros(2, *SHAPE, dtype=torch.uint8)).mean()).backward()


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("left", [0, 2])
def test_a_mask_is_its_definition(mask_type, left):
    out_ids, in_ids = group_ids(7, 3, repeats=2), group_ids(5, 3)
    mask = GroupMask(out_ids, in_ids, mask_type, left)
    seen = mask.seen(torch.ones(14, 5, 1, left + 1))
    assert seen.shape == (14, 5, 1, left + 1)
    for out, o in enumerate(out_ids):
        for inp, i in enumerate(in_ids):
            assert seen[out, inp, 0, :left].all()
            assert bool(seen[out, inp, 0, left]) == (i < o if mask_type == "A" else i <= o)
    own = seen[..., left]
    assert mask.hides_all == (not own.any())
    assert mask.shows_all == own.all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_masked_weight_keeps_its_type(dtype):
    layer = PixelLinear(group_ids(6, 3), group_ids(6, 3)).to(dtype)
    assert layer.causal_weight().dtype == dtype
    assert layer.mask is not None
    assert not pickle.loads(pickle.dumps(layer.mask))._made


def test_weights_of_another_device_take_a_mask_of_theirs():
    layer = PixelLinear(group_ids(6, 3), group_ids(6, 3))
    assert layer.causal_weight().device.type == "cpu"
    assert layer.to("meta").causal_weight().device.type == "meta"
    assert layer.to_empty(device="cpu").causal_weight().device.type == "cpu"


@pytest.mark.gpu
def test_masks_follow_to_a_gpu_and_back(network, colors, inputs):
    decoder = network(SHAPE, **colors(4)).double()
    x, _ = inputs(decoder, 4)
    expected = decoder(x)
    torch.testing.assert_close(decoder.cuda()(x.cuda()).cpu(), expected)
    torch.testing.assert_close(decoder.cpu()(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("network", [GatedPixelCNN, PixelCNN])
def test_a_compiled_mask_is_the_same(network, inputs):
    decoder = network(SHAPE, num_levels=4, color_order="groups", hidden_channels=12, num_layers=1)
    x, _ = inputs(decoder, 4)
    expected = decoder(x)
    torch.compiler.reset()
    compiled = torch.compile(decoder, fullgraph=True)(x)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-4)
    compiled.mean().backward()
    weight = decoder.head.output.weight
    assert weight.grad is not None
    hidden = ~decoder.head.output.mask.seen(weight)
    assert not weight.grad[hidden].any()

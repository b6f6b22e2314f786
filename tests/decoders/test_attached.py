"""What is attached to a decoder from outside changes its samples as it changes its scores."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import weight_norm

from decoders import (
    FactorizedDecoder,
    GatedPixelCNN,
    PixelCNN,
    PixelNetwork,
    check_causality,
    coding,
)
from decoders.scan import Draw, PlainScan, Scan, evaluating, run

SMALL: dict[str, Any] = {
    "num_levels": 4, "hidden_channels": 12, "num_layers": 1, "kernel_size": 3, "cond_shape": (2,),
}  # fmt: skip
SHAPE = (3, 3, 4)


def build(kind: Callable[..., FactorizedDecoder], **options: Any) -> Any:
    decoder = kind(SHAPE, **{**SMALL, **options}).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2)
    return decoder


class Adapter(nn.Module):
    """As LoRA does it: a module in a layer's place, with the layer's weights and one more."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base, self.weight, self.bias = base, base.weight, base.bias
        self.scale = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.scale


def hooked(decoder: Any) -> None:
    decoder.layers[1].register_forward_hook(
        lambda module, inputs, out: (
            tuple(3 * part for part in out) if isinstance(out, tuple) else 3 * out
        )
    )


def prehooked(decoder: Any) -> None:
    decoder.head.hidden.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))


def adapted(decoder: Any) -> None:
    decoder.layers[0].above = Adapter(decoder.layers[0].above)


def adapted_head(decoder: Any) -> None:
    decoder.head.output = Adapter(decoder.head.output)


def pruned(decoder: Any) -> None:
    prune.random_unstructured(decoder.head.output, "weight", 0.5)
    with torch.no_grad():  # the pruned weight follows at the next call of the layer
        decoder.head.output.weight_orig.mul_(3)


def patched(decoder: Any) -> None:
    own = decoder.layers[1].forward
    decoder.layers[1].forward = lambda *inputs: (
        tuple(3 * part for part in own(*inputs))
        if isinstance(decoder, GatedPixelCNN)
        else 3 * own(*inputs)
    )


def activated(decoder: Any) -> None:
    decoder.layers[0].activate = lambda x: nn.functional.gelu(x[:, :12])


def patched_params(decoder: Any) -> None:
    own = decoder.params
    decoder.params = lambda x, h=None: 3 * own(x, h)


def added(decoder: Any) -> None:
    decoder.layers.append(copy.deepcopy(decoder.layers[-1]))


ATTACHED = {
    hooked: "a forward hook on layers.1",
    prehooked: "a forward hook on head.hidden",
    adapted: "another Adapter in place of layers.0.above",
    adapted_head: "another Adapter in place of head.output",
    pruned: "a forward hook on head.output",
    patched: "another .*Layer in place of layers.1",
    activated: "another .*Layer in place of layers.0",
    patched_params: "params of",
}


def plain_sample(decoder: FactorizedDecoder, h: Tensor, noise: Tensor) -> Tensor:
    with torch.no_grad(), evaluating(decoder):
        scan, draw = PlainScan(decoder, h, len(noise)), Draw(decoder.likelihood, noise)
        return run(scan, draw, decoder.image_shape, len(noise), decoder.dtype)


@pytest.mark.parametrize("attach", ATTACHED, ids=lambda attach: attach.__name__)
@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_samples_and_files_are_of_the_model_that_is_scored(kind, attach):
    decoder = build(kind)
    h, noise = torch.randn(4, 2, dtype=torch.float64), torch.rand(4, *SHAPE)
    before = decoder.sample(h, noise=noise)
    attach(decoder)
    with pytest.warns(UserWarning, match=f"knows nothing of {ATTACHED[attach]}") as caught:
        drawn = decoder.sample(h, noise=noise)
    assert len(caught) == 1
    assert torch.equal(drawn, plain_sample(decoder, h, noise))
    assert not torch.equal(drawn, before)
    coder = coding.RangeEncoder()
    with pytest.warns(UserWarning, match="knows nothing of"):
        coding.encode(decoder, drawn, coder, h)
    with torch.no_grad():
        bits = -float(decoder.eval().log_prob(drawn, h).sum()) / math.log(2)
    assert abs(32 * len(coder.get_compressed()) - bits) <= 64
    with pytest.warns(UserWarning, match="knows nothing of"):
        back = coding.decode(decoder, 4, coding.RangeDecoder(coder.get_compressed()), h)
    assert torch.equal(back, drawn)


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_a_hook_on_all_modules_counts(kind):
    decoder, h = build(kind), torch.randn(1, 2, dtype=torch.float64)
    handle = register_module_forward_hook(lambda module, inputs, out: None)
    try:
        with pytest.warns(UserWarning, match="a forward hook on all modules"):
            decoder.sample(h)
    finally:
        handle.remove()
    decoder.sample(h)


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_params_overridden_without_a_scan(kind):
    class Sharper(kind):
        def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
            return 3 * super().params(x, h)

    class Own(Sharper):
        def scan(self, h: Tensor | None, num: int) -> Scan:
            return PlainScan(self, h, num)

    decoder = build(Sharper)
    h, noise = torch.randn(4, 2, dtype=torch.float64), torch.rand(4, *SHAPE)
    with pytest.warns(UserWarning, match="params of Sharper, which has no scan of its own"):
        drawn = decoder.sample(h, noise=noise)
    assert torch.equal(drawn, plain_sample(decoder, h, noise))
    build(Own).sample(h)


def test_a_trunk_overridden_without_a_scan():
    class Sharper(GatedPixelCNN):
        def trunk(self, embedded: Tensor, h: Tensor | None) -> Tensor:
            return 3 * super().trunk(embedded, h)

    decoder = build(Sharper)
    h, noise = torch.randn(4, 2, dtype=torch.float64), torch.rand(4, *SHAPE)
    with pytest.warns(UserWarning, match="trunk of Sharper, which has no scan of its own"):
        drawn = decoder.sample(h, noise=noise)
    assert torch.equal(drawn, plain_sample(decoder, h, noise))


def test_a_trunk_of_its_own_needs_no_scan():
    """And there is nothing to warn of."""

    class Above(PixelNetwork):
        color_orders = ("head", "independent")

        def __init__(self, image_shape: tuple[int, int, int], **network: Any):
            super().__init__(image_shape, **network)
            self.rows = nn.Conv2d(self.in_channels, self.hidden_channels, 1)
            self.add_head()

        def trunk(self, embedded: Tensor, h: Tensor | None) -> Tensor:
            return nn.functional.pad(self.rows(embedded), (0, 0, 1, 0))[:, :, :-1]

    decoder = Above(SHAPE, num_levels=4, hidden_channels=12, weight_norm=True)
    check_causality(decoder)
    assert isinstance(decoder.begin_scan(None, 2), PlainScan)
    assert decoder.sample(num=2).shape == (2, *SHAPE)


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 1.5 * weight


def parametrized(decoder: FactorizedDecoder) -> None:
    for part in list(decoder.modules()):
        for name, _ in list(part.named_parameters(recurse=False)):
            parametrize.register_parametrization(part, name, Scaled())


def normalized(decoder: FactorizedDecoder) -> None:
    for part in list(decoder.modules()):
        if isinstance(part, nn.Conv2d):
            weight_norm(part)


def pruned_for_good(decoder: FactorizedDecoder) -> None:
    for part in list(decoder.modules()):
        if isinstance(part, nn.Conv2d):
            prune.random_unstructured(part, "weight", 0.3)
            prune.remove(part, "weight")


def unhooked(decoder: FactorizedDecoder) -> None:
    for part in decoder.modules():
        part.register_forward_hook(lambda module, inputs, out: None).remove()


def own_hook(decoder: FactorizedDecoder) -> None:
    decoder.register_forward_hook(lambda module, inputs, out: None)  # of log_prob, not of params


@pytest.mark.parametrize(
    "change", [parametrized, normalized, pruned_for_good, unhooked, own_hook, copy.deepcopy]
)
@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_what_only_changes_weights_keeps_the_cached_scan(kind, change):
    """And the scan reads the changed weights, wherever in the decoder they are."""
    decoder = build(kind, embedding_dim=2)
    decoder = change(decoder) or decoder
    h, noise = torch.randn(4, 2, dtype=torch.float64), torch.rand(4, *SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not isinstance(decoder.begin_scan(h, 4), PlainScan)
        drawn = decoder.sample(h, noise=noise)
    assert torch.equal(drawn, plain_sample(decoder, h, noise))


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelCNN])
def test_the_decoders_own_weight_norm_may_be_removed(kind):
    decoder = build(kind, weight_norm=True)
    h, noise = torch.randn(4, 2, dtype=torch.float64), torch.rand(4, *SHAPE)
    before = decoder.sample(h, noise=noise)
    for part in list(decoder.modules()):
        if parametrize.is_parametrized(part):
            parametrize.remove_parametrizations(part, "weight")
    assert torch.equal(decoder.sample(h, noise=noise), before)


def test_another_layer_added_at_the_end_counts():
    decoder = build(GatedPixelCNN)
    added(decoder)
    with pytest.warns(UserWarning, match=r"knows nothing of GatedLayer layers\.2"):
        assert isinstance(decoder.begin_scan(torch.randn(1, 2, dtype=torch.float64), 1), PlainScan)

"""Cached scan of a `GatedPixelCNN`: each activation is computed once."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from decoders.caches import LeftWindow, RowCache, RowConv
from decoders.channel_groups import group_bounds
from decoders.gated_layer import GatedLayer
from decoders.network_scan import TrunkScan


class GatedTrunkScan(TrunkScan):
    """Both stacks in raster order.

    When a row begins, the vertical stack advances by that row in every layer, and leaves each
    layer's bias for the horizontal one. Then each sub-pixel takes a few small matrix products for
    each layer, those of its channel group alone.
    """

    def __init__(self, layers: list[GatedLayer], h: Tensor | None, num: int, width: int):
        self.groups = layers[0].groups
        self.layers = [_LayerScan(layer, h, num, width) for layer in layers]
        weight = layers[0].left.weight
        channels, bounds = layers[0].channels, self.layers[0].bounds
        # The gated features of all layers side by side: their summed skips are one product.
        self.gated = weight.new_zeros(num, len(layers) * channels)
        for scan, gated in zip(self.layers, self.gated.split(channels, dim=1), strict=True):
            scan.place(gated)
        following = [*self.layers[1:], None]
        self.moves = [
            [
                [a.move(col, group, b) for a, b in zip(self.layers, following, strict=True)]
                for group in range(self.groups)
            ]
            for col in range(width)
        ]
        joined = torch.cat([_skip_weight(layer) for layer in layers], dim=1).detach().t()
        self.skip_weights = [joined[:, a:b].contiguous() for a, b in pairwise(bounds)]
        self.summed = weight.new_zeros(num, channels)
        self.parts = [self.summed[:, a:b] for a, b in pairwise(bounds)]
        window = self.layers[0].window
        self.pixels = [window.buffer[:, window.left + col] for col in range(width)]

    def begin_row(self, row: int) -> None:
        # The first layer sees strictly earlier rows: the one that was just completed is the last.
        first = self.layers[0].window
        above = first.buffer[:, first.left :].transpose(1, 2).unsqueeze(2)
        for layer in self.layers:
            if row or layer is not self.layers[0]:
                layer.rows.push(above)
            above = layer.begin_row(row)

    def features(self, row: int, col: int, group: int) -> Tensor:
        for move in self.moves[col][group]:
            move.run()
        part = self.parts[group]
        torch.mm(self.gated, self.skip_weights[group], out=part)
        part.relu_()
        return self.summed


class _Move(NamedTuple):
    """Work of one layer for one channel group of one pixel, on views into the scan's buffers."""

    pre: Tensor  # (B, halves * f): what the vertical stack and h give; then, before the activation
    window: Tensor  # (B, seen): the pixels to the left, and the pixel itself
    weight: Tensor  # (seen, halves * f)
    tanh: Tensor | None  # (B, f): its tanh half; None where there are no gates
    gated: Tensor  # (B, f): after it
    groups: Tensor  # (B, up to F): the gated features of this group and those before
    out_weight: Tensor | None  # (up to F, f); None in the last layer
    own: Tensor | None  # (B, f): the residual; None where there is none
    slot: Tensor | None  # (B, f): the next layer's input

    def run(self) -> None:
        """Compute the group's gated features, and the next layer's input."""
        self.pre.addmm_(self.window, self.weight)
        if self.tanh is None:
            torch.clamp_min(self.pre, 0, out=self.gated)
        else:
            self.tanh.tanh_()
            torch.ops.aten.glu.out(self.pre, 1, out=self.gated)
        if self.slot is None or self.out_weight is None:
            return
        if self.own is None:
            torch.mm(self.groups, self.out_weight, out=self.slot)
        else:
            torch.addmm(self.own, self.groups, self.out_weight, out=self.slot)


class _LayerScan:
    """One `GatedLayer` within a scan: a row of the vertical stack, a group of the horizontal one.

    Output channels are reordered so that a channel group is contiguous: its tanh half, then its
    sigmoid half.
    """

    def __init__(self, layer: GatedLayer, h: Tensor | None, num: int, width: int):
        self.layer = layer
        weight, halves = layer.left.weight, layer.halves
        self.bounds = group_bounds(layer.channels, layer.groups)
        self.wide_bounds = [halves * bound for bound in self.bounds]
        halves_of_groups = [
            torch.arange(a, b) + half * layer.channels
            for a, b in pairwise(self.bounds)
            for half in range(halves)
        ]
        order = torch.cat(halves_of_groups).to(weight.device)
        in_bounds = group_bounds(layer.left.in_channels, layer.groups)
        self.rows = RowCache(layer.above, num, width)
        self.window = LeftWindow(layer.left, in_bounds, order, self.wide_bounds, num, width)
        self.above_bias, left_bias = layer.above_cond.bias(h), layer.left_cond.bias(h)
        self.left_bias = None if left_bias is None else left_bias[:, order]
        assert layer.left.bias is not None
        self.link = RowConv(layer.link.weight[order], layer.left.bias[order])
        # What the vertical stack and h give each pixel of the row, to which its window is added.
        self.pre = weight.new_zeros(num, width, halves * layer.channels)
        self.out_weights: list[Tensor] | None = None
        if layer.out is not None:
            out = layer.out.causal_weight().detach()[:, :, 0, 0]
            self.out_weights = [out[a:b, :b].t().contiguous() for a, b in pairwise(self.bounds)]

    def place(self, gated: Tensor) -> None:
        """Take the (B, F) slice that this layer's gated features are written to."""
        self.gated = [gated[:, a:b] for a, b in pairwise(self.bounds)]
        self.seen = [gated[:, :b] for b in self.bounds[1:]]

    def begin_row(self, row: int) -> Tensor:
        """Compute the row of the vertical stack, keep its part of the horizontal one, return it."""
        v = _add_row(self.rows.output(), self.above_bias, row)
        self.pre.copy_(_add_row(self.link(v), self.left_bias, row)[:, :, 0].transpose(1, 2))
        return self.layer.activate(v)

    def move(self, col: int, group: int, after: _LayerScan | None) -> _Move:
        """Return the work for one channel group of the pixels in one column."""
        begin, end = self.wide_bounds[group : group + 2]
        window, pre = self.window, self.pre[:, col, begin:end]
        out_weight, slot = None, None
        if after is not None and self.out_weights is not None:
            out_weight, slot = self.out_weights[group], after.window.slots[col][group]
        return _Move(
            pre=pre,
            window=window.windows[col][group],
            weight=window.weights[group],
            tanh=pre[:, : pre.shape[1] // 2] if self.layer.halves == 2 else None,
            gated=self.gated[group],
            groups=self.seen[group],
            out_weight=out_weight,
            own=window.slots[col][group] if self.layer.residual else None,
            slot=slot,
        )


def _skip_weight(layer: GatedLayer) -> Tensor:
    """Return the (F, F) matrix from a layer's gated features to the head; zeros without a skip."""
    if layer.skip is None:
        return layer.left.weight.new_zeros(layer.channels, layer.channels)
    return layer.skip.causal_weight()[:, :, 0, 0]


def _add_row(x: Tensor, bias: Tensor | None, row: int) -> Tensor:
    """Return x (B, F, 1, W) plus a bias (B, F, 1, 1), or row `row` of one (B, F, H, W)."""
    if bias is None:
        return x
    return x + (bias if bias.shape[2] == 1 else bias[:, :, row : row + 1])

"""PixelCNN: one masked stack as first published, with its blind spot, for comparison."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from decoders.arguments import check_count
from decoders.caches import LeftWindow, RowCache
from decoders.channel_groups import MaskType, group_ids
from decoders.conditioning import Conditioning
from decoders.layers import (
    AboveConv2d,
    LeftConv2d,
    PixelLinear,
    PixelNorm,
    gate,
)
from decoders.network_scan import NetworkScan, TrunkScan
from decoders.pixel_network import PixelNetwork
from decoders.scan import Scan


class PixelCNN(PixelNetwork):
    """A PixelCNN as of 2016: a mask-A convolution, mask-B convolutions, 1×1 layers.

    The stacked masked kernels leave a wedge above and to the right that no depth reaches, the blind
    spot; `GatedPixelCNN` has none. The plain stack as published has `residual=False, num_layers=5,
    kernel_size=7`, the residual one `hidden_channels=128, num_layers=8, kernel_size=3`.

    Args:
        image_shape: (C, H, W).
        num_layers: Mask-B layers, or residual blocks, after the first.
        kernel_size: Size of the kernels after the first layer, odd.
        first_kernel_size: Size of the mask-A layer's kernel, odd.
        residual: Blocks of 1×1, k×k, 1×1 at half the width, with a residual connection.
        gated: Gates in place of ReLUs: a gated stack that keeps the blind spot.
        norm: Normalization of each pixel's features, without statistics over other pixels.
        network: see `PixelNetwork`.

    Source: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016),
    https://arxiv.org/abs/1601.06759.

    >>> decoder = PixelCNN((3, 8, 8), num_levels=4, num_layers=2, hidden_channels=12)
    >>> decoder.sample(num=2).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_layers: int = 12,
        kernel_size: int = 5,
        first_kernel_size: int = 7,
        residual: bool = True,
        gated: bool = False,
        norm: bool = False,
        **network: Any,
    ):
        super().__init__(image_shape, **network)
        num_layers = check_count(num_layers, "num_layers", 0)
        self.layers = nn.ModuleList(
            MaskedLayer(
                self.hidden_channels if index else self.in_channels,
                self.hidden_channels,
                kernel_size if index else first_kernel_size,
                mask_type="B" if index else "A",
                groups=self.groups,
                cond_shape=self.cond_shape,
                residual=residual,
                gated=gated,
                norm=norm,
                dropout=self.dropout,
            )
            for index in range(num_layers + 1)
        )
        self.add_head()

    def trunk(self, embedded: Tensor, h: Tensor | None) -> Tensor:
        """Return the last layer's features; see `PixelNetwork.trunk`."""
        features = embedded
        for layer in self.layers:
            features = layer(features, h)
        return features

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """Return a pass in raster order that computes each activation once."""
        h = self.fit(h)
        layers = cast("list[MaskedLayer]", list(self.layers))
        trunk = MaskedTrunkScan(layers, h, num, self.image_shape[2])
        return NetworkScan(self.embed, trunk, self.head, h)


class MaskedLayer(nn.Module):
    """A masked k×k convolution, cropped to the rows above and the pixels to the left.

    ::

        plain:     x ── above + left + cond ── (norm) ── activation ── y
        residual:  x ── ReLU 1×1 ── above + left + cond ── (norm) ── activation ── 1×1 + x ── y

    The residual block works at half the width. The first layer ("A") is always plain.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int,
        *,
        mask_type: MaskType,
        groups: int,
        cond_shape: tuple[int, ...],
        residual: bool,
        gated: bool,
        norm: bool,
        dropout: float,
    ):
        super().__init__()
        self.residual = residual and mask_type == "B"
        inner = max(groups, channels // 2) if self.residual else channels
        halves = 2 if gated else 1
        ids, inner_ids = group_ids(channels, groups), group_ids(inner, groups)
        source_ids = inner_ids if self.residual else group_ids(in_channels, groups)
        self.enter = PixelLinear(ids, inner_ids) if self.residual else None
        self.above = AboveConv2d(
            len(source_ids), halves * inner, kernel_size, current_row=False, bias=False
        )
        wide_ids = group_ids(inner, groups, halves)
        self.left = LeftConv2d(source_ids, wide_ids, kernel_size, mask_type)
        self.cond = Conditioning(cond_shape, halves * inner)
        self.norm = PixelNorm(inner, groups) if norm else None
        self.leave = PixelLinear(inner_ids, ids) if self.residual else None
        self.dropout = nn.Dropout(dropout)
        self.activate = gate if gated else torch.relu
        self.groups, self.halves, self.inner, self.channels = groups, halves, inner, channels

    def forward(self, x: Tensor, h: Tensor | None) -> Tensor:
        z = x if self.enter is None else self.enter(torch.relu(x))
        z = self.finish(self.cond(self.above(z) + self.left(z), h))
        return z if self.leave is None else x + self.leave(z)

    def finish(self, z: Tensor) -> Tensor:
        """Activate, normalize and drop, pixel by pixel: (B, halves * inner, …) -> (B, inner, …)."""
        z = self.activate(z)
        if self.norm is not None:
            z = self.norm(z)
        return self.dropout(z)


class MaskedTrunkScan(TrunkScan):
    """A masked stack in raster order: rows above a row at a time, the current row by pixels."""

    def __init__(self, layers: list[MaskedLayer], h: Tensor | None, num: int, width: int):
        self.groups = layers[0].groups
        self.layers = [_MaskedLayerScan(layer, h, num, width) for layer in layers]
        window = self.layers[0].window
        self.last = window.buffer.new_zeros(num, layers[-1].channels)
        self.pixels = [window.buffer[:, window.left + col] for col in range(width)]

    def begin_row(self, row: int) -> None:
        for layer in self.layers:
            layer.begin_row(row)

    def features(self, row: int, col: int, group: int) -> Tensor:
        x = self.pixels[col]
        for layer in self.layers:
            x = layer.step(x, col, group)
        return self.last.copy_(x).relu_()  # copied: x is of another type under autocast


class _MaskedLayerScan:
    """One `MaskedLayer` within a scan."""

    def __init__(self, layer: MaskedLayer, h: Tensor | None, num: int, width: int):
        self.layer = layer
        wide = layer.halves * layer.inner
        order = torch.arange(wide, device=layer.left.weight.device)
        # One group of outputs: pixel-wise parts run over all channels, of which those of later
        # groups are not right yet and are computed again.
        self.window = LeftWindow(
            layer.left, [0, layer.left.in_channels], order, [0, wide], num, width
        )
        self.rows = RowCache(layer.above, num, width)
        self.cond = layer.cond.bias(h)
        assert layer.left.bias is not None
        self.left_bias = layer.left.bias.detach()
        self.bias = self.window.buffer.new_zeros(num, width, wide)

    def begin_row(self, row: int) -> None:
        """Keep what the rows above give this row."""
        window = self.window
        if row:
            self.rows.push(window.buffer[:, window.left :].transpose(1, 2).unsqueeze(2))
        above = self.rows.output() + self.left_bias[:, None, None]
        if self.cond is not None:
            above = above + (
                self.cond if self.cond.shape[2] == 1 else self.cond[:, :, row : row + 1]
            )
        self.bias.copy_(above[:, :, 0].transpose(1, 2))

    def step(self, x: Tensor, col: int, group: int) -> Tensor:
        """Return the layer's output (B, F) at one pixel, right up to `group`."""
        layer, window = self.layer, self.window
        if layer.enter is not None:
            z = layer.enter(torch.relu(x))
            window.slots[col][0].copy_(z)
        elif x.data_ptr() != window.slots[col][0].data_ptr():
            window.slots[col][0].copy_(x)
        z = torch.addmm(self.bias[:, col], window.windows[col][0], window.weights[0])
        z = layer.finish(z)
        return z if layer.leave is None else x + layer.leave(z)

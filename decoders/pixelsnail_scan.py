"""Cached scan of a `PixelSNAIL`: each activation is computed once.

Convolutions are computed as in `decoders.caches`: what the row above gives, for a whole row at
once, and what the pixel to the left gives, with each pixel. The key and the value of a pixel are
made of the pixel itself, so they are computed when its last channel is known: as the next pixel
begins, for all blocks together.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.caches import LeftWindow, RowCache, ShiftedCells
from decoders.network_scan import TrunkScan
from decoders.pixelsnail_layers import (
    PLACE,
    Attention,
    AttentionBlock,
    FirstConv,
    GatedResidual,
    places,
)


class AttentionTrunkScan(TrunkScan):
    """All blocks in raster order.

    Args:
        first: the first layer.
        blocks: the blocks.
        h: the conditioning, a map at the image's size.
        num: images.
        size: (H, W) of an image.
        alike: whether every row repeats the same operations on the same memory, as a recording
            needs; otherwise the attention reads no more of its memory than is there.
    """

    groups = 1

    def __init__(
        self,
        first: FirstConv,
        blocks: list[AttentionBlock],
        h: Tensor | None,
        num: int,
        size: tuple[int, int],
        *,
        alike: bool,
    ):
        self.row_period = int(alike)
        self.width = width = size[1]
        self.first = _FirstScan(first, num, width)
        self.pixels = [self.first.pixel(col) for col in range(width)]
        attentions = [block.attention for block in blocks]
        self.memory = _Memory(attentions, self.pixels, first.left.out_channels, num, size, alike)
        self.blocks = [_BlockScan(block, h, num, width) for block in blocks]
        self.last = self.first.pre.new_zeros(num, first.left.out_channels)

    def begin_row(self, row: int) -> None:
        if row:
            self.memory.remember(self.width - 1)
        self.memory.begin_row(row)
        self.first.begin_row(row)
        for block in self.blocks:
            block.begin_row(row)

    def features(self, row: int, col: int, group: int) -> Tensor:
        if col:
            self.memory.remember(col - 1)
        x = self.first.cell(col)
        for index, block in enumerate(self.blocks):
            x = block.cell(x, col, index, self.memory)
        return self.last.copy_(x).relu_()  # copied: it is of another type under autocast


class _FirstScan:
    """A `FirstConv`."""

    def __init__(self, first: FirstConv, num: int, width: int):
        out = first.left.out_channels
        self.rows = RowCache(first.above, num, width)
        bounds = [0, first.left.in_channels], [0, out]
        order = torch.arange(out, device=first.left.weight.device)
        self.window = LeftWindow(first.left, bounds[0], order, bounds[1], num, width)
        self.image = self.window.buffer[:, self.window.left :]
        self.image[..., -1] = 1  # tells the image from its padding
        assert first.left.bias is not None
        self.bias = first.left.bias.detach()
        self.pre = self.bias.new_zeros(num, width, out)

    def pixel(self, col: int) -> Tensor:
        """Return the place (B, C · D) of an embedded pixel."""
        return self.image[:, col, :-1]

    def begin_row(self, row: int) -> None:
        if row:
            self.rows.push(self.image.transpose(1, 2).unsqueeze(2))
        self.pre.copy_(self.rows.output()[:, :, 0].transpose(1, 2)).add_(self.bias)

    def cell(self, col: int) -> Tensor:
        return self.pre[:, col].addmm_(self.window.windows[col][0], self.window.weights[0])


class _BlockScan:
    """An `AttentionBlock`, a pixel at a time."""

    def __init__(self, block: AttentionBlock, h: Tensor | None, num: int, width: int):
        self.layers = [_CellResidual(layer, h, num, width) for layer in _residuals(block.layers)]
        self.ask = _PointResidual([block.attention.ask])
        self.query = _Linear([block.attention.query])
        self.merge = _PointResidual([block.merge])

    def begin_row(self, row: int) -> None:
        for layer in self.layers:
            layer.begin_row(row)

    def cell(self, x: Tensor, col: int, index: int, memory: _Memory) -> Tensor:
        """Compute one pixel's features, (B, F) to the same."""
        for layer in self.layers:
            x = layer.cell(x, col)
        seen = memory.put(x, index, col)
        found = memory.attend(self.query(self.ask(seen))[0], index, col)
        return self.merge(x[None], found[None])[0]


class _CellResidual:
    """A `GatedResidual` with kernels of 2×2, a pixel at a time."""

    def __init__(self, layer: GatedResidual, h: Tensor | None, num: int, width: int):
        self.norm = layer.norm
        self.enter = ShiftedCells(layer.enter, num, width)
        self.leave = ShiftedCells(layer.leave, num, width)
        self.cond = layer.cond.bias(h)

    def begin_row(self, row: int) -> None:
        self.enter.begin_row()
        self.leave.begin_row()
        if self.cond is not None:
            cond = self.cond if self.cond.shape[2] == 1 else self.cond[:, :, row : row + 1]
            self.leave.pre.add_(cond[:, :, 0].transpose(1, 2))

    def cell(self, x: Tensor, col: int) -> Tensor:
        """Compute one pixel, (B, F) to the same."""
        F.elu_(self.enter.slot(col).copy_(x if self.norm is None else self.norm(x)))
        F.elu_(self.leave.slot(col).copy_(self.enter.output(col)))
        return x + F.glu(self.leave.output(col), dim=1)


class _Linear:
    """1×1 convolutions of N blocks at one pixel, (N, B, in) to (N, B, out)."""

    def __init__(self, layers: list[nn.Conv2d]):
        weights = [layer.weight.detach()[:, :, 0, 0].t() for layer in layers]
        self.weight = torch.stack(weights)
        self.bias = self.weight.new_zeros(len(layers), 1, self.weight.shape[2])
        for bias, layer in zip(self.bias, layers, strict=True):
            if layer.bias is not None:
                bias.copy_(layer.bias.detach())

    def __call__(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class _PointResidual:
    """`GatedResidual`s with kernels of 1×1, of N blocks at one pixel: (N, B, F) to the same."""

    def __init__(self, parts: list[GatedResidual]):
        self.norms = [part.norm for part in parts if part.norm is not None]
        self.enter = _Linear([part.enter for part in parts])
        self.leave = _Linear([part.leave for part in parts])
        extras = [part.extra for part in parts if part.extra is not None]
        self.extra = _Linear(extras) if extras else None

    def __call__(self, x: Tensor, a: Tensor | None = None) -> Tensor:
        z = x
        if self.norms:
            z = torch.stack([norm(part) for norm, part in zip(self.norms, x, strict=True)])
        z = self.enter(F.elu(z))
        if self.extra is not None and a is not None:
            z = z + self.extra(F.elu(a))
        return x + F.glu(self.leave(F.elu_(z)), dim=2)


class _Memory:
    """Keys and values of all blocks, of the pixels so far.

    The current row has places of its own, from right to left, in front of all others, so that what
    a pixel sees is one piece, and begins at the same place in every row. It ends with the last row
    above, or, where rows are to be alike, at the end of the memory, and what is not there yet is
    masked.

    ::

        pixels of the current row, right to left │ zeros │ rows above
        ─────────── W ────────────────────────────── 1 ─────────────────

    Args:
        attentions: of each block.
        pixels: for each column, the place of the embedded pixel.
        channels: F, of the features.
        num: images.
        size: (H, W) of an image.
        alike: see `AttentionTrunkScan`.
    """

    def __init__(
        self,
        attentions: list[Attention],
        pixels: list[Tensor],
        channels: int,
        num: int,
        size: tuple[int, int],
        alike: bool,
    ):
        one, like = attentions[0], pixels[0]
        height, width = size
        self.width, self.pixels, self.channels = width, pixels, channels
        self.heads, self.key_channels = one.heads, one.key_channels
        self.tell = _PointResidual([part.tell for part in attentions])
        self.key_value = _Linear([part.key_value for part in attentions])
        self.scale = (one.heads / one.key_channels) ** 0.5
        blocks, several, slots = len(attentions), num * one.heads, height * width + 1
        self.keys = like.new_zeros(blocks, several, one.key_channels // one.heads, slots)
        self.values = like.new_zeros(blocks, several, slots, one.value_channels // one.heads)
        self.mask = like.new_full((slots,), -math.inf)
        self.mask[: width + 1] = 0
        self.alike, self.end = alike, slots
        # Of each pixel in the row: features of each block, its place, and then the pixel.
        self.place = places(height, width, like).permute(1, 2, 0)  # (H, W, 2)
        self.image = channels + PLACE
        self.contexts = like.new_zeros(width, blocks, num, self.image + like.shape[1])

    def begin_row(self, row: int) -> None:
        """Put the row above, whose pixels are all remembered, with the others."""
        if row:
            start = self.width * row + 1
            above = slice(start, start + self.width)
            self.keys[..., above] = self.keys[..., : self.width]
            self.values[:, :, above] = self.values[:, :, : self.width]
            self.mask[above] = 0
        if not self.alike:
            self.end = self.width * (row + 1) + 1
        self.contexts[..., self.channels : self.image] = self.place[row, :, None, None]

    def put(self, features: Tensor, block: int, col: int) -> Tensor:
        """Keep a block's features (B, F) of a pixel; return them with its place, (1, B, F + 2)."""
        context = self.contexts[col, block : block + 1, :, : self.image]
        context[..., : self.channels].copy_(features)
        return context

    def remember(self, col: int) -> None:
        """Compute the keys and values of a pixel whose channels are all known."""
        context = self.contexts[col]
        context[..., self.image :].copy_(self.pixels[col])
        told = self.key_value(self.tell(context))
        key, value = told[..., : self.key_channels], told[..., self.key_channels :]
        slot = self.width - 1 - col
        self.keys[..., slot] = key.reshape(*self.keys.shape[:3])
        self.values[:, :, slot] = value.reshape(*self.values.shape[:2], -1)

    def attend(self, query: Tensor, block: int, col: int) -> Tensor:
        """Return the mean value (B, value_channels) of the pixels before, by a query (B, keys)."""
        seen = slice(self.width - col, self.end)
        query = query.reshape(-1, 1, self.keys.shape[2])
        keys, values = self.keys[block, :, :, seen], self.values[block, :, seen]
        scores = torch.baddbmm(self.mask[seen], query, keys, alpha=self.scale)
        return torch.bmm(scores.softmax(dim=2), values).view(len(query) // self.heads, -1)


def _residuals(layers: nn.ModuleList) -> list[GatedResidual]:
    return [layer for layer in layers if isinstance(layer, GatedResidual)]

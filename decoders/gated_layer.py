"""GatedLayer: one layer of a `GatedPixelCNN`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decoders.channel_groups import MaskType, group_ids
from decoders.conditioning import Conditioning
from decoders.layers import AboveConv2d, LeftConv2d, PixelLinear, gate


class GatedLayer(nn.Module):
    """One layer of both stacks.

    ::

        v ── above ──+cond──┬── gate ────────────────────────── v'
                            └ 1×1 ┐
        a ── left ──+cond ────────+── gate ──┬─ 1×1 ── (+ a) ── a'
                                             └─ 1×1 ─────────── skip

    The first layer ("A") sees the image itself: strictly earlier rows, columns and channels, and
    has no residual, since there is nothing yet to add to. The last one feeds the head alone.
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
        dropout: float,
        residual: bool,
        skip: bool,
        gated: bool,
        last: bool,
    ):
        super().__init__()
        first = mask_type == "A"
        halves = 2 if gated else 1
        ids, wide_ids = group_ids(channels, groups), group_ids(channels, groups, halves)
        wide = halves * channels
        self.above = AboveConv2d(in_channels, wide, kernel_size, current_row=not first)
        self.left = LeftConv2d(group_ids(in_channels, groups), wide_ids, kernel_size, mask_type)
        self.link = nn.Conv2d(wide, wide, 1, bias=False)
        self.above_cond = Conditioning(cond_shape, wide)
        self.left_cond = Conditioning(cond_shape, wide)
        self.skip = PixelLinear(ids, ids, bias=False) if skip else None
        self.out = None if last else PixelLinear(ids, ids, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.activate = gate if gated else torch.relu
        self.residual = residual and not first
        self.groups, self.halves, self.channels = groups, halves, channels

    def forward(
        self, v: Tensor, a: Tensor, h: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        v = self.above_cond(self.above(v), h)
        gated = self.activate(self.left_cond(self.left(a) + self.link(v), h))
        gated = self.dropout(gated)
        skip = self.skip(gated) if self.skip is not None else None
        if self.out is None:
            return v, a, skip
        out = self.out(gated)
        return self.activate(v), a + out if self.residual else out, skip

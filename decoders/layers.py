"""Causal convolutions and activations, the parts every autoregressive decoder is made of.

Sub-pixels are ordered by (row, column, channel). A kernel that may only see earlier ones is cut in
two: `AboveConv2d` sees the rows above at full width, `LeftConv2d` what lies to the left in the row
at hand. Cropping the kernels, rather than multiplying them by zeros, does only useful work.

Within one pixel, channels are ordered by *groups*: the feature channels are split into contiguous
groups, and group g may see group g' of the same pixel where g' < g (mask type A, for the image
itself) or g' <= g (mask type B, for features). One group is the case without any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MaskType = Literal["A", "B"]


def group_bounds(channels: int, groups: int) -> list[int]:
    """Where each of the `groups` contiguous channel groups begins, and the end of the last.

    >>> group_bounds(64, 3)
    [0, 21, 43, 64]
    """
    if channels < groups:
        raise ValueError(
            f"expected at least {groups} channels, one for each of {groups} channel groups, "
            f"got {channels}: widen the layer"
        )
    return [round(channels * g / groups) for g in range(groups + 1)]


def group_ids(channels: int, groups: int, repeats: int = 1) -> list[int]:
    """The group of each of repeats * channels channels, for `repeats` stacked copies.

    A gated layer has two copies: its tanh half and its sigmoid half.

    >>> group_ids(5, 2, repeats=2)
    [0, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    """
    bounds = pairwise(group_bounds(channels, groups))
    return [group for group, (a, b) in enumerate(bounds) for _ in range(a, b)] * repeats


class GroupMask:
    """Which input channels of the same pixel each output channel of a layer may see.

    Made of integers, where and when a weight is multiplied by it, and kept for the next time. It
    is no buffer: nothing that builds a module without numbers (the meta device, `to_empty`), loads
    it or copies it can lose or change it.

    Args:
        out_ids: the group of each output channel.
        in_ids: the group of each input channel.
        mask_type: "A" shows earlier groups, "B" also a channel's own.
        left: columns of the kernel, before that of the pixel itself, that are seen by all.

    Attributes:
        hides_all: whether nothing of the pixel itself is seen.
        shows_all: whether all of it is.

    >>> mask = GroupMask([0, 1], [0, 1], "B")
    >>> mask.apply(torch.ones(2, 2, 1, 1))[:, :, 0, 0]
    tensor([[1., 0.],
            [1., 1.]])
    """

    def __init__(
        self, out_ids: Sequence[int], in_ids: Sequence[int], mask_type: MaskType, left: int = 0
    ):
        self.out_ids, self.in_ids = tuple(out_ids), tuple(in_ids)
        self.offset, self.left = int(mask_type == "A"), left
        self.hides_all = min(self.in_ids) + self.offset > max(self.out_ids)
        self.shows_all = max(self.in_ids) + self.offset <= min(self.out_ids)
        self._made: dict[torch.device, Tensor] = {}

    def apply(self, weight: Tensor) -> Tensor:
        """A kernel (out, in, 1, left + 1) with what may not be seen set to zero."""
        return weight * self.seen(weight)

    def seen(self, weight: Tensor) -> Tensor:
        """The mask (out, in, 1, left + 1) of bool, where the weight is; it fits any type."""
        device = weight.device
        # Compiled, it is a few comparisons, fused into the product. Tensors that stand for others
        # (fake, distributed) want one of their own kind.
        if torch.compiler.is_compiling() or type(weight) not in (Tensor, nn.Parameter):
            return self._make(device)
        made = self._made.get(device)
        if made is None:
            with torch.inference_mode(False):
                made = self._make(device)
            # A CUDA graph that is being recorded has not computed it yet.
            if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
                self._made[device] = made
        return made

    def _make(self, device: torch.device) -> Tensor:
        out_ids, in_ids = _on(self.out_ids, device), _on(self.in_ids, device)
        seen = (in_ids + self.offset <= out_ids[:, None])[:, :, None, None]
        return seen | (torch.arange(self.left + 1, device=device) < self.left)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_made": {}}


def _on(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Integers as a tensor, put together on the device: nothing is copied there to wait for."""
    position = torch.arange(len(ids), device=device)
    out = torch.full_like(position, ids[0])
    for start, (a, b) in enumerate(pairwise(ids), start=1):
        if a != b:
            out = out + (b - a) * (position >= start)
    return out


class AboveConv2d(nn.Conv2d):
    """A convolution over the rows above, at full width.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: the odd size k of the square kernel that this is the upper part of.
        current_row: whether the row at hand is seen as well (for features that already lie
            strictly above), k // 2 + 1 rows in place of k // 2.
        bias: whether a bias is added.

    (B, in, H, W) -> (B, out, H, W).

    >>> AboveConv2d(1, 8, 5, current_row=False)(torch.ones(2, 1, 6, 6)).shape
    torch.Size([2, 8, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        current_row: bool,
        bias: bool = True,
    ):
        reach = check_kernel_size(kernel_size) // 2
        if reach + current_row == 0:
            raise ValueError(
                "expected an odd kernel size of at least 3 for a layer that sees earlier rows "
                f"alone, got {kernel_size}"
            )
        super().__init__(in_channels, out_channels, (reach + current_row, kernel_size), bias=bias)
        self.reach = reach
        self.current_row = current_row

    def forward(self, input: Tensor) -> Tensor:
        x = F.pad(input, (self.reach, self.reach, self.reach, 0))
        if not self.current_row:
            x = x[:, :, :-1]
        return super().forward(x)


class LeftConv2d(nn.Conv2d):
    """A convolution over what lies to the left in the row, and over earlier groups of the pixel.

    Args:
        in_ids: the group of each input channel.
        out_ids: the group of each output channel.
        kernel_size: the odd size k of the kernel that this is the left part of.
        mask_type: "A" hides a pixel's own group, "B" shows it.

    (B, in, H, W) -> (B, out, H, W).

    >>> LeftConv2d(group_ids(3, 3), group_ids(12, 3), 5, "A")(torch.ones(2, 3, 6, 6)).shape
    torch.Size([2, 12, 6, 6])
    """

    def __init__(
        self,
        in_ids: Sequence[int],
        out_ids: Sequence[int],
        kernel_size: int,
        mask_type: MaskType,
    ):
        left = check_kernel_size(kernel_size) // 2
        mask = GroupMask(out_ids, in_ids, mask_type, left)
        self.mask_type: MaskType = mask_type
        self.left, self.sees_centre = left, not mask.hides_all
        if left + self.sees_centre == 0:
            raise ValueError(
                "expected kernel_size >= 3 for a first layer that may not see its own pixel, got 1"
            )
        width = left + self.sees_centre
        super().__init__(len(in_ids), len(out_ids), (1, width))
        self.mask = mask if self.sees_centre and not mask.shows_all else None

    def causal_weight(self) -> Tensor:
        """The kernel (out, in, 1, width) with what may not be seen set to zero."""
        return self.weight if self.mask is None else self.mask.apply(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        x = F.pad(input, (self.left, 0))
        if not self.sees_centre:
            x = x[..., :-1]
        return F.conv2d(x, self.causal_weight(), self.bias)


class ShiftedConv2d(nn.Conv2d):
    """A convolution that sees its own row and those above, padded so that the size stays.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: (rows, columns); the last row is the pixel's own.
        left: whether the last column is the pixel's own, too, or the middle one.
        stride: 2 halves the size: row r of the output sees rows 2r - 1 and 2r.

    >>> ShiftedConv2d(1, 8, (2, 3), left=False, stride=2)(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        left: bool,
        stride: int = 1,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        rows, columns = kernel_size
        side = columns - 1 if left else (columns - 1) // 2
        self.margins = (side, columns - 1 - side, rows - 1, 0)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.margins))


class PixelLinear(nn.Conv2d):
    """A 1×1 convolution that keeps the order of the channel groups.

    (B, in, H, W) -> (B, out, H, W), or (B, in) -> (B, out) for one pixel of every image.
    """

    def __init__(
        self,
        in_ids: Sequence[int],
        out_ids: Sequence[int],
        mask_type: MaskType = "B",
        *,
        bias: bool = True,
    ):
        super().__init__(len(in_ids), len(out_ids), 1, bias=bias)
        mask = GroupMask(out_ids, in_ids, mask_type)
        self.mask = None if mask.shows_all else mask

    def causal_weight(self) -> Tensor:
        """The kernel (out, in, 1, 1) with what may not be seen set to zero."""
        return self.weight if self.mask is None else self.mask.apply(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 2:
            return F.linear(input, self.causal_weight()[:, :, 0, 0], self.bias)
        return F.conv2d(input, self.causal_weight(), self.bias)


class PixelNorm(nn.Module):
    """Layer normalisation of each pixel's features, within each channel group alone.

    Batch normalisation lets every pixel see every other through the batch's statistics; this one
    keeps the likelihood valid in training mode too. (B, F, H, W) or (B, F), the shape is kept.

    Source: Ba, Kiros, Hinton: Layer Normalization (2016), https://arxiv.org/abs/1607.06450.

    >>> PixelNorm(6, 3)(torch.randn(2, 6, 4, 4)).shape
    torch.Size([2, 6, 4, 4])
    """

    def __init__(self, channels: int, groups: int = 1):
        super().__init__()
        bounds = group_bounds(channels, groups)
        self.sizes = [b - a for a, b in pairwise(bounds)]
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1)
        parts = [F.layer_norm(part, part.shape[-1:]) for part in last.split(self.sizes, dim=-1)]
        return (torch.cat(parts, dim=-1) * self.scale + self.shift).movedim(-1, 1)


def gate(x: Tensor) -> Tensor:
    """The gated activation tanh(a) * sigmoid(b) of x = (a, b) along dimension 1: 2F -> F.

    Source: van den Oord et al.: Conditional Image Generation with PixelCNN Decoders (2016),
    https://arxiv.org/abs/1606.05328.
    """
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


def check_kernel_size(kernel_size: int) -> int:
    """The kernel size itself, or a ValueError if it isn't odd and positive."""
    if isinstance(kernel_size, bool) or not isinstance(kernel_size, Integral):
        raise ValueError(f"expected an odd kernel size, an integer, got {kernel_size!r}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel size of at least 1, got {kernel_size}")
    return kernel_size

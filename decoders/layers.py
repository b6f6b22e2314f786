"""Causal convolutions and activations, the parts of every autoregressive network.

Sub-pixels are ordered by (row, column, channel). A kernel that may only see earlier ones is cut in
two: `AboveConv2d` sees the rows above at full width, `LeftConv2d` the pixels to the left in the
current row. Cropping the kernels, rather than multiplying them by zeros, does only useful work.

Within one pixel, channels are ordered by groups, see `decoders.channel_groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.channel_groups import GroupMask, MaskType, group_bounds


class AboveConv2d(nn.Conv2d):
    """A convolution over the rows above, at full width.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: the odd size k of the square kernel that this is the upper part of.
        current_row: whether the current row is seen as well (for features that are already
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
    """A convolution over the pixels to the left in the row, and over earlier groups of the pixel.

    Args:
        in_ids: the group of each input channel.
        out_ids: the group of each output channel.
        kernel_size: the odd size k of the kernel that this is the left part of.
        mask_type: "A" hides a pixel's own group, "B" shows it.

    (B, in, H, W) -> (B, out, H, W).

    >>> from decoders.channel_groups import group_ids
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
        self.left, self.sees_center = left, not mask.hides_all
        if left + self.sees_center == 0:
            raise ValueError(
                "expected kernel_size >= 3 for a first layer that may not see its own pixel, got 1"
            )
        width = left + self.sees_center
        super().__init__(len(in_ids), len(out_ids), (1, width))
        self.mask = mask if self.sees_center and not mask.shows_all else None

    def causal_weight(self) -> Tensor:
        """Return the kernel (out, in, 1, width), zero where nothing may be seen."""
        return self.weight if self.mask is None else self.mask.apply(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        x = F.pad(input, (self.left, 0))
        if not self.sees_center:
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
        """Return the kernel (out, in, 1, 1), zero where nothing may be seen."""
        return self.weight if self.mask is None else self.mask.apply(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 2:
            return F.linear(input, self.causal_weight()[:, :, 0, 0], self.bias)
        return F.conv2d(input, self.causal_weight(), self.bias)


class PixelNorm(nn.Module):
    """Layer normalization of each pixel's features, within each channel group alone.

    Batch normalization lets every pixel see every other through the batch's statistics; this one
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
    """Return the gated activation tanh(a) * sigmoid(b) of x = (a, b) along dimension 1: 2F -> F.

    Source: van den Oord et al.: Conditional Image Generation with PixelCNN Decoders (2016),
    https://arxiv.org/abs/1606.05328.
    """
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


def check_kernel_size(kernel_size: int) -> int:
    """Return the kernel size, or raise a ValueError unless it is odd and positive."""
    if isinstance(kernel_size, bool) or not isinstance(kernel_size, Integral):
        raise ValueError(f"expected an odd kernel size, an integer, got {kernel_size!r}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel size of at least 1, got {kernel_size}")
    return kernel_size

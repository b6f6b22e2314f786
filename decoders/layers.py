"""Causal convolutions and activations, the parts every autoregressive decoder is made of.

Sub-pixels are ordered by (row, column, channel). A kernel that may only see earlier ones is cut in
two: `AboveConv2d` sees the rows above at full width, `LeftConv2d` what lies to the left in the row
at hand. Cropping the kernels, rather than multiplying them by zeros, does only useful work.

Within one pixel, channels are ordered by *groups*: the feature channels are split into contiguous
groups, and group g may see group g' of the same pixel where g' < g (mask type A, for the image
itself) or g' <= g (mask type B, for features). One group is the case without any order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

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


def group_ids(channels: int, groups: int, repeats: int = 1) -> Tensor:
    """The group of each channel, (repeats * channels,), for `repeats` stacked copies.

    A gated layer has two copies: its tanh half and its sigmoid half.
    """
    bounds = group_bounds(channels, groups)
    sizes = torch.tensor([b - a for a, b in pairwise(bounds)])
    return torch.arange(groups).repeat_interleave(sizes).repeat(repeats)


def group_mask(out_ids: Tensor, in_ids: Tensor, mask_type: MaskType) -> Tensor:
    """Which input channel of the same pixel each output channel may see, (out, in) of 0 and 1."""
    out_ids, in_ids = out_ids[:, None], in_ids[None, :]
    return (in_ids < out_ids if mask_type == "A" else in_ids <= out_ids).float()


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

    centre: Tensor

    def __init__(
        self,
        in_ids: Tensor,
        out_ids: Tensor,
        kernel_size: int,
        mask_type: MaskType,
    ):
        left = check_kernel_size(kernel_size) // 2
        centre = group_mask(out_ids, in_ids, mask_type)
        self.mask_type: MaskType = mask_type
        self.left, self.sees_centre = left, bool(centre.any())
        if left + self.sees_centre == 0:
            raise ValueError(
                "expected kernel_size >= 3 for a first layer that may not see its own pixel, got 1"
            )
        width = left + self.sees_centre
        super().__init__(len(in_ids), len(out_ids), (1, width))
        self.masked = self.sees_centre and not bool(centre.all())
        mask = torch.ones(len(out_ids), len(in_ids), 1, width)
        if self.sees_centre:
            mask[:, :, 0, -1] = centre
        self.register_buffer("centre", mask, persistent=False)

    def causal_weight(self) -> Tensor:
        """The kernel (out, in, 1, width) with what may not be seen set to zero."""
        return self.weight * self.centre if self.masked else self.weight

    def forward(self, input: Tensor) -> Tensor:
        x = F.pad(input, (self.left, 0))
        if not self.sees_centre:
            x = x[..., :-1]
        return F.conv2d(x, self.causal_weight(), self.bias)


class PixelLinear(nn.Conv2d):
    """A 1×1 convolution that keeps the order of the channel groups.

    (B, in, H, W) -> (B, out, H, W), or (B, in) -> (B, out) for one pixel of every image.
    """

    mask: Tensor

    def __init__(
        self, in_ids: Tensor, out_ids: Tensor, mask_type: MaskType = "B", *, bias: bool = True
    ):
        super().__init__(len(in_ids), len(out_ids), 1, bias=bias)
        mask = group_mask(out_ids, in_ids, mask_type)
        self.masked = not bool(mask.all())
        self.register_buffer("mask", mask[:, :, None, None], persistent=False)

    def causal_weight(self) -> Tensor:
        """The kernel (out, in, 1, 1) with what may not be seen set to zero."""
        return self.weight * self.mask if self.masked else self.weight

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
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel size of at least 1, got {kernel_size}")
    return kernel_size

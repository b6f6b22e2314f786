"""Layers of a `PixelCNNPlusPlus`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.conditioning import Conditioning
from decoders.layers import ShiftedConv2d

SCALES = 3  # full, half and quarter size


class FirstLayer(nn.Module):
    """The first layer of both streams; u sees the rows above, ul also the pixels to the left.

    The shift follows the convolution: the first row of u and the first pixel of ul are zeros.

    Args:
        in_channels: of the embedded image, with its channel of ones.
        channels: F.
        reach: pixels that the kernels reach to each side.
    """

    def __init__(self, in_channels: int, channels: int, reach: int):
        super().__init__()
        wide = 2 * reach + 1
        self.u = ShiftedConv2d(in_channels, channels, (2, wide), left=False)
        self.above = ShiftedConv2d(in_channels, channels, (1, wide), left=False)
        self.left = ShiftedConv2d(in_channels, channels, (2, reach), left=True)
        self.reach = reach

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        above, left = _shift(self.above(x), rows=1), _shift(self.left(x), columns=1)
        return _shift(self.u(x), rows=1), above + left


class Block(nn.Module):
    """A gated residual block of one stream.

    ::

        x ── act ── conv ── (+ 1×1 act(a)) ── act ── dropout ── conv ── (+ h) ── split p, q
        x + p · sigmoid(q)

    Args:
        channels: F.
        extra: channels of a, the shortcut; 0 for none.
        kernel_size: of both convolutions.
        left: of both convolutions.
        cond_shape: of h.
        dropout: in training.
    """

    def __init__(
        self,
        channels: int,
        extra: int,
        kernel_size: tuple[int, int],
        *,
        left: bool,
        cond_shape: tuple[int, ...],
        dropout: float,
    ):
        super().__init__()
        self.enter = ShiftedConv2d(2 * channels, channels, kernel_size, left=left)
        self.extra = nn.Conv2d(2 * extra, channels, 1, bias=False) if extra else None
        self.dropout = nn.Dropout(dropout)
        self.leave = ShiftedConv2d(2 * channels, 2 * channels, kernel_size, left=left)
        self.cond = Conditioning(cond_shape, 2 * channels)
        # Blocks begin near the identity, which trains deep stacks without normalized weights.
        with torch.no_grad():
            self.leave.weight.mul_(0.1)

    def forward(self, x: Tensor, a: Tensor | None, h: Tensor | None) -> Tensor:
        z = self.enter(act(x))
        if self.extra is not None and a is not None:
            z = z + self.extra(act(a))
        z = self.leave(self.dropout(act(z)))
        return x + F.glu(self.cond(z, h), dim=1)


class BlockPair(nn.Module):
    """A block of each stream; that of ul is given u, and on the way up both are given shortcuts."""

    def __init__(self, channels: int, cond_shape: tuple[int, ...], dropout: float, *, up: bool):
        super().__init__()
        self.u = Block(
            channels, channels if up else 0, (2, 3),
            left=False, cond_shape=cond_shape, dropout=dropout,
        )  # fmt: skip
        self.ul = Block(
            channels, 2 * channels if up else channels, (2, 2),
            left=True, cond_shape=cond_shape, dropout=dropout,
        )  # fmt: skip

    def forward(
        self,
        u: Tensor,
        ul: Tensor,
        h: Tensor | None,
        kept: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        u = self.u(u, kept and kept[0], h)
        return u, self.ul(ul, u if kept is None else torch.cat([u, kept[1]], dim=1), h)


class Resample(nn.Module):
    """Both streams at half the size, or at twice the size."""

    def __init__(self, channels: int, *, halve: bool):
        super().__init__()
        if halve:
            self.u: nn.Module = ShiftedConv2d(channels, channels, (2, 3), left=False, stride=2)
            self.ul: nn.Module = ShiftedConv2d(channels, channels, (2, 2), left=True, stride=2)
        else:
            self.u = ShiftedUpsample(channels, 3)
            self.ul = ShiftedUpsample(channels, 2)

    def forward(self, u: Tensor, ul: Tensor) -> tuple[Tensor, Tensor]:
        return self.u(u), self.ul(ul)


class ShiftedUpsample(nn.ConvTranspose2d):
    """A transposed convolution to twice the size: row r is seen by rows 2r and 2r + 1.

    Args:
        channels: F, of input and output.
        columns: of the kernel: 3 is centered, 2 gives each pixel a block of 2×2.
    """

    def __init__(self, channels: int, columns: int):
        super().__init__(channels, channels, (2, columns), stride=2)
        self.side = (columns - 1) // 2

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        out = super().forward(input)
        return out[..., self.side : self.side + 2 * input.shape[-1]]


def act(x: Tensor) -> Tensor:
    """Return the ELU of the features and of their negatives: (B, F, …) -> (B, 2F, …)."""
    return F.elu(torch.cat([x, -x], dim=1))


def with_ones(embedded: Tensor) -> Tensor:
    """Add a channel of ones to the embedded image, which tells it from the padding."""
    return F.pad(embedded, (0, 0, 0, 0, 0, 1), value=1.0)


def pad(x: Tensor) -> Tensor:
    """Fill an image up below and to the right, where nothing earlier can see it."""
    unit = 2 ** (SCALES - 1)
    return F.pad(x, (0, -x.shape[3] % unit, 0, -x.shape[2] % unit))


def _shift(x: Tensor, *, rows: int = 0, columns: int = 0) -> Tensor:
    """Move an image down or to the right, with zeros where it was."""
    height, width = x.shape[2:]
    return F.pad(x, (columns, 0, rows, 0))[:, :, :height, :width]

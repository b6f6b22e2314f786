"""Parts of the cached scans of convolutional networks: every activation is computed once.

The rows above a row are known before it begins, so that their part is computed a row at a time
(`RowCache`, `ShiftedRows`). The pixels to the left are a window of the current row, one matrix
product for each sub-pixel and layer (`LeftWindow`, `ShiftedCells`). Each layer keeps only the rows
that its kernel reaches.

Source of the idea: Ramachandran et al.: Fast Generation for Convolutional Autoregressive Models
(2017), https://arxiv.org/abs/1704.06001.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from decoders.layers import AboveConv2d, LeftConv2d, ShiftedConv2d

SMALL_ROWS = 128  # pixels in a row of all images, up to which `RowConv` multiplies matrices


class RowConv:
    """A convolution of rows (B, in, R, W') with a kernel of height R: one output row.

    Few pixels are multiplied as one matrix, since a convolution's own preparations would take
    longer than its work.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight = weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.detach()
        self.matrix = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (R * k * in, out)

    def __call__(self, rows: Tensor) -> Tensor:
        """Convolve rows (B, in, R, W') to one row (B, out, 1, W), channels last."""
        batch, width = rows.shape[0], rows.shape[3] - self.weight.shape[3] + 1
        if batch * width > SMALL_ROWS:
            return F.conv2d(rows, self.weight, self.bias)
        windows = rows.unfold(3, self.weight.shape[3], 1)  # (B, in, R, W, k)
        windows = windows.permute(0, 3, 2, 4, 1).reshape(batch * width, len(self.matrix))
        if self.bias is None:
            out = windows @ self.matrix
        else:
            out = torch.addmm(self.bias, windows, self.matrix)
        return out.view(batch, 1, width, -1).permute(0, 3, 1, 2)


class RowCache:
    """An `AboveConv2d` computed one row at a time, from the rows that its kernel reaches."""

    def __init__(self, conv: AboveConv2d, batch: int, width: int):
        self.conv = RowConv(conv.weight, conv.bias)
        self.reach = conv.reach
        shape = (batch, conv.weight.shape[1], conv.weight.shape[2], width + 2 * conv.reach)
        self.rows = torch.zeros(
            shape, dtype=conv.weight.dtype, device=conv.weight.device
        ).contiguous(memory_format=torch.channels_last)

    def push(self, row: Tensor) -> None:
        """Take the next row of the input, (B, in, 1, W)."""
        self.rows[:, :, :-1] = self.rows[:, :, 1:].clone()
        self.rows[:, :, -1:, self.reach : self.rows.shape[3] - self.reach] = row

    def output(self) -> Tensor:
        """Return the output row, (B, out, 1, W), of the rows pushed so far."""
        return self.conv(self.rows)


class LeftWindow:
    """A `LeftConv2d` computed one column and one channel group at a time, in preallocated rows.

    The current row of the input is in a buffer (B, left + W, in) whose first columns are the
    zeros of the padding, so that the window a kernel sees is one strided matrix, without a copy,
    and only what a group may see is multiplied.

    Args:
        conv: the convolution.
        in_bounds: where the channel groups of the input begin and end.
        order: the order in which output channels are computed, group by group.
        out_bounds: where the groups of the output begin and end in that order.
        batch: B.
        width: W.
    """

    def __init__(
        self,
        conv: LeftConv2d,
        in_bounds: list[int],
        order: Tensor,
        out_bounds: list[int],
        batch: int,
        width: int,
    ):
        weight = conv.causal_weight().detach()[:, :, 0].transpose(1, 2)[order].flatten(1)
        channels, left = conv.in_channels, conv.left
        self.left = left
        self.buffer = weight.new_zeros(batch, left + width, channels)
        seen = [
            left * channels + (self._own(conv, in_bounds, group) if conv.sees_center else 0)
            for group in range(len(out_bounds) - 1)
        ]
        self.weights = [
            weight[a:b, :size].t().contiguous()
            for size, (a, b) in zip(seen, pairwise(out_bounds), strict=True)
        ]
        row_stride = self.buffer.stride(0)
        self.windows = [
            [
                self.buffer.as_strided((batch, size), (row_stride, 1), col * channels)
                for size in seen
            ]
            for col in range(width)
        ]
        self.slots = [
            [self.buffer[:, left + col, a:b] for a, b in pairwise(in_bounds)]
            for col in range(width)
        ]

    @staticmethod
    def _own(conv: LeftConv2d, in_bounds: list[int], group: int) -> int:
        """Return the number of input channels of its own pixel that a group sees."""
        if len(in_bounds) == 2:  # all channels at once, ordered by the zeros of the mask
            return in_bounds[1]
        return in_bounds[group if conv.mask_type == "A" else group + 1]


class ShiftedRows:
    """Rows that a `ShiftedConv2d` sees, and its output row."""

    def __init__(self, conv: ShiftedConv2d, num: int, width: int):
        left, right, above, _ = conv.margins
        self.weight, self.stride = conv.weight.detach(), conv.stride
        self.bias = None if conv.bias is None else conv.bias.detach()
        shape = (num, self.weight.shape[1], above + 1, left + width + right)
        rows = torch.zeros(shape, dtype=self.weight.dtype, device=self.weight.device)
        self.rows = rows.contiguous(memory_format=torch.channels_last)
        self.own = self.rows[:, :, -1:, left : left + width]

    def push(self, row: Tensor) -> None:
        """Take the next row of the input, (B, in, 1, W)."""
        if self.rows.shape[2] > 1:
            self.rows[:, :, :-1] = self.rows[:, :, 1:].clone()
        self.own.copy_(row)

    def output(self) -> Tensor:
        """Return the row of the output, (B, out, 1, W / stride)."""
        return F.conv2d(self.rows, self.weight, self.bias, stride=self.stride)


class ShiftedCells:
    """A `ShiftedConv2d` of kernel (2, 2) that sees to the left, computed a cell at a time.

    The row of the input is in a buffer (B, 1 + W, in): until a cell is written it holds that of
    the row above.
    """

    def __init__(self, conv: ShiftedConv2d, num: int, width: int):
        weight = conv.weight.detach()
        self.step = conv.stride[1]
        self.buffer = weight.new_zeros(num, 1 + width, weight.shape[1])
        self.row_above, self.row_own = (
            kernel_matrix(weight[:, :, 0]),
            kernel_matrix(weight[:, :, 1]),
        )
        assert conv.bias is not None
        self.bias = conv.bias.detach()
        self.pre = weight.new_zeros(num, width // self.step, weight.shape[0])

    def begin_row(self) -> None:
        """Compute the part of the row above, for the whole row."""
        seen = windows(self.buffer, 2)[:, :: self.step]
        self.pre.copy_(seen @ self.row_above).add_(self.bias)

    def slot(self, col: int) -> Tensor:
        """Return the place of a cell of the input, (B, in)."""
        return self.buffer[:, 1 + col]

    def output(self, col: int) -> Tensor:
        """Return a cell of the output, (B, out), whose input is complete; in place."""
        seen = window(self.buffer, self.step * col, 2)
        return self.pre[:, col].addmm_(seen, self.row_own)


def kernel_matrix(weight: Tensor) -> Tensor:
    """Return one row of a kernel (out, in, k) as the matrix (k · in, out) for a window."""
    return weight.permute(2, 1, 0).flatten(0, 1).contiguous()


def window(buffer: Tensor, start: int, size: int) -> Tensor:
    """Return `size` neighboring cells of a buffer (B, W', in) as one vector, (B, size · in)."""
    return buffer.as_strided(
        (len(buffer), size * buffer.shape[2]),
        (buffer.stride(0), 1),
        buffer.storage_offset() + start * buffer.shape[2],
    )


def windows(buffer: Tensor, size: int) -> Tensor:
    """Return every `window` of a buffer, (B, W' - size + 1, size · in), without a copy."""
    num, width, channels = buffer.shape
    return buffer.as_strided(
        (num, width - size + 1, size * channels), (buffer.stride(0), channels, 1)
    )

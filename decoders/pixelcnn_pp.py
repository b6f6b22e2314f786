"""PixelCNNPlusPlus: two streams of shifted convolutions at three scales, with shortcuts."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoders.attached import structure
from decoders.base import AutoregressiveDecoder, resolve_likelihood
from decoders.conditioning import Conditioning, Resize, fit_map
from decoders.heads import ColorOrder, PixelEmbedding, PixelHead, resolve_color_order
from decoders.layers import ShiftedConv2d
from decoders.likelihoods import Likelihood
from decoders.pixelcnn_pp_scan import ScaledScan
from decoders.sampling import Scan

SCALES = 3  # full, half and quarter size


class PixelCNNPlusPlus(AutoregressiveDecoder):
    """PixelCNN++, which reaches far through coarser scales at little cost.

    ::

        x, 1 ─┬─ u:  rows above ────────── n blocks ─ ½ ─ n blocks ─ ½ ─ n blocks ┐
              │            ↓                  ↓             ↓            ↓         │ shortcuts
              └─ ul: rows above and left ─ n blocks ─ ½ ─ n blocks ─ ½ ─ n blocks ┤
                                                                                   ▼
        parameters ── head ── ul ── n+1 blocks ─ ×2 ─ n+1 blocks ─ ×2 ─ n blocks ──┘

    A block is a gated residual of two convolutions; `ul` is given `u` in each of its blocks, and on
    the way back both are given the features of the same size on the way down. No kernel is masked:
    convolutions are padded above and to the left, and the first ones are shifted by a pixel.

    The coarse scales serve whole blocks of pixels, so that of an odd row its own row and the one
    above reach only through the fine layers. The first kernels are as wide as it takes for every
    earlier pixel to be in reach; the paper's, three pixels wide, leave the far ends of odd rows
    out (9 pixels at 32×32).

    Args:
        image_shape: (C, H, W), of any size; inside, images are padded below and to the right.
        num_levels: integer levels of x; 256 unless given, or those of `likelihood`.
        cond_shape: of one h: () none, (K,) a vector, (K, H', W') a map.
        hidden_channels: F, features of each stream.
        num_blocks: n, gated residual blocks of each stream at each scale.
        likelihood: the head, a `Categorical` unless given; the paper's is a
            `DiscretizedLogisticMixture`.
        color_order: how a pixel's channels depend on each other: "head", in a small network for
            each pixel; "independent", not at all (or within the likelihood). None takes the one
            that fits the likelihood.
        head_channels: hidden features of the head; F unless given.
        embedding_dim: learned vector for each level in place of the scaled level; 0 for none.
        dropout: within each block, in training.
        resize: how a map h is brought to the image's size: "nearest" or "bilinear".

    Source: Salimans, Karpathy, Chen, Kingma: PixelCNN++: Improving the PixelCNN with Discretized
    Logistic Mixture Likelihood and Other Modifications (2017), https://arxiv.org/abs/1701.05517.

    >>> decoder = PixelCNNPlusPlus((1, 8, 8), num_levels=2, cond_shape=(10,), num_blocks=1)
    >>> x, h = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.randn(4, 10)
    >>> decoder.log_prob(x, h).shape, decoder.sample(h).shape
    (torch.Size([4]), torch.Size([4, 1, 8, 8]))
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_levels: int | None = None,
        cond_shape: tuple[int, ...] = (),
        hidden_channels: int = 64,
        num_blocks: int = 2,
        likelihood: Likelihood | None = None,
        color_order: ColorOrder | None = None,
        head_channels: int | None = None,
        embedding_dim: int = 0,
        dropout: float = 0.0,
        resize: Resize = "nearest",
    ):
        super().__init__(image_shape, resolve_likelihood(likelihood, num_levels), cond_shape)
        if num_blocks < 1:
            raise ValueError(f"expected num_blocks of at least 1, got {num_blocks}")
        channels, _, width = self.image_shape
        if color_order == "groups":
            raise ValueError(
                "expected color_order 'head' or 'independent', got 'groups': the streams of a "
                "PixelCNNPlusPlus have no channel groups; use GatedPixelCNN, or 'head'"
            )
        fits = "independent" if self.likelihood.orders_channels else "head"
        order = resolve_color_order(color_order or fits, self.likelihood, channels)
        self.color_order: ColorOrder = order
        self.resize: Resize = resize
        self.embed = PixelEmbedding(channels, self.num_levels, embedding_dim)
        size, reach = hidden_channels, max(1, width - 1 - (4 * num_blocks + 1))
        self.first = FirstLayer(self.embed.dim * channels + 1, size, reach)

        def level(count: int, up: bool) -> nn.ModuleList:
            return nn.ModuleList(
                BlockPair(size, self.cond_shape, dropout, up=up) for _ in range(count)
            )

        self.down = nn.ModuleList(level(num_blocks, up=False) for _ in range(SCALES))
        self.up = nn.ModuleList(
            level(num_blocks + (scale < SCALES - 1), up=True) for scale in range(SCALES)
        )
        self.shrink = nn.ModuleList(Resample(size, halve=True) for _ in range(SCALES - 1))
        self.enlarge = nn.ModuleList(Resample(size, halve=False) for _ in range(SCALES - 1))
        self.head = PixelHead(
            channels,
            size,
            head_channels or size,
            self.likelihood,
            order,
            self.embed.dim,
            self.cond_shape,
        )
        self.built = structure(self)

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """The likelihood's parameters (B, P, H, W); see `AutoregressiveDecoder.params`."""
        height, width = x.shape[2:]
        embedded, codes = self.embed(x, next(self.parameters()).dtype), self.codes(h)
        u, ul = self.first(pad(with_ones(embedded)))
        kept = [(u, ul)]
        for scale in range(SCALES):
            for block in cast(nn.ModuleList, self.down[scale]):
                u, ul = block(u, ul, codes[scale])
                kept.append((u, ul))
            if scale < SCALES - 1:
                u, ul = self.shrink[scale](u, ul)
                kept.append((u, ul))
        u, ul = kept.pop()
        for scale in reversed(range(SCALES)):
            for block in cast(nn.ModuleList, self.up[scale]):
                u, ul = block(u, ul, codes[scale], kept.pop())
            if scale:
                u, ul = self.enlarge[scale - 1](u, ul)
        h = fit_map(h, (height, width), self.resize)
        return self.head(ul[:, :, :height, :width], embedded, h)

    def codes(self, h: Tensor | None) -> list[Tensor | None]:
        """h for each scale: a vector as it is, a map averaged over blocks of pixels.

        A code has no causal order, so that any of it may be seen anywhere.
        """
        height, width = self.image_shape[1:]
        h = fit_map(h, (height, width), self.resize)
        if h is None or h.dim() == 2:
            return [h] * SCALES
        h = pad(h)
        return [F.avg_pool2d(h, 2**scale) if scale else h for scale in range(SCALES)]

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """One pass in raster order that computes each activation once."""
        return ScaledScan(self, h, num)


class FirstLayer(nn.Module):
    """The image to both streams; u sees the rows above, ul also what lies to the left.

    The shift follows the convolution: the first row of u and the first pixel of ul are zeros.

    Args:
        in_channels: of the embedded image, with its channel of ones.
        channels: F.
        reach: how many pixels the kernels reach to each side.
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
    """ELU of the features and of their negatives: (B, F, …) -> (B, 2F, …)."""
    return F.elu(torch.cat([x, -x], dim=1))


def with_ones(embedded: Tensor) -> Tensor:
    """The embedded image with a channel of ones, which tells it from the padding."""
    return F.pad(embedded, (0, 0, 0, 0, 0, 1), value=1.0)


def pad(x: Tensor) -> Tensor:
    """Fill an image up below and to the right, where nothing earlier can see it."""
    unit = 2 ** (SCALES - 1)
    return F.pad(x, (0, -x.shape[3] % unit, 0, -x.shape[2] % unit))


def _shift(x: Tensor, *, rows: int = 0, columns: int = 0) -> Tensor:
    """Move an image down or to the right, with zeros where it was."""
    height, width = x.shape[2:]
    return F.pad(x, (columns, 0, rows, 0))[:, :, :height, :width]

"""PixelCNNPlusPlus: two streams of shifted convolutions at three scales, with shortcuts."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from decoders.attached import structure
from decoders.base import FactorizedDecoder, resolve_likelihood
from decoders.conditioning import Resize, fit_map
from decoders.heads import ColorOrder, PixelEmbedding, PixelHead, resolve_color_order
from decoders.likelihoods import Likelihood
from decoders.network_scan import NetworkScan
from decoders.pixelcnn_pp_layers import SCALES, BlockPair, FirstLayer, Resample, pad, with_ones
from decoders.pixelcnn_pp_scan import ScaledTrunkScan
from decoders.scan import Scan


class PixelCNNPlusPlus(FactorizedDecoder):
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

    >>> import torch
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
        """The likelihood's parameters (B, P, H, W); see `FactorizedDecoder.params`."""
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
        _, height, width = self.image_shape
        trunk = ScaledTrunkScan(
            self.first, self.down, self.up, self.shrink, self.enlarge, self.codes(h), num, width
        )
        h = fit_map(h, (height, width), self.resize)
        return NetworkScan(self.embed, trunk, self.head, h)

"""PixelCNNPlusPlus: two streams of shifted convolutions at three scales, with shortcuts."""

from __future__ import annotations

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from decoders.arguments import check_count
from decoders.network_scan import NetworkScan
from decoders.pixel_network import PixelNetwork
from decoders.pixelcnn_pp_layers import SCALES, BlockPair, FirstLayer, Resample, pad, with_ones
from decoders.pixelcnn_pp_scan import ScaledTrunkScan
from decoders.scan import Scan


class PixelCNNPlusPlus(PixelNetwork):
    """A PixelCNN++, which reaches far through coarser scales at little cost.

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

    The paper's likelihood is a `DiscretizedLogisticMixture`. There are no channel groups: a pixel's
    colors are ordered by the likelihood, or in the head.

    Args:
        image_shape: (C, H, W), of any size; inside, images are padded below and to the right.
        num_blocks: Gated residual blocks of each stream at each scale.
        network: see `PixelNetwork`.

    Source: Salimans, Karpathy, Chen, Kingma: PixelCNN++: Improving the PixelCNN with Discretized
    Logistic Mixture Likelihood and Other Modifications (2017), https://arxiv.org/abs/1701.05517.

    >>> import torch
    >>> decoder = PixelCNNPlusPlus((1, 8, 8), num_levels=2, cond_shape=(10,), num_blocks=1)
    >>> x, h = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.randn(4, 10)
    >>> decoder.log_prob(x, h).shape, decoder.sample(h).shape
    (torch.Size([4]), torch.Size([4, 1, 8, 8]))
    """

    color_orders = ("head", "independent")
    channels_last = False

    def __init__(self, image_shape: tuple[int, int, int], *, num_blocks: int = 2, **network: Any):
        super().__init__(image_shape, **network)
        num_blocks = check_count(num_blocks, "num_blocks")
        size, width = self.hidden_channels, self.image_shape[2]
        reach = max(1, width - 1 - (4 * num_blocks + 1))
        self.first = FirstLayer(self.in_channels + 1, size, reach)

        def blocks(count: int, up: bool) -> nn.ModuleList:
            return nn.ModuleList(
                BlockPair(size, self.cond_shape, self.dropout, up=up) for _ in range(count)
            )

        self.down = nn.ModuleList(blocks(num_blocks, up=False) for _ in range(SCALES))
        self.up = nn.ModuleList(
            blocks(num_blocks + (scale < SCALES - 1), up=True) for scale in range(SCALES)
        )
        self.shrink = nn.ModuleList(Resample(size, halve=True) for _ in range(SCALES - 1))
        self.enlarge = nn.ModuleList(Resample(size, halve=False) for _ in range(SCALES - 1))
        self.add_head()

    def trunk(self, embedded: Tensor, h: Tensor | None) -> Tensor:
        """Return the features of ul; see `PixelNetwork.trunk`."""
        height, width = embedded.shape[2:]
        codes = self.codes(h)
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
        return ul[:, :, :height, :width]

    def codes(self, h: Tensor | None) -> list[Tensor | None]:
        """Return h for each scale: a vector as it is, a map averaged over blocks of pixels.

        A code has no causal order, so that any of it may be seen anywhere.
        """
        if h is None or h.dim() == 2:
            return [h] * SCALES
        h = pad(h)
        return [F.avg_pool2d(h, 2**scale) if scale else h for scale in range(SCALES)]

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """Return a pass in raster order that computes each activation once."""
        h = self.fit(h)
        streams = self.first, self.down, self.up, self.shrink, self.enlarge
        trunk = ScaledTrunkScan(*streams, self.codes(h), num, self.image_shape[2])
        return NetworkScan(self.embed, trunk, self.head, h)

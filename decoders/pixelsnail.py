"""PixelSNAIL: gated convolutions, and attention to every earlier pixel."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from decoders.arguments import check_count
from decoders.network_scan import NetworkScan
from decoders.pixel_network import PixelNetwork
from decoders.pixelcnn_pp_layers import with_ones
from decoders.pixelsnail_layers import Attention, AttentionBlock, FirstConv, places
from decoders.pixelsnail_scan import AttentionTrunkScan
from decoders.recording import can_record
from decoders.scan import Scan


class PixelSNAIL(PixelNetwork):
    """A PixelSNAIL, in which any pixel can look any earlier one up.

    ::

        x, 1 ── first ── [ gated residuals ── attention ── gated residual ] × num_blocks ── head
        x ─────────────────────────────────────── keys, values

    The convolutions see the pixel to the left and the two above; everything else comes through the
    attention, a weighted mean over the earlier pixels. So the field is complete with one block, at
    any size.

    Training takes memory in proportion to the pixels of an image, since no kernel keeps the scores
    of all pairs, and arithmetic to their square, which tells above about 32×32.

    The paper's likelihood is a `DiscretizedLogisticMixture`. There are no channel groups: a pixel's
    colors are ordered by the likelihood, or in the head.

    Args:
        image_shape: (C, H, W).
        num_blocks: Blocks of gated residuals and attention.
        num_layers: Gated residuals before the attention of each block.
        num_heads: Heads of the attention; a divisor of key_channels and value_channels.
        key_channels: Width of queries and keys, all heads together.
        value_channels: Width of values, all heads together; half of hidden_channels unless given.
        first_kernel_size: Size of the first layer's kernel, odd.
        norm: Normalization of each pixel's features, without statistics over other pixels.
        network: see `PixelNetwork`.

    Source: Chen, Mishra, Rohaninejad, Abbeel: PixelSNAIL: An Improved Autoregressive Generative
    Model (2017), https://arxiv.org/abs/1712.09763.

    >>> import torch
    >>> decoder = PixelSNAIL((1, 8, 8), num_levels=2, cond_shape=(10,), num_blocks=1)
    >>> x, h = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.randn(4, 10)
    >>> decoder.log_prob(x, h).shape, decoder.sample(h).shape
    (torch.Size([4]), torch.Size([4, 1, 8, 8]))
    """

    color_orders = ("head", "independent")

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_blocks: int = 3,
        num_layers: int = 2,
        num_heads: int = 1,
        key_channels: int = 16,
        value_channels: int | None = None,
        first_kernel_size: int = 3,
        norm: bool = False,
        **network: Any,
    ):
        super().__init__(image_shape, **network)
        size, parts = self.hidden_channels, {"norm": norm, "dropout": self.dropout}
        num_layers = check_count(num_layers, "num_layers")
        if value_channels is None:
            value_channels = max(1, size // 2)
        widths = {"key_channels": key_channels, "value_channels": value_channels}
        heads = check_heads(num_heads, widths)
        self.first = FirstConv(self.in_channels + 1, size, first_kernel_size)
        self.blocks = nn.ModuleList(
            AttentionBlock(
                size,
                num_layers,
                Attention(self.in_channels, size, heads=heads, **widths, **parts),
                cond_shape=self.cond_shape,
                **parts,
            )
            for _ in range(check_count(num_blocks, "num_blocks"))
        )
        self.add_head()

    def trunk(self, embedded: Tensor, h: Tensor | None) -> Tensor:
        """Return the last block's features; see `PixelNetwork.trunk`."""
        _, height, width = self.image_shape
        place = places(height, width, embedded).expand(embedded.shape[0], -1, -1, -1)
        features = self.first(with_ones(embedded))
        for block in self.blocks:
            features = block(features, place, embedded, h)
        return features

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """Return a pass in raster order that computes each activation once."""
        h = self.fit(h)
        blocks = cast("list[AttentionBlock]", list(self.blocks))
        alike = can_record(next(self.parameters()).device)
        trunk = AttentionTrunkScan(self.first, blocks, h, num, self.image_shape[1:], alike=alike)
        return NetworkScan(self.embed, trunk, self.head, h)


def check_heads(num_heads: int, widths: dict[str, int]) -> int:
    """Return the number of heads, or raise a ValueError unless it divides every width."""
    num_heads = check_count(num_heads, "num_heads")
    for name, width in widths.items():
        if check_count(width, name) % num_heads:
            raise ValueError(
                f"expected num_heads to divide {name}, got {num_heads} heads for {width} channels: "
                f"choose a divisor, or {name}={width + -width % num_heads}"
            )
    return num_heads

"""GatedPixelCNN: two stacks of gated convolutions, without a blind spot."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from decoders.arguments import check_count
from decoders.gated_layer import GatedLayer
from decoders.gated_scan import GatedTrunkScan
from decoders.network_scan import NetworkScan
from decoders.pixel_network import PixelNetwork
from decoders.scan import Scan


class GatedPixelCNN(PixelNetwork):
    """A Gated PixelCNN, a strong autoregressive decoder with an exact likelihood.

    ::

        x ─ embed ─┬─ vertical stack: rows above ──gate──gate── …
                   │        │ 1×1     │ 1×1
                   └─ horizontal stack: left, and earlier channels ──gate──gate── …
                                                        └──┬──┘ skips
        h ── a bias in every layer              ReLU 1×1 ReLU 1×1 ── parameters of each sub-pixel

    The vertical stack is shifted once, at its first layer, which sees strictly earlier rows; later
    layers include the current row, so that no pixel above is out of reach: no blind spot.

    Args:
        image_shape: (C, H, W).
        num_layers: Gated layers after the first.
        kernel_size: Size of the kernels after the first layer, odd.
        first_kernel_size: Size of the first layer's kernel, odd.
        residual: Residual connections in the horizontal stack.
        skip: The head sees the sum of all layers, not the last one alone.
        gated: Gates, not plain ReLUs.
        network: see `PixelNetwork`.

    Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: Conditional Image
    Generation with PixelCNN Decoders (2016), https://arxiv.org/abs/1606.05328.

    >>> import torch
    >>> decoder = GatedPixelCNN((1, 8, 8), num_levels=2, cond_shape=(10,), num_layers=2)
    >>> x, h = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.randn(4, 10)
    >>> decoder.log_prob(x, h).shape, decoder.sample(h).shape
    (torch.Size([4]), torch.Size([4, 1, 8, 8]))
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_layers: int = 12,
        kernel_size: int = 5,
        first_kernel_size: int = 7,
        residual: bool = True,
        skip: bool = True,
        gated: bool = True,
        **network: Any,
    ):
        super().__init__(image_shape, **network)
        num_layers = check_count(num_layers, "num_layers", 0)
        self.layers = nn.ModuleList(
            GatedLayer(
                self.hidden_channels if index else self.in_channels,
                self.hidden_channels,
                kernel_size if index else first_kernel_size,
                mask_type="B" if index else "A",
                groups=self.groups,
                cond_shape=self.cond_shape,
                dropout=self.dropout,
                residual=residual,
                skip=skip or index == num_layers,
                gated=gated,
                last=index == num_layers,
            )
            for index in range(num_layers + 1)
        )
        self.add_head()

    def trunk(self, embedded: Tensor, h: Tensor | None) -> Tensor:
        """Return the summed skips of all layers; see `PixelNetwork.trunk`."""
        vertical = horizontal = embedded
        skips = []
        for layer in self.layers:
            vertical, horizontal, skip = layer(vertical, horizontal, h)
            if skip is not None:
                skips.append(skip)
        return sum(skips[1:], skips[0])

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """Return a pass in raster order that computes each activation once."""
        h = self.fit(h)
        layers = cast("list[GatedLayer]", list(self.layers))
        trunk = GatedTrunkScan(layers, h, num, self.image_shape[2])
        return NetworkScan(self.embed, trunk, self.head, h)

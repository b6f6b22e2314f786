"""GatedPixelCNN: two stacks of gated convolutions, without a blind spot."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from decoders.arguments import check_count
from decoders.attached import structure
from decoders.base import FactorizedDecoder, resolve_likelihood
from decoders.conditioning import Resize, channels_last, check_resize, fit_map
from decoders.gated_layer import GatedLayer
from decoders.gated_scan import GatedTrunkScan
from decoders.heads import ColorOrder, PixelEmbedding, PixelHead, resolve_color_order
from decoders.likelihoods import Likelihood
from decoders.network_scan import NetworkScan
from decoders.scan import Scan


class GatedPixelCNN(FactorizedDecoder):
    """The Gated PixelCNN, a strong autoregressive decoder with an exact likelihood.

    ::

        x ─ embed ─┬─ vertical stack: rows above ──gate──gate── …
                   │        │ 1×1     │ 1×1
                   └─ horizontal stack: left, and earlier channels ──gate──gate── …
                                                        └──┬──┘ skips
        h ── a bias in every layer              ReLU 1×1 ReLU 1×1 ── parameters of each sub-pixel

    The vertical stack is shifted once, at its first layer, which sees strictly earlier rows; later
    layers include the row at hand, so that no pixel above is out of reach of the stack's cone.

    Args:
        image_shape: (C, H, W).
        num_levels: integer levels of x; 256 unless given, or those of `likelihood`.
        cond_shape: of one h: () none, (K,) a vector, (K, H', W') a map.
        hidden_channels: F, features of each stack.
        num_layers: gated layers after the first.
        kernel_size: k of those layers' k×k receptive field, odd.
        first_kernel_size: k of the first layer.
        likelihood: the head, a `Categorical` unless given.
        color_order: how a pixel's channels depend on each other: "groups", masked channel groups
            throughout the horizontal stack; "head", in a small network for each pixel, so that a
            pixel costs one step of the trunk in place of C; "independent", not at all (or within
            the likelihood). None takes the one that fits the likelihood.
        head_channels: hidden features of the head; F unless given.
        embedding_dim: learned vector for each level in place of the scaled level; 0 for none.
        dropout: on each layer's gated features, in training.
        residual: whether the horizontal stack has residual connections.
        skip: whether the head sees the sum of all layers, in place of the last one.
        gated: gates, or plain ReLUs (an ablation).
        weight_norm: whether the convolutions' weights are normalised.
        resize: how a map h is brought to the image's size: "nearest" or "bilinear".

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
        num_levels: int | None = None,
        cond_shape: tuple[int, ...] = (),
        hidden_channels: int = 64,
        num_layers: int = 12,
        kernel_size: int = 5,
        first_kernel_size: int = 7,
        likelihood: Likelihood | None = None,
        color_order: ColorOrder | None = None,
        head_channels: int | None = None,
        embedding_dim: int = 0,
        dropout: float = 0.0,
        residual: bool = True,
        skip: bool = True,
        gated: bool = True,
        weight_norm: bool = False,
        resize: Resize = "nearest",
    ):
        super().__init__(image_shape, resolve_likelihood(likelihood, num_levels), cond_shape)
        hidden_channels = check_count(hidden_channels, "hidden_channels")
        num_layers = check_count(num_layers, "num_layers", 0)
        check_resize(resize)
        channels = self.image_shape[0]
        order = resolve_color_order(color_order, self.likelihood, channels)
        self.color_order: ColorOrder = order
        self.groups = channels if order == "groups" else 1
        self.resize: Resize = resize
        self.embed = PixelEmbedding(channels, self.num_levels, embedding_dim)
        self.layers = nn.ModuleList(
            GatedLayer(
                self.embed.dim * channels if index == 0 else hidden_channels,
                hidden_channels,
                first_kernel_size if index == 0 else kernel_size,
                mask_type="A" if index == 0 else "B",
                groups=self.groups,
                cond_shape=self.cond_shape,
                dropout=dropout,
                residual=residual,
                skip=skip or index == num_layers,
                gated=gated,
                last=index == num_layers,
            )
            for index in range(num_layers + 1)
        )
        self.head = PixelHead(
            channels,
            hidden_channels,
            head_channels or hidden_channels,
            self.likelihood,
            order,
            self.embed.dim,
            self.cond_shape,
        )
        if weight_norm:
            normalise_weights(self)
        self.built = structure(self)

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """The likelihood's parameters (B, P, H, W); see `FactorizedDecoder.params`."""
        h = fit_map(h, (x.shape[2], x.shape[3]), self.resize)
        embedded = self.embed(x, next(self.parameters()).dtype)
        embedded = channels_last(embedded)
        vertical = horizontal = embedded
        features = None
        for layer in self.layers:
            vertical, horizontal, skip = layer(vertical, horizontal, h)
            if skip is not None:
                features = skip if features is None else features + skip
        return self.head(features, embedded, h)

    def scan(self, h: Tensor | None, num: int) -> Scan:
        """One pass in raster order that computes each activation once."""
        _, height, width = self.image_shape
        h = fit_map(h, (height, width), self.resize)
        trunk = GatedTrunkScan(cast("list[GatedLayer]", list(self.layers)), h, num, width)
        return NetworkScan(self.embed, trunk, self.head, h)


def normalise_weights(module: nn.Module) -> None:
    """Weight normalisation (Salimans, Kingma 2016, https://arxiv.org/abs/1602.07868) of all
    convolutions of a module."""
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d):
            weight_norm(part)

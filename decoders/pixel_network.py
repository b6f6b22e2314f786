"""PixelNetwork: embedding, trunk and head, the shape of every autoregressive network here."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from decoders.arguments import check_count
from decoders.conditioning import Resize, channels_last, check_resize, fit_map
from decoders.factorized import FactorizedDecoder
from decoders.heads import ColorOrder, PixelEmbedding, PixelHead, resolve_color_order
from decoders.likelihoods import Likelihood, resolve_likelihood


class PixelNetwork(FactorizedDecoder):
    """A decoder made of an embedding, a trunk and a head; a subclass brings the trunk.

    ::

        x ── embed ── trunk(embedded, h) ── head ── parameters of each sub-pixel

    A subclass takes its own keyword arguments, hands all others to this class, builds its layers
    and calls `add_head` last. Without a `scan` of its own it samples by calling the network.

    Args:
        image_shape: (C, H, W).
        num_levels: Integer levels of x. Unless given, those of the likelihood, or 256.
        cond_shape: Shape of one h: () for none, (K,) for a vector, (K, H', W') for a map.
        likelihood: Distribution of a pixel, a `Categorical` unless given.
        hidden_channels: Features of each layer.
        color_order: How the channels of a pixel depend on each other: "groups", masked channel
            groups in all layers; "head", a small network for each pixel, so that a pixel costs one
            step of the trunk in place of C; "independent", not at all, or within the likelihood;
            "auto", the first of these that fits the likelihood and the network.
        head_channels: Features of the head's hidden layer; those of the layers unless given.
        embedding_dim: Size of a learned input vector for each level; 0 for the scaled level.
        dropout: Probability of dropout in each layer, in training.
        weight_norm: Weight normalization of all convolutions.
        resize: How a map h is brought to the image's size: "nearest" or "bilinear".

    Source of weight normalization: Salimans, Kingma: Weight Normalization: A Simple
    Reparameterization to Accelerate Training of Deep Neural Networks (2016),
    https://arxiv.org/abs/1602.07868.

    >>> class Above(PixelNetwork):
    ...     color_orders = ("head", "independent")
    ...
    ...     def __init__(self, image_shape, **network):
    ...         super().__init__(image_shape, **network)
    ...         self.rows = nn.Conv2d(self.in_channels, self.hidden_channels, 1)
    ...         self.add_head()
    ...
    ...     def trunk(self, embedded, h):
    ...         return nn.functional.pad(self.rows(embedded), (0, 0, 1, 0))[:, :, :-1]
    >>> Above((3, 4, 4), num_levels=4, hidden_channels=8).sample(num=2).shape
    torch.Size([2, 3, 4, 4])
    """

    color_orders: ClassVar[tuple[ColorOrder, ...]] = ("groups", "head", "independent")
    """Color orders that the trunk can be built for; "auto" takes the first."""

    channels_last: ClassVar[bool] = True
    """Layout of the trunk's input: channels last, or as it is."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        num_levels: int | None = None,
        cond_shape: tuple[int, ...] = (),
        likelihood: Likelihood | None = None,
        hidden_channels: int = 64,
        color_order: ColorOrder = "auto",
        head_channels: int | None = None,
        embedding_dim: int = 0,
        dropout: float = 0.0,
        weight_norm: bool = False,
        resize: Resize = "nearest",
    ):
        super().__init__(image_shape, resolve_likelihood(likelihood, num_levels), cond_shape)
        channels = self.image_shape[0]
        self.hidden_channels = check_count(hidden_channels, "hidden_channels")
        self.head_channels = self.hidden_channels
        if head_channels is not None:
            self.head_channels = check_count(head_channels, "head_channels")
        check_resize(resize)
        self.resize: Resize = resize
        self.color_order: ColorOrder = resolve_color_order(
            color_order, self.likelihood, channels, self.color_orders
        )
        self.groups = channels if self.color_order == "groups" else 1
        self.dropout, self.weight_norm = dropout, weight_norm
        self.embed = PixelEmbedding(channels, self.num_levels, embedding_dim)
        self.in_channels = self.embed.dim * channels

    def add_head(self) -> None:
        """Build the head, and what covers the whole network. A subclass ends `__init__` with it."""
        self.head = PixelHead(
            self.image_shape[0],
            self.hidden_channels,
            self.head_channels,
            self.likelihood,
            self.color_order,
            self.embed.dim,
            self.cond_shape,
        )
        if self.weight_norm:
            normalize_weights(self)
        self.remember_layers()

    @abstractmethod
    def trunk(self, embedded: Tensor, h: Tensor | None) -> Tensor:
        """Return the features (B, hidden_channels, H, W) of every pixel, before a ReLU.

        Those of a pixel must depend on earlier pixels alone; with `color_order` "groups" those of a
        channel group also on the pixel's earlier channels.

        Args:
            embedded: (B, in_channels, H, W), channel by channel.
            h: (B, K), (B, K, H, W) or None: a map is already at the image's size.
        """

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return the likelihood's parameters (B, P, H, W); see `FactorizedDecoder.params`."""
        h = self.fit(h)
        embedded = self.embed(x, next(self.parameters()).dtype)
        if self.channels_last:
            embedded = channels_last(embedded)
        return self.head(self.trunk(embedded, h), embedded, h)

    def fit(self, h: Tensor | None) -> Tensor | None:
        """Return h with a map brought to the image's size."""
        _, height, width = self.image_shape
        return fit_map(h, (height, width), self.resize)


def normalize_weights(module: nn.Module) -> None:
    """Normalize the weights of all convolutions of a module, those of each output feature."""
    for part in list(module.modules()):
        if isinstance(part, nn.ConvTranspose2d):
            parametrizations.weight_norm(part, dim=1)
        elif isinstance(part, nn.Conv2d):
            parametrizations.weight_norm(part)

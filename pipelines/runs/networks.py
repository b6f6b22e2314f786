"""From flags to networks: the decoder that every pipeline has, and encoders of annotations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import nn

from decoders import (
    Categorical,
    Decoder,
    DeconvDecoder,
    DiscretizedLogisticMixture,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
)
from decoders.likelihoods import Likelihood
from encoders import Joint, LabelEmbedding, MapEncoder, TextEncoder
from encoders.base import Encoder
from pipelines.data.sets import DataError, Images
from pipelines.runtime.command import explain
from pipelines.runtime.errors import UserError

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class ImageSpec:
    """What a network must know of the images it is built for; kept in the run's config.json."""

    image_shape: tuple[int, int, int]
    num_levels: int
    condition: str = "none"
    num_classes: int = 0
    num_map_channels: int = 0

    @classmethod
    def of(cls, images: Images) -> ImageSpec:
        """The specification of a data set's images."""
        return cls(
            images.image_shape,
            images.num_levels,
            images.condition,
            images.num_classes,
            images.num_map_channels,
        )

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ImageSpec:
        """The specification that `dataclasses.asdict` wrote, read back."""
        channels, height, width = record.pop("image_shape")
        return cls((channels, height, width), **record)


@dataclass(frozen=True)
class DecoderConfig:
    """Which decoder, and its size."""

    decoder: Literal["gated", "pixelcnn", "pixelcnn++", "deconv"] = "gated"
    """Gated PixelCNN; PixelCNN, one masked stack; PixelCNN++, two streams at three scales, which
    has num_blocks in place of layers and kernels; or deconvolutions with independent pixels, which
    have a likelihood and hidden_channels alone."""
    likelihood: Literal["categorical", "logistic"] = "categorical"
    """A softmax over all levels, or a mixture of discretised logistic distributions."""
    mixtures: int = 10
    """Components of the logistic mixture."""
    hidden_channels: int = 64
    """Features of each layer of the decoder."""
    num_layers: int = 12
    """Layers after the first."""
    num_blocks: int = 2
    """Gated residual blocks of a PixelCNN++ at each scale."""
    kernel_size: int = 5
    """Size of those layers' kernels, odd."""
    first_kernel_size: int = 7
    """Size of the first layer's kernel, odd."""
    color_order: Literal["auto", "groups", "head", "independent"] = "auto"
    """How a pixel's colours depend on each other: masked channel groups, a small network for each
    pixel, or not at all; auto takes what fits the likelihood."""
    head_channels: int = 0
    """Features of the head's hidden layer (0: as many as the layers have)."""
    embedding_dim: int = 0
    """Learned input vector for each level (0: the scaled level)."""
    dropout: float = 0.0
    """Dropout in the decoder, in training."""
    residual: bool = True
    """Residual connections."""
    weight_norm: bool = False
    """Normalise the weights of the decoder's convolutions."""


def make_likelihood(config: DecoderConfig, num_levels: int) -> Likelihood:
    """The likelihood head that the flags ask for."""
    if config.likelihood == "logistic":
        return DiscretizedLogisticMixture(num_levels, config.mixtures)
    return Categorical(num_levels)


def make_decoder(
    config: DecoderConfig, images: ImageSpec, cond_shape: tuple[int, ...] = ()
) -> Decoder:
    """The decoder that the flags ask for, for images like these."""
    likelihood = make_likelihood(config, images.num_levels)
    if config.decoder == "deconv":
        return DeconvDecoder(
            images.image_shape,
            cond_shape=cond_shape,
            hidden_channels=config.hidden_channels,
            likelihood=likelihood,
        )
    if config.decoder == "pixelcnn++":
        return PixelCNNPlusPlus(
            images.image_shape,
            cond_shape=cond_shape,
            hidden_channels=config.hidden_channels,
            num_blocks=config.num_blocks,
            likelihood=likelihood,
            color_order=config.color_order,
            head_channels=config.head_channels or None,
            embedding_dim=config.embedding_dim,
            dropout=config.dropout,
            weight_norm=config.weight_norm,
        )
    network = GatedPixelCNN if config.decoder == "gated" else PixelCNN
    return network(
        images.image_shape,
        cond_shape=cond_shape,
        hidden_channels=config.hidden_channels,
        num_layers=config.num_layers,
        kernel_size=config.kernel_size,
        first_kernel_size=config.first_kernel_size,
        likelihood=likelihood,
        color_order=config.color_order,
        head_channels=config.head_channels or None,
        embedding_dim=config.embedding_dim,
        dropout=config.dropout,
        residual=config.residual,
        weight_norm=config.weight_norm,
    )


def make_annotation_encoder(images: ImageSpec, dim: int) -> Encoder | None:
    """The encoder of what `--condition` names: label, map, caption or two of them; None of none.

    Args:
        images: of the data set that is conditioned on.
        dim: features of each code.
    """
    parts = [] if images.condition == "none" else images.condition.split("+")
    encoders = [_annotation_encoder(part, images, dim) for part in parts]
    if len(encoders) > 1:
        return Joint(*encoders)
    return encoders[0] if encoders else None


def _annotation_encoder(part: str, images: ImageSpec, dim: int) -> Encoder:
    if part == "label":
        return LabelEmbedding(images.num_classes, dim)
    if part == "caption":
        return TextEncoder(dim)
    if part in ("mask", "keypoints"):
        _, height, width = images.image_shape
        return MapEncoder(images.num_map_channels, (dim, height, width))
    raise DataError(f"--condition {part} is unknown: choose label, mask, keypoints or caption")


def checked(build: Callable[[Any, ImageSpec], N], config: Any, spec: ImageSpec) -> N:
    """Build a network, or raise a UserError for flags that none can be built from."""
    try:
        return build(config, spec)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = explain(error) or str(error)
        raise UserError(f"no network can be built from these flags: {reason}") from error

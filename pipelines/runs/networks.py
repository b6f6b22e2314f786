"""Networks from flags: the decoder of every pipeline, and encoders of annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from decoders import Decoder
from decoders.likelihoods import Likelihood
from encoders import Encoder, Joint, LabelEmbedding, MapEncoder, TextEncoder
from pipelines.runs.decoders import DECODERS, LIKELIHOODS, DecoderConfig, target
from pipelines.runs.options import import_class
from pipelines.runs.record import ImageSpec
from pipelines.runtime.command import explain
from pipelines.runtime.config import flat
from pipelines.runtime.errors import DataError, UserError

N = TypeVar("N", bound=nn.Module)


def make_likelihood(config: DecoderConfig, num_levels: int) -> Likelihood:
    """Return the likelihood that the flags choose."""
    name = target(LIKELIHOODS, config.likelihood, "--likelihood")
    likelihood = import_class(name, "--likelihood", Likelihood)
    return likelihood(num_levels, **flat(config.head))


def make_decoder(
    config: DecoderConfig, images: ImageSpec, cond_shape: tuple[int, ...] = ()
) -> Decoder:
    """Return the decoder that the flags choose, for these images."""
    decoder: Any = decoder_class(config)
    return decoder(
        images.image_shape,
        cond_shape=cond_shape,
        likelihood=make_likelihood(config, images.num_levels),
        **flat(config.network),
    )


def decoder_class(config: DecoderConfig) -> type[Decoder]:
    """Return the class of the decoder that the flags choose."""
    name = target(DECODERS, config.decoder, "--decoder")
    found = import_class(name, "--decoder", Decoder)
    parameters = inspect.signature(found).parameters
    passes_on = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for argument in ("cond_shape", "likelihood"):
        if argument not in parameters and not passes_on:
            raise UserError(
                f"expected the constructor of {name} to take {argument!r}, as it is called as "
                "Class(image_shape, cond_shape=..., likelihood=..., **flags)"
            )
    return found


def make_annotation_encoder(images: ImageSpec, dim: int) -> Encoder | None:
    """Return the encoder of the annotations that `--condition` names, or None for none.

    Args:
        images: the images, with their condition: label, mask, keypoints, caption or two of these.
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
    """Build a network, or raise a UserError for flags from which none can be built."""
    try:
        return build(config, spec)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = explain(error) or str(error)
        raise UserError(f"no network can be built from these flags: {reason}") from error

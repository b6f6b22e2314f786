"""Decoders: networks that yield a normalised p(x | h) of a discrete image, and draw from it."""

from decoders.base import AutoregressiveDecoder, Decoder, to_levels
from decoders.gated_pixelcnn import GatedPixelCNN
from decoders.likelihoods import Categorical, DiagonalGaussian, DiscretizedLogisticMixture

__all__ = [
    "AutoregressiveDecoder",
    "Categorical",
    "Decoder",
    "DiagonalGaussian",
    "DiscretizedLogisticMixture",
    "GatedPixelCNN",
    "to_levels",
]

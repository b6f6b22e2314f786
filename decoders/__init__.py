"""Decoders: networks that yield a normalised p(x | h) of a discrete image, and draw from it."""

from decoders.base import Decoder
from decoders.checks import check_causality, receptive_field
from decoders.deconv import DeconvDecoder
from decoders.factorized import FactorizedDecoder
from decoders.gated_pixelcnn import GatedPixelCNN
from decoders.levels import to_levels
from decoders.likelihoods import Categorical, DiagonalGaussian
from decoders.logistic_mixture import DiscretizedLogisticMixture
from decoders.pixel_network import PixelNetwork
from decoders.pixelcnn import PixelCNN
from decoders.pixelcnn_pp import PixelCNNPlusPlus

__all__ = [
    "Categorical",
    "Decoder",
    "DeconvDecoder",
    "DiagonalGaussian",
    "DiscretizedLogisticMixture",
    "FactorizedDecoder",
    "GatedPixelCNN",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "PixelNetwork",
    "check_causality",
    "receptive_field",
    "to_levels",
]

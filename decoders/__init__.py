"""Decoders: networks that yield a normalized p(x | h) of a discrete image, and draw from it."""

from decoders.arguments import NonFiniteError
from decoders.base import Decoder
from decoders.checks import SubPixel, check_causality, receptive_field, sensitivity, show_field
from decoders.deconv import DeconvDecoder
from decoders.factorized import FactorizedDecoder
from decoders.gated_pixelcnn import GatedPixelCNN
from decoders.heads import PixelEmbedding
from decoders.levels import from_levels, requantize, to_levels
from decoders.likelihoods import Categorical, DiagonalGaussian, Discrete, Likelihood
from decoders.logistic_mixture import DiscretizedLogisticMixture
from decoders.network_scan import NetworkScan, TrunkScan
from decoders.pixel_network import PixelNetwork
from decoders.pixelcnn import PixelCNN
from decoders.pixelcnn_pp import PixelCNNPlusPlus
from decoders.pixelsnail import PixelSNAIL
from decoders.pretrained import Pretrained
from decoders.recorded import PretrainedError, Recorded
from decoders.scan import Scan

__all__ = [
    "Categorical",
    "Decoder",
    "DeconvDecoder",
    "DiagonalGaussian",
    "Discrete",
    "DiscretizedLogisticMixture",
    "FactorizedDecoder",
    "GatedPixelCNN",
    "Likelihood",
    "NetworkScan",
    "NonFiniteError",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "PixelEmbedding",
    "PixelNetwork",
    "PixelSNAIL",
    "Pretrained",
    "PretrainedError",
    "Recorded",
    "Scan",
    "SubPixel",
    "TrunkScan",
    "check_causality",
    "from_levels",
    "receptive_field",
    "requantize",
    "sensitivity",
    "show_field",
    "to_levels",
]

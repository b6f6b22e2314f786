"""Encoders: networks that make the conditioning h of a decoder."""

from encoders.base import Annotation, Code, Encoder, Noise, fixed_code
from encoders.conv import ConvEncoder, Deterministic
from encoders.gaussian import GaussianEncoder
from encoders.hierarchical import HierarchicalEncoder, LatentPrior
from encoders.joint import Joint
from encoders.label import LabelEmbedding
from encoders.layers import Upsample
from encoders.map import MapEncoder
from encoders.posterior import DeterministicPosterior, GaussianPosterior, Posterior
from encoders.pretrained import Pretrained
from encoders.recorded import PretrainedError, Recorded
from encoders.text import ALPHABET, TextEncoder, tokenize

__all__ = [
    "ALPHABET",
    "Annotation",
    "Code",
    "ConvEncoder",
    "Deterministic",
    "DeterministicPosterior",
    "Encoder",
    "GaussianEncoder",
    "GaussianPosterior",
    "HierarchicalEncoder",
    "Joint",
    "LabelEmbedding",
    "LatentPrior",
    "MapEncoder",
    "Noise",
    "Posterior",
    "Pretrained",
    "PretrainedError",
    "Recorded",
    "TextEncoder",
    "Upsample",
    "fixed_code",
    "tokenize",
]

"""Encoders: anything that makes the conditioning h of a decoder."""

from encoders.base import Code, Encoder
from encoders.conv import ConvEncoder, Deterministic
from encoders.gaussian import GaussianEncoder
from encoders.hierarchical import HierarchicalEncoder, LatentPrior
from encoders.joint import Joint
from encoders.label import LabelEmbedding
from encoders.layers import Upsample
from encoders.map import MapEncoder
from encoders.text import ALPHABET, TextEncoder, tokenize

__all__ = [
    "ALPHABET",
    "Code",
    "ConvEncoder",
    "Deterministic",
    "Encoder",
    "GaussianEncoder",
    "HierarchicalEncoder",
    "Joint",
    "LabelEmbedding",
    "LatentPrior",
    "MapEncoder",
    "TextEncoder",
    "Upsample",
    "tokenize",
]

"""Encoders: anything that makes the conditioning h of a decoder."""

from encoders.base import Code, Encoder
from encoders.conv import ConvEncoder, Deterministic
from encoders.gaussian import GaussianEncoder
from encoders.label import LabelEmbedding
from encoders.layers import Upsample

__all__ = [
    "Code",
    "ConvEncoder",
    "Deterministic",
    "Encoder",
    "GaussianEncoder",
    "LabelEmbedding",
    "Upsample",
]

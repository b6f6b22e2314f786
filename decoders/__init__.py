"""Decoders: networks that yield a normalised p(x | h) of a discrete image, and draw from it."""

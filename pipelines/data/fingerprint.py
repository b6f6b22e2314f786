"""Fingerprints: hashes that tell data sets and their options apart."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import DTypeLike

from pipelines.data.subset import Rows

_BLOCK = 256  # images hashed at a time


def of_pixels(
    pixels: np.ndarray | Rows,
    dtype: DTypeLike = np.uint8,
    *,
    small: int = 1 << 26,
    sample: int = 2048,
) -> str:
    """Hash shape and levels: of all images up to 64 MiB, else of evenly spaced ones.

    Args:
        pixels: (N, C, H, W), integers of any type.
        dtype: the levels are hashed as this type.
        small: hash the levels of all images up to this size.
        sample: else those of this many images.
    """
    digest = hashlib.sha256(repr(pixels.shape).encode())
    rows = np.arange(len(pixels))
    if pixels.size > small and len(pixels) > sample:
        rows = np.linspace(0, len(pixels) - 1, sample).astype(np.int64)
    for start in range(0, len(rows), _BLOCK):
        levels = np.ascontiguousarray(pixels[rows[start : start + _BLOCK]], dtype=dtype)
        digest.update(levels.data)
    return digest.hexdigest()


def of_split(
    pixels: np.ndarray | Rows,
    native_levels: int,
    labels: np.ndarray | None,
    *,
    num_levels: int,
    binarize: str = "none",
    gray: bool = False,
    pad: int = 0,
    variant: str = "",
) -> str:
    """Hash the images and labels of a split with the options that change its images.

    Args:
        pixels: (N, C, H, W), before the options.
        native_levels: their number of levels.
        labels: (N,) int64, or None.
        num_levels: levels after quantization.
        binarize: "none", "threshold" or "dynamic".
        gray: color is converted to gray.
        pad: pixels added on every side.
        variant: release of the data set.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(repr((num_levels, binarize, gray, pad, variant)).encode())
    digest.update(of_pixels(pixels, np.uint8 if native_levels <= 256 else "<u2").encode())
    digest.update(b"" if labels is None else labels.tobytes())
    return digest.hexdigest()[:32]

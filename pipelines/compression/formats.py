"""Other lossless formats for the same images: PNG, WebP and, if it is installed, JPEG XL.

Each stores the images in one file per image, and as one sheet with all images side by side: small
files are mostly header, so that many small images would be stored as a sheet.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from einops import rearrange
from PIL import Image, features

from pipelines.runtime.progress import progress

WEBP_SIDE = 16_383  # pixels that the format allows

Measure = Callable[[np.ndarray], "int | None"]


class Format(NamedTuple):
    """Bytes that a format takes; None if it can't be tried, with the reason as a note."""

    name: str
    each: int | None
    sheet: int | None
    note: str = ""


def sizes(x: np.ndarray, num_levels: int) -> list[Format]:
    """Return the sizes of images (N, C, H, W) in every format.

    PNG packs up to 2, 4 or 16 levels in 1, 2 or 4 bits. Otherwise levels are bytes.
    """
    formats: list[tuple[str, Measure | None, str]] = [
        ("PNG", lambda image: _png(image, num_levels), ""),
        ("WebP lossless", _webp, ""),
        ("JPEG XL lossless", *_jpeg_xl()),
    ]
    if not features.check("webp"):
        formats[1] = ("WebP lossless", None, "this Pillow has no WebP")
    if x.shape[1] not in (1, 3) or num_levels > 256:
        channels, levels = f"{x.shape[1]} channels", f"{num_levels:,} levels"
        reason = f"not for {levels if num_levels > 256 else channels}"
        return [Format(name, None, None, reason) for name, _, _ in formats]
    images = rearrange(x, "n c h w -> n h w c")
    whole = sheet(images)
    found = []
    for name, measure, note in formats:
        if measure is None:
            found.append(Format(name, None, None, note))
            continue
        alone = [measure(image) for image in _shown(images, name)]
        each = None if None in alone else sum(size for size in alone if size is not None)
        found.append(Format(name, each, measure(whole)))
    return found


def sheet(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W, C) row by row on one nearly square sheet; the rest is zero.

    >>> sheet(np.zeros((5, 8, 8, 1), np.uint8)).shape
    (24, 16, 1)
    """
    count, height, width, channels = images.shape
    columns = max(1, round(math.sqrt(count * height / width)))
    rows = -(-count // columns)
    full = np.zeros((rows * columns, height, width, channels), images.dtype)
    full[:count] = images
    return rearrange(full, "(row col) h w c -> (row h) (col w) c", col=columns)


def _shown(images: np.ndarray, name: str) -> Iterable[np.ndarray]:
    return progress(images, len(images), name, unit="image")


def _png(image: np.ndarray, num_levels: int) -> int:
    plain = _saved(_picture(image), format="PNG", optimize=True)
    bits = next((n for n in (1, 2, 4) if num_levels <= 2**n), 8)
    if image.shape[-1] == 3 or bits == 8:
        return plain
    packed = Image.fromarray(image[..., 0])
    if bits == 1:
        packed = Image.fromarray(image[..., 0] > 0)
    else:  # Pillow packs palette indices only, and the palette takes room
        packed.putpalette([level for level in range(2**bits) for _ in range(3)])
    return min(plain, _saved(packed, format="PNG", optimize=True, bits=bits))


def _webp(image: np.ndarray) -> int | None:
    if max(image.shape) > WEBP_SIDE:
        return None
    return _saved(_picture(image), format="WEBP", lossless=True, quality=100, method=6)


def _jpeg_xl() -> tuple[Measure | None, str]:
    try:
        from imagecodecs import jpegxl_encode
    except ImportError:
        return None, 'pip install "pixel-decoders[compare]" to see it'

    def measure(image: np.ndarray) -> int:
        plain = image[..., 0] if image.shape[-1] == 1 else image
        return len(jpegxl_encode(np.ascontiguousarray(plain), lossless=True, effort=9))

    return measure, ""


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image))


def _saved(picture: Image.Image, **options: object) -> int:
    buffer = io.BytesIO()
    picture.save(buffer, **options)  # pyright: ignore[reportArgumentType]
    return buffer.tell()

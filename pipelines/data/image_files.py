"""Decoder of image files: uint8 levels of a given shape, or every reason against it.

    bytes ── open ── upright (EXIF) ── over the background ── gray or RGB ── resized ── (C, H, W)

Nothing is changed without a flag. Transparency, other colors or sizes, and further pictures in a
file are problems, each named with its flag or cure.
"""

from __future__ import annotations

import functools
import io
import re
from typing import Any, NamedTuple

import numpy as np

from pipelines.runtime.errors import DataError

# Extensions of files that Pillow reads exactly; listings report that they left out other files.
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)
MAX_BYTES = 1 << 30  # of one encoded image
MAX_PIXELS = 89_478_485  # of one image, as Pillow has it: 256 MiB in RGB
VERSION = 2  # raise it when `decode` gives other levels for the same file: sets are packed again
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF")  # others may run programs
_CONVERTIBLE = {
    "1": "1-bit black and white",
    "L": "gray",
    "LA": "gray with alpha",
    "P": "palette-colored",
    "PA": "palette-colored with alpha",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
}
_TAG_ORIENTATION, _TAG_BITS = 0x0112, 258


class Rules(NamedTuple):
    """Shape that an image must have, and conversions that are allowed."""

    shape: tuple[int, int, int]  # C (1 or 3), H, W
    convert: bool = False  # gray, palette, RGB, RGBA and CMYK into C channels
    resize: bool = False  # box-filtered to cover (H, W), then cropped at the center
    background: tuple[int, int, int] | None = None  # RGB under transparent pixels


class Problem(NamedTuple):
    """One reason why an image is not usable as it is."""

    kind: str  # "damaged" | "picture" | "color" | "transparent" | "size"
    reason: str  # completes a sentence that begins with the file's name
    flag: str = ""  # flag that admits such images, if there is one


class UnfitError(ValueError):
    """An image is not usable; the message completes a sentence that begins with its name.

    Attributes:
        problems: every reason, not the first one alone
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; it ".join(problem.reason for problem in problems))
        self.problems = problems


def parse_color(name: str) -> tuple[int, int, int] | None:
    """Read the color that `--background` names; None for an empty string.

    Raises:
        DataError: it is not a color

    Example:
        >>> parse_color("white"), parse_color("255,0,10")
        ((255, 255, 255), (255, 0, 10))
    """
    if not name:
        return None
    parts = {"white": "255,255,255", "black": "0,0,0"}.get(name, name).split(",")
    if len(parts) != 3 or not all(one.strip().isdecimal() and int(one) < 256 for one in parts):
        raise DataError(f"--background {name}: expected white, black or r,g,b such as 255,128,0")
    red, green, blue = map(int, parts)
    return red, green, blue


def decode(data: bytes, rules: Rules) -> np.ndarray:
    """Decode one image file into levels, (C, H, W) uint8.

    Raises:
        UnfitError: it is damaged, has several pictures or more than 8 bits, or breaks the rules
    """
    from PIL import Image, ImageOps

    image = open_upright(data)
    problems = _misfits(image, rules)
    if problems:
        raise UnfitError(*problems)
    channels, height, width = rules.shape
    mode = "RGB" if channels == 3 else "L"
    if has_alpha(image):  # opaque, unless there is a background
        under = Image.new("RGBA", image.size, rules.background or (0, 0, 0))
        image = Image.alpha_composite(under, image.convert("RGBA"))
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), method=Image.Resampling.BOX)
    pixels = np.asarray(image)
    return np.moveaxis(pixels, -1, 0) if channels == 3 else pixels[None]


def open_upright(data: bytes) -> Any:
    """Open the one 8-bit picture of a file, a `PIL.Image.Image`, turned as its EXIF data say.

    Raises:
        UnfitError: the file is damaged or too large, or holds several pictures or more than 8 bits
    """
    from PIL import Image

    if not data:
        raise UnfitError(Problem("damaged", "is empty (0 bytes): fetch it again or delete it"))
    try:
        _check_bits(_header_bits(data))
        image = Image.open(io.BytesIO(data), formats=_formats())
        if image.width * image.height > MAX_PIXELS:  # Pillow warns, and raises from twice as many
            raise Image.DecompressionBombError
        _check_one_picture(image)
        image.load()
        return _upright(image)
    except UnfitError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        reason = f"has more than {MAX_PIXELS:,} pixels, the most that are decoded: make it smaller"
        raise UnfitError(Problem("picture", reason)) from error
    except Exception as error:  # Pillow raises a dozen kinds, from OSError to struct.error
        reason = f"is truncated or not an image ({_explain(error, data)})"
        raise UnfitError(Problem("damaged", f"{reason}: fetch it again or delete it")) from error


def has_alpha(image: Any) -> bool:
    """Return whether a `PIL.Image.Image` has an alpha channel, or a transparent color."""
    return image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info


def _misfits(image: Any, rules: Rules) -> list[Problem]:
    """Return every violation of the rules."""
    channels, height, width = rules.shape
    mode, flag = ("RGB", "--rgb") if channels == 3 else ("L", "--gray")
    found = _CONVERTIBLE.get(image.mode)
    if found is None:
        return [Problem("color", f"is {image.mode}: convert it to 8-bit {mode} first")]
    problems = []
    composed = rules.background is not None and image.mode == mode + "A"
    if image.mode != mode and not rules.convert and not composed:
        reason = f"is {found}, not {_CONVERTIBLE[mode]}: {flag} converts it"
        problems.append(Problem("color", reason, flag))
    if rules.background is None and has_alpha(image):
        least, _ = image.convert("RGBA").getchannel("A").getextrema()
        if least < 255:
            reason = "has transparent pixels: --background white (black, or r,g,b) fills them"
            problems.append(Problem("transparent", reason, "--background white"))
    if image.size != (width, height) and not rules.resize:
        reason = f"is {image.width}x{image.height} pixels, not {width}x{height}"
        flag = f"--image-size {min(width, height, *image.size)}"
        problems.append(Problem("size", f"{reason}: resize or remove it", flag))
    return problems


def _check_one_picture(image: Any) -> None:
    if image.format == "TIFF":
        _check_bits(max(image.tag_v2.get(_TAG_BITS, (1,))))
    # An MPO, as phones write it, is one photo; its other pictures are a preview or a depth map.
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if count > 1:
        reason = f"holds {count} pictures (pages or an animation)"
        raise UnfitError(Problem("picture", f"{reason}: save the one you want in its own file"))


def _check_bits(bits: int) -> None:
    if bits > 8:
        reason = f"has {bits} bits per channel: convert it to 8 bits first"
        raise UnfitError(Problem("picture", reason))


def _header_bits(data: bytes) -> int:
    """Return the bits per channel where Pillow would silently cut them to 8; else 8."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 24:
        return data[24]
    if data[:2] in (b"P2", b"P3", b"P5", b"P6"):  # Netpbm: magic, width, height, largest value
        words = re.sub(rb"#[^\n]*", b"", data[:4096]).split(maxsplit=4)
        return int(words[3]).bit_length() if len(words) > 3 else 8
    if data[4:8] == b"ftyp" and (start := data.find(b"av1C")) >= 0:  # AVIF
        flags = int.from_bytes(data[start + 6 : start + 7], "big")
        return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    return 8


def _upright(image: Any) -> Any:
    from PIL import Image

    try:
        orientation = image.getexif().get(_TAG_ORIENTATION, 1)
    except Exception:  # broken EXIF data: viewers, too, show the picture as it is stored
        return image
    if orientation == 1:
        return image
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those formats that this Pillow reads; others, such as EPS, run programs."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _explain(error: Exception, data: bytes) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, MemoryError):
        return "or needs more memory than there is"
    if not isinstance(error, UnidentifiedImageError):
        return " ".join(str(error).split()) or type(error).__name__
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "this Pillow does not read AVIF"
    return "its format is not recognized"

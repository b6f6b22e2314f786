"""An image file is read as every viewer shows it, or refused with every reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.data.image_files import Rules, UnfitError, decode

SIDE = 16
RULES = Rules((3, SIDE, SIDE))
RGB = Rules((3, SIDE, SIDE), convert=True)
WHITE = Rules((3, SIDE, SIDE), background=(255, 255, 255))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int = SIDE, width: int = SIDE, channels: int = 3, seed: int = 0) -> Image.Image:
    draws = np.random.default_rng(seed)
    return Image.fromarray(draws.integers(0, 256, (height, width, channels), dtype=np.uint8))


def reasons(data: bytes, rules: Rules) -> str:
    with pytest.raises(UnfitError) as caught:
        decode(data, rules)
    return str(caught.value)


# ---- orientation -------------------------------------------------------------------------------

STORED = {  # EXIF orientation -> how a camera so held stores an upright picture
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_a_photo_is_turned_as_its_exif_data_say(kind: str, options: dict, orientation: int):
    upright = noise(24, 16)
    turn = STORED[orientation]
    stored = upright.transpose(turn) if turn is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    levels = decode(encoded(stored, kind, exif=exif, **options), Rules((3, 24, 16)))
    np.testing.assert_array_equal(np.moveaxis(levels, 0, -1), np.asarray(upright))


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_photos_are_turned_too(kind: str):
    ramp = np.broadcast_to(np.linspace(0, 255, 24).astype(np.uint8)[:, None, None], (24, 16, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(ramp).transpose(STORED[6])
    levels = decode(encoded(stored, kind, exif=exif, quality=95), Rules((3, 24, 16)))
    assert abs(np.moveaxis(levels, 0, -1).astype(int) - ramp).max() < 16


def test_broken_or_senseless_exif_data_turn_nothing():
    exif = Image.Exif()
    exif[0x0112] = 9
    for content in (exif, b"Exif\0\0junk"):
        decode(encoded(noise(), "PNG", exif=content), RULES)


# ---- one picture of 8 bits ---------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_header(width: int, height: int, bits: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def rgb16_tiff() -> bytes:
    """A 16-bit RGB TIFF of red 0..15, as Pillow does not write it."""
    samples = np.zeros((SIDE, SIDE, 3), "<u2")
    samples[..., 0] = np.arange(SIDE)
    tags = [(256, SIDE), (257, SIDE), (259, 1), (262, 2), (277, 3), (278, SIDE), (284, 1)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    start = 8 + 2 + 12 * 10 + 4
    entries += [
        struct.pack("<HHII", 258, 3, 3, start),
        struct.pack("<HHII", 273, 4, 1, start + 6),
        struct.pack("<HHII", 279, 4, 1, samples.nbytes),
    ]
    directory = b"".join(sorted(entries, key=lambda entry: entry[:2][::-1]))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + struct.pack("<3H", 16, 16, 16) + samples.tobytes()


def deep_avif() -> bytes:
    data = bytearray(encoded(noise(), "AVIF"))
    data[data.index(b"av1C") + 6] |= 0x40  # high_bitdepth
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (rgb16_tiff(), 16),
        (encoded(Image.new("I;16", (SIDE, SIDE)), "TIFF"), 16),
        (encoded(Image.new("I;16", (SIDE, SIDE)), "PNG"), 16),
        (png_header(SIDE, SIDE, bits=16), 16),
        (b"P6 # by a scanner\n16 16\n65535\n" + bytes(6 * SIDE * SIDE), 16),
        (b"P5 16 16 1023 " + bytes(2 * SIDE * SIDE), 10),
        (deep_avif(), 10),
    ],
    ids=["tiff-rgb", "tiff-gray", "png-gray", "png-rgb", "ppm", "pgm", "avif"],
)
def test_more_than_8_bits_are_refused_not_cut(data: bytes, bits: int):
    for rules in (RGB, Rules((1, SIDE, SIDE), convert=True)):
        expected = f"has {bits} bits per channel: convert it to 8 bits first"
        assert reasons(data, rules) == expected


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_pages_and_animations_are_refused_not_cut_to_their_first(kind: str):
    more = [noise(seed=1), noise(seed=2)]
    data = encoded(noise(), kind, save_all=True, append_images=more)
    assert reasons(data, RGB).startswith("holds 3 pictures (pages or an animation): save")


def test_the_photo_of_an_mpo_is_read():
    data = encoded(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
    first = encoded(noise(), "JPEG")
    np.testing.assert_array_equal(decode(data, RULES), decode(first, RULES))


@pytest.mark.parametrize("size", [(60_000, 60_000), (11_000, 11_000), (2**31 - 1, 2)])
def test_a_header_can_not_ask_for_more_memory_than_a_photo_needs(size: tuple[int, int]):
    reason = "has more than 89,478,485 pixels, the most that are decoded: make it smaller"
    assert reasons(png_header(*size), Rules((3, 8, 8), resize=True)) == reason


def test_formats_that_run_programs_are_not_opened():
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n"
    assert "its format is not recognized" in reasons(data, RGB)


# ---- transparency ------------------------------------------------------------------------------


def sprite(mode: str) -> bytes:
    """A black square on a transparent ground, which a color key would make black, too."""
    alpha = Image.new("L", (SIDE, SIDE), 0)
    alpha.paste(255, (4, 4, 12, 12))
    if mode in ("RGB", "L"):  # with a transparent color
        key = (1, 1, 1) if mode == "RGB" else 1
        image = Image.new(mode, (SIDE, SIDE), key)
        image.paste(0, (4, 4, 12, 12))
        return encoded(image, transparency=key)
    if mode == "P":
        image = Image.new("P", (SIDE, SIDE), 1)
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.paste(0, (4, 4, 12, 12))
        return encoded(image, transparency=1)
    image = Image.new(mode[:-1], (SIDE, SIDE))
    image.putalpha(alpha)
    return encoded(image)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparency_is_refused_or_composed_never_dropped(mode: str):
    data = sprite(mode)
    assert "has transparent pixels: --background white (black, or r,g,b)" in reasons(data, RGB)
    expected = np.full((SIDE, SIDE), 255)
    expected[4:12, 4:12] = 0
    for channels in (1, 3):
        rules = Rules((channels, SIDE, SIDE), convert=True, background=(255, 255, 255))
        np.testing.assert_array_equal(decode(data, rules)[0], expected)
    colored = decode(data, RGB._replace(background=(10, 20, 30)))
    assert colored[:, 0, 0].tolist() == [10, 20, 30]
    assert not colored[:, 5, 5].any()


def test_half_transparent_pixels_are_mixed_with_the_ground():
    half = encoded(Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 128)))
    assert (decode(half, WHITE) == 127).all()


def test_a_background_admits_alpha_and_nothing_else():
    assert decode(encoded(noise().convert("RGBA")), WHITE).shape == (3, SIDE, SIDE)
    gray = Rules((1, SIDE, SIDE), background=(0, 0, 0))
    assert decode(encoded(noise().convert("LA")), gray).shape == (1, SIDE, SIDE)
    assert reasons(encoded(noise().convert("L")), WHITE) == "is gray, not RGB: --rgb converts it"


def test_an_opaque_alpha_channel_needs_no_background():
    image = noise()
    levels = decode(encoded(image.convert("RGBA")), RGB)
    np.testing.assert_array_equal(np.moveaxis(levels, 0, -1), np.asarray(image))


# ---- kinds -------------------------------------------------------------------------------------


def test_cmyk_is_converted_by_the_flag():
    data = encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "TIFF")
    assert reasons(data, RULES) == "is CMYK, not RGB: --rgb converts it"
    assert (decode(data, RGB)[:, 0, 0] == (255, 0, 0)).all()
    assert reasons(data, Rules((1, SIDE, SIDE))) == "is CMYK, not gray: --gray converts it"


@pytest.mark.parametrize(("kind", "exact"), [("PPM", True), ("AVIF", False), ("JPEG", False)])
def test_netpbm_and_avif_are_read(kind: str, exact: bool):
    image = Image.new("RGB", (SIDE, SIDE), (200, 100, 50))
    levels = decode(encoded(image, kind), RULES)[:, 8, 8].astype(int)
    assert abs(levels - (200, 100, 50)).max() <= (0 if exact else 4)


def test_all_reasons_are_given_at_once():
    image = noise(20, 12).convert("LA")
    image.putalpha(0)
    with pytest.raises(UnfitError) as caught:
        decode(encoded(image), RULES)
    assert [problem.flag for problem in caught.value.problems] == [
        "--rgb",
        "--background white",
        "--image-size 12",
    ]
    assert str(caught.value) == (
        "is gray with alpha, not RGB: --rgb converts it; it has transparent pixels: --background "
        "white (black, or r,g,b) fills them; it is 12x20 pixels, not 16x16: resize or remove it"
    )

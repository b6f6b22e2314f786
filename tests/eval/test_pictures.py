"""Prove that a page holds the pixels of a run's own pictures, and nothing else."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from eval import compare, report
from eval.pictures import pictures

SECRET = b"secret of the system"


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def save(path, **options):
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path, **options)


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))


def test_the_pixels_come_through_and_what_else_the_file_holds_does_not(folder):
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    save(folder / "samples.png", pnginfo=text, icc_profile=SECRET, exif=b"Exif\0\0" + SECRET)
    with (folder / "samples.png").open("ab") as file:
        file.write(SECRET)
    (shown,) = pictures(folder)
    assert shown["title"] == "samples"
    assert SECRET not in base64.b64decode(shown["address"].split(",")[1])
    np.testing.assert_array_equal(
        np.asarray(decoded(shown["address"])), np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    )


def test_an_animation_stays_one(folder):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    options = {"append_images": frames[1:], "duration": [100, 200, 300], "comment": SECRET}
    frames[0].save(folder / "samples.gif", save_all=True, **options)
    (shown,) = pictures(folder)
    assert shown["address"].startswith("data:image/gif")
    again = decoded(shown["address"])
    assert getattr(again, "n_frames", 1) == 3
    assert again.info["duration"] == 100
    assert SECRET not in base64.b64decode(shown["address"].split(",")[1])


def test_links_and_what_is_no_picture_are_named_and_left_out(folder, tmp_path):
    (tmp_path / "system").write_bytes(SECRET)
    save(tmp_path / "elsewhere.png")
    (folder / "a.png").symlink_to(tmp_path / "system")
    (folder / "b.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "c.png").write_bytes(SECRET)
    os.mkfifo(folder / "d.png")
    (folder / "e.png").mkdir()
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "f.png")
    (folder / "f.png").write_bytes((folder / "f.png").read_bytes()[:600])
    save(folder / "g.png", format="TIFF")
    shown = pictures(folder)
    assert [picture["address"] for picture in shown] == [""] * 7
    assert [picture["title"] for picture in shown[:3]] == [
        "a (not a file of the run: a.png)",
        "b (not a file of the run: b.png)",
        "c (not a picture that can be read: c.png)",
    ]


@pytest.mark.parametrize("side", [10_000, 2**31 - 1])
def test_the_size_of_a_picture_is_known_before_it_is_decoded(folder, side):
    save(folder / "bomb.png")
    content = bytearray((folder / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (folder / "bomb.png").write_bytes(content)
    (shown,) = pictures(folder)
    assert shown == {"title": "bomb (too large to show here: bomb.png)", "address": ""}


def test_no_page_holds_a_file_that_a_link_in_a_run_points_to(run, tmp_path):
    """Neither as a picture nor as images.npy."""
    a, b = run(tmp_path / "a"), run(tmp_path / "b", seed=1)
    (tmp_path / "system").write_bytes(SECRET)
    for folder in (a, b):
        (folder / "samples.png").unlink()
        (folder / "samples.png").symlink_to(tmp_path / "system")
        (folder / "images.npy").rename(tmp_path / "images.npy")
        (folder / "images.npy").symlink_to(tmp_path / "images.npy")
    out = tmp_path / "page.html"
    for main in (report.main, compare.main):
        assert main([str(a), str(b), "--out", str(out)]) == 0
        text = out.read_text()
        assert base64.b64encode(SECRET).decode()[:16] not in text
        assert 'alt="samples' not in text
        assert 'alt="image' not in text

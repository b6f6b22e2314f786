"""Whatever lies in a folder is listed, is named as damaged, or is counted aloud."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.image_files import Rules
from pipelines.data.listing import list_folder
from pipelines.data.packing import pack
from pipelines.runtime.errors import DataError

RULES = Rules((3, 8, 8))


def write(path: Path, level: int = 0, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        write(tmp_path / "images" / "a" / f"{index}.png", index)
    return tmp_path / "images"


def broken(folder: Path) -> str:
    (folder / "a" / "x.png").symlink_to("gone.png")
    return r"x\.png cannot be read \(No such file or directory\): restore or delete it"


def to_itself(folder: Path) -> str:
    (folder / "a" / "x.png").symlink_to("x.png")
    return r"x\.png cannot be read \(Too many levels of symbolic links\)"


def loop(folder: Path) -> str:
    (folder / "a" / "x").symlink_to("..")
    return "a/x is a link to a folder that contains it: remove it"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "a" / "x.png")
    return r"x\.png is not a regular file"


def closed(folder: Path) -> str:
    if os.geteuid() == 0:
        pytest.skip("root may look into every folder")
    write(folder / "x" / "0.png")
    (folder / "x").chmod(0)
    return r"x cannot be read \(Permission denied\)"


@pytest.mark.parametrize("spoil", [broken, to_itself, loop, pipe, closed])
def test_what_can_not_be_read_is_named_and_can_be_skipped(folder, tmp_path, spoil, capsys):
    expected = spoil(folder)
    with pytest.raises(DataError, match=expected):
        pack(list_folder(folder), RULES, tmp_path / "set")
    packed = pack(list_folder(folder), RULES, tmp_path / "set", skip_damaged=True)
    assert packed.pixels[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert "skipped 1 damaged images of set" in capsys.readouterr().err


def test_a_link_to_images_elsewhere_is_followed(folder: Path, tmp_path: Path):
    write(tmp_path / "other" / "deep" / "9.png", 9)
    (folder / "b").symlink_to(tmp_path / "other")
    (folder / "a" / "3.png").symlink_to(tmp_path / "other" / "deep" / "9.png")
    listing = list_folder(folder)
    assert listing.paths == ["a/0.png", "a/1.png", "a/2.png", "a/3.png", "b/deep/9.png"]
    packed = pack(listing, RULES, tmp_path / "set")
    assert packed.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 9, 9]


def test_more_endings_are_read_and_others_are_counted_aloud(folder: Path, tmp_path: Path, capsys):
    for ending, kind in (("jfif", "JPEG"), ("JPE", "JPEG"), ("ppm", "PPM"), ("avif", "AVIF")):
        write(folder / "b" / f"x.{ending}", format=kind)
    for name in ("x.heic", "y.HEIC", "z.jp2", "README", ".hidden.txt"):
        (folder / name).write_bytes(b"")
    listing = list_folder(folder)
    assert listing.count == 7
    assert len(pack(listing, RULES, tmp_path / "set").pixels) == 7
    said = capsys.readouterr().err
    assert "not read as images: 2 .heic, 1 .jp2, 1 without an ending" in said


def test_a_folder_without_images_says_what_it_has(tmp_path: Path):
    (tmp_path / "train_data.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no images \(it has 1 \.npz\): expected files"):
        list_folder(tmp_path)
    with pytest.raises(DataError, match=r"none cannot be read \(No such file or directory\)"):
        list_folder(tmp_path / "none")


def test_the_background_and_the_way_of_decoding_are_part_of_a_packed_sets_name(folder: Path):
    listing = list_folder(folder)
    colors = (None, (0, 0, 0), (255, 255, 255))
    keys = {listing.key(RULES._replace(background=color)) for color in colors}
    assert len(keys) == 3


def test_names_that_are_not_utf_8_are_read(folder: Path, tmp_path: Path):
    write(folder / os.fsdecode(b"gr\xfcn\n.png"), 7)
    listing = list_folder(folder)
    assert listing.count == 4
    assert 7 in pack(listing, RULES, tmp_path / "set", workers=1).pixels
    assert np.unique([one.key(RULES) for one in (listing, list_folder(folder))]).size == 1

"""Every problem of a folder of images in one message."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.config import DataConfig
from pipelines.data.sets import load
from pipelines.data.subset import draw
from pipelines.runtime.errors import DataError
from tests.pipelines.data.samples import write_image as write


def read(root: Path, **options):
    return load(DataConfig("folder", str(root), **options))


def test_every_problem_of_every_split_is_in_one_message(root: Path, monkeypatch):
    write(root / "train" / "a" / "large.png", side=100)
    write(root / "train" / "b" / "small.png", side=7)
    write(root / "train" / "b" / "gray.png", mode="L")
    write(root / "valid" / "b" / "sprite.png", mode="RGBA")
    Image.new("RGBA", (8, 8)).save(root / "valid" / "b" / "sprite.png")
    (root / "valid" / "a" / "x.png").symlink_to("gone")
    command = ["/usr/bin/python3", "-m", "pipelines.pixelcnn", "--data-dir", "my data"]
    monkeypatch.setattr(sys, "orig_argv", command)
    with pytest.raises(DataError) as caught:
        read(root)
    assert str(caught.value).split("\n") == [
        "the images have several problems:",
        f"  {root}/train/a/large.png is 100x100 pixels, not 8x8: resize or remove it; 1 more cannot"
        f" be used: {root}/train/b/small.png",
        f"  {root}/train/b/gray.png is gray, not RGB: --rgb converts it",
        f"  {root}/valid/a/x.png cannot be read (No such file or directory): restore or delete it",
        f"  {root}/valid/b/sprite.png is RGBA, not RGB: --rgb converts it",
        f"  {root}/valid/b/sprite.png has transparent pixels: --background white (black, or r,g,b) "
        "fills them",
        "to paste: python -m pipelines.pixelcnn --data-dir 'my data' --background white --rgb "
        "--image-size 7",
    ]
    (root / "valid" / "a" / "x.png").unlink()
    assert read(root, background="white", rgb=True, image_size=7).test.image_shape == (3, 7, 7)


def test_no_command_is_offered_where_none_helps(root: Path):
    (root / "train" / "a" / "1.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read(root)
    path = root / "train" / "a" / "1.png"
    assert str(caught.value) == f"{path} is empty (0 bytes): fetch it again or delete it"


def test_the_survey_is_bounded(root: Path, monkeypatch):
    from pipelines.data import survey

    monkeypatch.setattr(survey, "_FILES", 1)
    for name in ("x", "y"):
        write(root / "train" / "b" / f"{name}.png", mode="L")
    with pytest.raises(DataError, match=r"x\.png is gray.*; 1 more .*y\.png"):
        read(root)  # packing found these two itself


def test_problems_of_images_that_a_limit_leaves_out_are_none(root: Path):
    used = draw(4, 2, np.array([0, 0, 1, 1]))
    files = {split: sorted((root / split).rglob("*.png")) for split in ("train", "valid")}
    for one in files.values():
        for index in np.delete(np.arange(4), used):
            one[index].write_bytes(b"")
    assert len(read(root, limit=2).test) == 2
    for one in files.values():
        write(one[used[1]], mode="L")
    with pytest.raises(DataError, match=r"train/.* is gray.*; 1 more .*valid/") as caught:
        read(root, limit=2)
    assert "is empty" not in str(caught.value)

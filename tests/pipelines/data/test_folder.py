"""Folders of your own images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.config import DataConfig
from pipelines.data.sets import load
from pipelines.runtime.errors import DataError
from tests.pipelines.data.samples import imagenet_folder, write_pngs
from tests.pipelines.data.samples import write_image as write


def read(root: Path, **options):
    return load(DataConfig("folder", str(root), **options))


def test_a_folder_of_images_of_any_size(tmp_path: Path):
    for seed, split in enumerate(("train", "val", "test")):
        write_pngs(tmp_path / split / "cats", 2, side=20, seed=seed)
        write_pngs(tmp_path / split / "dogs", 2, side=30 + seed, seed=seed)
    with pytest.raises(DataError, match="is 30x30 pixels, not 20x20"):
        load(DataConfig("folder", str(tmp_path)))
    splits = load(DataConfig("folder", str(tmp_path), image_size=16, condition="label"))
    assert splits.valid is not None
    assert splits.test.split == "test"
    assert splits.test.image_shape == (3, 16, 16)
    assert splits.train.labels.tolist() == [0, 0, 1, 1]
    assert splits.test.variant == ""


def test_a_folder_of_gray_images_stays_gray(tmp_path: Path):
    for split in ("train", "valid"):
        write_pngs(tmp_path / split, 2, side=9, mode="L")
    splits = load(DataConfig("folder", str(tmp_path)))
    assert splits.test.image_shape == (1, 9, 9)
    assert splits.test.split == "valid"
    assert load(DataConfig("folder", str(tmp_path), rgb=True)).test.image_shape == (3, 9, 9)
    write_pngs(tmp_path / "train", 1, side=9, seed=5)
    with pytest.raises(DataError, match=r"5_0000\.png is RGB, not gray: --gray converts it"):
        load(DataConfig("folder", str(tmp_path)))


def test_a_folder_without_splits_is_an_error(tmp_path: Path):
    write_pngs(tmp_path / "cats", 1)
    with pytest.raises(DataError, match=r"must hold a folder train .*found: cats"):
        load(DataConfig("folder", str(tmp_path)))


def test_a_read_only_folder_works_and_stays_untouched(tmp_path: Path):
    source = tmp_path / "data"
    imagenet_folder(source)
    before = sorted(source.rglob("*"))
    source.chmod(0o555)
    try:
        load(DataConfig("imagenet64", str(source)))
    finally:
        source.chmod(0o755)
    assert sorted(source.rglob("*")) == before
    assert list((tmp_path / "cache").rglob("imagenet64-train-*.npy"))


def test_a_damaged_first_file_does_not_decide(root: Path, capsys):
    (root / "train" / "a" / "0.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"a/0\.png is truncated or not an image"):
        read(root)
    splits = read(root, skip_damaged=True)
    assert (len(splits.train), splits.train.image_shape) == (3, (3, 8, 8))
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"junk")
    with pytest.raises(DataError, match=r"no image in .*train can be used: .*a/0\.png is trunc"):
        read(root, skip_damaged=True)


def test_a_folder_of_one_bit_images_is_gray(root: Path):
    for path in root.rglob("*.png"):
        write(path, 255, mode="1")
    assert read(root, gray=True).train.batch(np.arange(4)).x.max() == 255
    with pytest.raises(DataError, match="is 1-bit black and white, not gray: --gray converts it"):
        read(root)


def test_backgrounds_are_other_data(root: Path):
    Image.new("RGBA", (8, 8)).save(root / "train" / "a" / "0.png")
    with pytest.raises(DataError, match="has transparent pixels"):
        read(root, rgb=True)
    sets = [read(root, rgb=True, background=color).train for color in ("black", "white", "9,8,7")]
    assert [one.batch(np.array([0])).x[0, 1, 0, 0].item() for one in sets] == [0, 255, 8]
    assert len({one.fingerprint for one in sets}) == 3
    for wrong in ("red", "1,2", "1,2,256", "1,2,-3", "1,2,x"):
        with pytest.raises(DataError, match=rf"--background {wrong}: expected white, black or r"):
            read(root, rgb=True, background=wrong)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(root: Path):
    root.chmod(0)
    try:
        with pytest.raises(DataError, match=r"data cannot be read or written \(Permission denied"):
            read(root)
    finally:
        root.chmod(0o755)


def test_any_failure_of_the_system_is_a_sentence(root: Path, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error", "/data/x")

    monkeypatch.setattr("pipelines.data.layouts.list_folder", broken)
    with pytest.raises(DataError, match=r"/data/x cannot be read or written \(Input/output error"):
        read(root)


@pytest.mark.slow
def test_the_last_words_of_two_processes_are_the_sentence(root: Path, tmp_path: Path):
    (root / "train" / "a" / "x.png").symlink_to("gone")
    flags = f"--devices 2 --accelerator cpu --data folder --data-dir {root} --out {tmp_path}/run"
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.pixelcnn", *flags.split()],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 2
    last = done.stderr.strip().split("\n")[-1]
    assert last.startswith(f"error: {root}/train/a/x.png cannot be read (No such file")
    assert "Traceback" not in done.stderr
    assert "gloo" not in last

"""Downloads as they are found, class folders, and every problem of a folder in one message."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import batches
from pipelines.data.raw import DataError
from pipelines.data.sets import DataConfig, load
from pipelines.data.subset import draw


def write(path: Path, level: int = 0, side: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (side, side), level).convert(mode).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of each of the classes a and b, in train and valid."""
    for split in ("train", "valid"):
        for name in "ab":
            for index in range(2):
                write(tmp_path / "data" / split / name / f"{index}.png", index)
    return tmp_path / "data"


def read(root: Path, **options):
    return load(DataConfig("folder", str(root), **options))


# ---- class folders -----------------------------------------------------------------------------


def test_a_class_may_be_absent_from_validation(root: Path):
    shutil.rmtree(root / "valid" / "a")
    splits = read(root, condition="label")
    assert splits.train.labels.tolist() == [0, 0, 1, 1]
    assert splits.test.labels.tolist() == [1, 1]
    assert splits.test.num_classes == 2


@pytest.mark.parametrize(
    ("stray", "reason"),
    [
        ("train/x.png", r"train/x\.png is in no class folder, unlike other images"),
        ("valid/x.png", r"valid/x\.png is in no class folder, unlike other images"),
        ("valid/c/x.png", "valid has the folder c, which train has not"),
    ],
)
def test_labels_that_are_dropped_are_dropped_aloud(root: Path, stray: str, reason: str, capsys):
    write(root / stray)
    with pytest.raises(DataError, match=rf"--condition label: folder .* with nothing \(.*{reason}"):
        read(root, condition="label")
    assert not (root / ".packed").exists(), "said before hours of packing"
    assert read(root).train.labels is None
    assert "WARNING: the images get no labels: " in capsys.readouterr().err


def test_nothing_is_said_where_there_are_no_class_folders(root: Path, capsys):
    shutil.rmtree(root / "train" / "b")
    assert read(root).train.labels is None
    assert "WARNING" not in capsys.readouterr().err


# ---- problems ----------------------------------------------------------------------------------


def test_every_problem_of_every_split_is_in_one_message(root: Path, monkeypatch):
    write(root / "train" / "a" / "large.png", side=100)
    write(root / "train" / "b" / "small.png", side=7)
    write(root / "train" / "b" / "grey.png", mode="L")
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
        f"  {root}/train/b/grey.png is grey, not RGB: --rgb converts it",
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
    with pytest.raises(DataError, match=r"x\.png is grey.*; 1 more .*y\.png"):
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
    with pytest.raises(DataError, match=r"train/.* is grey.*; 1 more .*valid/") as caught:
        read(root, limit=2)
    assert "is empty" not in str(caught.value)


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


def test_a_folder_of_one_bit_images_is_grey(root: Path):
    for path in root.rglob("*.png"):
        write(path, 255, mode="1")
    assert read(root, gray=True).train.batch(np.arange(4)).x.max() == 255
    with pytest.raises(DataError, match="is 1-bit black and white, not grey: --gray converts it"):
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


# ---- batches -----------------------------------------------------------------------------------


def write_batches(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    for name in names:
        np.savez(folder / f"{name}.npz", data=rows, labels=[1, 2, 3])


@pytest.mark.parametrize("data", ["cifar10", "imagenet32"])
def test_copies_of_batches_are_left_out_aloud(tmp_path: Path, data: str, capsys):
    write_batches(tmp_path, "train_data_batch_1", "train_data_batch_2", "val_data")
    write_batches(tmp_path, "val_data (1)", "val_data copy", "train_data_batch_1 (1)")
    splits = load(DataConfig(data, str(tmp_path)))
    assert (len(splits.train), len(splits.test)) == (6, 3)
    assert capsys.readouterr().err.count("is left out: its name is not that of a batch") == 3


def test_a_batch_in_two_folders_is_an_error(tmp_path: Path):
    write_batches(tmp_path / "download", "train_data_batch_1", "val_data")
    write_batches(tmp_path / "backup", "val_data")
    with pytest.raises(DataError, match=r"backup/val_data\.npz and .*are the same batch: delete"):
        load(DataConfig("imagenet32", str(tmp_path)))


def test_batches_may_be_in_several_folders_and_in_those_of_their_splits(tmp_path: Path):
    write_batches(tmp_path / "a" / "part1", "train_data_batch_1")
    write_batches(tmp_path / "a" / "part2", "train_data_batch_2", "val_data")
    assert len(load(DataConfig("imagenet32", str(tmp_path / "a"))).train) == 6
    write_batches(tmp_path / "b" / "train", "train_data_batch_1")
    write_batches(tmp_path / "b" / "val", "val_data")
    assert len(load(DataConfig("imagenet32", str(tmp_path / "b"))).train) == 3
    for split in ("train", "val"):
        write(tmp_path / "b" / split / "class" / "x.png", side=32)
    assert len(load(DataConfig("imagenet32", str(tmp_path / "b"))).train) == 1, "of the images"


def test_a_header_of_a_batch_can_not_promise_more_than_there_is(tmp_path: Path):
    write_batches(tmp_path, "train_data_batch_1", "val_data")
    path = tmp_path / "val_data.npz"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(3, 3072)", b"(9, 3072)", 1))
    with pytest.raises(DataError, match=r"val_data\.npz is no batch .*9,216 bytes, not"):
        load(DataConfig("imagenet32", str(tmp_path)))


@pytest.mark.parametrize("labels", [[1, 2], [1, 2, 3, 4]])
def test_a_batch_has_a_label_for_every_image(tmp_path: Path, labels: list[int]):
    write_batches(tmp_path, "train_data_batch_1", "val_data")
    rows = np.zeros((3, 3072), np.uint8)
    np.savez(tmp_path / "train_data_batch_1.npz", data=rows, labels=labels)
    with pytest.raises(DataError, match=rf"batch_1\.npz has {len(labels)} labels for 3 images"):
        load(DataConfig("imagenet32", str(tmp_path)))


def test_pickled_batches_are_not_read_but_the_cure_is_named(tmp_path: Path):
    rows = np.zeros((3, 3072), np.uint8)
    for name in ("train_data_batch_1", "val_data"):
        (tmp_path / name).write_bytes(pickle.dumps({"data": rows, "labels": [1, 2, 3], "mean": 0}))
    config = DataConfig("imagenet32", str(tmp_path))
    with pytest.raises(DataError, match="holds pickled batches, which are not read") as caught:
        load(config)
    command = str(caught.value).split("\n")[-1]
    assert command.startswith(f'python -c "{batches.CONVERT}" {tmp_path}/train_data_batch_1')
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    assert load(config).train.labels.tolist() == [0, 1, 2]


def test_archives_that_are_not_unpacked_are_named(tmp_path: Path):
    (tmp_path / "train_64x64.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"no train images .* \(unpack train_64x64\.zip first\)"):
        load(DataConfig("imagenet64", str(tmp_path)))

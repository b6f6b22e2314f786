"""npz batches of image-net.org, and pickled ones, which are not read."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.data import batches
from pipelines.data.config import DataConfig
from pipelines.data.sets import load
from pipelines.runtime.errors import DataError
from tests.pipelines.data.samples import write_image as write


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
    with pytest.raises(DataError, match=r"val_data\.npz is not a batch .*9,216 bytes, not"):
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


def write_six(folder: Path, side: int, labels: np.ndarray) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).integers(0, 256, (6, 3 * side * side), dtype=np.uint8)
    np.savez(folder / "train_data_batch_1.npz", data=rows[:3], labels=labels[:3])
    np.savez(folder / "train_data_batch_2.npz", data=rows[3:], labels=labels[3:])
    np.savez(folder / "val_data.npz", data=rows[:2], labels=labels[:2])
    return rows


@pytest.mark.parametrize(("data", "side", "top"), [("cifar10", 32, 10), ("imagenet64", 64, 1000)])
def test_labels_of_batches_are_checked_and_counted_from_zero(tmp_path, data, side, top):
    labels = np.array([1, 2, 3, 4, 5, top])
    write_six(tmp_path, side, labels)
    images = load(DataConfig(data, str(tmp_path))).train
    np.testing.assert_array_equal(images.labels, labels - 1)
    assert images.num_classes == top
    for wrong in (0, top + 1):
        write_six(tmp_path, side, np.array([1, 2, 3, 4, 5, wrong]))
        with pytest.raises(DataError, match=rf"batch_2\.npz: labels .* not within 1\.\.{top}"):
            load(DataConfig(data, str(tmp_path)))
    write_six(tmp_path, side, np.array([1, 2, 3, 4, 4.5, 5]))
    with pytest.raises(DataError, match=r"batch_2\.npz: 'labels' is float64 .* such as 4\.5"):
        load(DataConfig(data, str(tmp_path)))

"""Data sets that torchvision downloads, read in place."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torchvision

from pipelines.data import noise
from pipelines.data.config import DataConfig
from pipelines.data.sets import load
from pipelines.runtime.errors import DataError
from tests.pipelines.data.samples import all_images, real, write_pngs


def write_idx(path: Path, array: np.ndarray, zipped: bool) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    content = header + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if zipped:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("data", "folder", "prefixes"),
    [
        ("mnist", "MNIST", ("train", "t10k")),
        ("fashion_mnist", "FashionMNIST", ("train", "t10k")),
        ("kmnist", "KMNIST", ("train", "t10k")),
        ("emnist", "EMNIST", ("emnist-balanced-train", "emnist-balanced-test")),
    ],
)
def test_raw_files_are_read_in_place(tmp_path: Path, data, folder, prefixes, zipped: bool):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    labels = np.arange(6, dtype=np.uint8)
    raw = tmp_path / folder / "raw"
    for prefix in prefixes:
        write_idx(raw / f"{prefix}-images-idx3-ubyte", pixels, zipped)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels, zipped)
    before = sorted(raw.iterdir())
    images = load(DataConfig(data, str(tmp_path))).test
    upright = pixels.swapaxes(1, 2) if data == "emnist" else pixels
    np.testing.assert_array_equal(all_images(images)[:, 0], upright)
    np.testing.assert_array_equal(images.labels, labels)
    assert images.num_classes == (47 if data == "emnist" else 10)
    assert sorted(raw.iterdir()) == before


def test_a_damaged_raw_file_is_named(tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    for prefix in ("train", "t10k"):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", np.zeros((2, 28, 28), np.uint8), True)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.zeros(2, np.uint8), True)
    path = raw / "t10k-images-idx3-ubyte.gz"
    for content in (path.read_bytes()[:30], b"", b"not gzip", gzip.compress(b"\0\0\x08\x03")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
            load(DataConfig("mnist", str(tmp_path)))


@pytest.mark.parametrize("data", ["mnist", "cifar10", "svhn", "omniglot", "celeba"])
def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch, data: str):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    for name in ("MNIST", "CIFAR10", "SVHN", "Omniglot", "CelebA"):
        monkeypatch.setattr(torchvision.datasets, name, no_network)
    with pytest.raises(DataError, match=r"could not be downloaded.*no route.*put it there"):
        load(DataConfig(data, str(tmp_path)))


def test_torchvision_classes_are_read(tmp_path: Path, monkeypatch):
    faces = tmp_path / "celeba" / "img_align_celeba"
    write_pngs(faces, 3, side=12)
    strokes = {True: tmp_path / "background", False: tmp_path / "evaluation"}
    for folder in strokes.values():
        write_pngs(folder / "alphabet" / "character01", 2, side=105, mode="1")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    labels = [3, 1, 4, 1]

    def cifar10(root, train, download):
        return SimpleNamespace(data=pixels, targets=labels)

    def svhn(root, split, download):
        return SimpleNamespace(data=np.moveaxis(pixels, 3, 1), labels=np.array(labels))

    def celeba(root, split, download):
        names = sorted(path.name for path in faces.iterdir())
        return SimpleNamespace(root=root, base_folder="celeba", filename=names)

    def omniglot(root, background, download):
        return SimpleNamespace(target_folder=str(strokes[background]))

    for name, fake in (
        ("CIFAR10", cifar10),
        ("SVHN", svhn),
        ("CelebA", celeba),
        ("Omniglot", omniglot),
    ):
        monkeypatch.setattr(torchvision.datasets, name, fake)
    for data in ("cifar10", "svhn"):
        images = load(DataConfig(data, str(tmp_path))).test
        np.testing.assert_array_equal(all_images(images), np.moveaxis(pixels, 3, 1))
        np.testing.assert_array_equal(images.labels, labels)
    splits = load(DataConfig("celeba", str(tmp_path), image_size=6))
    assert splits.valid is not None
    assert splits.test.image_shape == (3, 6, 6)
    assert load(DataConfig("omniglot", str(tmp_path))).train.image_shape == (1, 105, 105)
    small = load(DataConfig("omniglot", str(tmp_path), image_size=28, binarize="threshold"))
    assert small.test.image_shape == (1, 28, 28)


def test_real_mnist_and_its_tinted_form():
    folder = real("MNIST")
    whole = load(DataConfig("mnist", folder, condition="label"))
    assert whole.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert whole.test.batch(np.arange(3)).y.tolist() == [7, 2, 1]
    plain = load(DataConfig("mnist", folder, limit=500, condition="label"))
    assert plain.test.image_shape == (1, 28, 28)
    tinted = load(DataConfig("mnist_color", folder, limit=500))
    assert tinted.test.num_levels == 4
    gray, color = all_images(plain.test), all_images(tinted.test)
    assert color.shape == (500, 3, 28, 28)
    np.testing.assert_array_equal(color.max(1), gray[:, 0].astype(int) * 12 // 766)
    brightest = color.max((2, 3))
    assert len(np.unique(brightest, axis=0)) == 37
    np.testing.assert_array_equal(tinted.test.labels, plain.test.labels)
    assert not np.array_equal(brightest, all_images(tinted.train).max((2, 3)))
    shares = np.bincount(whole.test.labels) / 20
    assert np.abs(np.bincount(plain.test.labels) - shares).max() < 1


def test_tints_do_not_change():
    """The tinted set is defined by this hash: a changed hash is another data set."""
    assert noise.integers((0,), np.arange(6), 37).tolist() == [10, 24, 25, 14, 24, 29]


def test_real_cifar10_batches_say_that_they_are_a_subset():
    splits = load(DataConfig("cifar10", real("cifar10_npz")))
    assert splits.test.variant == "subset: first 20,000 train / 1,000 test"
    assert splits.test.is_subset
    assert splits.train.labels[:3].tolist() == [6, 9, 9]
    few = load(DataConfig("cifar10", real("cifar10_npz"), limit=50))
    assert few.test.variant == (
        "subset: 50 of 20,000 train / 50 of 1,000 test, drawn with seed 0, stratified by label, "
        "of subset: first 20,000 train / 1,000 test"
    )

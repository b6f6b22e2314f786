"""Arrays in npz, npy and pickles; binarized MNIST."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.data.config import DataConfig
from pipelines.data.sets import load
from pipelines.runtime.errors import DataError
from tests.pipelines.data.samples import all_images, arrays, real


def test_real_binarized_mnist():
    splits = load(DataConfig("binarized_mnist", real("binarized_mnist")))
    assert splits.valid is not None
    assert [len(one) for one in splits] == [50_000, 10_000, 10_000]
    x = splits.test.batch(np.arange(10_000)).x
    assert splits.test.num_levels == 2
    assert set(x.unique().tolist()) == {0, 1}
    assert 0.12 < x.float().mean() < 0.14
    assert splits.test.split == "test"


def test_binarized_mnist_as_packed_bits_and_as_text(tmp_path: Path):
    rows = np.random.default_rng(0).integers(0, 2, (3, 5, 784), dtype=np.uint8)
    names = ("train", "valid", "test")
    packed = {name: np.packbits(one, axis=1) for name, one in zip(names, rows, strict=True)}
    path = tmp_path / "binarized_mnist.npz"
    np.savez(path, **packed)
    as_bits = load(DataConfig("binarized_mnist", str(tmp_path)))
    np.testing.assert_array_equal(all_images(as_bits.test).reshape(5, 784), rows[2])
    assert load(DataConfig("binarized_mnist", str(path))).test.fingerprint == (
        as_bits.test.fingerprint
    )
    path.unlink()
    for name, one in zip(names, rows, strict=True):
        np.savetxt(tmp_path / f"binarized_mnist_{name}.amat", one, fmt="%d")
    as_text = load(DataConfig("binarized_mnist", str(tmp_path)))
    assert [a.fingerprint for a in as_text] == [a.fingerprint for a in as_bits]

    (tmp_path / "binarized_mnist_test.amat").write_text("0 1 2\n")
    with pytest.raises(DataError, match=r"binarized_mnist_test\.amat is damaged"):
        load(DataConfig("binarized_mnist", str(tmp_path)))
    (tmp_path / "binarized_mnist_test.amat").unlink()
    with pytest.raises(DataError, match=r"binarized_mnist_test\.amat does not exist"):
        load(DataConfig("binarized_mnist", str(tmp_path)))
    np.savez(path, train=packed["train"], test=packed["test"])
    with pytest.raises(DataError, match=r"has no array 'valid' .it has train, test"):
        load(DataConfig("binarized_mnist", str(tmp_path)))


NO_LABELS = {"train_labels": None, "test_labels": None}


def test_npz_and_npy_read_alike(tmp_path: Path):
    splits = load(arrays(tmp_path))
    assert splits.test.image_shape == (3, 6, 5)
    assert splits.test.num_classes == 4
    folder = tmp_path / "npy"
    folder.mkdir()
    with np.load(tmp_path / "own.npz") as archive:
        for name in archive.files:
            np.save(folder / f"{name}.npy", archive[name])
    mapped = load(DataConfig("npy", str(folder), condition="label"))
    assert mapped.train.fingerprint == splits.train.fingerprint
    indices = np.array([5, 0, 39])
    assert torch.equal(mapped.train.batch(indices).x, splits.train.batch(indices).x)
    assert mapped.train.batch(indices).y.tolist() == [1, 0, 3]


def test_an_npy_of_objects_is_named(tmp_path: Path):
    path = tmp_path / "train.npy"
    np.save(tmp_path / "test.npy", np.zeros((2, 4, 4), np.uint8))
    np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"train\.npy is damaged, or holds pickled objects"):
        load(DataConfig("npy", str(tmp_path)))


def test_arrays_may_be_gray_boolean_or_channels_first(tmp_path: Path):
    flat = np.random.default_rng(0).integers(0, 2, (9, 6, 5)).astype(bool)
    images = load(arrays(tmp_path, train=flat, test=flat[:, None], **NO_LABELS)).test
    assert images.image_shape == (1, 6, 5)
    assert images.num_levels == 2
    np.testing.assert_array_equal(all_images(images)[:, 0], flat)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": None}, r"own\.npz has no array 'train'"),
        ({"test": None}, "has no array 'test' or 'valid'"),
        ({"train": np.array([{}, 1], dtype=object)}, "pickled objects, which are not loaded"),
        ({"train": np.zeros((4, 6, 5, 2), np.uint8)}, "neither 1 nor 3 channels"),
        ({"train": np.zeros((0, 6, 5, 3), np.uint8), **NO_LABELS}, "no train images"),
        ({"train_labels": np.arange(39)}, "39 train labels for 40 images"),
        ({"test_labels": np.eye(30, dtype=int)}, "30x30|900 test labels for 30 images"),
    ],
)
def test_unfit_arrays_are_named(tmp_path: Path, changed: dict, message: str):
    config = arrays(tmp_path, **changed)
    with pytest.raises(DataError, match=message):
        load(config)


def test_one_npz_is_expected(tmp_path: Path):
    config = arrays(tmp_path)
    (tmp_path / "second.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"exactly one \*\.npz .found: own\.npz, second\.npz"):
        load(config)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_berkeley_pickles_of_any_protocol(tmp_path: Path, protocol: int):
    content = {
        "train": np.random.default_rng(0).integers(0, 4, (8, 20, 20, 3), dtype=np.uint8),
        "test": np.full((4, 20, 20, 3), 3, dtype=np.uint8),
        "train_labels": np.arange(8) % 2,
        "test_labels": np.arange(4) % 2,
    }
    path = tmp_path / "shapes_colored.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    splits = load(DataConfig("berkeley", str(path), condition="label"))
    assert splits.train.num_levels == 4
    np.testing.assert_array_equal(all_images(splits.train), np.moveaxis(content["train"], 3, 1))
    assert splits.test.batch(np.arange(4)).y.tolist() == [0, 1, 0, 1]


def test_berkeley_gray_images_have_256_levels(tmp_path: Path):
    content = {name: np.full((3, 28, 28, 1), 200, np.uint8) for name in ("train", "test")}
    (tmp_path / "mnist.pkl").write_bytes(pickle.dumps(content))
    images = load(DataConfig("berkeley", str(tmp_path), binarize="threshold")).test
    assert images.num_levels == 2
    assert images.batch(np.arange(3)).x.all()


class _Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_malicious_pickle_runs_nothing(tmp_path: Path):
    trace, source = tmp_path / "trace", tmp_path / "data"
    source.mkdir()
    (source / "a.pkl").write_bytes(pickle.dumps({"train": _Evil(trace)}))
    with pytest.raises(DataError, match=r"a\.pkl is not a pickle of arrays alone .*mkdir"):
        load(DataConfig("berkeley", str(source)))
    assert not trace.exists()
    hidden = np.array([_Evil(trace)], dtype=object)
    (source / "a.pkl").write_bytes(pickle.dumps({"train": hidden}))
    with pytest.raises(DataError, match="not a pickle of arrays alone"):
        load(DataConfig("berkeley", str(source)))
    assert not trace.exists()
    for content in (b"", b"junk", pickle.dumps([1, 2]), pickle.dumps({"train": 3})):
        (source / "a.pkl").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.pkl is not"):
            load(DataConfig("berkeley", str(source)))

"""Images of arrays, tensors and torch data sets equal those of array files, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from pipelines.data import array_files
from pipelines.data.config import DataConfig
from pipelines.data.images import Images
from pipelines.data.sets import load
from pipelines.runtime.errors import DataError

LEVELS = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


class Items(Dataset):
    """A data set of these items."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def from_npz(path: Path, **options: Any) -> Images:
    arrays = {"train": LEVELS, "test": LEVELS, "train_labels": LABELS, "test_labels": LABELS}
    np.savez(path / "own.npz", **arrays)
    return load(DataConfig("npz", str(path), **options)).test


def same(images: Images, other: Images) -> None:
    assert images.fingerprint == other.fingerprint
    assert images.image_shape == other.image_shape
    assert images.num_levels == other.num_levels
    assert images.num_classes == other.num_classes
    rows = np.arange(len(other))
    one, two = images.batch(rows), other.batch(rows)
    assert one.x.dtype == two.x.dtype
    assert torch.equal(one.x, two.x)
    assert (one.y is None) == (two.y is None)
    assert one.y is None or torch.equal(one.y, two.y)


FIRST = np.moveaxis(LEVELS, 3, 1)
ARRAYS = {
    "channels last": LEVELS,
    "channels first": FIRST,
    "tensor": torch.from_numpy(FIRST.copy()),
    "floats": torch.from_numpy(FIRST.copy()).float() / 255,
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("condition", ["none", "label"])
def test_arrays_are_those_of_an_npz(tmp_path: Path, kind: str, condition: str):
    images = Images.from_arrays(
        ARRAYS[kind], LABELS, num_levels=256, name="npz", split="test", condition=condition
    )
    same(images, from_npz(tmp_path, condition=condition))


DATASETS = {
    "tensors": TensorDataset(torch.from_numpy(FIRST.copy()), torch.from_numpy(LABELS)),
    "floats": TensorDataset(ARRAYS["floats"], torch.from_numpy(LABELS)),
    "wide integers": TensorDataset(torch.from_numpy(FIRST.copy()).long(), torch.from_numpy(LABELS)),
    "pictures": Items(*((Image.fromarray(x), int(y)) for x, y in zip(LEVELS, LABELS, strict=True))),
    "arrays": Items(*zip(LEVELS, LABELS, strict=True)),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_a_dataset_is_that_of_an_npz(tmp_path: Path, kind: str):
    images = Images.from_dataset(DATASETS[kind], num_levels=256, split="test", condition="label")
    same(images, from_npz(tmp_path, condition="label"))


def test_without_labels_there_is_no_y():
    images = Images.from_dataset(Items(*torch.eye(4, dtype=torch.uint8)[None].repeat(3, 1, 1)))
    assert images.labels is None
    assert images.num_classes == 0
    assert images.batch(np.array([0])).y is None


@pytest.mark.parametrize(
    ("values", "levels"),
    [(np.array([0, 3]), 4), (np.array([0, 70_000 - 5_000]), 65_001), (np.array([False, True]), 2)],
)
def test_levels_of_other_types_are_counted(values: np.ndarray, levels: int):
    images = Images.from_arrays(np.broadcast_to(values[:, None, None], (2, 3, 3)))
    assert images.num_levels == levels
    assert images.batch(np.array([1])).x.max() == levels - 1


def test_floats_are_quantized_to_the_nearest_level():
    x = torch.tensor([0.0, 0.16, 0.17, 0.5, 1.0]).reshape(1, 1, 1, 5)
    images = Images.from_arrays(x, num_levels=4)
    assert images.batch(np.array([0])).x.flatten().tolist() == [0, 0, 1, 2, 3]


def of_arrays(*values: Any, **options: Any) -> Any:
    return lambda: Images.from_arrays(*values, **options)


def of_items(*items: Any, **options: Any) -> Any:
    return lambda: Images.from_dataset(Items(*items), **options)


GOOD = np.zeros((4, 6, 5), np.uint8)
ONE = np.zeros((6, 5), np.uint8)
HALF = np.full((4, 6, 5), 0.5)
BAD = {
    "nothing": (of_arrays(GOOD[:0]), "own has no images"),
    "floats without levels": (of_arrays(HALF), "floats need num_levels"),
    "floats too large": (of_arrays(HALF * 3, num_levels=4), r"floats in \[0, 1\], got 1.5..1.5"),
    "floats too small": (of_arrays(-HALF, num_levels=4), r"floats in \[0, 1\], got -0.5..-0.5"),
    "NaN": (of_arrays(HALF * np.nan, num_levels=4), "own contains NaN"),
    "infinity": (of_arrays(HALF * np.inf, num_levels=4), r"floats in \[0, 1\], got inf"),
    "a level too many": (of_arrays(GOOD + 9, num_levels=9), "levels 0..8, got 9..9"),
    "a negative level": (of_arrays(GOOD.astype(int) - 1), "levels 0..1, got -1..-1"),
    "one level": (of_arrays(GOOD, num_levels=1), "expected 2 to 65,536 levels, got 1"),
    "two dimensions": (of_arrays(GOOD[0]), r"own is uint8 \(6, 5\), expected"),
    "five channels": (of_arrays(np.zeros((4, 5, 6, 7), np.uint8)), "neither 1 nor 3 channels"),
    "ragged lists": (of_arrays([[1], [1, 2]]), "own is object"),
    "text": (of_arrays(["a"]), "own is <U1"),
    "few labels": (of_arrays(GOOD, [0, 1]), r"expected 4 labels, got shape \[2\]"),
    "negative labels": (of_arrays(GOOD, [0, 1, -1, 2]), "labels from 0, got -1"),
    "sparse labels": (of_arrays(GOOD, [0, 1, 10**9, 2]), "labels go up to 1,000,000,000"),
    "float labels": (of_arrays(GOOD, [0, 1, 0.5, 2]), "'labels' is float64 with .* 0.5"),
    "few classes": (of_arrays(GOOD, [0, 1, 2, 3], num_classes=3), "labels below 3, got 3"),
    "a condition": (of_arrays(GOOD, condition="label"), "expected the condition none, got 'label'"),
    "a split": (of_arrays(GOOD, split="dev"), "expected the split train, valid or test, got 'dev'"),
    "no items": (of_items(), "own has no images"),
    "another shape": (of_items(ONE, ONE.T), r"own\[1\] is uint8 \[5, 6\], but own\[0\] is uint8"),
    "another type": (of_items(ONE, ONE.astype(int)), r"own\[1\] is int64 .* one shape and type"),
    "NaN in an item": (of_items(HALF[0], HALF[0] * np.nan, num_levels=4), r"own\[1\] contains NaN"),
    "an item too large": (of_items(HALF[0], HALF[0] * 3, num_levels=4), r"own\[1\]: .* 1.5..1.5"),
    "a level of an item": (
        of_items(ONE.astype(int), ONE.astype(int) + 300, num_levels=256),
        r"own\[1\]: expected levels 0..255, got 300..300",
    ),
    "a palette": (of_items(Image.new("P", (5, 6))), r"own\[0\] is a P picture: convert it"),
    "text as an item": (of_items("a"), r"own\[0\] is <U1 \[\], expected x or \(x, y\)"),
    "an item that raises": (of_items(ONE, KeyError("a")), r"own\[1\] raised KeyError: 'a'"),
    "a label that is text": (of_items((ONE, "cat")), r"own\[0\] has the label 'cat'"),
    "a label now and then": (of_items((ONE, 1), ONE), r"own\[1\] has no label"),
    "a negative label": (of_items((ONE, -1)), "labels from 0, got -1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_unfit_is_one_sentence(kind: str):
    make, message = BAD[kind]
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_iterable_dataset_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(DataError, match=r"expected a map-style dataset, .* got a Stream"):
        Images.from_dataset(Stream())


def test_too_large_a_dataset_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(array_files, "free_memory", lambda: 50)
    with pytest.raises(DataError, match=r"own: its 2 images need .* GiB are free"):
        Images.from_dataset(Items(ONE, KeyError("not read")))

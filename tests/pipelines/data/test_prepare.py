"""Shapes, levels and labels of every split, checked before training; limits and conditions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.data.sets import DataConfig, load
from pipelines.data.subset import draw
from pipelines.runtime.errors import DataError
from tests.pipelines.data.samples import all_images


def own(path: Path, **arrays: np.ndarray) -> DataConfig:
    np.savez(path / "own.npz", **arrays)
    return DataConfig("npz", str(path))


def bytes_of(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


# ---- shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("shape", [(8, 16, 3), (16, 16, 1), (16, 15, 3)])
def test_every_split_must_have_the_shape_of_train(tmp_path: Path, split: str, shape: tuple):
    arrays = {"train": bytes_of(6, 16, 16, 3), "test": bytes_of(3, 16, 16, 3)}
    arrays[split] = bytes_of(2, *shape)
    with pytest.raises(DataError, match=rf"the {split} images have the shape .*train 3×16×16"):
        load(own(tmp_path, **arrays))


# ---- labels ------------------------------------------------------------------------------------

THREE = np.arange(6) % 3
HUGE = np.array([0, 1, 2, 0, 1, 10**12])
BAD_LABELS = {
    "unknown in test": (
        np.arange(6) % 3,
        np.full(3, -1),
        r"test labels are -1\.\.-1, expected 0\.\.2",
    ),
    "other in test": (
        np.arange(6) % 3,
        np.arange(3) + 1,
        r"test labels are 1\.\.3, expected 0\.\.2",
    ),
    "unknown in train": (np.arange(6) - 1, np.arange(3), r"train labels are -1\.\.4"),
    "huge": (HUGE, np.arange(3), "train labels go up to 1,000,000,000,000 and only 4 .*np.unique"),
    "above int64": (
        HUGE.astype(np.uint64) * 10**7,
        np.arange(3),
        "up to 10,000,000,000,000,000",
    ),
    "none in train": (None, np.arange(3), r"test labels are 0\.\.2, and train has none"),
}


@pytest.mark.parametrize(("train", "test", "problem"), BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_bad_labels_stop_a_model_that_is_given_them_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture, train, test, problem
):
    arrays = {"train": bytes_of(6, 4, 4), "test": bytes_of(3, 4, 4), "test_labels": test}
    config = own(tmp_path, **arrays, **({} if train is None else {"train_labels": train}))
    splits = load(config)
    assert splits.test.labels is None
    assert splits.test.num_classes == splits.train.num_classes < 7
    assert len(splits.train.batch(np.arange(6)).x) == 6
    assert "are left out" in capsys.readouterr().err
    with pytest.raises(DataError, match=problem):
        load(DataConfig(config.data, config.data_dir, condition="label"))


def test_labels_that_are_whole_floats_are_read(tmp_path: Path):
    labels = {"train_labels": np.arange(6.0) % 3, "test_labels": np.arange(3.0)}
    config = own(tmp_path, train=bytes_of(6, 4, 4), test=bytes_of(3, 4, 4), **labels)
    splits = load(DataConfig(config.data, config.data_dir, condition="label"))
    assert splits.train.batch(np.arange(6)).y.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -np.inf, 2.0**60])
def test_labels_that_are_not_integers_are_refused(tmp_path: Path, value: float):
    labels = {"train_labels": np.array([0, 1, 2, 0, 1, value]), "test_labels": np.arange(3)}
    config = own(tmp_path, train=bytes_of(6, 4, 4), test=bytes_of(3, 4, 4), **labels)
    with pytest.raises(DataError, match="'train_labels' is float64 with values such as"):
        load(config)


# ---- levels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, ">i4", np.int64, np.uint64])
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_integers_of_any_type_are_levels(tmp_path: Path, dtype, kind: str):
    codes = np.random.default_rng(0).integers(0, 64, (9, 4, 4)).astype(dtype)
    codes[0, 0, 0] = 63
    arrays = {"train": codes, "test": codes[:4]}
    if kind == "npz":
        own(tmp_path, **arrays)
    else:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
    splits = load(DataConfig(kind, str(tmp_path)))  # type: ignore[arg-type]
    assert splits.train.num_levels == splits.test.num_levels == 64
    x = splits.train.batch(np.arange(9)).x
    assert x.dtype == torch.uint8
    np.testing.assert_array_equal(x[:, 0], codes.astype(int))


def test_more_than_256_levels_are_found_or_given(tmp_path: Path):
    codes = np.random.default_rng(0).integers(0, 512, (9, 4, 4))
    codes[0, 0, 0] = 511
    config = own(tmp_path, train=codes[1:], test=codes)
    splits = load(config)
    assert splits.train.num_levels == splits.test.num_levels == 512, "the highest of all splits"
    x = splits.test.batch(np.arange(9)).x
    assert x.dtype == torch.int64
    np.testing.assert_array_equal(x[:, 0], codes)
    given = load(DataConfig("npz", str(tmp_path), native_levels=1024))
    assert given.train.num_levels == 1024
    few = load(DataConfig("npz", str(tmp_path), native_levels=1024, levels=4)).test.batch([0, 3])
    assert few.x.dtype == torch.uint8
    np.testing.assert_array_equal(few.x[:, 0], codes[[0, 3]] * 4 // 1024)
    assert given.test.fingerprint != splits.test.fingerprint


def test_16_bits_are_quantized_padded_and_turned_to_gray_exactly(tmp_path: Path):
    photos = np.random.default_rng(0).integers(0, 1 << 16, (5, 4, 4, 3)).astype(np.uint16)
    photos[0] = 65535
    own(tmp_path, train=photos, test=photos)
    plain = load(DataConfig("npz", str(tmp_path))).test
    assert plain.num_levels == 1 << 16
    half = load(DataConfig("npz", str(tmp_path), levels=1 << 15)).test.batch(np.arange(5)).x
    np.testing.assert_array_equal(half, np.moveaxis(photos, 3, 1).astype(int) // 2)
    gray = load(DataConfig("npz", str(tmp_path), gray=True, pad=1)).test.batch(np.arange(5)).x
    assert gray.shape == (5, 1, 6, 6)
    assert (gray[0, 0, 1:-1, 1:-1] == 65535).all()


@pytest.mark.parametrize(
    ("train", "flags", "problem"),
    [
        (np.full((6, 4, 4), -1), {}, "train images have level -1"),
        (np.full((6, 4, 4), 600), {"native_levels": 512}, "level 600, but only 512 levels"),
        (np.full((6, 4, 4), 1 << 16), {}, r"'train' has levels 0\.\.65536, expected 2 to 65,536"),
        (np.full((6, 4, 4), 2**63, np.uint64), {}, "expected 2 to 65,536"),
        (np.zeros((6, 4, 4), int), {"native_levels": 1}, "--native-levels has levels"),
        (np.zeros((6, 4, 4), int), {"native_levels": 10**12}, "--native-levels has levels"),
        (np.zeros((6, 4, 4), float), {}, "'train' is float64"),
        (np.zeros((6, 4, 4), complex), {}, "'train' is complex128"),
    ],
)
def test_what_is_not_a_level_is_refused(tmp_path: Path, train, flags: dict, problem: str):
    own(tmp_path, train=train, test=np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(DataError, match=problem):
        load(DataConfig("npz", str(tmp_path), **flags))


def test_arrays_of_the_toolkit_bring_their_number_of_levels(tmp_path: Path):
    from pipelines.data.levels import append_levels

    for name in ("train", "test"):
        with open(tmp_path / f"{name}.npy", "wb") as file:
            np.save(file, np.zeros((4, 3, 3), np.uint8))
            append_levels(file, 17)
    assert load(DataConfig("npy", str(tmp_path))).train.num_levels == 17
    with pytest.raises(DataError, match="carries 17 levels, not --native-levels 16"):
        load(DataConfig("npy", str(tmp_path), native_levels=16))


def test_the_type_of_an_array_does_not_change_its_fingerprint(tmp_path: Path):
    codes = np.random.default_rng(0).integers(0, 64, (9, 4, 4))
    prints = []
    for dtype in (np.uint8, np.int64):
        own(tmp_path, train=codes.astype(dtype), test=codes.astype(dtype))
        images = load(DataConfig("npz", str(tmp_path), native_levels=64)).test
        prints.append(images.fingerprint)
    assert prints[0] == prints[1]


# ---- limits and conditions ---------------------------------------------------------------------


def test_limit_draws_images_by_label_and_says_so():
    whole, few = load(DataConfig("digits")), load(DataConfig("digits", limit=400))
    assert (len(few.train), len(few.test)) == (400, 360)
    assert whole.train.labels is not None
    rows = draw(1437, 400, whole.train.labels)
    np.testing.assert_array_equal(all_images(few.train), all_images(whole.train)[rows])
    np.testing.assert_array_equal(few.train.labels, whole.train.labels[rows])
    assert (
        few.train.variant
        == few.test.variant
        == ("subset: 400 of 1,437 train / 360 test, drawn with seed 0, stratified by label")
    )
    assert few.train.is_subset
    assert not few.test.is_subset
    assert load(DataConfig("digits", limit=5000)).train.variant == ""


@pytest.mark.parametrize(
    ("condition", "kind", "shape", "channels"),
    [
        ("label", torch.int64, (4,), 0),
        ("mask", torch.uint8, (4, 20, 20), 4),
        ("keypoints", torch.uint8, (4, 5, 20, 20), 5),
    ],
)
def test_conditions(condition, kind, shape, channels):
    images = load(DataConfig("shapes_color", condition=condition)).train
    y = images.batch(np.arange(4)).y
    assert y.dtype == kind
    assert tuple(y.shape) == shape
    assert images.num_map_channels == channels
    assert images.caption_length == 0
    assert load(DataConfig("shapes_color")).train.batch(np.arange(4)).y is None


def test_captions_alone_and_joined():
    images = load(DataConfig("shapes_color", condition="caption")).train
    y = images.batch(np.arange(4)).y
    assert isinstance(y, torch.Tensor)
    assert y.dtype == torch.uint8
    assert tuple(y.shape) == (4, images.caption_length)
    both = load(DataConfig("shapes_color", condition="caption+mask")).train
    pair = both.batch(np.arange(4)).y
    assert isinstance(pair, tuple)
    assert torch.equal(pair[0], y)
    assert tuple(pair[1].shape) == (4, 20, 20)
    assert both.num_map_channels == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig("digits", levels=18), "--levels 18: digits has 17 levels"),
        (DataConfig("digits", levels=1), "choose 2 to 17"),
        (DataConfig("digits", levels=4, binarize="threshold"), "--binarize gives 2 levels"),
        (DataConfig("digits", condition="mask"), "--condition mask: digits .* with label"),
    ],
)
def test_options_that_do_not_fit_the_data_are_errors(config: DataConfig, message: str):
    with pytest.raises(DataError, match=message):
        load(config)

"""Layouts of ImageNet, and folders of your own images."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.config import DataConfig
from pipelines.data.sets import load
from pipelines.data.subset import draw
from pipelines.runtime.errors import DataError
from tests.pipelines.data.samples import REAL, all_images, imagenet_folder, real, write_pngs


def read(root: Path, **options):
    return load(DataConfig("folder", str(root), **options))


def test_real_imagenette():
    config = DataConfig("imagenet64", real("imagenette64"), limit=300)
    splits = load(config)
    assert splits.test.split == "valid"
    assert splits.test.image_shape == (3, 64, 64)
    assert splits.train.num_classes == 10
    assert splits.test.variant == (
        "subset: 300 of 4,000 train / 300 of 1,000 valid, drawn with seed 0, stratified by label, "
        "of subset: 4,000 train / 1,000 valid"
    )
    assert np.bincount(splits.test.labels).tolist() == [30] * 10
    files = sorted((REAL / "imagenette64" / "valid").rglob("*.png"))
    first = files[draw(1000, 300, np.repeat(np.arange(10), 100))[0]]
    np.testing.assert_array_equal(
        np.moveaxis(all_images(splits.test)[0], 0, -1), np.asarray(Image.open(first))
    )


def test_every_layout_of_imagenet_gives_the_same_images(tmp_path: Path):
    config = imagenet_folder(tmp_path / "folders")
    splits = load(config)
    assert splits.train.variant == "subset: 6 train / 4 valid"
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = [all_images(splits.train), all_images(splits.test)]
    layouts = {name: tmp_path / name for name in ("flat", "nested", "tar", "npz", "npy")}
    for split, pixels in zip(("train", "valid"), expected, strict=True):
        channels_last = np.moveaxis(pixels, 1, 3)
        for folder in (layouts["flat"], layouts["nested"] / "small"):
            (folder / f"{split}_64x64").mkdir(parents=True)
            for index, image in enumerate(channels_last):
                name = f"{index + 1:07d}.png"
                Image.fromarray(image).save(folder / f"{split}_64x64" / name)
        layouts["tar"].mkdir(exist_ok=True)
        with tarfile.open(layouts["tar"] / f"{split}_64x64.tar", "w") as tar:
            tar.add(layouts["flat"] / f"{split}_64x64", arcname=f"{split}_64x64")
        layouts["npy"].mkdir(exist_ok=True)
        np.save(layouts["npy"] / f"imagenet64-{split}.npy", channels_last)
        batch = {"train": "train_data_batch_1", "valid": "val_data"}[split]
        place = layouts["npz"] / f"Imagenet64_{split}_npz"
        place.mkdir(parents=True)
        rows = pixels.reshape(len(pixels), -1)
        np.savez(place / f"{batch}.npz", data=rows, labels=1 + np.arange(len(rows)))
    for name, root in layouts.items():
        found = load(DataConfig("imagenet64", str(root)))
        np.testing.assert_array_equal(all_images(found.train), expected[0], err_msg=name)
        np.testing.assert_array_equal(all_images(found.test), expected[1], err_msg=name)
        assert found.train.num_classes == (1000 if name == "npz" else 0)
        assert found.test.variant == "subset: 6 train / 4 valid"
        few = load(DataConfig("imagenet64", str(root), limit=2))
        assert few.train.variant.startswith(
            "subset: 2 of 6 train / 2 of 4 valid, drawn with seed 0"
        )
        rows = draw(6, 2, found.train.labels)
        np.testing.assert_array_equal(all_images(few.train), expected[0][rows], err_msg=name)


def test_releases_are_told_by_their_counts(tmp_path: Path):
    for name, counts in (("old", (1_281_149, 49_999)), ("new", (1_281_167, 50_000))):
        root = tmp_path / name
        root.mkdir()
        for split, count in zip(("train", "valid"), counts, strict=True):
            sparse = np.lib.format.open_memmap(
                root / f"{split}.npy", "w+", np.uint8, (count, 32, 32, 3)
            )
            del sparse
        splits = load(DataConfig("imagenet32", str(root)))
        assert splits.test.variant == name
        assert not splits.test.is_subset
        few = load(DataConfig("imagenet32", str(root), limit=10)).test
        listed = f"10 of {counts[0]:,} train / 10 of {counts[1]:,} valid"
        assert few.variant == f"subset: {listed}, drawn with seed 0, of {name}"
        assert few.is_subset


def test_one_folder_of_any_name_has_no_labels(tmp_path: Path):
    write_pngs(tmp_path / "train" / "a", 2)
    write_pngs(tmp_path / "valid" / "b", 2)
    assert load(DataConfig("imagenet64", str(tmp_path))).train.labels is None
    with pytest.raises(DataError, match=r"--condition label: imagenet64 .* with nothing"):
        load(DataConfig("imagenet64", str(tmp_path), condition="label"))


def test_missing_empty_and_incomplete_folders_are_named(tmp_path: Path):
    config = DataConfig("imagenet64", str(tmp_path / "none"))
    with pytest.raises(DataError, match="none does not exist"):
        load(config)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none is empty"):
        load(config)
    write_pngs(tmp_path / "none" / "train" / "a", 1)
    with pytest.raises(DataError, match="none: it has train, but no valid images were found"):
        load(config)
    (tmp_path / "none" / "valid").mkdir()
    with pytest.raises(DataError, match="valid holds no images"):
        load(config)
    with pytest.raises(DataError, match="is a file"):
        load(DataConfig("imagenet64", str(next((tmp_path / "none").rglob("*.png")))))
    write_pngs(tmp_path / "other" / "valid" / "a", 1)
    with pytest.raises(DataError, match="it has valid, but no train images"):
        load(DataConfig("imagenet64", str(tmp_path / "other")))


def test_images_of_another_size_or_kind_need_a_flag(tmp_path: Path):
    imagenet_folder(tmp_path)
    write_pngs(tmp_path / "valid" / "n02", 1, side=32, seed=9)
    with pytest.raises(DataError, match=r"9_0000\.png is 32x32 pixels, not 64x64"):
        load(DataConfig("imagenet64", str(tmp_path)))
    write_pngs(tmp_path / "valid" / "n02", 1, mode="RGBA", seed=9)
    with pytest.raises(DataError, match=r"9_0000\.png is RGBA, not RGB: --rgb converts it"):
        load(DataConfig("imagenet64", str(tmp_path)))
    assert load(DataConfig("imagenet64", str(tmp_path), rgb=True)).test.image_shape == (3, 64, 64)
    gray = load(DataConfig("imagenet64", str(tmp_path), gray=True)).test
    assert gray.image_shape == (1, 64, 64)


def test_damaged_images_can_be_skipped_in_training_but_never_in_evaluation(tmp_path: Path):
    imagenet_folder(tmp_path)
    spoilt = tmp_path / "train" / "n01" / "0_0001.png"
    spoilt.write_bytes(spoilt.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"0_0001\.png is truncated"):
        load(DataConfig("imagenet64", str(tmp_path)))
    config = DataConfig("imagenet64", str(tmp_path), skip_damaged=True, condition="label")
    images = load(config).train
    assert len(images) == 5
    assert images.labels.tolist() == [0, 0, 1, 1, 1], "labels keep to their images"
    spoilt = tmp_path / "valid" / "n02" / "3_0000.png"
    spoilt.write_bytes(b"")
    with pytest.raises(DataError, match=r"3_0000\.png is empty"):
        load(config)


def test_archives_that_are_not_unpacked_are_named(tmp_path: Path):
    (tmp_path / "train_64x64.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"no train images .* \(unpack train_64x64\.zip first\)"):
        load(DataConfig("imagenet64", str(tmp_path)))

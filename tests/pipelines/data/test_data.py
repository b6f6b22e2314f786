"""Every data set reads as it should, options do what they say, and bad data are named."""

from __future__ import annotations

import gzip
import os
import pickle
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pipelines.data import noise
from pipelines.data.sets import (
    DataConfig,
    DataError,
    load,
    order,
    to_display,
)
from pipelines.data.subset import draw

REAL = Path(
    os.environ.get("PIXEL_DECODERS_DATA")
    or Path(__file__).resolve().parents[3].parent / "shared" / "data"
)


def real(name: str) -> str:
    """The folder of a real data set; skips the test where it is absent."""
    if not (REAL / name).exists():
        pytest.skip(f"{REAL / name} is absent: set PIXEL_DECODERS_DATA to the folder that has it")
    return str(REAL if name == "MNIST" else REAL / name)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_pngs(folder: Path, count: int, side: int = 64, mode: str = "RGB", seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    for index, image in enumerate(draws):
        Image.fromarray(image).convert(mode).save(folder / f"{seed}_{index:04d}.png")


def imagenet_folder(root: Path, side: int = 64) -> DataConfig:
    for split, count in (("train", 3), ("valid", 2)):
        for number, name in enumerate(("n01", "n02")):
            write_pngs(root / split / name, count, side, seed=number + 2 * (split == "valid"))
    return DataConfig("imagenet64", str(root))


def all_images(images) -> np.ndarray:
    return images.batch(np.arange(len(images))).x.numpy()


# ---- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "levels", "classes"),
    [
        ("digits", (1, 8, 8), 17, 10),
        ("shapes", (1, 20, 20), 2, 3),
        ("shapes_color", (3, 20, 20), 4, 3),
    ],
)
def test_built_in_sets(name, shape, levels, classes):
    splits = load(DataConfig(name, "/nowhere"))
    for images in (splits.train, splits.test):
        x = images.batch(np.arange(50)).x
        assert images.image_shape == tuple(x.shape[1:]) == shape
        assert x.dtype == torch.uint8
        assert images.num_levels == levels
        assert x.max() == levels - 1
        assert images.num_classes == classes
        assert images.labels is not None
        assert images.labels.shape == (len(images),)
        assert not images.is_subset
        assert images.variant == ""
    assert splits.valid is None


def test_digits_are_split_in_their_order():
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    splits = load(DataConfig("digits"))
    assert (len(splits.train), len(splits.test)) == (1437, 360)
    np.testing.assert_array_equal(all_images(splits.test).reshape(360, 64), rows[1437:])
    np.testing.assert_array_equal(splits.train.labels, labels[:1437])


# ---- reading -----------------------------------------------------------------------------------


def test_a_batch_has_its_images_in_the_order_of_the_indices():
    train = load(DataConfig("digits", condition="label")).train
    indices = np.array([7, 3, 3, 1000])
    batch = train.batch(indices)
    np.testing.assert_array_equal(batch.x.numpy(), all_images(train)[indices])
    assert isinstance(batch.y, torch.Tensor)
    assert batch.y.dtype == torch.int64
    assert batch.y.tolist() == train.labels[indices].tolist()
    batch.x.zero_()
    assert train.batch(indices).x.any(), "a batch is a copy"


def test_order_is_a_permutation_and_a_pure_function():
    first = order(1, 2, 1000)
    assert sorted(first.tolist()) == list(range(1000))
    np.testing.assert_array_equal(first, order(1, 2, 1000))
    for other in (order(1, 3, 1000), order(2, 2, 1000), order(2, 1, 1000)):
        assert (first != other).any()
    places = np.stack([order(seed, 0, 4) for seed in range(4000)])
    counts = np.stack([np.bincount(column, minlength=4) for column in places.T])
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9  # chi-squared, 9 degrees, p = 0.001


def test_fingerprints_tell_data_and_options_apart():
    configs = [
        DataConfig("digits"),
        DataConfig("digits", limit=100),
        DataConfig("digits", levels=2),
        DataConfig("digits", binarize="threshold"),
        DataConfig("digits", binarize="dynamic"),
        DataConfig("digits", pad=1),
    ]
    prints = [images.fingerprint for config in configs for images in load(config)[:2]]
    assert len(set(prints)) == len(prints)
    again = load(DataConfig("digits", "/elsewhere", condition="label"))
    assert again.train.fingerprint == prints[0]


def test_to_display_spreads_levels_over_bytes():
    bytes_ = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_display(bytes_, 256), bytes_)
    assert to_display(torch.tensor([0, 1], dtype=torch.uint8), 2).tolist() == [0, 255]
    assert to_display(torch.tensor([8, 16], dtype=torch.uint8), 17).tolist() == [128, 255]


# ---- options -----------------------------------------------------------------------------------


NO_LABELS = {"train_labels": None, "test_labels": None}


def arrays(path: Path, **changed: np.ndarray | None) -> DataConfig:
    draws = np.random.default_rng(0)
    content = {
        "train": draws.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8),
        "test": draws.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8),
        "train_labels": np.arange(40) % 4,
        "test_labels": np.arange(30) % 4,
    }
    content.update(changed)
    np.savez(path / "own.npz", **{name: a for name, a in content.items() if a is not None})
    return DataConfig("npz", str(path))


def test_levels_quantise_evenly():
    plain, few = load(DataConfig("digits")).test, load(DataConfig("digits", levels=4)).test
    assert few.num_levels == 4
    np.testing.assert_array_equal(all_images(few), all_images(plain).astype(int) * 4 // 17)


def test_threshold_is_above_half(tmp_path: Path):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.savez(tmp_path / "a.npz", train=ramp, test=ramp)
    images = load(DataConfig("npz", str(tmp_path), binarize="threshold")).test
    assert images.num_levels == 2
    np.testing.assert_array_equal(all_images(images)[0, 0], ramp[0] > 127)


def test_dynamic_binarising_draws_anew_in_training_and_once_for_evaluation(tmp_path: Path):
    gray = np.full((4, 100, 100), 51, dtype=np.uint8)  # a probability of one in five
    gray[0], gray[1] = 0, 255
    np.savez(tmp_path / "a.npz", train=gray, test=gray)
    splits = load(DataConfig("npz", str(tmp_path), binarize="dynamic"))
    everything = np.arange(4)
    one, two = (splits.train.batch(everything, noise_seed=(0, step)).x for step in (1, 2))
    again = splits.train.batch(everything, noise_seed=(0, 1)).x
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    assert not torch.equal(one[2], one[3]), "images with one content get their own draws"
    alone = splits.train.batch(np.array([3]), noise_seed=(0, 1)).x
    assert torch.equal(alone[0], one[3]), "a draw does not depend on the rest of the batch"
    fixed = splits.test.batch(everything, noise_seed=(0, 1)).x
    assert torch.equal(fixed, splits.test.batch(everything, noise_seed=(5, 2)).x)
    for x in (one, two, fixed):
        assert not x[0].any()
        assert x[1].all()
        assert abs(x[2:].float().mean().item() - 0.2) < 0.012  # four standard errors


def test_gray_and_pad(tmp_path: Path):
    config = arrays(tmp_path)
    plain = load(config).train
    assert plain.image_shape == (3, 6, 5)
    changed = load(DataConfig("npz", str(tmp_path), gray=True, pad=2)).train
    assert changed.image_shape == (1, 10, 9)
    x = all_images(changed)
    assert not x[:, :, :2].any()
    assert not x[:, :, :, -2:].any()
    picture = Image.fromarray(np.moveaxis(all_images(plain)[3], 0, -1)).convert("L")
    np.testing.assert_array_equal(x[3, 0, 2:-2, 2:-2], np.asarray(picture))


def test_pad_extends_masks_and_keypoints():
    plain = load(DataConfig("shapes", condition="mask")).test
    padded = load(DataConfig("shapes", condition="mask", pad=3)).test
    x, y = padded.batch(np.arange(5))
    assert tuple(x.shape[2:]) == tuple(y.shape[1:]) == (26, 26)
    assert torch.equal(y[:, 3:-3, 3:-3], plain.batch(np.arange(5)).y)


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


# ---- the MNIST family and torchvision ----------------------------------------------------------


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


# ---- binarised MNIST, CIFAR-10 batches ---------------------------------------------------------


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


def write_batches(folder: Path, side: int, labels: np.ndarray) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).integers(0, 256, (6, 3 * side * side), dtype=np.uint8)
    np.savez(folder / "train_data_batch_1.npz", data=rows[:3], labels=labels[:3])
    np.savez(folder / "train_data_batch_2.npz", data=rows[3:], labels=labels[3:])
    np.savez(folder / "val_data.npz", data=rows[:2], labels=labels[:2])
    return rows


@pytest.mark.parametrize(("data", "side", "top"), [("cifar10", 32, 10), ("imagenet64", 64, 1000)])
def test_labels_of_batches_are_checked_and_counted_from_zero(tmp_path, data, side, top):
    labels = np.array([1, 2, 3, 4, 5, top])
    write_batches(tmp_path, side, labels)
    images = load(DataConfig(data, str(tmp_path))).train
    np.testing.assert_array_equal(images.labels, labels - 1)
    assert images.num_classes == top
    for wrong in (0, top + 1):
        write_batches(tmp_path, side, np.array([1, 2, 3, 4, 5, wrong]))
        with pytest.raises(DataError, match=rf"batch_2\.npz: labels .* not within 1\.\.{top}"):
            load(DataConfig(data, str(tmp_path)))
    write_batches(tmp_path, side, np.array([1, 2, 3, 4, 4.5, 5]))
    with pytest.raises(DataError, match=r"batch_2\.npz: 'labels' is float64 .* such as 4\.5"):
        load(DataConfig(data, str(tmp_path)))


# ---- arrays ------------------------------------------------------------------------------------


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


def test_a_damaged_npy_is_named(tmp_path: Path):
    path = tmp_path / "train.npy"
    np.save(tmp_path / "test.npy", np.zeros((2, 4, 4), np.uint8))
    np.save(path, np.zeros((2, 4, 4), np.uint8))
    whole = path.read_bytes()
    np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)
    pickled = path.read_bytes()
    for content in (whole[:-1], whole[:40], b"", b"junk", pickled):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train\.npy is damaged, or holds pickled objects"):
            load(DataConfig("npy", str(tmp_path)))


def test_arrays_may_be_grey_boolean_or_channels_first(tmp_path: Path):
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
        ({"train": np.zeros((4, 6, 5), np.float32)}, "'train' is float32 .* expected uint8"),
        ({"train": np.zeros((4, 6, 5, 2), np.uint8)}, "neither 1 nor 3 channels"),
        ({"train": np.zeros((0, 6, 5, 3), np.uint8), **NO_LABELS}, "no train images"),
        ({"train_labels": np.arange(39)}, "39 train labels for 40 images"),
        ({"train_labels": np.linspace(0, 1, 40)}, "'train_labels' is float64 .* such as 0.0256"),
        ({"test_labels": np.eye(30, dtype=int)}, "30x30|900 test labels for 30 images"),
    ],
)
def test_unfit_arrays_are_named(tmp_path: Path, changed: dict, message: str):
    config = arrays(tmp_path, **changed)
    with pytest.raises(DataError, match=message):
        load(config)


def test_levels_out_of_range_are_an_error(tmp_path: Path):
    arrays(tmp_path)
    with pytest.raises(DataError, match="the train images have level 255, but only 4 levels"):
        load(DataConfig("npz", str(tmp_path), native_levels=4))


def test_a_truncated_npz_is_named(tmp_path: Path):
    config = arrays(tmp_path)
    path = tmp_path / "own.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"own\.npz is damaged"):
        load(config)
    (tmp_path / "second.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"exactly one \*\.npz .found: own\.npz, second\.npz"):
        load(config)


# ---- the course's pickles ----------------------------------------------------------------------


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


def test_berkeley_grey_images_have_256_levels(tmp_path: Path):
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


# ---- ImageNet ----------------------------------------------------------------------------------


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


def test_parquet_shards_of_imagenet(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    from pyarrow import parquet

    config = imagenet_folder(tmp_path / "folders")
    expected = load(config)
    root = tmp_path / "shards"
    root.mkdir()
    for split, name in (("train", "train"), ("valid", "validation")):
        files = sorted((tmp_path / "folders" / split).rglob("*.png"))
        images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        for shard in range(2):
            rows = slice(shard * 2, (shard + 1) * 2 if shard == 0 else None)
            table = pyarrow.table({"image": images[rows], "label": [7] * len(images[rows])})
            parquet.write_table(table, root / f"{name}-0000{shard}-of-00002.parquet")
    found = load(DataConfig("imagenet64", str(root)))
    np.testing.assert_array_equal(all_images(found.train), all_images(expected.train))
    np.testing.assert_array_equal(all_images(found.test), all_images(expected.test))
    assert found.train.labels.tolist() == [7] * 6
    few = load(DataConfig("imagenet64", str(root), limit=3))
    rows = draw(6, 3, np.full(6, 7))
    np.testing.assert_array_equal(all_images(few.train), all_images(expected.train)[rows])


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


# ---- folders of one's own ----------------------------------------------------------------------


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


def test_a_folder_of_grey_images_stays_grey(tmp_path: Path):
    for split in ("train", "valid"):
        write_pngs(tmp_path / split, 2, side=9, mode="L")
    splits = load(DataConfig("folder", str(tmp_path)))
    assert splits.test.image_shape == (1, 9, 9)
    assert splits.test.split == "valid"
    assert load(DataConfig("folder", str(tmp_path), rgb=True)).test.image_shape == (3, 9, 9)
    write_pngs(tmp_path / "train", 1, side=9, seed=5)
    with pytest.raises(DataError, match=r"5_0000\.png is RGB, not grey: --gray converts it"):
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


def test_tints_do_not_change():
    """The tinted set is defined by this hash: a changed hash is another data set."""
    assert noise.integers((0,), np.arange(6), 37).tolist() == [10, 24, 25, 14, 24, 29]

"""Data sets of image files: the layouts in which ImageNet is found, and folders of one's own.

Every split is recognised by looking, listed, and packed once into a memory-mapped array.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.data.arrays import batch_labels, map_npy, read_npz, require
from pipelines.data.decoding import Rules
from pipelines.data.listing import Listing, list_batches, list_folder, list_parquet, list_tar
from pipelines.data.packing import cache_folder, pack
from pipelines.data.raw import DataError, Raw, RawSplit, folder_of
from pipelines.data.sources import download

if TYPE_CHECKING:
    from pipelines.data.sets import DataConfig

_Listed = tuple[dict[str, Listing | None], dict[str, np.ndarray | None], int]
_RELEASES = {(1_281_149, 49_999): "old", (1_281_167, 50_000): "new"}
_NAMES = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}


def imagenet(config: DataConfig) -> Raw:
    """Downsampled ImageNet, 64x64 or 32x32, in any layout that it is found in.

    In `--data-dir`, or in a folder in it, each split is one of:

    - a folder `train` of folders of images (labels, where `valid` has folders of the same names)
    - a flat folder `train_64x64` of images, or an uncompressed `train_64x64.tar` of them
    - npz batches `train_data_batch_*.npz` and `val_data.npz` (planar `data`, `labels` from 1)
    - parquet files `train-*.parquet` with columns `image` and perhaps `label` (needs pyarrow)
    - one array `*train*.npy`, uint8 (N, 64, 64, 3) or (N, 3, 64, 64)

    The variant is told by the counts: "old" is the release of A. van den Oord et al., "Pixel
    recurrent neural networks", 2016; "new" that of P. Chrabaszcz et al., "A downsampled variant of
    ImageNet", 2017, https://arxiv.org/abs/1707.08819. Their numbers are not comparable.
    """
    root = folder_of(config)
    size = 64 if config.data == "imagenet64" else 32
    found = {split: _locate(root, split, size) for split in ("train", "valid")}
    for split, paths in found.items():
        if not paths:
            other = "valid" if split == "train" else "train"
            has = f"it has {found[other][0].name}, but " if found[other] else ""
            raise DataError(
                f"{root}: {has}no {split} images were found: expected {split}/<any>/*.png, "
                f"{split}_{size}x{size}/*.png or .tar, npz batches, parquet or {split}.npy"
            )
    listings, labels, num_classes = _listings(root, found)
    counts = {split: _count(found[split], listing) for split, listing in listings.items()}
    listed = " / ".join(f"{count:,} {split}" for split, count in counts.items())
    variant = _RELEASES.get((counts["train"], counts["valid"]), f"subset: {listed}")
    rules = Rules((1 if config.gray else 3, size, size), convert=config.rgb or config.gray)
    splits = {}
    for split, listing in listings.items():
        if listing is None:
            pixels = _npy_pixels(found[split][0], size)
            splits[split] = RawSplit(pixels, count=len(pixels))
        else:
            splits[split] = _packed(config, split, listing, rules, labels[split], variant)
    return Raw(splits, num_levels=256, num_classes=num_classes, variant=variant)


def folder(config: DataConfig) -> Raw:
    """Your own image files: folders `train`, `valid` or `test` (or both), images anywhere in them.

    Without `--image-size` all images must have the first one's size, and without `--gray` or
    `--rgb` be of its kind, grey or RGB. Folders of the same names in every split are labels.
    """
    root = folder_of(config)
    found = {split: _subfolder(root, names) for split, names in _NAMES.items()}
    if not found["train"] or not (found["valid"] or found["test"]):
        names = ", ".join(sorted(path.name for path in root.iterdir())[:5])
        raise DataError(
            f"{root} must hold a folder train and a folder valid or test of images (found: "
            f"{names}): create them"
        )
    listings = {split: list_folder(path) for split, path in found.items() if path}
    first = listings["train"].name(0)
    rules = _rules_like(first, config)
    labels, num_classes = _folder_labels(listings)
    splits = {
        split: _packed(config, split, listing, rules, labels[split])
        for split, listing in listings.items()
    }
    return Raw(splits, num_levels=256, num_classes=num_classes)


def celeba(config: DataConfig) -> Raw:
    """CelebA, aligned and cropped faces, by torchvision; `--image-size` is usual (64)."""
    splits = {}
    for split in ("train", "valid", "test"):
        data = download("CelebA", config, split=split)
        root = Path(data.root) / data.base_folder / "img_align_celeba"
        side = config.image_size
        rules = Rules((3, side or 218, side or 178), resize=bool(side))
        splits[split] = _packed(config, split, _list_files(root, data.filename), rules, None)
    return Raw(splits, num_levels=256)


def omniglot(config: DataConfig) -> Raw:
    """Omniglot's strokes by torchvision, grey 105x105 or `--image-size`; background is train."""
    splits = {}
    side = config.image_size or 105
    rules = Rules((1, side, side), convert=True, resize=True)
    for split in ("train", "test"):
        data = download("Omniglot", config, background=split == "train")
        files = list_folder(Path(data.target_folder))
        splits[split] = _packed(config, split, files, rules, None)
    return Raw(splits, num_levels=256)


def _packed(
    config: DataConfig,
    split: str,
    listing: Listing,
    rules: Rules,
    labels: np.ndarray | None,
    variant: str = "",
) -> RawSplit:
    packed = pack(
        listing,
        rules,
        cache_folder(folder_of(config)) / f"{config.data}-{split}",
        variant=variant,
        limit=config.limit,
        skip_damaged=config.skip_damaged and split == "train",
    )
    chosen = None if labels is None else labels[packed.kept]
    return RawSplit(packed.pixels, chosen, count=listing.count)


# ---- recognising -------------------------------------------------------------------------------


def _locate(root: Path, split: str, size: int) -> list[Path]:
    """The folder, tar, npz batches or npy that hold a split; empty if there are none."""
    batches = "train_data_batch_*.npz" if split == "train" else "val_data*.npz"
    for place in _places(root):
        for name in _NAMES[split]:
            for folder_name in (f"{name}_{size}x{size}", name):
                if (place / folder_name).is_dir():
                    return [place / folder_name]
            for path in (place / f"{name}_{size}x{size}.tar", place / f"{name}.tar"):
                if path.is_file():
                    return [path]
    for place in _places(root):
        for name in _NAMES[split]:
            arrays = sorted(path for path in place.glob("*.npy") if name in path.stem.lower())
            if arrays:
                return arrays[:1]
            shards = sorted(place.glob(f"{name}-*.parquet"))
            if shards:
                return shards
    found = [path for place in _places(root) for path in place.glob(batches)]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _places(root: Path) -> Iterator[Path]:
    """`root`, and the folders in it that may hold the splits, but are none themselves."""
    yield root
    split_names = {name for names in _NAMES.values() for name in names}
    for below in sorted(path for path in root.iterdir() if path.is_dir()):
        if not below.name.startswith(".") and below.name.split("_")[0] not in split_names:
            yield below


def _subfolder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _listings(root: Path, found: dict[str, list[Path]]) -> _Listed:
    """What every split holds (None for an npy, which needs no packing) and its labels."""
    listings: dict[str, Listing | None] = {}
    labels: dict[str, np.ndarray | None] = {}
    for split, paths in found.items():
        first = paths[0]
        if first.suffix == ".npz":
            listings[split], labels[split] = list_batches(paths), _batch_labels(paths)
        elif first.suffix == ".parquet":
            listings[split], labels[split] = list_parquet(paths)
        elif first.suffix == ".tar":
            index = cache_folder(root) / f"{first.stem}.index.npz"
            listings[split], labels[split] = list_tar(first, index), None
        else:
            listings[split] = None if first.suffix == ".npy" else list_folder(first)
            labels[split] = None
    folders = {s: one for s, one in listings.items() if one and found[s][0].is_dir()}
    if len(folders) == len(found):
        return listings, *_folder_labels(folders)
    known = all(one is not None for one in labels.values())
    return (listings, labels, 1000) if known else (listings, dict.fromkeys(found), 0)


def _count(paths: list[Path], listing: Listing | None) -> int:
    return listing.count if listing else len(map_npy(paths[0]))


def _npy_pixels(path: Path, size: int) -> np.ndarray:
    pixels = map_npy(path)
    if pixels.shape[1:] == (size, size, 3):
        pixels = np.moveaxis(pixels, 3, 1)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (3, size, size):
        raise DataError(
            f"{path} is {pixels.dtype} {pixels.shape}, expected uint8 (N, {size}, {size}, 3)"
        )
    return pixels


# ---- labels ------------------------------------------------------------------------------------


def _batch_labels(paths: list[Path]) -> np.ndarray:
    labels = []
    for path in paths:
        arrays = read_npz(path, "labels")
        require(arrays, path, "labels")
        labels.append(batch_labels(path, arrays["labels"], 1000))
    return np.concatenate(labels)


def _folder_labels(listings: dict[str, Listing]) -> tuple[dict[str, np.ndarray | None], int]:
    """The first folder of every path as its class, if all splits have the same several folders."""
    folders = {
        split: [path.split("/", 1)[0] if "/" in path else "" for path in listing.paths]
        for split, listing in listings.items()
    }
    classes = sorted(set(folders["train"]))
    if len(classes) < 2 or any(set(names) != set(classes) for names in folders.values()):
        return dict.fromkeys(listings), 0
    number = {name: index for index, name in enumerate(classes)}
    labels: dict[str, np.ndarray | None] = {}
    for split, names in folders.items():
        labels[split] = np.array([number[name] for name in names], dtype=np.int64)
    return labels, len(classes)


def _rules_like(first: str, config: DataConfig) -> Rules:
    """Rules that make every image like the file `first`, as far as no flag says otherwise."""
    from PIL import Image

    try:
        with Image.open(first) as image:
            mode, (width, height) = image.mode, image.size
    except Exception as error:  # Pillow raises a dozen kinds
        raise DataError(f"{first} is damaged or not an image ({error}): delete it") from error
    if config.image_size:
        width = height = config.image_size
    gray = config.gray or (mode == "L" and not config.rgb)
    shape = (1 if gray else 3, height, width)
    return Rules(shape, convert=config.gray or config.rgb, resize=config.image_size > 0)


def _list_files(root: Path, names: list[str]) -> Listing:
    states = [(root / name).stat() for name in names]
    sizes, times = zip(*((s.st_size, s.st_mtime_ns) for s in states), strict=True)
    return Listing(root, list(names), np.array(sizes), np.array(times))

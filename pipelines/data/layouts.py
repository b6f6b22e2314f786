"""Data sets of image files: the layouts of ImageNet, and folders of your own.

The layout of every split is detected, its images are listed, and packed once into a memory-mapped
array.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.data import batches, labels
from pipelines.data.array_files import map_npy, read_npz
from pipelines.data.arrays import batch_labels, require
from pipelines.data.cache import cache_folder, cache_folders
from pipelines.data.config import DataConfig
from pipelines.data.image_files import EXTENSIONS, Rules, parse_color
from pipelines.data.labels import Labels
from pipelines.data.listing import (
    DamagedError,
    Listing,
    list_batches,
    list_files,
    list_folder,
    list_parquet,
)
from pipelines.data.packing import pack
from pipelines.data.raw import Raw, RawSplit, folder_of
from pipelines.data.sources import download
from pipelines.data.subset import draw
from pipelines.data.survey import first_shape, survey
from pipelines.data.tars import list_tar
from pipelines.runtime.errors import DataError

_RELEASES = {(1_281_149, 49_999): "old", (1_281_167, 50_000): "new"}
_NAMES = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
_ARCHIVES = {".zip", ".gz", ".tgz", ".xz", ".zst", ".7z", ".rar"}
_COLORS = {"--rgb", "--gray", "--background"}  # flags that change what images are


def imagenet(config: DataConfig) -> Raw:
    """Read downsampled ImageNet, 64x64 or 32x32, in any of its layouts.

    In `--data-dir`, or in a folder in it, each split is one of:

    - a folder `train` of folders of images (labels, where `valid` has folders of the same names)
    - a flat folder `train_64x64` of images, or an uncompressed `train_64x64.tar` of them
    - npz batches `train_data_batch_*.npz` and `val_data.npz` (planar `data`, `labels` from 1)
    - parquet files `train-*.parquet` with columns `image` and perhaps `label` (needs pyarrow)
    - one array `*train*.npy`, uint8 (N, 64, 64, 3) or (N, 3, 64, 64)

    The counts tell the variant: "old" is the release of A. van den Oord et al., "Pixel
    recurrent neural networks", 2016; "new" that of P. Chrabaszcz et al., "A downsampled variant of
    ImageNet", 2017, https://arxiv.org/abs/1707.08819. Their numbers are not comparable.
    """
    root = folder_of(config)
    size = 64 if config.data == "imagenet64" else 32
    found = {split: _locate(root, split, size) for split in ("train", "valid")}
    for split, paths in found.items():
        if not paths:
            raise _missing(root, split, size, found)
    listings, known = _listings(config, root, found)
    known = known.checked(config)
    counts = {split: _count(found[split], listing) for split, listing in listings.items()}
    listed = " / ".join(f"{count:,} {split}" for split, count in counts.items())
    variant = _RELEASES.get((counts["train"], counts["valid"]), f"subset: {listed}")
    rules = _rules(config, (1 if config.gray else 3, size, size))
    packed = {split: listing for split, listing in listings.items() if listing is not None}
    splits = _packed(config, packed, rules, known, variant, flags=_COLORS)
    for split, listing in listings.items():
        if listing is None:
            pixels = _npy_pixels(found[split][0], size)
            splits[split] = RawSplit(pixels, count=len(pixels))
    ordered = {split: splits[split] for split in listings}
    return Raw(ordered, num_levels=256, num_classes=known.num_classes, variant=variant)


def folder(config: DataConfig) -> Raw:
    """Read your own image files, anywhere in folders `train`, and `valid` or `test` or both.

    Without `--image-size` all images must have the first one's size, and without `--gray` or
    `--rgb` be gray or RGB like it. Folders of the same names in every split are labels.
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
    rules = _rules(config, first_shape(listings["train"], config))
    known = labels.from_folders(listings).checked(config)
    splits = _packed(config, listings, rules, known, flags={*_COLORS, "--image-size"})
    return Raw(splits, num_levels=256, num_classes=known.num_classes)


def celeba(config: DataConfig) -> Raw:
    """Read CelebA, aligned and cropped faces, by torchvision, usually with `--image-size 64`."""
    listings = {}
    for split in ("train", "valid", "test"):
        data = download("CelebA", config, split=split)
        root = Path(data.root) / data.base_folder / "img_align_celeba"
        listings[split] = list_files(root, data.filename)
    side = config.image_size
    rules = Rules((3, side or 218, side or 178), resize=bool(side))
    return Raw(_packed(config, listings, rules), num_levels=256)


def omniglot(config: DataConfig) -> Raw:
    """Read Omniglot by torchvision, gray 105x105 or `--image-size`; its background set is train."""
    listings = {}
    for split in ("train", "test"):
        data = download("Omniglot", config, background=split == "train")
        listings[split] = list_folder(Path(data.target_folder))
    side = config.image_size or 105
    rules = Rules((1, side, side), convert=True, resize=True)
    return Raw(_packed(config, listings, rules), num_levels=256)


def _packed(
    config: DataConfig,
    listings: dict[str, Listing],
    rules: Rules,
    known: Labels | None = None,
    variant: str = "",
    *,
    flags: set[str] | None = None,
) -> dict[str, RawSplit]:
    """Pack all splits; if an image is unfit, name the others too, and the `flags` that help."""
    splits: dict[str, RawSplit] = {}
    root = folder_of(config)
    numbers = known.splits if known else dict.fromkeys(listings)
    rows = {split: draw(one.count, config.limit, numbers[split]) for split, one in listings.items()}
    for split, listing in listings.items():
        try:
            packed = pack(
                listing,
                rules,
                cache_folder(root, config.cache_dir) / f"{config.data}-{split}",
                elsewhere=cache_folders(root, config.cache_dir),
                variant=variant,
                rows=rows[split],
                skip_damaged=config.skip_damaged and split == "train",
            )
        except DamagedError as error:
            if flags is None or listing.rows is not None:
                raise
            later = [listings[name].take(rows[name]) for name in listings if name not in splits]
            raise survey(later[1:], rules, flags, error) from error
        chosen = numbers[split]
        chosen = None if chosen is None else chosen[packed.kept]
        splits[split] = RawSplit(packed.pixels, chosen, count=listing.count)
    return splits


def _rules(config: DataConfig, shape: tuple[int, int, int]) -> Rules:
    return Rules(
        shape,
        convert=config.rgb or config.gray,
        resize=config.image_size > 0,
        background=parse_color(config.background),
    )


# ---- detection ---------------------------------------------------------------------------------


def _locate(root: Path, split: str, size: int) -> list[Path]:
    """Return the folder, tar, npz batches, parquet files or npy of a split, or an empty list."""
    places = list(_places(root))
    release = "train" if split == "train" else "val"
    folders = [
        place / folder_name
        for place in places
        for name in _NAMES[split]
        for folder_name in (f"{name}_{size}x{size}", name)
    ]
    for folder in filter(Path.is_dir, folders):
        return _shards(folder, release) or [folder]
    for path in (folder.with_name(f"{folder.name}.tar") for folder in folders):
        if path.is_file():
            return [path]
    for place in places:
        for name in _NAMES[split]:
            arrays = sorted(path for path in place.glob("*.npy") if name in path.stem.lower())
            if arrays:
                return arrays[:1]
            shards = sorted(place.glob(f"{name}-*.parquet"))
            if shards:
                return shards
    return batches.find(places, release)


def _shards(folder: Path, release: str) -> list[Path]:
    """Return the npz batches or parquet files of a folder without images and folders."""
    for path in folder.iterdir():
        hidden = path.name.startswith(".")
        if not hidden and (path.suffix.lower() in EXTENSIONS or path.is_dir()):
            return []
    return batches.find([folder], release) or sorted(folder.glob("*.parquet"))


def _places(root: Path) -> Iterator[Path]:
    """Yield `root`, and the folders in it that may hold the splits without being one."""
    yield root
    split_names = {name for names in _NAMES.values() for name in names}
    for below in sorted(path for path in root.iterdir() if path.is_dir()):
        if not below.name.startswith(".") and below.name.split("_")[0] not in split_names:
            yield below


def _subfolder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _missing(root: Path, split: str, size: int, found: dict[str, list[Path]]) -> DataError:
    """Return the error for a split that is missing, with a cure if a download is not unpacked."""
    pickles = batches.pickled(_places(root))
    if pickles:
        names = " ".join(shlex.quote(str(path)) for path in pickles)
        return DataError(
            f"{root} holds pickled batches, which are not read, since a pickle can run any code: "
            "download the same release as npz, or convert files that you trust:\n"
            f'python -c "{batches.CONVERT}" {names}'
        )
    other = "valid" if split == "train" else "train"
    has = f"it has {found[other][0].name}, but " if found[other] else ""
    packed = sorted(path.name for path in root.iterdir() if path.suffix in _ARCHIVES)
    unpack = f" (unpack {', '.join(packed)} first)" if packed else ""
    return DataError(
        f"{root}: {has}no {split} images were found: expected {split}/<any>/*.png, "
        f"{split}_{size}x{size}/*.png or .tar, npz batches, parquet or {split}.npy{unpack}"
    )


def _listings(
    config: DataConfig, root: Path, found: dict[str, list[Path]]
) -> tuple[dict[str, Listing | None], Labels]:
    """Return the listing of every split (None for an npy, which needs no packing), and labels."""
    listings: dict[str, Listing | None] = {}
    columns: dict[str, np.ndarray | str | None] = {}
    for split, paths in found.items():
        first = paths[0]
        columns[split] = None
        if first.suffix == ".npz":
            listings[split], columns[split] = list_batches(paths), _batch_labels(paths)
        elif first.suffix == ".parquet":
            listings[split], columns[split] = list_parquet(paths)
        elif first.suffix == ".tar":
            folder = cache_folder(root, config.cache_dir)
            listings[split] = list_tar(first, folder / f"{first.stem}.index.json")
        else:
            listings[split] = None if first.suffix == ".npy" else list_folder(first)
    folders = {s: one for s, one in listings.items() if one and found[s][0].is_dir()}
    if len(folders) == len(found):
        return listings, labels.from_folders(folders)
    return listings, labels.from_columns(columns, 1000)


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


def _batch_labels(paths: list[Path]) -> np.ndarray:
    found = []
    for path in paths:
        arrays = read_npz(path, "labels")
        require(arrays, path, "labels")
        found.append(batch_labels(path, arrays["labels"], 1000))
        rows, _ = batches.shape(path)
        if len(found[-1]) != rows:
            raise DataError(f"{path} has {len(found[-1])} labels for {rows} images: fetch it again")
    return np.concatenate(found)

"""Images from elsewhere, prepared like a run's own: the same levels, the same binarization.

picture │ folder │ .npy │ .npz │ name of a data set ── draw, decode, check ──> Elsewhere
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.data import subset
from pipelines.data.array_files import map_npy, read_npz
from pipelines.data.arrays import channels_first
from pipelines.data.config import DATA_NAMES, DataConfig
from pipelines.data.image_files import EXTENSIONS, Rules, UnfitError, decode, parse_color
from pipelines.data.levels import read_levels
from pipelines.data.listing import list_files, list_folder
from pipelines.data.sets import Images, load
from pipelines.runs import scoring
from pipelines.runs.load import Run
from pipelines.runtime.errors import DataError, UserError
from pipelines.runtime.files import at_home


class Source(NamedTuple):
    """Images from elsewhere, as the flags name them.

    Attributes:
        name: a picture, a folder, an .npy, an .npz or the name of a data set.
        num: number of images to draw from them (0: all).
        native_levels: levels of an array (0: the number in the file, else that of the run).
        resize: whether pictures are cropped and resized.
        background: background color of transparent pixels (default: the run's).
        data_dir: folder of a data set.
    """

    name: str
    num: int = 0
    native_levels: int = 0
    resize: bool = False
    background: str = ""
    data_dir: str = ""


class Elsewhere(NamedTuple):
    """Images from elsewhere, and the choice of those to score.

    Attributes:
        images: the images, prepared like the run's own.
        chosen: (N,) positions in `images` to score.
        files: the file of each, or the name of its data set.
        rows: (N,) the position of each within its file or data set.
        drawn: description of the choice.
    """

    images: Images
    chosen: np.ndarray
    files: Sequence[str]
    rows: np.ndarray
    drawn: str


def read(run: Run, source: Source, test: Images) -> Elsewhere:
    """Read images from elsewhere.

    Args:
        run: the run whose model scores them.
        source: the images.
        test: the run's own test images.

    Raises:
        UserError: there are no images of this name, or they have another shape or too few levels.
        DataError: the files are damaged.
    """
    if source.name in DATA_NAMES:
        _refuse_unused(source, "a data set")
        return _data_set(run, source)
    path = at_home(source.name)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in EXTENSIONS):
        _refuse_unused(source, "image files", "resize", "background")
        background = parse_color(source.background or run.config.data.background)
        rules = Rules(_shape(run), convert=True, resize=source.resize, background=background)
        pixels, files, drawn = _pictures(path, source.num, rules)
        images = _images(run, test, path, pixels, 256)
        return Elsewhere(images, np.arange(len(files)), files, np.zeros(len(files), int), drawn)
    if not (path.suffix in (".npy", ".npz") and path.is_file()):
        raise UserError(
            f"there is no {path}: --images is a picture, a folder of them, an .npy or .npz file, "
            f"or one of {', '.join(DATA_NAMES)}"
        )
    _refuse_unused(source, "an array", "native_levels")
    pixels, native = _array(path, source, run.spec.num_levels)
    images = _images(run, test, path, pixels, native)
    chosen = scoring.part(images, source.num)
    drawn = scoring.describe_part(images, source.num)
    return Elsewhere(images, chosen, [str(path)] * len(chosen), chosen, drawn)


def _refuse_unused(source: Source, kind: str, *used: str) -> None:
    """Raise a UserError for options that do not apply to this kind of images."""
    for name in ("native_levels", "resize", "background"):
        if name not in used and getattr(source, name):
            raise UserError(f"--{name.replace('_', '-')} does not apply to {kind}: leave it out")


def _shape(run: Run) -> tuple[int, int, int]:
    """Return the shape of the images before the run pads them."""
    channels, height, width = run.spec.image_shape
    return channels, height - 2 * run.config.data.pad, width - 2 * run.config.data.pad


def _images(run: Run, test: Images, path: Path, pixels: np.ndarray, native: int) -> Images:
    """Return pixels (N, C, H, W) of `native` levels as a set like the run's own."""
    if pixels.shape[1:] != _shape(run) or len(pixels) == 0:
        raise UserError(
            f"expected images of shape {list(_shape(run))} as in the run, got "
            f"{len(pixels)} of {list(pixels.shape[1:])} in {path}"
        )
    if native < run.spec.num_levels:
        raise UserError(f"{path} has {native} levels, but the run has {run.spec.num_levels}")
    return dataclasses.replace(
        test,
        name=path.resolve().stem,
        split="test",
        variant="",
        labels=None,
        condition="none",
        _pixels=pixels,
        _annotations=(),
        _native_levels=native,
        _gray=False,
    )


def _pictures(path: Path, num: int, rules: Rules) -> tuple[np.ndarray, list[str], str]:
    """Return pictures (N, C, H, W) uint8, their files, and a description of their choice.

    `path` is a picture or a folder. Pictures are converted to gray or color like the run's, and the
    choice is stratified by folder.
    """
    listing = list_folder(path) if path.is_dir() else list_files(path.parent, [path.name])
    files = [listing.name(row) for row in range(listing.count)]
    folders = np.unique([os.path.dirname(file) for file in files], return_inverse=True)[1]
    folders = folders if path.is_dir() else None
    drawn = subset.describe(len(files), num, folders) or f"all {len(files):,}"
    chosen = subset.draw(len(files), num, folders)
    rows = []
    for row in chosen:
        try:
            rows.append(decode(listing.read(row), rules))
        except UnfitError as error:
            size = any(problem.kind == "size" for problem in error.problems)
            advice = " (--resize fits all to the run's size)" if size else ""
            raise DataError(f"{files[row]} {error}{advice}") from error
    return np.stack(rows), [files[row] for row in chosen], drawn


def _array(path: Path, source: Source, num_levels: int) -> tuple[np.ndarray, int]:
    """Return the images (N, C, H, W) of an .npy or .npz file, and their number of levels.

    Raises:
        UserError: --native-levels, the number in the file and the levels contradict one another.
    """
    carried = None
    if path.suffix == ".npy":
        array, carried = map_npy(path), read_levels(path)
    else:
        array = _of_npz(path)
    if array.dtype == bool:
        carried = 2
    asked = source.native_levels
    if asked and carried not in (None, asked):
        raise UserError(
            f"{path} says that it has {carried} levels, but --native-levels is {asked}: "
            "correct one of them"
        )
    native = asked or carried or num_levels
    pixels = channels_first(str(path), array)
    if pixels.dtype.kind == "i" and len(pixels) and (low := int(pixels.min())) < 0:
        raise UserError(f"{path} has level {low}: expected levels from 0 on: renumber them")
    if len(pixels) and (top := int(pixels.max())) >= native:
        if asked or carried:
            said = f"--native-levels is {asked}" if asked else f"says that it has {carried} levels"
            raise UserError(f"{path} has level {top}, but {said}: correct one of them")
        raise UserError(
            f"{path} has level {top}, but this run's images have {num_levels} levels: give the "
            "number of levels of the array with --native-levels"
        )
    return pixels, native


def _of_npz(path: Path) -> np.ndarray:
    """Return the images of an .npz file: `test`, `valid` or the only array of images."""
    arrays = read_npz(path)
    for name in ("test", "valid"):
        if name in arrays:
            return arrays[name]
    images = [array for array in arrays.values() if array.ndim > 2]
    if len(images) != 1:
        raise UserError(
            f"{path} has the arrays {', '.join(arrays) or '(none)'}: expected images as 'test' or "
            "'valid', or one array of images alone"
        )
    return images[0]


def _data_set(run: Run, source: Source) -> Elsewhere:
    """Return the test split of another data set, with the run's number of levels."""
    binarize, (channels, _, _) = run.config.data.binarize, run.spec.image_shape
    images = load(
        DataConfig(
            data=source.name,
            data_dir=source.data_dir,
            levels=0 if binarize != "none" else run.spec.num_levels,
            binarize=binarize,
            gray=channels == 1,
            pad=run.config.data.pad,
        )
    ).test
    if images.image_shape != run.spec.image_shape:
        raise UserError(
            f"{source.name} has images of shape {list(images.image_shape)}, expected "
            f"{list(run.spec.image_shape)} as in the run"
        )
    chosen = scoring.part(images, source.num)
    name = f"{images.name} {images.split}"
    drawn = scoring.describe_part(images, source.num)
    return Elsewhere(images, chosen, [name] * len(chosen), chosen, drawn)

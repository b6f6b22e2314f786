"""Score any images under a finished run, and hold their bits/dim against those of its test set.

Images may be a folder of image files, an .npy of uint8 levels, or a data set by its name. The model
sees them as it saw its own: with as many levels, binarised alike. A histogram and the numbers go to
new files in the run directory.

That images are unlike the training set does not mean that they cost more bits: see E. Nalisnick et
al., "Do deep generative models know what they don't know?", 2018, https://arxiv.org/abs/1810.09136.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from eval.nll import Score, Terms, bits_per_dim
from pipelines.commands import exit_codes, launch
from pipelines.data.arrays import channels_first, map_npy
from pipelines.data.decoding import Rules, decode
from pipelines.data.listing import list_folder
from pipelines.data.sets import DATA_SETS, DataConfig, DataError, Images, load
from pipelines.finished import scoring
from pipelines.finished.output import expanded, free_name
from pipelines.opened import Run, load_splits, open_run
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import whole_file
from pipelines.training.config import TrainConfig


@dataclass(frozen=True)
class Config:
    """Flags of `python -m pipelines.outliers`."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """The directory of a finished run."""
    images: Annotated[str, tyro.conf.arg(metavar="FOLDER|FILE.npy|DATA")]
    """What to score: a folder of images, an array of levels, or the name of a data set (its test
    split)."""
    images_dir: str = ""
    """Where that data set is (default: where the run's is)."""
    num: int = 1000
    """Score the first so many images of each (0: all)."""
    resize: bool = False
    """Crop and resize image files to the run's size."""
    native_levels: int = 256
    """How many levels an array has."""
    data_dir: str = ""
    """Where the run's data set is now (default: where it was in training)."""
    score_batch: int = 64
    """Images scored at once; the score does not depend on it."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for what a user can mend."""
    with exit_codes():
        config = expanded(
            tyro.cli(Config, args=argv, prog="python -m pipelines.outliers", description=__doc__)
        )
        check(config)
        run = open_run(config.run_dir)
        terms = unconditional(run)
        test = load_splits(run, data_dir=config.data_dir).test
        others = read_images(run, config, test)
        fabric = launch(TrainConfig(accelerator=config.accelerator, devices="1"))
        run.model.to(fabric.device)
        scores = {
            name: scoring.score(
                fabric, terms, images, batch_size=config.score_batch, first=config.num, label=name
            ).nll
            for name, images in (("test", test), ("images", others))
        }
        dims = int(np.prod(run.spec.image_shape))
        record = compare(scores, run, others.name, dims)
        files = _write(config, record, scores, others.name, dims)
        print(table(record))
        print(*files, sep="\n")


def check(config: Config) -> None:
    """Raise a UserError for numbers that make no sense, whatever the model."""
    for flag, least in (("num", 0), ("score_batch", 1), ("native_levels", 2)):
        if getattr(config, flag) < least:
            name = flag.replace("_", "-")
            raise UserError(f"expected --{name} of at least {least}, got {getattr(config, flag)}")
    if config.native_levels > 256:
        raise UserError(f"expected --native-levels of at most 256, got {config.native_levels}")


def unconditional(run: Run) -> Callable[..., Terms]:
    """What scores an image that comes with nothing.

    Raises:
        UserError: the model is given something that images from elsewhere don't have.
    """
    kind = run.model.kind
    if not kind.startswith("given ") or kind == "given code":
        return run.model
    if run.model.code_dropout:
        return run.model.dropped
    what = kind.removeprefix("given ")
    raise UserError(
        f"this model is {kind}, and images from elsewhere come without: train one with "
        f"--code-dropout 0.1, say, which can do without the {what}"
    )


def read_images(run: Run, config: Config, test: Images) -> Images:
    """The images to score, as the model sees its own.

    Raises:
        UserError: there are none by this name, or they have another shape or too few levels.
        DataError: they are damaged.
    """
    if config.images in DATA_SETS:
        return _data_set(run, config)
    path = Path(config.images).expanduser()
    if path.is_dir():
        pixels, native = _read_folder(path, config, _shape(run)), 256
    elif path.suffix == ".npy" and path.is_file():
        pixels, native = channels_first(path, path.stem, map_npy(path)), config.native_levels
        if len(pixels) and int(pixels.max()) >= native:
            raise UserError(f"{path} has level {pixels.max()}, but --native-levels is {native}")
    else:
        raise UserError(
            f"there is no {path}: --images is a folder, an .npy file, or one of "
            f"{', '.join(DATA_SETS)}"
        )
    if pixels.shape[1:] != _shape(run) or len(pixels) == 0:
        raise UserError(
            f"expected images of shape {list(_shape(run))} as in the run, got "
            f"{len(pixels)} of {list(pixels.shape[1:])} in {path}"
        )
    if native < run.spec.num_levels:
        raise UserError(f"{path} has {native} levels, but the run {run.spec.num_levels}")
    return dataclasses.replace(
        test,
        name=path.stem,
        split="test",
        variant="",
        labels=None,
        condition="none",
        _pixels=pixels,
        _annotations=(),
        _native_levels=native,
        _gray=False,
    )


def _shape(run: Run) -> tuple[int, int, int]:
    """The shape of the images before the run pads them."""
    channels, height, width = run.spec.image_shape
    return channels, height - 2 * run.config.pad, width - 2 * run.config.pad


def _read_folder(folder: Path, config: Config, shape: tuple[int, int, int]) -> np.ndarray:
    """The first images below a folder, (N, C, H, W) uint8, turned to grey or colour as need be."""
    listing = list_folder(folder)
    count = min(config.num or listing.count, listing.count)
    rules = Rules(shape, convert=True, resize=config.resize)
    rows = []
    for row in range(count):
        name = listing.name(row)
        try:
            rows.append(decode(Path(name).read_bytes(), rules))
        except (ValueError, OSError) as error:
            advice = "" if config.resize else " (--resize fits all to the run's size)"
            raise DataError(f"{name} {error}{advice}") from error
    return np.stack(rows)


def _data_set(run: Run, config: Config) -> Images:
    """The test split of another data set, with the levels of the run's."""
    binarize, (channels, _, _) = run.config.binarize, run.spec.image_shape
    images = load(
        DataConfig(
            data=config.images,  # pyright: ignore[reportArgumentType]
            data_dir=config.images_dir or config.data_dir or run.config.data_dir,
            levels=0 if binarize != "none" else run.spec.num_levels,
            binarize=binarize,
            gray=channels == 1,
            pad=run.config.pad,
        )
    ).test
    if images.image_shape != run.spec.image_shape:
        raise UserError(
            f"{config.images} has images of shape {list(images.image_shape)}, expected "
            f"{list(run.spec.image_shape)} as in the run"
        )
    return images


def compare(scores: dict[str, Score], run: Run, name: str, dims: int) -> dict[str, Any]:
    """The mean bits/dim of both sets, and how well they tell one from the other."""
    from sklearn.metrics import roc_auc_score  # takes seconds to import

    test, others = scores["test"].values, scores["images"].values
    outlier = np.repeat([0, 1], [len(test), len(others)])
    kind = run.model.kind
    return {
        "kind": "exact" if kind.startswith("given") and kind != "given code" else kind,
        "images": name,
        "data": run.config.data,
        "bits_per_dim": {
            key: {
                "mean": bits_per_dim(score.mean, dims),
                "stderr": None if score.count < 2 else bits_per_dim(score.stderr, dims),
                "count": score.count,
            }
            for key, score in scores.items()
        },
        "auroc": float(roc_auc_score(outlier, np.concatenate([test, others]))),
    }


def _write(
    config: Config, record: dict[str, Any], scores: dict[str, Score], name: str, dims: int
) -> tuple[Path, Path]:
    """Write the histogram and the numbers, under new names."""
    from eval.plots import histogram  # matplotlib takes a second to import

    drawn = {
        f"test set of {record['data']}": bits_per_dim(1.0, dims) * scores["test"].values,
        f"images: {name}": bits_per_dim(1.0, dims) * scores["images"].values,
    }
    png = free_name(config.run_dir, f"outliers-{name}", ".png")
    with whole_file(png) as stream:
        histogram(drawn).savefig(stream, format="png", dpi=150)
    numbers = free_name(config.run_dir, png.stem, ".json")
    with whole_file(numbers) as stream:
        stream.write((json.dumps({"run": str(config.run_dir), **record}, indent=2) + "\n").encode())
    return png, numbers


def table(record: dict[str, Any]) -> str:
    """What is printed of a record."""
    lines = [f"bits/dim ({record['kind']})"]
    for key, name in (("test", f"test set of {record['data']}"), ("images", record["images"])):
        one = record["bits_per_dim"][key]
        spread = "" if one["stderr"] is None else f" ± {one['stderr']:.4f}"
        lines.append(f"  {name:<28}{one['mean']:.4f}{spread} ({one['count']:,} images)")
    lines.append(
        f"AUROC {record['auroc']:.3f}: how often one of the images costs more bits than one of the "
        "test set"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Score any images under a finished run, and compare them with its test set.

Images may be a picture, a folder of them, an .npy or .npz of levels, or a data set by its name. The
model sees them as it saw its own: with as many levels, binarised alike. New files in the run
directory get a histogram, the comparison, and the score of every image as a table (CSV).

That images are unlike the training set does not mean that they cost more bits: see E. Nalisnick et
al., "Do deep generative models know what they don't know?", 2018, https://arxiv.org/abs/1810.09136.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from eval import Score, Terms, bits_per_dim
from pipelines.runs import scoring, user_images
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runs.user_images import Elsewhere, Source
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import expanded, free_name
from pipelines.runtime.provenance import prog


@dataclass(frozen=True)
class Config:
    """Flags of `python -m pipelines.outliers`."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """The directory of a finished run."""
    images: Annotated[str, tyro.conf.arg(metavar="PICTURE|FOLDER|FILE.npy|FILE.npz|DATA")]
    """What to score: a picture, a folder of them, an array of levels (of an .npz: its test, its
    valid, or its only images), or the name of a data set (its test split)."""
    images_dir: str = ""
    """Where that data set is (default: where the run's is)."""
    num: int = 1000
    """Score N images of each, drawn from all: every class or folder keeps its share (0: all)."""
    resize: bool = False
    """Crop and resize image files to the run's size."""
    background: str = ""
    """Color under their transparent pixels: white, black or r,g,b (default: the run's)."""
    native_levels: int = 0
    """How many levels an array has (0: as many as it carries; else as many as the run's images)."""
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
            tyro.cli(Config, args=argv, prog=prog("pipelines.outliers"), description=__doc__)
        )
        check(config)
        run = open_run(config.run_dir)
        terms = unconditional(run)
        test = load_splits(run, data_dir=config.data_dir).test
        source = Source(
            config.images,
            config.num,
            config.native_levels,
            config.resize,
            config.background,
            config.images_dir or config.data_dir or run.config.data.data_dir,
        )
        others = user_images.read(run, source, test)
        fabric = make_fabric(DeviceConfig(config.accelerator, "1"))
        run.model.to(fabric.device)
        scores = {
            name: scoring.score(
                fabric, terms, images, batch_size=config.score_batch, chosen=chosen, label=name
            ).nll
            for name, images, chosen in (
                ("test", test, scoring.part(test, config.num)),
                ("images", others.images, others.chosen),
            )
        }
        dims = int(np.prod(run.spec.image_shape))
        drawn = {"test": scoring.describe_part(test, config.num), "images": others.drawn}
        record = compare(scores, run, others.images.name, dims, drawn)
        files = _write(config, record, scores, others, dims)
        print(table(record))
        print(*files, sep="\n")


def check(config: Config) -> None:
    """Raise a UserError for numbers that make no sense, whatever the model."""
    for flag, least in (("num", 0), ("score_batch", 1), ("native_levels", 0)):
        if getattr(config, flag) < least:
            name = flag.replace("_", "-")
            raise UserError(f"expected --{name} of at least {least}, got {getattr(config, flag)}")
    if config.native_levels == 1:
        raise UserError("expected --native-levels of at least 2, got 1")


def unconditional(run: Run) -> Callable[..., Terms]:
    """What scores an image that comes with nothing.

    Raises:
        UserError: the model is given something that images from elsewhere don't have.
    """
    model = run.model
    if not model.given or model.encodes_images:
        return model
    if model.code_dropout:
        return model.dropped
    raise UserError(
        f"this model is {model.kind}, and images from elsewhere come without: train one with "
        f"--code-dropout 0.1, say, which can do without the {model.given}"
    )


def compare(
    scores: dict[str, Score], run: Run, name: str, dims: int, drawn: dict[str, str]
) -> dict[str, Any]:
    """The mean bits/dim of both sets, and how well they tell one from the other."""
    from sklearn.metrics import roc_auc_score  # takes seconds to import

    test, others = scores["test"].values, scores["images"].values
    outlier = np.repeat([0, 1], [len(test), len(others)])
    model = run.model
    return {
        "kind": model.kind if model.encodes_images else model.kind_under("dropped"),
        "images": name,
        "data": run.config.data.data,
        "bits_per_dim": {
            key: {
                "mean": bits_per_dim(score.mean, dims),
                "stderr": None if score.count < 2 else bits_per_dim(score.stderr, dims),
                "count": score.count,
                "drawn": drawn[key],
            }
            for key, score in scores.items()
        },
        "auroc": float(roc_auc_score(outlier, np.concatenate([test, others]))),
    }


def _write(
    config: Config, record: dict[str, Any], scores: dict[str, Score], others: Elsewhere, dims: int
) -> tuple[Path, Path, Path]:
    """Write the histogram, the numbers and the score of every image, under new names."""
    from eval.plots import histogram  # matplotlib takes a second to import

    name = others.images.name
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
    rows = free_name(config.run_dir, png.stem, ".csv")
    with whole_file(rows) as stream:
        stream.write(to_csv(others, scores["images"], dims))
    return png, numbers, rows


def to_csv(others: Elsewhere, score: Score, dims: int) -> bytes:
    """Write a line for each image, the one that costs most first.

    `file` and `row` name the image: row is its position in an array or a data set, 0 for a picture.
    `rank` is 1 for the image that costs most.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "row", "nats", "bits_per_dim", "rank"])
    for rank, place in enumerate(np.argsort(-score.values, kind="stable"), start=1):
        file, nats = others.files[int(place)], float(score.values[place])
        file = f"./{file}" if file.startswith(("=", "+", "-", "@")) else file  # never a formula
        writer.writerow([file, others.rows[place], nats, bits_per_dim(nats, dims), rank])
    return text.getvalue().encode("utf-8", "surrogateescape")


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

"""Scores of any images under a run's model, compared with those of its test set."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from eval import Score, Terms, bits_per_dim
from eval.plots import histogram
from pipelines.data.config import DATA_NAMES
from pipelines.runs import scoring, user_images
from pipelines.runs.find import find_run
from pipelines.runs.flags import Findings
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runs.user_images import Elsewhere, Source
from pipelines.runtime.config import Accelerator, DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import free_name, write_record


def score_images(
    run: str | Path,
    *,
    trust: Sequence[str] = (),
    images: str,
    images_dir: str = "",
    limit: int = 1000,
    resize: bool = False,
    background: str = "",
    native_levels: int = 0,
    data_dir: str = "",
    accelerator: Accelerator = "auto",
    score_batch: int = 64,
) -> Findings:
    """Score images under a run's model, and compare them with the run's test set.

    The arguments are the flags of `pixel-decoders outliers`.

    Raises:
        UserError: the arguments don't fit one another or the model, or the images are not found.
    """
    run_dir = find_run(run)
    opened = open_run(run_dir, trust)
    terms = unconditional(opened)
    if images_dir and images not in DATA_NAMES:
        raise UserError("--images-dir is for a data set, given by its name: leave it out")
    test = load_splits(opened, data_dir=data_dir).test
    place = images_dir or data_dir or opened.config.data.data_dir
    source = Source(images, limit, native_levels, resize, background, place)
    others = user_images.read(opened, source, test)
    fabric = make_fabric(DeviceConfig(accelerator, "1"))
    opened.model.to(fabric.device)
    scores = {
        name: scoring.score(
            fabric, terms, scored, batch_size=score_batch, chosen=chosen, label=name
        ).nll
        for name, scored, chosen in (
            ("test", test, scoring.part(test, limit)),
            ("images", others.images, others.chosen),
        )
    }
    dims = int(np.prod(opened.spec.image_shape))
    drawn = {"test": scoring.describe_part(test, limit), "images": others.drawn}
    compared = compare(scores, opened, others.images.name, dims, drawn)
    files = _write(run_dir, compared, scores, others, dims)
    return Findings(table(compared), files)


def unconditional(run: Run) -> Callable[..., Terms]:
    """Return the function that scores images without annotations.

    Raises:
        UserError: the model needs annotations, which images from elsewhere don't have.
    """
    model = run.model
    if not model.given or model.encodes_images:
        return model
    if model.code_dropout:
        return model.dropped
    raise UserError(
        f"this model is {model.kind}, and images from elsewhere have none: train one with, say, "
        f"--code-dropout 0.1, which also scores images without a {model.given}"
    )


def compare(
    scores: dict[str, Score], run: Run, name: str, dims: int, drawn: dict[str, str]
) -> dict[str, Any]:
    """Return the mean bits/dim of both sets, and the AUROC of telling them apart."""
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
    run_dir: Path, record: dict[str, Any], scores: dict[str, Score], others: Elsewhere, dims: int
) -> tuple[Path, Path, Path]:
    """Write the histogram, the record and the score of every image to new files."""
    name = others.images.name
    drawn = {
        f"test set of {record['data']}": bits_per_dim(1.0, dims) * scores["test"].values,
        f"images: {name}": bits_per_dim(1.0, dims) * scores["images"].values,
    }
    png = free_name(run_dir, f"outliers-{name}", ".png")
    with whole_file(png) as stream:
        histogram(drawn).savefig(stream, format="png", dpi=150)
    numbers = free_name(run_dir, png.stem, ".json")
    write_record(numbers, {"run": str(run_dir), **record})
    rows = free_name(run_dir, png.stem, ".csv")
    with whole_file(rows) as stream:
        stream.write(to_csv(others, scores["images"], dims))
    return png, numbers, rows


def to_csv(others: Elsewhere, score: Score, dims: int) -> bytes:
    """Return a CSV with a line for each image, the least likely one first.

    `file` and `row` identify the image: `row` is its position in an array or a data set, and 0 for
    a picture. `rank` is 1 for the least likely image.
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
    """Return the text that the command prints."""
    lines = [f"bits/dim ({record['kind']})"]
    for key, name in (("test", f"test set of {record['data']}"), ("images", record["images"])):
        one = record["bits_per_dim"][key]
        spread = "" if one["stderr"] is None else f" ± {one['stderr']:.4f}"
        lines.append(f"  {name:<28}{one['mean']:.4f}{spread} ({one['count']:,} images)")
    lines.append(
        f"AUROC {record['auroc']:.3f}: probability that one of the images costs more bits than one "
        "of the test set"
    )
    return "\n".join(lines)

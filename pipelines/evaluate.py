"""Score a finished run again: another split, more importance samples, other images.

The run's result.json is left as it is; the new one is written beside it, or under --out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from eval import Result
from eval.result_files import scores_beside
from pipelines.data.sets import Batch, Images
from pipelines.model import Condition, Model
from pipelines.runs import results, scoring
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import DeviceConfig, flat
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.output import expanded, refuse_existing, write_new
from pipelines.runtime.provenance import command, commit, prog


@dataclass(frozen=True)
class Config:
    """Flags of `python -m pipelines.evaluate`."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """The run directory."""
    split: Literal["train", "valid", "test"] = "test"
    """Which images to score."""
    condition: Condition = "given"
    """What the model is given: each image's own annotation, another image's, or none at all (for
    models trained with --code-dropout). The differences are the information used."""
    importance_samples: int = 100
    """K of the importance-weighted estimate beside a bound (0: none)."""
    limit: int = 0
    """Score N images, drawn from all: every class keeps its share (0: as in the run)."""
    data_dir: str = ""
    """Where the data set is, if it is no longer where it was in training."""
    score_batch: int = 64
    """Images scored at once; the score does not depend on it."""
    compile: bool = False
    """Compile the decoder for the estimate by torch.compile, for estimates that take minutes."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device."""
    devices: str = "auto"
    """Number of devices, or auto."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """The result file to write (default: result-<split>.json in the run directory, with the
    condition if there is one, and numbered where that is taken)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for what a user can mend."""
    with exit_codes():
        config = tyro.cli(Config, args=argv, prog=prog("pipelines.evaluate"), description=__doc__)
        score(expanded(config))


def score(config: Config) -> None:
    """Score a run, write the result, print the table."""
    began, at_commit = time.monotonic(), commit()
    refuse_existing(config.out, config.out and scores_beside(config.out))
    run = open_run(config.run_dir)
    fabric = make_fabric(DeviceConfig(config.accelerator, config.devices))
    images = load_images(run, config)
    if config.condition != "given" and not run.model.given:
        raise UserError(
            f"expected a model that is given something for --condition {config.condition}, got one "
            f"of kind {run.model.kind!r}"
        )
    if config.condition == "shuffled" and run.model.encodes_images:
        raise UserError(
            "expected a model that is given annotations for --condition shuffled, got one of kind "
            f"{run.model.kind!r}, which encodes the image itself"
        )
    if config.condition == "dropped" and not run.model.code_dropout:
        raise UserError("--condition dropped needs a model trained with --code-dropout")
    if config.condition == "shuffled" and len(images.of) < 2:
        raise UserError("--condition shuffled needs two images at least, got one: raise --limit")
    if config.score_batch < 1:
        raise UserError(f"expected --score-batch of at least 1, got {config.score_batch}")
    if config.importance_samples < 0:
        raise UserError(
            f"expected --importance-samples of at least 0, got {config.importance_samples}"
        )
    scored = results.score(
        fabric,
        run.model,
        Shuffled(images.of) if config.condition == "shuffled" else images.of,
        batch_size=config.score_batch,
        importance_samples=config.importance_samples,
        terms=run.model.dropped if config.condition == "dropped" else run.model,
        compile=config.compile,
    )
    if not fabric.is_global_zero:
        return
    record = results.Record(
        pipeline=run.pipeline,
        command=f"{run.command} && {command()}",
        commit=at_commit,
        config=flat(run.config),
        steps=run.steps,
        train_seconds=None,
        device=fabric.device,
        seconds=time.monotonic() - began,
        baseline=scoring.independent_pixels(images.train, images.of),
    )
    result = results.to_result(scored, run.model, images.of, record)
    result = _relabel(result, run.model, config.condition)
    condition = "" if config.condition == "given" else f"-{config.condition}"
    file = write_new(
        config.out or config.run_dir / f"result-{config.split}{condition}.json",
        lambda free: results.write(free, result, scored),
    )
    print(results.table(result, file))


class Shuffled:
    """Images, each with the annotation of another one, the same ones every time."""

    def __init__(self, images: Images):
        self.images, self.others = images, scoring.others(len(images))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray) -> Batch:
        """The images of these indices, annotated wrongly."""
        return Batch(self.images.batch(indices).x, self.images.batch(self.others[indices]).y)


def _relabel(result: Result, model: Model, condition: Condition) -> Result:
    """Return a result that says what was given."""
    if condition == "given":
        return result
    return dataclasses.replace(
        result,
        kind=model.kind_under(condition),
        condition="none" if condition == "dropped" else result.condition,
        name=f"{result.name} (condition {condition})",
    )


@dataclass(frozen=True)
class Loaded:
    """The images to score, and the training set, whose frequencies are the baseline."""

    of: Images
    train: Images


def load_images(run: Run, config: Config) -> Loaded:
    """The images of a run, from where they are now.

    Raises:
        UserError: the split does not exist, or the images are not what the model was built for.
    """
    splits = load_splits(run, data_dir=config.data_dir, limit=config.limit)
    images = getattr(splits, config.split)
    if images is None:
        raise UserError(
            f"{run.config.data.data} has no {config.split} split: choose --split train or test"
        )
    return Loaded(images, splits.train)


if __name__ == "__main__":
    main()

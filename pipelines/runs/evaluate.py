"""Score a run again, on any split and with any annotation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval import Result
from eval.result_files import scores_beside
from pipelines.data.sets import Batch, Images
from pipelines.model import Condition, Model
from pipelines.runs import results, scoring
from pipelines.runs.find import find_run
from pipelines.runs.flags import Findings
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runtime.config import Accelerator, DeviceConfig, flat
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.output import refuse_existing, write_new
from pipelines.runtime.provenance import command, commit

IMPORTANCE_SAMPLES = 100  # default K of a bound's estimate


def evaluate(
    run: str | Path,
    *,
    trust: Sequence[str] = (),
    split: str = "test",
    limit: int = 0,
    importance_samples: int | None = None,
    condition: Condition = "given",
    out: Path | None = None,
    data_dir: str = "",
    accelerator: Accelerator = "auto",
    score_batch: int = 64,
    devices: str = "auto",
    compile: bool = False,
) -> Findings:
    """Score the images of a split under a run's model, and write the result.

    The arguments are the flags of `pixel-decoders evaluate`.

    Returns:
        Table of scores, which is empty in all processes but the first.

    Raises:
        UserError: the arguments don't fit one another, the model or its images.
    """
    began, at_commit = time.monotonic(), commit()
    refuse_existing(out, out and scores_beside(out))
    run_dir = find_run(run)
    opened = open_run(run_dir, trust)
    samples = _importance_samples(opened.model, importance_samples, compile=compile)
    _check_condition(opened.model, condition)
    fabric = make_fabric(DeviceConfig(accelerator, devices))
    images, train = _load_images(opened, split, data_dir, limit)
    if condition == "shuffled" and len(images) < 2:
        raise UserError("--condition shuffled needs at least two images, got one: increase --limit")
    scored = results.score(
        fabric,
        opened.model,
        Shuffled(images) if condition == "shuffled" else images,
        batch_size=score_batch,
        importance_samples=samples,
        terms=opened.model.dropped if condition == "dropped" else opened.model,
        compile=compile,
    )
    if not fabric.is_global_zero:
        return Findings("")
    provenance = results.Provenance(
        pipeline=opened.pipeline,
        command=f"{opened.command} && {command()}",
        commit=at_commit,
        config=flat(opened.config),
        steps=opened.steps,
        train_seconds=None,
        device=fabric.device,
        seconds=time.monotonic() - began,
        baseline=scoring.independent_pixels(train, images),
    )
    result = results.to_result(scored, opened.model, images, provenance)
    result = _relabel(result, opened.model, condition)
    stem = f"result-{split}" if condition == "given" else f"result-{split}-{condition}"
    file = write_new(
        out or run_dir / f"{stem}.json", lambda free: results.write(free, result, scored)
    )
    return Findings(results.table(result, file))


class Shuffled:
    """Images with the annotations of other images, the same ones every time."""

    def __init__(self, images: Images):
        self.images, self.others = images, scoring.others(len(images))

    @property
    def fingerprint(self) -> str:
        """Hash of the images, marked as shuffled."""
        return f"{self.images.fingerprint}-shuffled"

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray, *, noise_seed: tuple[int, ...] = (0,)) -> Batch:
        """Return the images of these indices with other images' annotations."""
        x = self.images.batch(indices, noise_seed=noise_seed).x
        return Batch(x, self.images.batch(self.others[indices]).y)


def _importance_samples(model: Model, asked: int | None, *, compile: bool) -> int:
    """Return K of the importance-weighted estimate, or 0 for none.

    Raises:
        UserError: --importance-samples or --compile is given, and there is no estimate.
    """
    if asked and not model.has_latents:
        raise UserError(
            f"--importance-samples is for a bound, and this model is {model.kind}: leave it out"
        )
    samples = (IMPORTANCE_SAMPLES if asked is None else asked) if model.has_latents else 0
    if compile and not samples:
        raise UserError("--compile is for the estimate of a bound, and there is none: leave it out")
    return samples


def _check_condition(model: Model, condition: Condition) -> None:
    """Raise a UserError if there is nothing to shuffle or to drop."""
    if condition != "given" and not model.given:
        raise UserError(
            f"expected a model with conditioning for --condition {condition}, got one "
            f"of kind {model.kind!r}"
        )
    if condition == "shuffled" and model.encodes_images:
        raise UserError(
            "expected a model that is given annotations for --condition shuffled, got one of kind "
            f"{model.kind!r}, which encodes the image itself"
        )
    if condition == "dropped" and not model.code_dropout:
        raise UserError("--condition dropped needs a model trained with --code-dropout")


def _relabel(result: Result, model: Model, condition: Condition) -> Result:
    """Return the result with the kind and name of the condition."""
    if condition == "given":
        return result
    return dataclasses.replace(
        result,
        kind=model.kind_under(condition),
        condition="none" if condition == "dropped" else result.condition,
        name=f"{result.name} (condition {condition})",
    )


def _load_images(run: Run, split: str, data_dir: str, limit: int) -> tuple[Images, Images]:
    """Return the images to score, and the training set, from which the baseline is made.

    Raises:
        UserError: the split does not exist, or the images do not fit the model.
    """
    splits = load_splits(run, data_dir=data_dir, limit=limit)
    images = getattr(splits, split)
    if images is None:
        raise UserError(
            f"{run.config.data.data} has no {split} split: choose --split train or test"
        )
    return images, splits.train

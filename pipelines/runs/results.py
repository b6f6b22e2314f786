"""Results of a run: its scores as a result file and as a table on the screen."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric

from eval import Estimate, Evaluation, Result, Score, Terms, bits_per_dim
from eval.result_files import scores_beside, to_bytes
from pipelines.data.image_set import ImageSet
from pipelines.data.sets import Images, to_display
from pipelines.model import Model
from pipelines.runs import scoring, tensorboard
from pipelines.runs.latent_codes import Study
from pipelines.runtime import provenance
from pipelines.runtime.files import whole_file

VALIDATION_IMAGES = 1000
MOST_IMAGE_BYTES = 32 * 2**20  # limit of images.npy


class Scored(NamedTuple):
    """Scores of a model on a set, with the importance-weighted estimates by K."""

    evaluation: Evaluation
    estimates: dict[int, Score]


@dataclass(frozen=True)
class Provenance:
    """Provenance of a result.

    Attributes:
        pipeline: name of the pipeline.
        command: command line.
        commit: commit of the toolkit when the command began.
        config: every flag by name.
        steps: steps of training.
        train_seconds: time of all of the training, or None if another command trained.
        device: device that computed the numbers.
        seconds: time of this process, everything included.
        baseline: score of independent pixels.
        validation: images that were scored during training, or None as for train_seconds.
    """

    pipeline: str
    command: str
    commit: str | None
    config: dict[str, Any]
    steps: int
    train_seconds: float | None
    device: torch.device
    seconds: float
    baseline: dict[str, Any] | None = None
    validation: str | None = None


def score(
    fabric: Fabric,
    model: Model,
    images: ImageSet,
    *,
    batch_size: int,
    importance_samples: int,
    terms: Callable[..., Terms] | None = None,
    compile: bool = False,
) -> Scored:
    """Score every image of a set, with importance-weighted estimates if the score is a bound.

    Moves the model to this process's device.

    Args:
        fabric: devices and processes.
        model: the model to score.
        images: the set.
        batch_size: number of images at once.
        importance_samples: K of the estimate (0: none).
        terms: function to call in place of the model.
        compile: whether to compile the decoder for the many passes of the estimates.
    """
    model.to(fabric.device)
    evaluation = scoring.score(fabric, terms or model, images, batch_size=batch_size)
    estimates: dict[int, Score] = {}
    if model.has_latents and importance_samples > 0:
        ks = curve(importance_samples)
        estimates = scoring.estimate(
            fabric, model, images, ks, batch_size=batch_size, compile=compile
        )
    return Scored(evaluation, estimates)


def curve(k: int) -> tuple[int, ...]:
    """Return the numbers of samples at which to show an estimate: K and the powers of 10 in it.

    >>> curve(100), curve(1000), curve(64)
    ((1, 10, 100), (1, 10, 100, 1000), (1, 64))
    """
    powers = [10**n for n in range(len(str(k)))]
    return (*[power for power in powers if power < k and k % power == 0], k)


def validate(fabric: Fabric, model: Model, images: Images, *, batch_size: int) -> dict[str, float]:
    """Return the scores of at most 1,000 of the images, for the curves of training.

    The images are drawn from all, the same ones every time.
    """
    model.to(fabric.device)
    chosen = scoring.part(images, VALIDATION_IMAGES)
    scored = scoring.score(
        fabric, model, images, batch_size=batch_size, chosen=chosen, label="validate"
    )
    return {
        "bits_per_dim": scored.bits_per_dim,
        "nats": scored.nll.mean,
        "distortion": scored.distortion.mean,
        "rate": scored.rate.mean,
    }


def describe_validation(images: Images) -> str:
    """Describe the images that `validate` scores."""
    return f"{images.split}: {scoring.describe_part(images, VALIDATION_IMAGES)}"


def to_result(
    scored: Scored, model: Model, images: Images, origin: Provenance, study: Study | None = None
) -> Result:
    """Return the content of a result file. Building it checks it for contradictions."""
    evaluation, estimates = scored
    latents = model.has_latents
    points = tuple(
        Estimate(k=k, nats=found.mean, stderr=found.stderr) for k, found in estimates.items()
    )
    return Result(
        pipeline=origin.pipeline,
        name=origin.config["name"] or describe(model),
        kind=model.kind,
        value=evaluation.nll.mean,
        stderr=evaluation.nll.stderr,
        distortion=evaluation.distortion.mean,
        rate=evaluation.rate.mean if latents else None,
        rates=evaluation.rates if latents else (),
        estimate=points[-1] if points else None,
        estimates=points,
        baseline=origin.baseline,
        data=images.name,
        variant=images.variant,
        split=images.split,
        count=evaluation.nll.count,
        subset=images.is_subset,
        fingerprint=images.fingerprint,
        image_shape=images.image_shape,
        levels=images.num_levels,
        binarize=images.binarize,
        condition=images.condition,
        parameters=sum(p.numel() for p in model.parameters()),
        steps=origin.steps,
        train_seconds=origin.train_seconds,
        seconds=origin.seconds,
        precision=origin.config["precision"],
        seed=origin.config["seed"],
        command=origin.command,
        commit=origin.commit,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=provenance.versions(origin.device),
        config=origin.config,
        latents=None if study is None else study.latents,
        probes=() if study is None else study.probes,
        extra={"validation": origin.validation},
    )


def write(file: Path, result: Result, scored: Scored, *, replace: bool = False) -> None:
    """Write a result file and, next to it, the nats of every image in the set's order.

    The nats are in nll.npy next to result.json, and in <name>.nll.npy next to another <name>.json.
    An interruption leaves the old result or the new one, with its own scores or with none, but
    never with the other's.

    Args:
        file: the result file.
        result: its content.
        scored: the scores of the images.
        replace: whether existing files may be replaced.

    Raises:
        WriteError: the files can't be written, or one of them exists and `replace` is False.
    """
    scores = scores_beside(file)
    with whole_file(scores, replace=replace) as values, whole_file(file, replace=replace) as text:
        np.save(values, scored.evaluation.nll.values)
        text.write(to_bytes(result))
        values.flush()  # fails, if at all, before the old scores are removed
        text.flush()
        if replace:
            Path(os.path.realpath(scores)).unlink(missing_ok=True)
        # the inner context ends first: the result gets its name, then the scores get theirs


def keep(run_dir: Path, result: Result, images: Images) -> None:
    """Write images.npy, and the settings with the scores in TensorBoard, for comparing runs.

    images.npy has the images as displayed, uint8 (N, C, H, W), in the order of nll.npy, but at most
    the first 32 MiB of them.
    """
    count = min(len(images), max(1, MOST_IMAGE_BYTES // result.dims))
    shown = [
        to_display(images.batch(np.arange(start, min(start + 1000, count))).x, images.num_levels)
        for start in range(0, count, 1000)
    ]
    with whole_file(run_dir / "images.npy", replace=True) as stream:
        np.save(stream, torch.cat(shown).numpy())
    scores = {
        f"{result.split}/bits_per_dim": result.bits_per_dim,
        f"{result.split}/nats": result.value,
        f"{result.split}/distortion": result.distortion,
    }
    if result.rate is not None:
        scores[f"{result.split}/rate"] = result.rate
    if result.estimate is not None:
        estimated = bits_per_dim(result.estimate.nats, result.dims)
        scores[f"{result.split}/estimate_bits_per_dim"] = estimated
    tensorboard.add_hparams(run_dir, {"pipeline": result.pipeline, **result.config}, scores)


def table(result: Result, run_dir: Path) -> str:
    """Return the text that a command prints: the scores in both units, and the run directory."""
    marks = {"exact": "=", "bound": "≤"}
    labels = {"exact": "exact", "bound": "bound (-ELBO)"}
    rows: list[tuple[str, str, float, float | None]] = [
        (
            labels.get(result.kind, result.kind),
            marks.get(result.kind, "|"),
            result.value,
            result.stderr,
        )
    ]
    if result.estimate is not None:
        estimate = result.estimate
        rows.append((f"estimate, K={estimate.k}", "≈", estimate.nats, estimate.stderr))
    if result.rate is not None:
        rows += [("rate", " ", result.rate, None), ("distortion", " ", result.distortion, None)]
    if result.baseline is not None:
        rows.append(("independent pixels", "=", result.baseline["value"], None))
    cells = [
        (label, f"{mark} {nats}", bits)
        for label, mark, value, stderr in rows
        for nats, bits in [_both_units(value, stderr, result.dims)]
    ]
    cells.insert(0, ("", "  nats/image", "bits/dim"))
    first, second = (max(len(row[column]) for row in cells) for column in (0, 1))
    subset = f", {result.variant}" if result.subset else ""
    return "\n".join(
        [
            f"{result.name} on {result.data} ({result.split}, {result.count:,} images{subset})",
            *[f"  {a:<{max(first + 1, 22)}}{b:<{max(second + 2, 22)}}{c}" for a, b, c in cells],
            f"  in {run_dir}",
        ]
    )


def _both_units(nats: float, stderr: float | None, dims: int) -> tuple[str, str]:
    """Return a number and its standard error, in nats/image and in bits/dim."""
    if stderr is None or math.isnan(stderr):
        return f"{nats:.3f}", f"{bits_per_dim(nats, dims):.4f}"
    in_bits = f"{bits_per_dim(nats, dims):.4f} ± {bits_per_dim(stderr, dims):.4f}"
    return f"{nats:.3f} ± {stderr:.3f}", in_bits


def describe(model: Model) -> str:
    """Return a model's name in tables: its decoder and its encoder.

    >>> from decoders import PixelCNN
    >>> describe(Model(PixelCNN((1, 8, 8), num_levels=2, num_layers=1)))
    'PixelCNN'
    """
    decoder = type(model.decoder).__name__
    return decoder if model.encoder is None else f"{decoder} + {type(model.encoder).__name__}"

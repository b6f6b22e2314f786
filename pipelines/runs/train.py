"""Training as every pipeline does it: images, a model, `fit`, scores, pictures, one result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning_fabric import Fabric

from eval import Result
from pipelines.data.config import DataConfig
from pipelines.data.sets import Splits, load
from pipelines.model import Model
from pipelines.runs import latent_codes, report_pictures, results, scoring
from pipelines.runs.config import MAY_DIFFER, SharedConfig
from pipelines.runs.networks import checked
from pipelines.runs.record import ImageSpec, RunRecord, config_of, read_record
from pipelines.runtime.config import flag, flat
from pipelines.runtime.devices import make_fabric, on_main, wait_for_all
from pipelines.runtime.errors import ConfigError
from pipelines.runtime.messages import show
from pipelines.runtime.provenance import __version__, command, commit
from pipelines.training.comparison import check_same
from pipelines.training.config import OF_LATENTS, TrainConfig
from pipelines.training.config_file import CONFIG
from pipelines.training.fit import FitResult, fit
from pipelines.training.run_directory import new_run, resumed_run
from pipelines.training.step import OwnOptimizer


class Recipe(Protocol):
    """Parts of a `Pipeline` that training needs."""

    @property
    def name(self) -> str:
        """Name of the command, or package.module:name of a user's own."""
        ...

    @property
    def stem(self) -> str:
        """Name in run directories."""
        ...

    @property
    def build(self) -> Callable[[Any, ImageSpec], Any]:
        """Function that makes the model of a configuration."""
        ...


class _Job(NamedTuple):
    """A training run, from its flags to its directory."""

    fabric: Fabric
    pipeline: Recipe
    config: SharedConfig
    splits: Splits
    began: float
    optimizer: OwnOptimizer | None = None


def train(pipeline: Recipe, config: SharedConfig) -> Result | None:
    """Train, score and draw, as configured; everything ends up in the run directory.

    Returns:
        What was measured, in the first process; None in the others.
    """
    began, began_at = time.monotonic(), time.strftime("%Y%m%d-%H%M%S")
    fabric = make_fabric(config.devices, config.training.precision)
    splits = load_in_turn(fabric, config.data)
    return train_on(fabric, pipeline, config, splits, began=began, began_at=began_at)


def train_on(
    fabric: Fabric,
    pipeline: Recipe,
    config: SharedConfig,
    splits: Splits,
    *,
    began: float,
    began_at: str,
    optimizer: OwnOptimizer | None = None,
) -> Result | None:
    """Train on images that were read already; see `train`."""
    job = _Job(fabric, pipeline, config, splits, began, optimizer)
    spec = ImageSpec.of(splits.train)
    torch.manual_seed(config.training.seed)
    model = checked(pipeline.build, config, spec)
    _check_used(model, config.training)
    with contextlib.ExitStack() as stack:

        def claim() -> tuple[Path, RunRecord]:
            out, resume = config.training.out, config.training.resume
            default = f"runs/{pipeline.stem}-{config.data.data.rpartition(':')[2]}-{began_at}"
            claimed = resumed_run(out) if resume else new_run(out, default)
            run_dir = stack.enter_context(claimed)
            return run_dir, _describe(job, spec, run_dir)

        run_dir, record = on_main(fabric, claim)
        return _train(job, model, run_dir, record)


def _check_used(model: Model, config: TrainConfig) -> None:
    """Raise a ConfigError for flags of latents that a model without latents has no use for."""
    for name in OF_LATENTS if not model.latent_shapes else ():
        if getattr(config, name):
            raise ConfigError(
                f"{flag(name)} has no effect on a model without latents: leave it out"
            )


def _train(job: _Job, model: Model, run_dir: Path, record: RunRecord) -> Result | None:
    """Train, score and draw in a run directory that is this run's alone."""
    fabric, config, splits = job.fabric, job.config, job.splits
    valid, size = splits.valid or splits.test, config.report.score_batch

    def evaluate(averaged: torch.nn.Module) -> dict[str, float]:
        assert isinstance(averaged, Model)
        return results.validate(fabric, averaged, valid, batch_size=size)

    fitted = fit(
        fabric,
        model,
        splits.train,
        config.training,
        run_dir,
        optimizer=job.optimizer,
        evaluate=evaluate,
        begun=lambda: record.write(run_dir),
    )
    assert isinstance(fitted.model, Model)
    scored = results.score(
        fabric,
        fitted.model,
        splits.test,
        batch_size=size,
        importance_samples=config.report.importance_samples,
        compile=config.training.compile,
    )
    return on_main(fabric, lambda: _report(job, fitted, scored, run_dir, record))


def _report(
    job: _Job, fitted: FitResult, scored: results.Scored, run_dir: Path, record: RunRecord
) -> Result:
    """Write the result and the pictures, and print the table."""
    config, splits, trained = job.config, job.splits, fitted.model
    assert isinstance(trained, Model)
    provenance = results.Provenance(
        pipeline=record.pipeline,
        command=record.command,
        commit=record.commit,
        config=flat(config),
        steps=fitted.steps,
        train_seconds=fitted.seconds,
        device=job.fabric.device,
        seconds=time.monotonic() - job.began,
        baseline=scoring.independent_pixels(splits.train, splits.test),
        validation=results.describe_validation(splits.valid or splits.test),
    )
    study = latent_codes.study(
        trained, splits, scored.evaluation, batch_size=config.report.score_batch
    )
    result = results.to_result(scored, trained, splits.test, provenance, study)
    results.write(run_dir / "result.json", result, scored, replace=True)
    if pictures := config.report.num_samples:
        report_pictures.draw(run_dir, trained, splits.test, pictures, config.training.seed)
    results.keep(run_dir, result, splits.test)
    lines = [results.table(result, run_dir)]
    if study is not None:
        latent_codes.show(run_dir, study.codes, splits.test.num_levels, pictures=pictures > 0)
        lines.append(f"  {study.latents.verdict}")
    show("\n".join(lines))
    return result


def load_in_turn(fabric: Fabric, config: DataConfig) -> Splits:
    """Load the images, in the first process before the others: it may download or pack them."""
    first: list[Splits] = []
    on_main(fabric, lambda: first.append(load(config)))
    splits = first[0] if first else load(config)
    wait_for_all(fabric)  # another machine packs into a cache of its own
    return splits


def _describe(job: _Job, spec: ImageSpec, run_dir: Path) -> RunRecord:
    """Return the content of config.json, once the run has begun or resumed.

    Raises:
        CheckpointError: the run to resume is of another model or other images.
    """
    commands = [command()]
    if job.config.training.resume:
        saved = read_record(run_dir)
        _check_resumed(job, spec, saved, run_dir)
        # All that led here, each once however often it was given.
        earlier = saved.command.split(" && ")
        commands = [*earlier, *(word for word in commands if word not in earlier)]
    return RunRecord(
        pipeline=job.pipeline.name,
        version=__version__,
        command=" && ".join(commands),
        commit=commit(),
        config=flat(job.config),
        images=spec,
        fingerprint=job.splits.train.fingerprint,
    )


def _check_resumed(job: _Job, spec: ImageSpec, saved: RunRecord, run_dir: Path) -> None:
    """Refuse, before anything is written, to resume a run of another model or other images."""
    was = config_of(saved, type(job.config), run_dir)
    fingerprint = job.splits.train.fingerprint
    check_same(
        {**flat(was), "images": saved.images, "training set": saved.fingerprint},
        {**flat(job.config), "images": spec, "training set": fingerprint},
        source=run_dir / CONFIG,
        may_differ=MAY_DIFFER,
    )

"""A finished run, opened again: its configuration, its model, its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from decoders.recorded import OWN, classes_in
from pipelines.data.sets import Splits, load
from pipelines.model import Model
from pipelines.runs.config import SharedConfig
from pipelines.runs.pipeline import find_pipeline, require_trust, trust_parts
from pipelines.runs.record import ImageSpec, config_of, read_record
from pipelines.runtime.errors import CheckpointError, UserError
from pipelines.runtime.files import at_home
from pipelines.training.config_file import CONFIG
from pipelines.training.weights import load_weights


class Run(NamedTuple):
    """A finished run, opened: what trained it, its model and the images it is for."""

    pipeline: str
    command: str
    config: SharedConfig
    model: Model
    spec: ImageSpec
    steps: int
    trusted: tuple[str, ...] = ()  # modules that the user has named, which may be imported


def open_run(run_dir: Path, trusted: Sequence[str] = ()) -> Run:
    """Load the model of a run directory, with its averaged weights, in evaluation mode.

    Args:
        run_dir: the run.
        trusted: modules that the user has named, which may be imported. Otherwise opening a run
            runs no code but the toolkit's.

    Raises:
        CheckpointError: it is no run directory, or its files are damaged or do not fit together.
        UserError: parts of it are of a module that is not trusted.
    """
    run_dir = at_home(run_dir)
    if not run_dir.is_dir():
        raise CheckpointError(f"there is no run directory {run_dir}: check the path")
    record = read_record(run_dir)
    trust_parts(record, trusted)
    for name in classes_in(record.config.get("model")):
        if name.partition(":")[0].partition(".")[0] not in OWN:
            require_trust(name, "model", trusted)
    pipeline = find_pipeline(record.pipeline, trusted)
    config = config_of(record, pipeline.config, run_dir)
    config = config.opened(run_dir)
    try:
        model: Any = pipeline.build(config, record.images)
    except Exception as error:  # whatever a file that was edited leads to
        raise CheckpointError(
            f"{run_dir / CONFIG} describes no model ({error!r}): it was changed by hand, or "
            "written by another version of this toolkit"
        ) from error
    steps = load_weights(run_dir, model)
    return Run(
        record.pipeline, record.command, config, model.eval(), record.images, steps, tuple(trusted)
    )


def load_splits(run: Run, *, data_dir: str = "", limit: int = 0) -> Splits:
    """Load the images of a run, from where they are now.

    Args:
        run: whose images.
        data_dir: where they are, if not where they were in training.
        limit: N images of each split, drawn from all (0: as in training).

    Raises:
        UserError: they are not what the model was built for, or come from a function of a module
            that is not trusted.
    """
    data = run.config.data
    if ":" in data.data:
        require_trust(data.data, "data set", run.trusted)
    data_dir, limit = data_dir or data.data_dir, limit or data.limit
    if not data_dir:
        raise UserError(
            "the images of this run were not kept: give --data-dir FILE.npz, a file with arrays "
            "train and valid"
        )
    splits = load(dataclasses.replace(data, data_dir=data_dir, limit=limit))
    splits = _named(splits, run.config.data_name)
    if ImageSpec.of(splits.test) != run.spec:
        raise UserError(
            f"the images in {data_dir} are {ImageSpec.of(splits.test)}, but the run was "
            f"trained on {run.spec}: give the --data-dir it was trained on"
        )
    return splits


def _named(splits: Splits, name: str) -> Splits:
    """Return the same images under the name of the run's data set."""
    return Splits(*(None if one is None else dataclasses.replace(one, name=name) for one in splits))  # pyright: ignore[reportArgumentType]

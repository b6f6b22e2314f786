"""A finished run, opened again: its configuration, its model, its images."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from pipelines.runs.config import RunConfig
from pipelines.data.sets import Splits, load
from pipelines.model import Model
from pipelines.runs.networks import ImageSpec
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import at_home
from pipelines.training import checkpoint
from pipelines.training.checkpoint import CheckpointError

C = TypeVar("C", bound=RunConfig)

PIPELINES = ("pixelcnn", "autoencoder", "pixelvae")
RECORD = {"pipeline": str, "command": str, "config": dict, "images": dict, "fingerprint": str}


class Run(NamedTuple):
    """A finished run, opened: what trained it, its model and the images it is for."""

    pipeline: str
    command: str
    config: RunConfig
    model: Model
    spec: ImageSpec
    steps: int


def open_run(run_dir: Path) -> Run:
    """Load the model of a run directory, with its averaged weights, in evaluation mode.

    Raises:
        CheckpointError: it is no run directory, or its files are damaged or do not fit together.
    """
    run_dir = at_home(run_dir)
    if not run_dir.is_dir():
        raise CheckpointError(f"there is no run directory {run_dir}: check the path")
    saved = read_record(run_dir)
    pipeline = saved["pipeline"]
    if pipeline not in PIPELINES:
        raise CheckpointError(
            f"{run_dir / checkpoint.CONFIG} names the pipeline {pipeline!r}, expected one of "
            f"{', '.join(PIPELINES)}"
        )
    module = importlib.import_module(f"pipelines.{pipeline}")
    try:
        config = config_from(module.Config, saved["config"], run_dir / checkpoint.CONFIG)
        if not Path(config.cache_dir).is_dir():  # the run was moved, or trained elsewhere
            config = dataclasses.replace(config, cache_dir="")
        spec = ImageSpec.from_json(dict(saved["images"]))
        model = module.build(config, spec)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a file that was edited leads to
        raise CheckpointError(
            f"{run_dir / checkpoint.CONFIG} describes no model ({error!r}): it was changed by "
            "hand, or written by another version of this toolkit"
        ) from error
    steps = checkpoint.load_weights(run_dir, model)
    return Run(pipeline, saved["command"], config, model.eval(), spec, steps)


def read_record(run_dir: Path) -> dict[str, Any]:
    """Read the config.json of a training run.

    Raises:
        CheckpointError: there is none, or one of its fields is missing or of another type.
    """
    saved = checkpoint.read_config(run_dir)
    for name, kind in RECORD.items():
        if not isinstance(saved.get(name), kind):
            raise CheckpointError(
                f"{run_dir / checkpoint.CONFIG} describes no run (it has no {name!r}): it was "
                "changed by hand, or is not of a training run"
            )
    return saved


def load_splits(run: Run, *, data_dir: str = "", limit: int = 0) -> Splits:
    """The images of a run, from where they are now.

    Args:
        run: whose images.
        data_dir: where they are, if not where they were in training.
        limit: N images of each split, drawn from all (0: as in training).

    Raises:
        UserError: they are not what the model was built for.
    """
    data_dir, limit = data_dir or run.config.data_dir, limit or run.config.limit
    splits = load(dataclasses.replace(run.config, data_dir=data_dir, limit=limit))
    if ImageSpec.of(splits.test) != run.spec:
        raise UserError(
            f"the images in {data_dir} are {ImageSpec.of(splits.test)}, but the run was "
            f"trained on {run.spec}: give the --data-dir it was trained on"
        )
    return splits


def config_from(config_class: type[C], saved: Mapping[str, Any], source: Path) -> C:
    """A configuration read back from config.json.

    Raises:
        CheckpointError: it has fields that this version does not know, or impossible values.
    """
    known = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(saved) - known)
    if unknown:
        raise CheckpointError(
            f"{source} has unknown fields ({', '.join(unknown)}): "
            "it was written by another version of this toolkit"
        )
    # JSON knows no tuples, and configurations no lists.
    fields: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()
    }
    kinds = get_type_hints(config_class)
    for name, value in fields.items():
        if not _fits(value, kinds[name]):
            raise CheckpointError(f"{source} describes no run: {name} can't be {value!r}")
    try:
        return config_class(**fields)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source} describes no run: {error}") from error


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is what a field's annotation says: a plain type, choices or a tuple."""
    args = get_args(kind)
    if get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and [type(part) for part in value] == list(args)
    return type(value) in ((float, int) if kind is float else (kind,))

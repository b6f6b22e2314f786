"""What every training command does: read the flags, train, score, draw, and report.

command line ─ tyro ─> Config ─ load ─> Splits ─ build ─> Model ─ fit ─> weights
                                                   score, pictures ─> result.json, a table
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import torch
import torch.distributed as dist
import tyro
from lightning_fabric import Fabric

from eval.results import ResultError
from pipelines import __version__
from pipelines.data.sets import DataConfig, DataError, DataName, Splits, load
from pipelines.finished import codes, outcome, scoring
from pipelines.model import Model
from pipelines.networks import DecoderConfig, ImageSpec
from pipelines.training import checkpoint
from pipelines.training.checkpoint import CheckpointError
from pipelines.training.config import TrainConfig
from pipelines.training.devices import on_main
from pipelines.training.fit import NonFiniteError, fit, make_fabric

PIPELINES = ("pixelcnn", "autoencoder", "pixelvae")
# The smallest values of flags, those that only some pipelines have included.
LEAST = {
    **dict.fromkeys(("score_batch", "hidden_channels", "mixtures", "code_dim", "latent_dim"), 1),
    **dict.fromkeys(("map_channels", "prior_channels", "encoder_channels"), 1),
    **dict.fromkeys(("importance_samples", "num_samples", "num_layers", "prior_layers"), 0),
    **dict.fromkeys(("encoder_blocks", "embedding_dim"), 0),
}


class UserError(ValueError):
    """Flags that don't fit together; the message says which, and what to do."""


@dataclass(frozen=True)
class RunConfig(DecoderConfig, TrainConfig, DataConfig):
    """The flags that all training commands share."""

    preset: str = ""
    """A named set of defaults in place of the data set's own; they are listed above."""
    score_batch: int = 64
    """Images scored at once; the score does not depend on it."""
    importance_samples: int = 100
    """K of the importance-weighted estimate beside a bound (0: none)."""
    num_samples: int = 64
    """About how many samples to draw in the end (0: no pictures)."""
    name: str = ""
    """What result tables call this run (default: the model's name)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in LEAST.items():
            if getattr(self, name, least) < least:
                self._refuse(name, f"at least {least}")


C = TypeVar("C", bound=RunConfig)
N = TypeVar("N", bound=torch.nn.Module)


def main(
    pipeline: str,
    config_class: type[C],
    presets: Mapping[str, C],
    build: Callable[[C, ImageSpec], Model],
    argv: Sequence[str] | None = None,
) -> None:
    """Run a training command: exit code 0, or 2 and one sentence for what a user can mend."""
    with exit_codes():
        config = parse(pipeline, config_class, presets, argv)
        run(pipeline, config, build)


def parse(
    pipeline: str,
    config_class: type[C],
    presets: Mapping[str, C],
    argv: Sequence[str] | None = None,
) -> C:
    """The configuration of a command line, over the preset of the data set that it names.

    With `--resume`, over the configuration of the run in `--out` instead.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    default = _default(pipeline, config_class, presets, args)
    out = _flag(args, "out")
    if out and "--resume" in args:
        saved = checkpoint.read_config(Path(out).expanduser())
        if saved.get("pipeline") != pipeline:
            raise CheckpointError(
                f"{out} is a run of {saved.get('pipeline')}: resume it with "
                f"python -m pipelines.{saved.get('pipeline')}"
            )
        default = config_from(config_class, saved["config"], Path(out))
    module = sys.modules[config_class.__module__]
    names = ", ".join(name for name in presets if name not in get_args(DataName))
    return tyro.cli(
        config_class,
        args=args,
        default=default,
        prog=f"python -m pipelines.{pipeline}",
        description=f"{(module.__doc__ or '').strip()}\n\nPresets: {names or 'none'}.",
    )


def _default(
    pipeline: str, config_class: type[C], presets: Mapping[str, C], args: Sequence[str]
) -> C:
    """The preset that the command line names, or that of its data set."""
    data = _flag(args, "data") or config_class.data
    name = _flag(args, "preset")
    if name is None:
        return presets.get(data, config_class())
    if name not in presets:
        raise UserError(
            f"--preset {name} is unknown to {pipeline}: choose one of {', '.join(presets)}"
        )
    return presets[name]


def run(pipeline: str, config: C, build: Callable[[C, ImageSpec], Model]) -> None:
    """Train, score and draw, as configured; everything ends up in the run directory."""
    began = time.monotonic()
    fabric = launch(config)
    splits = load_in_turn(fabric, config)
    spec = ImageSpec.of(splits.train)
    torch.manual_seed(config.seed)
    model = checked(build, config, spec)
    run_dir = _begin(fabric, pipeline, config, spec, splits)

    def evaluate(averaged: torch.nn.Module) -> dict[str, float]:
        valid = splits.valid or splits.test
        assert isinstance(averaged, Model)
        return outcome.validate(fabric, averaged, valid, batch_size=config.score_batch)

    fitted = fit(fabric, model, splits.train, config, run_dir, evaluate=evaluate)
    trained = fitted.model
    assert isinstance(trained, Model)
    scored = outcome.score(
        fabric,
        trained,
        splits.test,
        batch_size=config.score_batch,
        importance_samples=config.importance_samples,
        compile=config.compile,
    )
    if fabric.is_global_zero:
        record = outcome.Record(
            pipeline=pipeline,
            command=checkpoint.read_config(run_dir)["command"],
            config=dataclasses.asdict(config),
            steps=fitted.steps,
            train_seconds=fitted.seconds,
            seconds=time.monotonic() - began,
            baseline=scoring.independent_pixels(splits.train, splits.test),
        )
        result = outcome.to_result(scored, trained, splits.test, record)
        outcome.write(run_dir / "result.json", result, scored)
        if config.num_samples:
            outcome.draw(run_dir, trained, splits.test, config.num_samples, config.seed)
        outcome.keep(run_dir, result, splits.test)
        verdict = codes.study(
            run_dir,
            trained,
            splits,
            scored.evaluation,
            batch_size=config.score_batch,
            pictures=config.num_samples > 0,
        )
        print(outcome.table(result, run_dir), *[f"  {verdict}"] * bool(verdict), sep="\n")
    fabric.barrier()


def load_in_turn(fabric: Fabric, config: DataConfig) -> Splits:
    """The images, in the first process before the others: it may have to download or pack them."""
    first: list[Splits] = []
    on_main(fabric, lambda: first.append(load(config)))
    return first[0] if first else load(config)


def launch(config: TrainConfig) -> Fabric:
    """The launched Fabric of a command; devices that are not to be had are the user's to mend."""
    try:
        return make_fabric(config)
    except ValueError as error:
        raise UserError(str(error)) from error


def checked(build: Callable[[Any, ImageSpec], N], config: Any, spec: ImageSpec) -> N:
    """Build a network; flags that none can be built from are the user's to mend."""
    try:
        return build(config, spec)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


class Run(NamedTuple):
    """A finished run, opened: its pipeline, configuration, model and the images it is for."""

    pipeline: str
    config: RunConfig
    model: Model
    spec: ImageSpec
    steps: int


def open_run(run_dir: Path) -> Run:
    """Load the model of a run directory, with its averaged weights, in evaluation mode.

    Raises:
        CheckpointError: it is no run directory, or its files are damaged or do not fit together.
    """
    run_dir = run_dir.expanduser()
    if not run_dir.is_dir():
        raise CheckpointError(f"there is no run directory {run_dir}: check the path")
    saved = checkpoint.read_config(run_dir)
    pipeline = saved.get("pipeline")
    if pipeline not in PIPELINES:
        raise CheckpointError(
            f"{run_dir / checkpoint.CONFIG} names the pipeline {pipeline!r}, expected one of "
            f"{', '.join(PIPELINES)}"
        )
    module = importlib.import_module(f"pipelines.{pipeline}")
    config = config_from(module.Config, saved["config"], run_dir)
    spec = ImageSpec.from_json(dict(saved["images"]))
    model = module.build(config, spec)
    steps = checkpoint.load_weights(run_dir, model)
    return Run(pipeline, config, model.eval(), spec, steps)


def load_splits(run: Run, *, data_dir: str = "", limit: int = 0) -> Splits:
    """The images of a run, from where they are now.

    Args:
        run: whose images.
        data_dir: where they are, if not where they were in training.
        limit: the first so many of each split (0: as in training).

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
        CheckpointError: it has fields that this version does not know.
    """
    known = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(saved) - known)
    if unknown:
        raise CheckpointError(
            f"{source / checkpoint.CONFIG} has unknown fields ({', '.join(unknown)}): "
            "it was written by another version of this toolkit"
        )
    # JSON knows no tuples, and configurations no lists.
    fields: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in saved.items()
    }
    return config_class(**fields)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the errors that a user can mend into one sentence on stderr and exit code 2.

    Of several processes that meet the same one, the first says so. The others leave with 0, since
    Fabric kills the first as soon as another exits with an error.
    """
    try:
        yield
    except (DataError, CheckpointError, NonFiniteError, ResultError, UserError) as error:
        agreed = isinstance(error, (UserError, NonFiniteError))  # met by all processes at once
        alike = agreed and dist.is_initialized() and dist.get_rank() > 0
        if alike or getattr(error, "relayed", False):
            sys.exit(0)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _begin(fabric: Any, pipeline: str, config: RunConfig, spec: ImageSpec, splits: Any) -> Path:
    """Create the run directory and its config.json, in the first process; all learn where."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_dir = Path(config.out or f"runs/{pipeline}-{config.data}-{stamp}").expanduser()
    run_dir = Path(fabric.broadcast(str(run_dir)))

    def begin() -> None:
        checkpoint.prepare(run_dir, resume=config.resume)
        commands = [outcome.command()]
        if config.resume:  # all that led here, each once however often it was given
            earlier = checkpoint.read_config(run_dir)["command"].split(" && ")
            commands = [*earlier, *(word for word in commands if word not in earlier)]
        now = {
            "pipeline": pipeline,
            "version": __version__,
            "command": " && ".join(commands),
            "commit": outcome.commit(),
            "config": dataclasses.asdict(config),
            "images": dataclasses.asdict(spec),
            "fingerprint": splits.train.fingerprint,
        }
        checkpoint.write_config(run_dir, now)

    on_main(fabric, begin)
    return run_dir


def _flag(args: Sequence[str], name: str) -> str | None:
    """The value of --name among raw arguments, before they are parsed in earnest."""
    for position, word in enumerate(args):
        if word == f"--{name}" and position + 1 < len(args):
            return args[position + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None

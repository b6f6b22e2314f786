"""What every training command does: read the flags, train, score, draw, and report.

command line ─ tyro ─> Config ─ load ─> Splits ─ build ─> Model ─ fit ─> weights
                                                   score, pictures ─> result.json, a table
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro
from lightning_fabric import Fabric

from pipelines import __version__
from pipelines.runtime.command import exit_codes
from pipelines.runtime.devices import make_fabric
from pipelines.runs.networks import checked
from pipelines.runs.config import MAY_DIFFER, RunConfig
from pipelines.data.config import DATA_NAMES, DataConfig
from pipelines.data.sets import Splits, load
from pipelines.runs import latent_study, results, scoring
from pipelines.model import Model
from pipelines.runs.networks import ImageSpec
from pipelines.runs.load import config_from, read_record
from pipelines.runtime.provenance import command, commit
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import at_home
from pipelines.runtime.messages import show
from pipelines.training import checkpoint
from pipelines.training.checkpoint import CheckpointError
from pipelines.runtime.devices import on_main, wait_for_all
from pipelines.training.fit import fit
from pipelines.training.run_directory import new_run, resumed_run

C = TypeVar("C", bound=RunConfig)


def main(
    pipeline: str,
    config_class: type[C],
    presets: Mapping[str, C],
    build: Callable[[C, ImageSpec], Model],
    argv: Sequence[str] | None = None,
) -> None:
    """Run a training command: exit code 0, or 2 and one sentence for what a user can fix."""
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
        saved = read_record(at_home(out))
        if saved["pipeline"] != pipeline:
            raise CheckpointError(
                f"{out} is a run of {saved['pipeline']}: resume it with "
                f"python -m pipelines.{saved['pipeline']}"
            )
        default = config_from(config_class, saved["config"], Path(out) / checkpoint.CONFIG)
    module = sys.modules[config_class.__module__]
    names = ", ".join(name for name in presets if name not in DATA_NAMES)
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
    fabric = make_fabric(config)
    splits = load_in_turn(fabric, config)
    spec = ImageSpec.of(splits.train)
    torch.manual_seed(config.seed)
    model = checked(build, config, spec)
    began_at = time.strftime("%Y%m%d-%H%M%S")
    with contextlib.ExitStack() as stack:

        def claim() -> tuple[Path, dict[str, Any]]:
            default = f"runs/{pipeline}-{config.data}-{began_at}"
            claimed = resumed_run(config.out) if config.resume else new_run(config.out, default)
            run_dir = stack.enter_context(claimed)
            return run_dir, _describe(pipeline, config, spec, splits, run_dir)

        run_dir, described = on_main(fabric, claim)
        _train(fabric, model, splits, config, run_dir, described, began)


def _train(
    fabric: Fabric,
    model: Model,
    splits: Splits,
    config: RunConfig,
    run_dir: Path,
    described: dict[str, Any],
    began: float,
) -> None:
    """Train, score and draw in a run directory that is this run's alone."""

    valid = splits.valid or splits.test

    def evaluate(averaged: torch.nn.Module) -> dict[str, float]:
        assert isinstance(averaged, Model)
        return results.validate(fabric, averaged, valid, batch_size=config.score_batch)

    fitted = fit(
        fabric,
        model,
        splits.train,
        config,
        run_dir,
        evaluate=evaluate,
        begun=lambda: checkpoint.write_config(run_dir, described),
    )
    trained = fitted.model
    assert isinstance(trained, Model)
    scored = results.score(
        fabric,
        trained,
        splits.test,
        batch_size=config.score_batch,
        importance_samples=config.importance_samples,
        compile=config.compile,
    )

    def report() -> None:
        record = results.Record(
            pipeline=described["pipeline"],
            command=described["command"],
            commit=described["commit"],
            config=dataclasses.asdict(config),
            steps=fitted.steps,
            train_seconds=fitted.seconds,
            device=fabric.device,
            seconds=time.monotonic() - began,
            baseline=scoring.independent_pixels(splits.train, splits.test),
            validation=results.describe_validation(valid),
        )
        _report(trained, splits, config, run_dir, scored, record)

    on_main(fabric, report)


def _report(
    trained: Model,
    splits: Splits,
    config: RunConfig,
    run_dir: Path,
    scored: results.Scored,
    record: results.Record,
) -> None:
    """Write the result and the pictures, and print the table."""
    result = results.to_result(scored, trained, splits.test, record)
    results.write(run_dir / "result.json", result, scored, replace=True)
    if config.num_samples:
        results.draw(run_dir, trained, splits.test, config.num_samples, config.seed)
    results.keep(run_dir, result, splits.test)
    verdict = latent_study.study(
        run_dir,
        trained,
        splits,
        scored.evaluation,
        batch_size=config.score_batch,
        pictures=config.num_samples > 0,
    )
    show("\n".join([results.table(result, run_dir), *[f"  {verdict}"] * bool(verdict)]))


def load_in_turn(fabric: Fabric, config: DataConfig) -> Splits:
    """The images, in the first process before the others: it may have to download or pack them."""
    first: list[Splits] = []
    on_main(fabric, lambda: first.append(load(config)))
    splits = first[0] if first else load(config)
    wait_for_all(fabric)  # another machine packs into a cache of its own
    return splits


def _describe(
    pipeline: str, config: RunConfig, spec: ImageSpec, splits: Splits, run_dir: Path
) -> dict[str, Any]:
    """What config.json is to say, once the run has begun or resumed.

    Raises:
        CheckpointError: the run to go on with is of another model or other images.
    """
    commands = [command()]
    if config.resume:
        saved = read_record(run_dir)
        _check_resumed(config, spec, splits, saved, run_dir / checkpoint.CONFIG)
        # All that led here, each once however often it was given.
        earlier = saved["command"].split(" && ")
        commands = [*earlier, *(word for word in commands if word not in earlier)]
    return {
        "pipeline": pipeline,
        "version": __version__,
        "command": " && ".join(commands),
        "commit": commit(),
        "config": dataclasses.asdict(config),
        "images": dataclasses.asdict(spec),
        "fingerprint": splits.train.fingerprint,
    }


def _check_resumed(
    config: RunConfig, spec: ImageSpec, splits: Splits, saved: Mapping[str, Any], source: Path
) -> None:
    """Refuse, before anything is written, to go on with a run of another model or other images."""
    was = config_from(type(config), saved["config"], source)
    try:
        images = ImageSpec.from_json(dict(saved["images"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source} describes no images: it was changed by hand") from error
    checkpoint.check_same(
        {**dataclasses.asdict(was), "images": images, "training set": saved["fingerprint"]},
        {
            **dataclasses.asdict(config),
            "images": spec,
            "training set": splits.train.fingerprint,
        },
        source=source,
        may_differ=MAY_DIFFER,
    )


def _flag(args: Sequence[str], name: str) -> str | None:
    """The value of --name among raw arguments, before they are parsed in earnest."""
    for position, word in enumerate(args):
        if word == f"--{name}" and position + 1 < len(args):
            return args[position + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None

"""Search for the decoder that reaches the lowest NLL in a given time, the same for every trial.

    python benchmarks/search.py [--minutes 2] [--out search.jsonl] ["num-layers=12 ema=0.99" …]

A trial is the MNIST preset of `pipelines.pixelcnn` on the statically binarized set, changed by the
flags of one argument; without any, the trials of `TRIALS` are run. Each is compiled and timed for
some steps, then starts again, trains for as many steps as fit into the minutes (the length of its
learning-rate schedule), and is scored on a part of the validation images. The test set is not used.
A line of JSON for each trial is appended to `--out`, and the table is printed by NLL.
"""

from __future__ import annotations

import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro

from pipelines.data.sets import load
from pipelines.model import Model
from pipelines.pixelcnn import PIPELINE, Config, build
from pipelines.runs import scoring
from pipelines.runs.record import ImageSpec
from pipelines.runtime.devices import make_fabric
from pipelines.training.fit import fit

MIDDLE = "batch-size=32 learning-rate=6e-3"  # base of single changes
TRIALS = (
    "batch-size=64 learning-rate=3e-3",
    "batch-size=32 learning-rate=3e-3",
    MIDDLE,
    "batch-size=32 learning-rate=1.2e-2",
    "batch-size=16 learning-rate=6e-3",
    f"{MIDDLE} hidden-channels=24",
    f"{MIDDLE} hidden-channels=48",
    f"{MIDDLE} num-layers=5",
    f"{MIDDLE} num-layers=12",
    f"{MIDDLE} kernel-size=3 num-layers=14",
    f"{MIDDLE} kernel-size=7 num-layers=5",
    f"{MIDDLE} first-kernel-size=5",
    f"{MIDDLE} first-kernel-size=11",
    f"{MIDDLE} lr-decay=constant",
    f"{MIDDLE} ema=0",
    f"{MIDDLE} ema=0.99",
    f"{MIDDLE} precision=32-true",
    f"{MIDDLE} no-compile",
)
BASE = "--precision bf16-mixed --eval-every 0 --checkpoint-every 0 --accelerator cpu"
WARM_UP, TIMED = 5, 20  # steps before timing, and timed steps


def step_seconds(config: Config, images: Any, spec: ImageSpec) -> float:
    """Return the seconds of a compiled optimizer step, from the log of a short run."""
    config = config.but(steps=WARM_UP + TIMED, log_every=1)
    with tempfile.TemporaryDirectory() as folder:
        train(config, images, spec, folder)
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    seconds = [json.loads(line)["seconds"] for line in lines]
    return median(b - a for a, b in pairwise(seconds[WARM_UP - 1 :]))


def train(config: Config, images: Any, spec: ImageSpec, folder: str) -> Model:
    """Return a new model, trained as configured."""
    torch.manual_seed(config.training.seed)
    fabric = make_fabric(config.devices, config.training.precision)
    trained = fit(fabric, build(config, spec), images, config.training, folder).model
    assert isinstance(trained, Model)
    return trained


def trial(flags: str, minutes: float, data_dir: str, num: int) -> dict[str, Any]:
    """Return one row of the table."""
    words = f"--data binarized_mnist --data-dir {data_dir} {BASE}".split()
    words += [f"--{flag}" for flag in flags.split()]
    config = PIPELINE.parse(words)
    splits = load(config.data)
    assert splits.valid is not None
    spec = ImageSpec.of(splits.train)
    step = step_seconds(config, splits.train, spec)
    config = config.but(steps=round(60 * minutes / step))
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        model = train(config, splits.train, spec, folder)
        seconds = time.monotonic() - began
    chosen = scoring.part(splits.valid, num)
    fabric, size = make_fabric(config.devices), config.report.score_batch
    scored = scoring.score(fabric, model, splits.valid, batch_size=size, chosen=chosen).nll
    return {
        "flags": flags,
        "nats": scored.mean,
        "stderr": scored.stderr,
        "parameters": sum(p.numel() for p in model.parameters()),
        "step_seconds": step,
        "steps": config.training.steps,
        "images": config.training.steps * config.training.batch_size,
        "seconds": seconds,
        "minutes": minutes,
        "threads": torch.get_num_threads(),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, best trial first."""
    print("| changed | nats | parameters | s/step | steps | images |", "| --- " * 6 + "|", sep="\n")
    for row in sorted(rows, key=lambda row: row["nats"]):
        print(
            f"| `{row['flags'] or 'nothing'}` | {row['nats']:.2f} ± {row['stderr']:.2f} "
            f"| {row['parameters']:,} | {row['step_seconds']:.3f} | {row['steps']:,} "
            f"| {row['images']:,} |"
        )


def main(
    trials: tyro.conf.Positional[tuple[str, ...]] = TRIALS,
    minutes: float = 2.0,
    data_dir: str = "../shared/data/binarized_mnist",
    num: int = 2000,
    threads: int = 1,
    out: Path = Path("search.jsonl"),
) -> None:
    """Run the trials, one after the other.

    Args:
        trials: flags of `pipelines.pixelcnn` without their dashes, one string for each trial.
        minutes: of training for each trial, without compilation.
        data_dir: folder of the statically binarized MNIST.
        num: number of validation images to score.
        threads: number of threads.
        out: file of JSON lines to append to.
    """
    torch.set_num_threads(threads)
    rows = []
    for flags in trials:
        rows.append(trial(flags, minutes, data_dir, num))
        with out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        show(rows)


if __name__ == "__main__":
    tyro.cli(main)

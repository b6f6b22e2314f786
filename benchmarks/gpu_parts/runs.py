"""Parts that run commands: the tests, resuming, several cards, trainings to a score."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from gpu_parts.config import ROOT, Config, Record
from safetensors.torch import load_file
from torch import Tensor

KEPT = ("kind", "value", "stderr", "bits_per_dim", "count", "parameters", "train_seconds")


def tests(config: Config) -> Record:
    """Run the tests marked `gpu`."""
    chosen = ["tests/decoders/test_conditioning.py"] if config.small else ["tests"]
    marker = "not slow and not gpu" if config.small else "gpu"
    command = [sys.executable, "-m", "pytest", "-q", "-m", marker, "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:]
    if done.returncode:
        raise RuntimeError(f"pytest exited with {done.returncode}: {done.stdout[-2000:]}")
    return {"summary": last.strip("= ")}


def command(pipeline: str, **flags: Any) -> Record:
    """Run a training command and return its result."""
    words = []
    for key, value in flags.items():
        words.append(f"--{key.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    done = subprocess.run(
        [sys.executable, "-m", f"pipelines.{pipeline}", *words],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
    return json.loads((Path(flags["out"]) / "result.json").read_text())


def resume(config: Config) -> Record:
    """Compare a run with the same run stopped half-way and resumed, and with a second one."""
    steps = 4 if config.small else 60
    flags = {
        "data": "shapes", "accelerator": "cuda" if config.device.type == "cuda" else "cpu",
        "limit": 200, "num_layers": 2, "batch_size": 32, "num_samples": 0, "checkpoint_every": 0,
        "lr_decay": "constant",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        whole, twin, halves = (Path(folder) / name for name in ("whole", "twin", "halves"))
        command("pixelcnn", **flags, steps=steps, out=whole)
        command("pixelcnn", **flags, steps=steps, out=twin)
        command("pixelcnn", **flags, steps=steps // 2, out=halves)
        again = [sys.executable, "-m", "pipelines.pixelcnn", "--resume", "--steps", str(steps)]
        subprocess.run([*again, "--out", str(halves)], cwd=ROOT, check=True, capture_output=True)
        a, b, c = (load_file(run / "weights.safetensors") for run in (whole, halves, twin))

    def largest(other: dict[str, Tensor]) -> float:
        return max(float((a[name] - other[name]).abs().max()) for name in a)

    return {
        "steps": steps,
        "largest_difference": largest(b),
        "largest_difference_of_two_whole_runs": largest(c),
    }


def devices(config: Config) -> Record:
    """Measure the training rate of the same global batch on one card and on more."""
    cards = torch.cuda.device_count()
    if cards < 2 and not config.small:
        return {"skipped": "expected several cards, found one"}
    steps, accelerator = (2, "auto") if config.small else (200, "cuda")
    flags = {
        "data": "shapes", "limit": 4000, "steps": steps, "batch_size": 16 if config.small else 512,
        "hidden_channels": 8 if config.small else 64, "num_samples": 0, "checkpoint_every": 0,
        "accelerator": accelerator,
    }  # fmt: skip
    counts = [2**n for n in range(max(cards, 1).bit_length())]
    record: Record = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            result = command("pixelcnn", **flags, devices=count, out=Path(folder) / str(count))
            record[str(count)] = steps * flags["batch_size"] / result["train_seconds"]
    return {"images_per_second": record}


def quality(config: Config) -> Record:
    """Train for a short time with the toolkit's commands, and score the test set."""
    record: Record = {}
    if config.small:
        sizes = {"hidden_channels": 8, "num_layers": 1, "batch_size": 16}
        small = {"data": "digits", "limit": 40, "steps": 3, "num_samples": 0, **sizes}
        runs = {"digits": small}
    elif config.data_dir is None:
        raise ValueError("expected --data-dir with binarized_mnist/ and cifar10_npz/, got none")
    else:
        runs = quality_runs(config.data_dir)
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in runs.items():
            result = command("pixelcnn", **flags, out=Path(folder) / "run")
            (Path(folder) / "run").rename(Path(folder) / name.replace(" ", "-"))
            flags = {key: value for key, value in flags.items() if key != "data_dir"}
            record[name] = {"flags": flags, **{key: result[key] for key in KEPT}}
    return {"runs": record}


def quality_runs(data_dir: Path) -> dict[str, Record]:
    common = {
        "precision": "bf16-mixed", "weight_decay": 0.1, "ema": 0.998, "num_samples": 0,
        "checkpoint_every": 0, "eval_every": 0, "score_batch": 512, "lr_decay": "cosine",
        "warmup_steps": 100, "compile": True,
    }  # fmt: skip
    return {
        "static MNIST": {
            **common, "data": "binarized_mnist", "data_dir": data_dir / "binarized_mnist",
            "hidden_channels": 64, "num_layers": 12, "batch_size": 128, "learning_rate": 3e-3,
            "dropout": 0.1, "steps": 1000,
        },
        "CIFAR-10 subset": {
            **common, "data": "imagenet32", "data_dir": data_dir / "cifar10_npz",
            "hidden_channels": 128, "num_layers": 12, "batch_size": 128, "learning_rate": 1e-3,
            "steps": 800,
        },
    }  # fmt: skip

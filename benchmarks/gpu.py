"""Measure everything that needs a GPU, and write it to one JSON file.

    bash benchmarks/gpu.sh [--data-dir DIR] [--out benchmarks/gpu.json]
    python benchmarks/gpu.py --show benchmarks/gpu.json

The parts, about eight minutes together: the `gpu` tests; training rate of each decoder, in images
per second and in useful operations per second (see `benchmarks/training.py`) over the measured rate
of bf16 matrix products, with and without compilation; the cached scan against one forward pass and
against the plain scan, with its rows recorded as CUDA graphs and without; float32 scores against
the CPU's; resuming on the GPU; several cards, where there are several; and short trainings to a
score, for which --data-dir holds `binarized_mnist/` and `cifar10_npz/`.

A part that fails is reported in the file, the others still run, and the exit code is 1. With
--parts, the file's other parts stay as they are. `--small` runs every part with tiny sizes on any
machine, to test the script itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import torch
import tyro
from gpu_parts.config import ROOT, Config, Record
from gpu_parts.kernels import machine, sampling, scores, training
from gpu_parts.runs import devices, quality, resume, tests
from gpu_parts.tables import tables
from tqdm import tqdm

PARTS: dict[str, Callable[[Config], Record]] = {
    part.__name__: part
    for part in (machine, tests, training, sampling, scores, resume, devices, quality)
}


def card(config: Config) -> str:
    """Return the name of the device."""
    return torch.cuda.get_device_name() if config.device.type == "cuda" else "cpu"


def commit() -> str:
    """Return the commit that is measured, or "unknown" outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return os.environ.get("COMMIT") or done.stdout.strip() or "unknown"


def main(config: Config) -> None:
    """Run the parts and write the file."""
    if config.show is not None:
        print(tables(json.loads(config.show.read_text())))
        return
    if config.device.type != "cuda" and not config.small:
        sys.exit("error: expected a CUDA device, found none: --small tests the script without one")
    unknown = set(config.parts) - set(PARTS)
    if unknown:
        sys.exit(f"error: expected --parts among {', '.join(PARTS)}, got {', '.join(unknown)}")
    if config.data_dir is not None:
        config = replace(config, data_dir=config.data_dir.expanduser().resolve())
    record: Record = {}
    if config.parts and config.out.exists():
        record = json.loads(config.out.read_text())
    for name in tqdm(config.parts or PARTS, unit="part"):
        start = time.monotonic()
        try:
            part = PARTS[name](config)
        except Exception as error:
            traceback.print_exc()
            part = {"error": f"{type(error).__name__}: {error}"}
        about = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "device": card(config)}
        record[name] = {**about, "seconds": time.monotonic() - start, **part}
        config.out.write_text(json.dumps(record, indent=1) + "\n")
    print(tables(record))
    print(f"written to {config.out}")
    failed = [name for name, part in record.items() if "error" in part]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))

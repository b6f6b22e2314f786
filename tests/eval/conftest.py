"""Results and run directories to judge, made of numbers that agree with one another."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imsave

from eval import Estimate, Latents, Level, Probe, Result, write_result


def make_result(**changes: Any) -> Result:
    """An honest exact result on all of static MNIST, but for the changes."""
    fields: dict[str, Any] = {
        "pipeline": "pixelcnn",
        "name": "gated",
        "kind": "exact",
        "value": 80.0,
        "stderr": 0.2,
        "data": "binarized_mnist",
        "variant": "",
        "split": "test",
        "count": 10000,
        "subset": False,
        "fingerprint": "aa",
        "image_shape": (1, 28, 28),
        "levels": 2,
        "binarize": "none",
        "condition": "none",
        "command": "python -m pipelines.pixelcnn --data binarized_mnist",
        "date": "2026-01-01T00:00:00",
    }
    fields.update(changes)
    fields.setdefault("distortion", fields["value"] - (fields.get("rate") or 0.0))
    return Result(**fields)


def make_run(folder: Path, *, seed: int = 0, pictures: bool = True, **changes: Any) -> Path:
    """A finished run directory of a PixelVAE on 40 digits, with everything that a report shows."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed)
    nll = noise.normal(100.0, 5.0, 40) + changes.pop("shift", 0.0)
    value, stderr = float(nll.mean()), float(nll.std(ddof=1) / math.sqrt(40))
    curve = tuple(Estimate(k=k, nats=value - 1 + 1 / k, stderr=stderr) for k in (1, 10, 100))
    level = Level(6.0, (6.0, 0.0), (True, False), 3.1, 0.1, 3.69)
    fields: dict[str, Any] = {
        "pipeline": "pixelvae",
        "name": "a pixelvae",
        "kind": "bound",
        "value": value,
        "stderr": stderr,
        "rate": 6.0,
        "rates": (6.0,),
        "estimate": Estimate(k=100, nats=value - 0.99, stderr=stderr),
        "data": "digits",
        "count": 40,
        "subset": True,
        "variant": "subset: first 40",
        "image_shape": (1, 8, 8),
        "levels": 17,
        "command": "python -m pipelines.pixelvae --limit 40",
        "versions": {"torch": "2.14"},
        "config": {"steps": 10},
        "steps": 10,
        "seconds": 3.0,
        "parameters": 12345,
        "seed": seed,
        "baseline": {"name": "uniform", "value": 64 * math.log(17)},
        "estimates": curve,
        "latents": Latents(value - 6.0, (level,), 5.0, 0.1, 40, 40),
        "probes": (Probe("code", "nearest neighbors", 2, 0.9, 0.04, 40),),
    }
    fields.update(changes)
    write_result(make_result(**fields), folder / "result.json")
    np.save(folder / "nll.npy", nll)
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(0, 200, 5):
            line = {
                "step": step,
                "seconds": step / 3,
                "split": "train",
                "bits_per_dim": 4 - step / 90,
            }
            file.write(json.dumps(line) + "\n")
            if step % 50 == 0:
                line = {**line, "split": "valid", "bits_per_dim": line["bits_per_dim"] + 0.1}
                file.write(json.dumps(line) + "\n")
        file.write('{"step": 200, "spl')  # killed while writing
    (folder / "config.json").write_text("{}")
    if pictures:
        for name in ("samples", "reconstructions", "interpolation", "receptive_field"):
            imsave(folder / f"{name}.png", noise.random((32, 64)), cmap="gray")
        np.save(folder / "images.npy", noise.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8))
    return folder


@pytest.fixture(name="result")
def result_fixture():
    return make_result


@pytest.fixture(name="run")
def run_fixture():
    return make_run

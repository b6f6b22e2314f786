"""A small folder with everything that a command may be given: runs, arrays, pictures, archives."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SMALL = [
    "--data=digits", "--steps=2", "--limit=40", "--hidden-channels=8", "--num-layers=1",
    "--num-samples=4", "--importance-samples=2", "--checkpoint-every=1", "--accelerator=cpu",
    "--devices=1",
]  # fmt: skip
RUNS = {
    "pixelcnn": ["pixelcnn"],
    "labelled": ["pixelcnn", "--condition=label", "--code-dropout=0.5"],
    "autoencoder": ["autoencoder", "--encoder-channels=4"],
    "pixelvae": ["pixelvae", "--encoder-channels=4", "--latent-dim=2"],
}


def call(module: str, *words: str) -> None:
    """Run a command in this process, as `python -m` does; a SystemExit is passed on."""
    argv, sys.argv = sys.argv, [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = argv


def build(folder: Path) -> None:
    """Make the world in an existing, empty folder."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        for name, (pipeline, *flags) in RUNS.items():
            call(f"pipelines.{pipeline}", *SMALL, *flags, f"--out=runs/{name}")
        for name in ("pixelcnn", "labelled"):
            labels = ["--labels=labels.npy"] if name == "labelled" else []
            Path("images.npy").unlink(missing_ok=True)
            _finish(
                "pipelines.compress", f"runs/{name}", "export", "images.npy", "--num=6", *labels
            )
            _finish(
                "pipelines.compress", f"runs/{name}", "encode", "images.npy", f"{name}.pxl",
                "--precision=float32", "--no-compare", *labels,
            )  # fmt: skip
        _finish("pipelines.quality", "runs/pixelcnn", "--num=12")
        os.rename("runs/pixelcnn/classifier", "classifier")
        _arrays()
        _pictures()
        Path("page.md").write_text("# Page\n\n<!-- leaderboard -->\n<!-- /leaderboard -->\n")
        Path("empty").mkdir()
        Path("notes.txt").write_text("not a file of this toolkit\n")
        os.symlink("nowhere", "broken-link")
        os.symlink("loop", "loop")
        os.symlink("runs/pixelcnn", "linked-run")
    finally:
        os.chdir(here)


def _finish(module: str, *words: str) -> None:
    with contextlib.suppress(SystemExit):
        call(module, *words)


def _arrays() -> None:
    noise = np.random.default_rng(0)

    def levels(count: int) -> np.ndarray:
        return noise.integers(0, 17, (count, 8, 8), dtype=np.uint8)

    splits = {split: levels(24) for split in ("train", "test")}
    labels = {f"{split}_labels": noise.integers(0, 3, 24) for split in splits}
    np.savez("data.npz", allow_pickle=False, **splits, **labels)
    Path("arrays").mkdir()
    for split in ("train", "test"):
        np.save(f"arrays/{split}.npy", levels(24))


def _pictures() -> None:
    noise = np.random.default_rng(1)
    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = Path("pictures", split, label)
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = noise.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")

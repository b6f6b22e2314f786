"""Pictures, codes in the embedding projector and hyperparameters in TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from pipelines.data import subset
from pipelines.data.sets import to_display
from pipelines.runs.pictures import in_color
from pipelines.training.logs import EVENTS, Events

MOST_NUMBERS = 1_000_000  # limit for the projector, which reads them as text
LARGEST_SPRITE = 8192  # pixels, a browser's limit for one texture


def add_pictures(run_dir: Path, canvases: Mapping[str, Tensor]) -> None:
    """Show pictures (3, height, width) of bytes, by name."""
    with Events(run_dir) as events:
        for name, canvas in canvases.items():
            events.add(SummaryWriter.add_image, name, canvas)


def add_projector(
    run_dir: Path, codes: Mapping[str, Tensor], x: Tensor, num_levels: int, labels: Any
) -> None:
    """Show codes in the embedding projector, each as its image, in place of earlier ones.

    They are limited to a million numbers, and to thumbnails that fit into one texture.

    Args:
        run_dir: the run.
        codes: (N, …) by the name of the level.
        x: (N, C, H, W) levels of the images.
        num_levels: number of levels of a sub-pixel.
        labels: (N,), or None.
    """
    side = max(x.shape[2:])
    with Events(run_dir) as events:
        for name, values in codes.items():
            shutil.rmtree(run_dir / EVENTS / "00000" / name, ignore_errors=True)
            flat = values.flatten(1)
            most = min(MOST_NUMBERS // flat.shape[1], (LARGEST_SPRITE // side) ** 2)
            rows = subset.draw(len(flat), max(1, most), labels)
            shown = None if labels is None else np.asarray(labels)[rows].tolist()
            thumbnails = _thumbnails(x[rows], num_levels, side)
            events.add(SummaryWriter.add_embedding, flat[rows], shown, thumbnails, tag=name)


def _thumbnails(x: Tensor, num_levels: int, side: int) -> Tensor:
    """Return images as color floats in [0, 1] on black squares, as the projector needs them."""
    shown = in_color(to_display(x, num_levels).float() / 255)
    return F.pad(shown, (0, side - x.shape[3], 0, side - x.shape[2]))


def add_hparams(run_dir: Path, config: Mapping[str, Any], scores: Mapping[str, float]) -> None:
    """Show the settings with the final scores. Call it once, when those are known.

    TensorBoard only reads the first record of a run, so one without scores would stay.
    """
    simple = {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in config.items()
    }
    with Events(run_dir) as events:
        # "." keeps it in the run itself: by default it would be another run next to it
        events.add(SummaryWriter.add_hparams, simple, dict(scores), run_name=".")

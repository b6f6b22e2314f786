"""Pictures of a trained model: samples, reconstructions, interpolations, its receptive field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from decoders.checks import pixel_embedding, sensitivity
from pipelines.data.sets import Images
from pipelines.model import Model
from pipelines.runs import tensorboard, traversal
from pipelines.runs.pictures import grid, save, shade_field
from pipelines.runs.scoring import move, part
from pipelines.runtime.progress import progress


def draw(run_dir: Path, model: Model, images: Images, num: int, seed: int) -> list[Path]:
    """Write the pictures that this model allows: samples, reconstructions and others."""
    files = {"samples.png": sample_grid(model, images, num, seed)}
    if model.encodes_images:
        files["reconstructions.png"] = reconstruction_grid(model, images, 20, seed)
    if model.encoder is not None and len(images) > 1:
        ends = traversal.image_ends(images, min(6, len(images) // 2))
        drawn = traversal.between_images(model, images, ends, 9, seed=seed)
        files["interpolation.png"] = traversal.grid(drawn, images.num_levels)
    if model.decoder.autoregressive and pixel_embedding(model.decoder):
        files["receptive_field.png"] = field_picture(model, images)
    for name, canvas in files.items():
        save(canvas, run_dir / name, replace=True)
    tensorboard.add_pictures(run_dir, {Path(name).stem: canvas for name, canvas in files.items()})
    return [run_dir / name for name in files]


def sample_grid(model: Model, images: Images, num: int, seed: int) -> Tensor:
    """Return a picture of about `num` samples, from the prior or given what the model is given.

    Each label has a row. So has each test image whose code or other annotation is given: the images
    are drawn from all, and each is at the front of its row.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, round(num**0.5))
    if not model.given:
        drawn = model.sample(rows * rows, generator=generator, progress=_show_rows(images))
        return grid(drawn, images.num_levels, rows)
    if model.num_classes:
        columns = max(1, num // images.num_classes)
        y = torch.arange(images.num_classes).repeat_interleave(columns).to(device)
        drawn = model.sample(len(y), y, generator=generator, progress=_show_rows(images))
        return grid(drawn, images.num_levels, columns)
    rows = min(rows, len(images))
    x, y = images.batch(part(images, rows).repeat(rows))
    drawn = model.reconstruct(
        x.to(device), move(y, device), generator=generator, progress=_show_rows(images)
    ).cpu()
    drawn[::rows] = x[::rows]
    return grid(drawn, images.num_levels, rows)


def reconstruction_grid(model: Model, images: Images, num: int, seed: int) -> Tensor:
    """Return a picture of test images, drawn from all, and below each row its reconstructions."""
    device = next(model.parameters()).device
    num = min(num, len(images))
    x, y = images.batch(part(images, num))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = model.reconstruct(
            x.to(device), move(y, device), generator=generator, progress=_show_rows(images)
        )
    columns = min(num, 10)
    rows = num // columns * columns
    pairs = [x[:rows], drawn.cpu()[:rows]]
    lines = rearrange(pairs, "pair (row col) c h w -> (row pair col) c h w", col=columns)
    return grid(lines, images.num_levels, columns)


def field_picture(model: Model, images: Images, num: int = 16) -> Tensor:
    """Return a picture (3, H, W) of bytes of what the middle pixel of test images depends on.

    The pixel itself is red. The brighter another pixel, the stronger the dependence; black is none.
    Square roots are shown, since nearby pixels would otherwise outshine all others.
    """
    device = next(model.parameters()).device
    x, y = images.batch(part(images, num))
    x, y = x.to(device), move(y, device)
    h = None
    if model.encoder is not None:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            h = model.encoder(x, y).h
    field = sensitivity(model.decoder, x, h).cpu()
    _, height, width = images.image_shape
    return shade_field((field / field.max().clamp(min=1e-30)).sqrt(), height // 2, width // 2)


def _show_rows(images: Images) -> Any:
    """Return a progress display over the rows of images being drawn."""
    return lambda rows: progress(rows, images.image_shape[1], "sample", unit="row")

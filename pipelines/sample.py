"""Draw images from a finished run, or complete test images of which a part is kept.

The pictures go to a new file in the run directory, or to --out. A model given labels draws each
label in turn; one given captions, maps or codes takes those of test images, one row each: of images
drawn from all, the same ones every time.
With --complete each row is one test image, what is kept of it, and its completions. Pixels are
drawn in raster order: those that are kept further down have no influence on those above. A model
with latent variables draws them from the prior, whatever is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from pipelines.data.levels import append_levels
from pipelines.data.sets import to_display
from pipelines.model import Model
from pipelines.runs import pictures
from pipelines.runs.load import Run, open_run
from pipelines.runs.networks import make_decoder
from pipelines.runs.sampling import Config, Plan, check, make_plan
from pipelines.runtime.command import exit_codes
from pipelines.runtime.errors import CheckpointError, UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import expanded, free_name, refuse_existing
from pipelines.runtime.progress import Progress
from pipelines.runtime.provenance import prog
from pipelines.training.checkpoint import load_into


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for what a user can mend."""
    with exit_codes():
        config = tyro.cli(Config, args=argv, prog=prog("pipelines.sample"), description=__doc__)
        check(config := expanded(config))
        run = open_run(config.run_dir)
        run = run._replace(model=resized(run, config.size).to(_device(config.device)))
        for file in sample(run, config):
            print(file)


def sample(run: Run, config: Config) -> list[Path]:
    """Draw, and write the files that the flags ask for; returns their names."""
    if config.gif and not run.model.decoder.autoregressive:
        raise UserError(
            f"--gif shows pixel after pixel, and a {type(run.model.decoder).__name__} draws them "
            "all at once"
        )
    png = config.out or free_name(config.run_dir, _stem(config), ".png")
    gif = png.with_suffix(".gif") if config.gif else None
    if gif is not None and config.out is None:
        gif = free_name(gif.parent, gif.stem, ".gif")
    refuse_existing(png, gif, config.npy)
    generator = torch.Generator().manual_seed(config.seed)
    plan = make_plan(run, config, generator)
    x = draw(run.model, plan, config, generator)
    levels = run.spec.num_levels
    with whole_file(png) as stream:
        pictures.to_image(_canvas(to_display(x, levels), plan)).save(stream, format="PNG")
    if gif is not None:
        known = None if plan.known is None else plan.known[1]
        frames = [_canvas(frame, plan) for frame in generation(to_display(x, levels), known)]
        with whole_file(gif) as stream:
            pictures.save_gif(frames, stream)
    if config.npy is not None:
        with whole_file(config.npy) as stream:
            np.save(stream, x.numpy())
            append_levels(stream, levels)
    return [file for file in (png, gif, config.npy) if file is not None]


def draw(model: Model, plan: Plan, config: Config, generator: torch.Generator) -> Tensor:
    """The images of a plan, drawn batch by batch with one progress display; on the CPU."""
    starts = range(0, plan.num, config.batch_size)
    drawn = []
    with Progress(len(starts) * model.decoder.image_shape[1], "sample", unit="row") as bar:
        for start in starts:
            part = slice(start, min(start + config.batch_size, plan.num))
            x = model.decoder.sample(
                None if plan.h is None else plan.h[part],
                num=part.stop - start,
                temperature=config.temperature,
                generator=generator,
                known=None if plan.known is None else (plan.known[0][part], plan.known[1][part]),
                progress=pictures.count_rows(bar),
            )
            drawn.append(x.cpu())
    return torch.cat(drawn)


def generation(x: Tensor, known: Tensor | None, frames: int = 60) -> Iterator[Tensor]:
    """What has been drawn at each of about `frames` moments, grey where nothing is yet.

    A sub-pixel never changes once it is drawn, so that the finished images show every moment.

    Args:
        x: finished images (N, C, H, W), as displayed.
        known: (N, C, H, W), True where a sub-pixel was there from the start.
        frames: how many moments.

    >>> [int((frame != 128).sum()) for frame in generation(torch.zeros(1, 1, 2, 2), None, 4)]
    [0, 1, 2, 3, 4]
    """
    channels, height, width = x.shape[1:]
    place = torch.arange(height * width).view(1, 1, height, width).expand(1, channels, -1, -1)
    steps = min(frames, height * width)
    shown = -1
    for step in range(steps + 1):
        done = place < height * width * step // steps
        done = (done if known is None else done | known).expand(x.shape)
        if int(done.sum()) > shown:  # while only kept parts pass by, nothing happens
            shown = int(done.sum())
            yield torch.where(done, x, torch.full_like(x, 128))


def resized(run: Run, size: str) -> Model:
    """The run's model for images of another height and width, such as "48x64", same weights.

    Raises:
        UserError: no size, or one that the weights or the conditioning do not allow.
    """
    if not size:
        return run.model
    numbers = size.lower().split("x")
    if len(numbers) != 2 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise UserError(f"expected --size HEIGHTxWIDTH, such as 48x64, got {size!r}")
    code_shape = run.model.decoder.cond_shape
    if len(code_shape) == 3:
        raise UserError(
            "--size is for models without conditioning or with a vector: this one's is a map of "
            f"{code_shape[1]}×{code_shape[2]}, drawn for images of {run.spec.image_shape[1]}×"
            f"{run.spec.image_shape[2]}"
        )
    shape = (run.spec.image_shape[0], int(numbers[0]), int(numbers[1]))
    spec = dataclasses.replace(run.spec, image_shape=shape)
    decoder = make_decoder(run.config.decoder, spec, code_shape)
    try:
        load_into(decoder, run.model.decoder.state_dict(), Path("weights.safetensors"))
    except CheckpointError as error:
        raise UserError(
            f"--size {size}: a {type(decoder).__name__} has weights for each place of the image, "
            f"so it draws {run.spec.image_shape[1]}x{run.spec.image_shape[2]} only"
        ) from error
    return Model(decoder, run.model.encoder).eval()


def _canvas(shown: Tensor, plan: Plan) -> Tensor:
    """Images as displayed, (N, C, H, W), laid out as planned."""
    if not plan.front:
        return pictures.grid(shown, 256, plan.columns)
    rows = shown.unflatten(0, (-1, plan.columns))
    rows = torch.cat([torch.stack(plan.front, dim=1), rows], dim=1)
    return pictures.grid(rows.flatten(0, 1), 256, rows.shape[1])


def _stem(config: Config) -> str:
    """A file name that says what was drawn, such as samples-label3-t0.9-seed1."""
    words: Iterable[str] = (
        "samples" if config.complete == "none" else f"complete-{config.complete}",
        "" if config.grid == "square" else config.grid,
        "" if config.label is None else f"label{config.label}",
        "" if config.caption is None else "caption",
        config.size,
        "" if config.temperature == 1 else f"t{config.temperature:g}",
        f"seed{config.seed}",
    )
    return "-".join(word for word in words if word)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} is not to be had here: try cpu") from error
    return device


if __name__ == "__main__":
    main()

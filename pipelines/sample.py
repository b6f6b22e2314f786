"""Draw images from a run, or complete test images: --complete keeps a part, and draws the rest.

The picture is a new file in the run directory, or --out. A model that is given labels draws each
label in turn. One that is given captions, maps or codes takes those of test images, one row for
each. The test images are drawn from all, the same ones every time.
With --complete, each row shows a test image, the part that is kept, and completions. Pixels are
drawn in raster order, so a pixel that is kept has no influence on those before it. Latents are
drawn from the prior, whatever is kept.

Examples:
  pixel-decoders sample mnist-gated --num 100
  pixel-decoders sample runs/first --complete top --temperature 0.9
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pipelines.runs.find import find_run
from pipelines.runs.flags import BatchFlags, NewPicture, RunFlags, check_suffix, hint, parse
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import Amount, Bounded, Count, Positive, flat
from pipelines.runtime.output import refuse_existing


@dataclass(frozen=True)
class LayoutFlags(Bounded):
    """Size, layout and other files."""

    grid: Literal["square", "classes"] = "square"
    """Layout of the samples: nearly square, or one row for each class."""
    size: Annotated[str, hint("HEIGHTxWIDTH", "that of the training images")] = ""
    """Height and width of the samples, such as 48x64."""
    gif: bool = False
    """Also write an animation of the generation, pixel by pixel."""
    npy: Annotated[Path | None, hint("FILE.npy", "not written")] = None
    """Also write the samples' levels (N, C, H, W), uint8, or int64 for more than 256, with the
    number of levels."""


@dataclass(frozen=True)
class Config(RunFlags):
    """Flags of `pixel-decoders sample`."""

    num: Positive = 64
    """Number of images to draw. Rows that belong to test images are filled up."""
    temperature: Amount = 1.0
    """Temperature of each sub-pixel's distribution: below 1 sharpens it, above 1 flattens it, 0
    takes its mode."""
    complete: Literal["none", "top", "bottom", "left", "right", "center"] = "none"
    """Keep this half (or the middle quarter) of test images, and draw the rest."""
    label: Annotated[int | None, hint("INT", "each in turn")] = None
    """Draw this label only."""
    caption: Annotated[str | None, hint("TEXT", "those of test images")] = None
    """Draw images given this caption."""
    out: NewPicture = None
    """Picture to write."""
    seed: Count = 0
    """Random seed of the samples."""
    layout: LayoutFlags = field(default_factory=LayoutFlags)
    where: BatchFlags = field(default_factory=lambda: BatchFlags(score_batch=256))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for an error that the user can fix."""
    with exit_codes():
        config = parse(Config, "pipelines.sample", __doc__, argv)
        find_run(config.run)
        check_suffix("--out", config.out, ".png")
        check_suffix("--npy", config.layout.npy, ".npy")
        refuse_existing(config.out, config.layout.npy)
        from pipelines.runs.sample import sample  # imports torch: flags first

        sample(**flat(config)).show()


if __name__ == "__main__":
    main()

"""Draw interpolations between the codes of test images, or between labels.

Writes a picture with one interpolation in each row, an animation, and a JSON file with measures of
smoothness, as new files in the run directory or next to --out.

Examples:
  pixel-decoders interpolate runs/first --pairs 8 --steps 9
  pixel-decoders interpolate runs/labels --between labels --ends 3 8
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from pipelines.runs.find import find_run
from pipelines.runs.flags import NewPicture, RunFlags, WhereFlags, check_suffix, hint, parse
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import Count, flat
from pipelines.runtime.errors import UserError
from pipelines.runtime.output import refuse_existing


@dataclass(frozen=True)
class Config(RunFlags):
    """Flags of `pixel-decoders interpolate`."""

    pairs: Annotated[int | None, Meta(ge=1), hint("N", "8")] = None
    """Number of interpolations. The test images at their ends are drawn from all."""
    steps: Annotated[int, Meta(ge=2)] = 9
    """Pictures of each interpolation, both ends included."""
    between: Literal["images", "labels"] = "images"
    """Ends of the interpolations: test images or labels."""
    ends: Annotated[tuple[int, ...], hint("A B ...", "drawn")] = ()
    """Indices of the images (or labels) at the ends, two for each interpolation, in place of
    --pairs."""
    method: Literal["auto", "slerp", "lerp"] = "auto"
    """Path between two codes: an arc (slerp) or a straight line (lerp). auto is an arc between
    latents, else a line."""
    out: NewPicture = None
    """Picture to write, with the other files next to it."""
    noise: Literal["common", "independent"] = "common"
    """Random numbers of the pixels: the same at every step of an interpolation, or new."""
    level: Literal["all", "top", "bottom"] = "all"
    """Level that changes, if there are two levels of latents: all; the top, with the noise of the
    bottom fixed; or the bottom, between two draws given the top latents of the first image."""
    seed: Count = 0
    """Random seed of all noise."""
    where: WhereFlags = field(default_factory=WhereFlags)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.ends) % 2:
            raise UserError(
                f"expected two --ends for each interpolation, got {len(self.ends)} numbers"
            )
        if self.ends and self.pairs is not None:
            raise UserError("--ends names the pairs: leave out --pairs")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for an error that the user can fix."""
    with exit_codes():
        config = parse(Config, "pipelines.interpolate", __doc__, argv)
        find_run(config.run)
        check_suffix("--out", config.out, ".png")
        refuse_existing(config.out)
        from pipelines.runs.interpolate import interpolate  # imports torch: flags first

        interpolate(**flat(config)).show()


if __name__ == "__main__":
    main()

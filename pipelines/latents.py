"""Measure the information in a run's codes, and whether its decoder uses them.

Adds to the run's result.json: the rate per level and dimension, active units, mutual information,
the gain of an image's own code over another's, and the accuracy of simple classifiers that find the
label in the code. Also shows the codes in TensorBoard's projector and as pictures of the plane.

Examples:
  pixel-decoders latents runs/first
  pixel-decoders latents runs/first --limit 1000 --fit 0 --no-tsne
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from msgspec import Meta

from pipelines.runs.find import find_run
from pipelines.runs.flags import BatchFlags, RunFlags, hint, parse
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import Count, flat
from pipelines.runtime.errors import UserError


@dataclass(frozen=True)
class Config(RunFlags):
    """Flags of `pixel-decoders latents`."""

    RENAMED: ClassVar[Mapping[str, str]] = {**RunFlags.RENAMED, "--num": "--limit"}

    limit: Count = 0
    """Measure the codes of a stratified sample of N test images (0: all)."""
    fit: Annotated[int | None, Meta(ge=0), hint("N", "5000 if there are labels")] = None
    """Fit the probes to the codes of a stratified sample of N training images (0: no probes)."""
    points: Count = 2000
    """Show the codes of N of the test images in pictures (0: no pictures)."""
    tsne: bool = True
    """Draw a t-SNE as well as the PCA."""
    seed: Count = 0
    """Random seed of the t-SNE."""
    where: BatchFlags = field(default_factory=BatchFlags)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit == 1 or 0 < self.points < 4:
            raise UserError(
                "expected at least two images to measure (--limit), and four to draw (--points)"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for an error that the user can fix."""
    with exit_codes():
        config = parse(Config, "pipelines.latents", __doc__, argv)
        find_run(config.run)
        from pipelines.runs.latents import study_latents  # imports torch: flags first

        study_latents(**flat(config)).show()


if __name__ == "__main__":
    main()

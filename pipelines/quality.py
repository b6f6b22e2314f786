"""Judge the samples of a run: their distance from real images, and whether they are copies.

The Fréchet distance between samples and test images is measured in the features of a network: one
that you name, or a small classifier that is trained once on the labels of the training images. It
is not an FID: compare it only with distances in the same features over as many images. The distance
of the training images is given for comparison.
A model with conditioning draws samples given the annotations of test images. Subsets of the images
are stratified by class. The results are new files in the run directory.

Examples:
  pixel-decoders quality runs/first --num 1000
  pixel-decoders quality runs/first --features mine:network
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from msgspec import Meta

from pipelines.runs.find import find_run
from pipelines.runs.flags import BatchFlags, RunFlags, hint, parse
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import Count, Positive, flat


@dataclass(frozen=True)
class Config(RunFlags):
    """Flags of `pixel-decoders quality`."""

    RENAMED: ClassVar[Mapping[str, str]] = {**RunFlags.RENAMED, "--neighbours": "--neighbors"}

    num: Annotated[int, Meta(ge=2)] = 500
    """Number of samples to draw."""
    features: Annotated[str, hint("FOLDER|MODULE:NAME", "the run's classifier")] = ""
    """Folder of a classifier that this command trained for another run; or your own network, an
    nn.Module or a function that returns one, for floats (B, C, H, W) in [0, 1]. The run's
    classifier is in `classifier` in its directory, and is trained if there is none."""
    neighbors: Positive = 5
    """Number of nearest training images to show next to a sample."""
    seed: Count = 0
    """Random seed of the samples."""
    where: BatchFlags = field(default_factory=lambda: BatchFlags(score_batch=256))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for an error that the user can fix."""
    with exit_codes():
        config = parse(Config, "pipelines.quality", __doc__, argv)
        find_run(config.run)
        from pipelines.runs.quality import judge_samples  # imports torch: flags first

        judge_samples(**flat(config)).show()


if __name__ == "__main__":
    main()

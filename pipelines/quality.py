"""Judge the samples of a run: how close to real images they are, and how close to copies.

The Fréchet distance between samples and test images is taken in the features of a network: one that
you name, or a small classifier that is trained here, once, on the labels of the training images. It
is not an FID, and compares only with distances in the same features over as many images; that of
training images is next to it.
A model that is given something draws given that of test images. Where not all images take part,
those that do are drawn from all, and every class keeps its share. What is found goes to new files
in the run directory.

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
    """Folder of a classifier that another run of this command left; or your own network, an
    nn.Module or a function that makes one, for floats (B, C, H, W) in [0, 1]. The run's classifier
    is in the folder `classifier` of its directory, and trained if it is not there."""
    neighbors: Positive = 5
    """Nearest training images to draw next to a sample."""
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

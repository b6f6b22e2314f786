"""Score a run again: another split, more importance samples, other annotations.

The run's result.json stays as it is. The new result is written next to it, or to --out.

Examples:
  pixel-decoders evaluate runs/first --split train
  pixel-decoders evaluate mnist-latent --data-dir ~/data --importance-samples 1000 --compile
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from msgspec import Meta

from pipelines.runs.find import find_run
from pipelines.runs.flags import BatchFlags, RunFlags, hint, parse
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import Count, flat
from pipelines.runtime.output import refuse_existing


@dataclass(frozen=True)
class DeviceFlags(BatchFlags):
    """Data folder, devices and batch size."""

    devices: str = "auto"
    """Number of devices, a list such as 0,2, or auto."""
    compile: bool = False
    """Use torch.compile for the estimate. It pays off if the estimate takes minutes."""


@dataclass(frozen=True)
class Config(RunFlags):
    """Flags of `pixel-decoders evaluate`."""

    split: Literal["train", "valid", "test"] = "test"
    """Images to score."""
    limit: Count = 0
    """Score a stratified sample of N images (0: as in the run)."""
    importance_samples: Annotated[int | None, Meta(ge=0), hint("K", "100 for a bound")] = None
    """K of the importance-weighted estimate next to a bound (0: no estimate)."""
    condition: Literal["given", "shuffled", "dropped"] = "given"
    """Annotation that the model is given: each image's own, another image's, or none (for models
    trained with --code-dropout). The differences show how much of it the model uses."""
    out: Annotated[Path | None, hint("FILE.json", "result-<split>.json in the run directory")] = (
        None
    )
    """Result file to write. The default name also has the condition, and a number if taken."""
    where: DeviceFlags = field(default_factory=DeviceFlags)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for an error that the user can fix."""
    with exit_codes():
        config = parse(Config, "pipelines.evaluate", __doc__, argv)
        find_run(config.run)
        refuse_existing(config.out)
        from pipelines.runs.evaluate import evaluate  # imports torch: flags first

        evaluate(**flat(config)).show()


class _Callable(ModuleType):
    """This module, which is the function `pipelines.evaluate` too: the two share their name."""

    def __call__(
        self, model: Any, dataset: Any, *, importance_samples: int = 0, batch_size: int = 64
    ) -> Any:
        """Score every image of a data set; see `pipelines.runs.public.evaluate`."""
        from pipelines.runs.public import evaluate  # imports torch: flags first

        return evaluate(
            model, dataset, importance_samples=importance_samples, batch_size=batch_size
        )


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    main()

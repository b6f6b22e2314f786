"""Runs of a user's own model: configuration of `pipelines.train`, which every command can open.

model, data sets ── train ──> config.json (the model as save_pretrained describes it), data.npz (the
                              images, up to 256 MiB), and all else that every run has
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pipelines.data.config import DataConfig
from pipelines.runs.config import ReportConfig, SharedConfig
from pipelines.runs.pipeline import Pipeline
from pipelines.runs.record import ImageSpec
from pipelines.runtime.config import Bounded, DeviceConfig
from pipelines.training.config import TrainConfig

IMAGES = "data.npz"  # in the run directory


@dataclass(frozen=True)
class OwnModel(Bounded):
    """A model by its class and arguments, as `decoders.Recorded` has them."""

    model: dict[str, Any] = field(default_factory=dict)
    """Class and arguments of the model."""


@dataclass(frozen=True)
class OwnReport(ReportConfig):
    """Scores and pictures of the trained model, and the name of its images."""

    data_name: str = "own"
    """Name of the data set in results."""


@dataclass(frozen=True)
class OwnConfig(SharedConfig):
    """Configuration of a run of `pipelines.train`."""

    data: DataConfig = field(default_factory=lambda: DataConfig(data="npz", data_dir=""))
    own: OwnModel = field(default_factory=OwnModel)
    training: TrainConfig = field(default_factory=TrainConfig)
    devices: DeviceConfig = field(default_factory=DeviceConfig)
    report: OwnReport = field(default_factory=OwnReport)

    @property
    def data_name(self) -> str:
        """Name of the data set in results."""
        return self.report.data_name

    def opened(self, run_dir: Path) -> OwnConfig:
        """Return the configuration with the images where the run is now, if it kept them."""
        kept = run_dir / IMAGES
        return self.but(data_dir=str(kept)) if kept.is_file() else super().opened(run_dir)


def build(config: OwnConfig, spec: ImageSpec) -> Any:
    """Return the model that the configuration describes, with new weights.

    This imports its classes. `open_run` has checked that the user trusts them.
    """
    from decoders.recorded import rebuild  # torch takes seconds to import: flags first

    return rebuild(config.own.model, None)


# It has no command line: only a name, a configuration and a function that builds the model.
PIPELINE: Pipeline[Any] = Pipeline("own", cast(Any, OwnConfig), {}, build, doc=__doc__ or "")


def pipeline_of(model: Any) -> Pipeline[Any]:
    """Return the pipeline that trains this model."""
    return dataclasses.replace(PIPELINE, build=lambda config, spec: model)

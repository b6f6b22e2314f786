"""A profiler's trace of a few training steps, for chrome://tracing or Perfetto."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from pipelines.runtime.errors import WriteError
from pipelines.runtime.files import whole_file
from pipelines.runtime.messages import warn

TRACE = "trace.json"


def profiler(run_dir: Path) -> torch.profiler.profile:
    """Return a context manager that writes trace.json; call its `step` after every step.

    It leaves out the first two steps and records three.
    """
    path = run_dir / TRACE

    def export(profile: torch.profiler.profile) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                written = Path(folder) / TRACE
                profile.export_chrome_trace(str(written))
                with whole_file(path, replace=True) as stream, written.open("rb") as trace:
                    shutil.copyfileobj(trace, stream)
        except (OSError, RuntimeError, WriteError) as error:
            warn(f"cannot write {path}: {error}")

    return torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
        on_trace_ready=export,
    )

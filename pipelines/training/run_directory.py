"""A run directory: created by one process, and locked while that process writes to it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from pipelines.runtime.errors import CheckpointError
from pipelines.runtime.files import UNFINISHED, at_home
from pipelines.runtime.lock import LOCK, hold
from pipelines.training.checkpoint import CHECKPOINTS
from pipelines.training.config_file import CONFIG

# Files that a run writes while it holds the lock: a killed one may leave them unfinished.
_LEFTOVER = re.compile(
    r"\.(config\.json|weights\.safetensors|metrics\.jsonl|nonfinite\.jsonl|result\.json|nll\.npy"
    r"|images\.npy|step-\d{9}\.pt|[\w-]+\.png)\.[0-9a-f]{8}\." + UNFINISHED
)


@contextlib.contextmanager
def new_run(out: str, default: str) -> Iterator[Path]:
    """Create and lock the directory of a new run, which no other process uses.

    If nothing is written to it, it is deleted again.

    Args:
        out: its name; if it exists, it must be empty.
        default: its name if `out` is empty; numbered if that is taken.

    Raises:
        CheckpointError: it contains files, or can't be created.
        LockedError: another process writes to it.
    """
    run_dir = at_home(out) if out else _unique(Path(default))
    there = run_dir.exists()
    if there and not run_dir.is_dir():
        raise CheckpointError(f"{run_dir} is a file; give --out the name of a folder")
    _make(run_dir, exist_ok=True)
    try:
        with hold(run_dir):
            if any(path.name != LOCK for path in run_dir.iterdir()):
                raise CheckpointError(
                    f"{run_dir} is not empty: resume that run with --resume, or choose another "
                    "--out"
                )
            yield run_dir
    finally:
        if not there:
            with contextlib.suppress(OSError):  # not empty, as intended
                run_dir.rmdir()


@contextlib.contextmanager
def resumed_run(out: str) -> Iterator[Path]:
    """Lock the directory of a run to resume.

    Raises:
        CheckpointError: there is no run in it.
        LockedError: another process writes to it.
    """
    run_dir = at_home(out)
    if not out or not (run_dir / CONFIG).is_file():
        raise CheckpointError(
            f"there is no run to resume in {run_dir}: it has no {CONFIG}. Check --out, or leave "
            "out --resume to start a new run"
        )
    with hold(run_dir):
        yield run_dir


def remove_leftovers(run_dir: Path) -> None:
    """Delete unfinished files of a killed run; call it with the lock held."""
    for folder in (run_dir, run_dir / CHECKPOINTS):
        for path in folder.glob(f".*.{UNFINISHED}"):
            if _LEFTOVER.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    path.unlink()


def _unique(path: Path) -> Path:
    """Create a directory of this name, or a numbered one if another process has taken it."""
    _make(path.parent, exist_ok=True)
    for number in count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            _make(candidate, exist_ok=False)
            return candidate
    raise AssertionError("unreachable")


def _make(folder: Path, *, exist_ok: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise CheckpointError(
            f"cannot create {folder}: {error.strerror}; choose another --out"
        ) from error

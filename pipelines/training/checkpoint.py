"""Checkpoints of a run. Its directory describes itself, and no file in it is half-written.

    config.json                        model, images and command of the run
    weights.safetensors                averaged weights, which are scored and sampled from
    checkpoints/step-000001000-HASH.pt everything that resuming needs; HASH is its checksum
    metrics.jsonl, nonfinite.jsonl     one JSON object per line

Every file is written atomically. A checkpoint's checksum is part of its name, so both appear in one
step.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pipelines.runtime.errors import CheckpointError
from pipelines.runtime.files import whole_file
from pipelines.runtime.messages import warn

CHECKPOINTS = "checkpoints"
FORMAT = 1  # of a checkpoint; raise it when its contents change
DIGITS = 16  # of the SHA-256 in a checkpoint's name


class _Hashed:
    """A file that also hashes everything written to it."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self.file, self.hash = file, digest

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the checkpoints of a run, newest first, damaged ones included."""
    return sorted((run_dir / CHECKPOINTS).glob("step-*.pt"), reverse=True)


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name.

    >>> step_of(Path("checkpoints/step-000001000-0123456789abcdef.pt"))
    1000
    """
    return int(path.name.split("-")[1])


def save_state(run_dir: Path, state: Mapping[str, Any], *, keep: int, best: int | None) -> Path:
    """Write a checkpoint, then delete all but the newest `keep` and the one of step `best`.

    Args:
        run_dir: the run directory.
        state: tensors, numbers, strings, lists and dicts; state["step"] names the file.
        keep: number of the newest checkpoints to keep.
        best: step of a checkpoint to keep however old it is.

    Raises:
        CheckpointError: the folder can't be created.
        WriteError: the file can't be written; earlier checkpoints are untouched.
    """
    folder = run_dir / CHECKPOINTS
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {folder}: {error.strerror}") from error
    name = f"step-{state['step']:09d}"

    digest = hashlib.sha256()

    def named() -> str:
        return f"{name}-{digest.hexdigest()[:DIGITS]}.pt"

    with whole_file(folder / f"{name}.pt", replace=True, named=named) as file:
        through = _Hashed(file, digest)
        torch.save({"format": FORMAT, **state}, through)  # pyright: ignore[reportArgumentType]
    prune(run_dir, keep=keep, best=best)
    return folder / named()


def prune(run_dir: Path, *, keep: int, best: int | None) -> None:
    """Delete old checkpoints; warn about one that can't be deleted."""
    for path in checkpoints(run_dir)[max(keep, 1) :]:
        if step_of(path) != best:
            try:
                path.unlink()
            except OSError as error:
                warn(f"cannot delete the old checkpoint {path}: {error.strerror}")


class DamagedCheckpointError(CheckpointError):
    """A checkpoint differs from what was written: its checksum is another one."""


def read_state(path: Path) -> dict[str, Any]:
    """Read one checkpoint, with `weights_only=True`, so that a pickle in disguise runs no code.

    Raises:
        DamagedCheckpointError: its checksum differs from the one in its name.
        CheckpointError: it can't be read, or it is not a checkpoint of this toolkit.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if not path.stem.endswith("-" + digest.hexdigest()[:DIGITS]):
        raise DamagedCheckpointError(f"{path} is damaged: its checksum is not the one in its name")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # no memory, or anything that a hostile file makes the reader raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"cannot read {path}, which is not damaged: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else None
        raise CheckpointError(
            f"expected {path} to be a checkpoint of format {FORMAT}, got format {found}: resume "
            "with the version of this toolkit that wrote it"
        )
    return state


def newest_valid(run_dir: Path) -> Path | None:
    """Return the newest checkpoint that is not damaged; None if the run never saved one.

    Damaged ones are skipped with a warning, and renamed to *.damaged.

    Raises:
        CheckpointError: all checkpoints are damaged; or the newest undamaged one can't be read. It
            is not renamed then.
    """
    found = checkpoints(run_dir)
    for path in found:
        try:
            read_state(path)
            return path
        except DamagedCheckpointError as error:
            warn(f"{error}; trying the previous one")
            with contextlib.suppress(OSError):
                path.rename(path.with_name(path.name + ".damaged"))
    if found:
        raise CheckpointError(
            f"every checkpoint in {run_dir / CHECKPOINTS} is damaged; "
            "start again with another --out"
        )
    return None

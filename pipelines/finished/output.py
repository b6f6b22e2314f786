"""Files that a command writes for its user: never over another one, and whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipelines.commands import UserError
from pipelines.training.atomic import sync_folder

C = TypeVar("C")


def expanded(config: C) -> C:
    """A frozen dataclass of flags, with ~ expanded in its paths."""
    paths = {
        field.name: value.expanduser()
        for field in dataclasses.fields(config)  # pyright: ignore[reportArgumentType]
        if isinstance(value := getattr(config, field.name), Path)
    }
    return dataclasses.replace(config, **paths)  # pyright: ignore[reportArgumentType, reportReturnType, reportCallIssue]


def refuse_existing(*files: Path | None) -> None:
    """Raise a UserError if one of the files is there already, or its folder is not."""
    for file in files:
        if file is None:
            continue
        if file.exists():
            raise UserError(f"{file} exists already: choose another name, or delete it first")
        if not file.parent.is_dir():
            raise UserError(f"there is no folder {file.parent}: create it first")


def free_name(folder: Path, stem: str, suffix: str) -> Path:
    """`stem` + `suffix` in the folder, numbered where that is taken: x.png, x-2.png, x-3.png."""
    for number in count(1):
        file = folder / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}"
        if not file.exists():
            return file
    raise AssertionError("unreachable")


@contextmanager
def whole_file(file: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its name once it is complete and on the disk.

    Where an error ends the block, nothing is left behind.

    Raises:
        UserError: the disk is full, the folder read-only, …
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, file)
        sync_folder(file.parent)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)

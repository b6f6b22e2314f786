"""Files that a command writes for its user, never over another file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from pipelines.runtime.errors import TakenError, UserError
from pipelines.runtime.files import at_home, whole_file

C = TypeVar("C")


def expanded(config: C) -> C:
    """Return a frozen dataclass of flags, nested ones included, with ~ expanded in its paths."""
    data: Any = config
    paths: dict[str, Any] = {}
    for field in dataclasses.fields(data):
        value = getattr(data, field.name)
        if isinstance(value, Path):
            paths[field.name] = at_home(value)
        elif dataclasses.is_dataclass(value):
            paths[field.name] = expanded(value)
    return dataclasses.replace(data, **paths)


def refuse_existing(*files: Path | None) -> None:
    """Raise a UserError if a file exists, its folder does not, or two names are one file."""
    named: dict[str, Path] = {}
    for file in files:
        if file is None:
            continue
        other = named.setdefault(os.path.realpath(file), file)
        if other is not file:
            raise UserError(f"{other} and {file} are one file: choose another name for one of them")
        if _is_taken(file):
            raise UserError(f"{file} exists already: choose another name, or delete it first")
        if not file.parent.is_dir():
            raise UserError(f"there is no folder {file.parent}: create it first")


def _is_taken(file: Path) -> bool:
    """Return whether a name is taken, also by a broken link; an impossible name is an OSError."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def free_name(folder: Path, stem: str, suffix: str) -> Path:
    """Return a free name in the folder, numbered if need be: x.png, x-2.png, x-3.png."""
    return next(file for file in _numbered(folder / (stem + suffix)) if not _is_taken(file))


def write_new(file: Path, write: Callable[[Path], object]) -> Path:
    """Make a new file of this name or a numbered one, and return its name.

    Another process may take the name during the hours that it takes to compute the content.

    Args:
        file: the name.
        write: makes the file of the name that it is called with; raises a TakenError if it exists.
    """
    for free in _numbered(file):
        try:
            write(free)
        except TakenError:
            continue
        return free
    raise AssertionError("unreachable")


def _numbered(file: Path) -> Iterator[Path]:
    yield file
    for number in count(2):
        yield file.with_stem(f"{file.stem}-{number}")


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a new JSON file.

    Raises:
        WriteError: it can't be written, or there is such a file.
    """
    with whole_file(file) as stream:
        stream.write((json.dumps(record, indent=2) + "\n").encode())

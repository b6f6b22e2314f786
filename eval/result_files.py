"""Result files and the per-image scores next to them: read strictly, written atomically."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from eval.errors import ResultError
from eval.files import read_array, write_whole
from eval.results import Result, agree


def write_result(result: Result, path: Path | str) -> None:
    """Write a result file atomically; `read_result` reads it again.

    Raises:
        ResultError: it can't be written; nothing has changed.
    """
    write_whole(Path(path), to_bytes(result))


def to_bytes(result: Result) -> bytes:
    """Return the content of a result file.

    Half of a surrogate pair, from bytes of a command line that are not UTF-8, is escaped: JSON
    reads that back unchanged.
    """
    text = json.dumps(result.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ResultError(f"{text[:60]} is not a finite number")
    return value


def _no_constant(name: str) -> Any:
    raise ResultError(f"{name} is not a number")


def scores_beside(path: Path) -> Path:
    """Return the path of a result file's scores: nll.npy for result.json, else <name>.nll.npy."""
    return path.parent / ("nll.npy" if path.name == "result.json" else f"{path.stem}.nll.npy")


def read_result(path: Path | str) -> Result:
    """Read a result file, or a run directory's `result.json`.

    Raises:
        ResultError: it can't be read, or contradicts itself or the scores; names the file.

    >>> read_result("nowhere/result.json")
    Traceback (most recent call last):
    eval.errors.ResultError: nowhere/result.json: No such file or directory
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
        result = Result.from_json(
            json.loads(text, parse_float=_finite, parse_constant=_no_constant)
        )
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ResultError(f"{path}: {reason}") from error
    if scores_beside(path).exists():
        read_scores(path, result)
    return result


def read_scores(path: Path, result: Result) -> np.ndarray:
    """Read the per-image nats (N,), float64, next to a result file.

    Raises:
        ResultError: they are missing, can't be read, or contradict the result.
    """
    file = scores_beside(path)
    if not file.exists():
        raise ResultError(f"{file} is missing: evaluate the run again to write it")
    stored = read_array(file)
    if stored.shape != (result.count,):
        raise ResultError(
            f"{path}: has {result.count} images, but {file.name} has shape {list(stored.shape)}"
        )
    values = np.asarray(stored, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ResultError(f"{file} contains NaN or infinite scores: evaluate the run again")
    if result.kind != "estimate" and not agree(float(values.mean()), result.value):
        raise ResultError(
            f"{path}: has {result.value:.5g} nats, but {file.name} has {values.mean():.5g}"
        )
    return values

"""Metrics of a training run, from its metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.errors import ResultError


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl` into one record per line and split.

    A key `valid/bits_per_dim` is the `bits_per_dim` of the split `valid`. A plain key belongs to
    the line's `split`, or to training if there is none. An unfinished last line, left by a killed
    run, is ignored.

    Raises:
        ResultError: the file or another line can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror}") from error
    records = []
    for place, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if place == len(lines):
                break
            raise ResultError(f"{path}, line {place} is not JSON") from error
        if isinstance(record, dict):
            records += _by_split(record)
    return records


def _by_split(record: dict[str, Any]) -> list[dict[str, Any]]:
    shared = {name: record[name] for name in ("step", "epoch", "seconds") if name in record}
    splits: dict[str, dict[str, Any]] = {}
    for name, value in record.items():
        split, _, rest = name.rpartition("/")
        split = split or str(record.get("split", "train"))
        splits.setdefault(split, {**shared, "split": split})[rest] = value
    return list(splits.values())

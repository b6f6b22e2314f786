"""Comparison of a run's settings and images with those that it started with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import CheckpointError


def differences(
    saved: Any, now: Any, may_differ: Collection[str] = (), name: str = ""
) -> list[str]:
    """Return the fields in which two nested configs differ, as readable lines.

    >>> differences({"a": 1, "b": {"c": 2, "out": "x"}}, {"a": 1, "b": {"c": 3}}, {"out"})
    ['b.c: 2 there, 3 here']
    """
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        found = []
        for key in [*saved, *(key for key in now if key not in saved)]:
            if key not in may_differ:
                inner = f"{name}.{key}" if name else str(key)
                missing = "nothing"
                found += differences(
                    saved.get(key, missing), now.get(key, missing), may_differ, inner
                )
        return found
    if isinstance(saved, (list, tuple)) and isinstance(now, (list, tuple)):
        saved, now = list(saved), list(now)  # JSON has no tuples
    return [] if saved == now else [f"{name}: {saved!r} there, {now!r} here"]


def check_same(
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    source: Path,
    may_differ: Collection[str] = (),
) -> None:
    """Refuse to resume a run with another configuration or data set.

    Raises:
        CheckpointError: some fields differ; the message lists all of them.
    """
    found = differences(saved, now, may_differ)
    if found:
        raise CheckpointError(
            f"{source} has another configuration ({'; '.join(found)}): "
            "give the same flags as before, or choose another --out"
        )

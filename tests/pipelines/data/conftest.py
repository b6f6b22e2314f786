"""Packed images of these tests go to a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.data.samples import write_image


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of each of the classes a and b, in train and valid."""
    for split in ("train", "valid"):
        for name in "ab":
            for index in range(2):
                write_image(tmp_path / "data" / split / name / f"{index}.png", index)
    return tmp_path / "data"

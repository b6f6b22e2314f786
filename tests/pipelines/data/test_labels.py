"""Class folders, and labels that are dropped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.data.config import DataConfig
from pipelines.data.sets import load
from pipelines.runtime.errors import DataError
from tests.pipelines.data.samples import write_image as write


def read(root: Path, **options):
    return load(DataConfig("folder", str(root), **options))


def test_a_class_may_be_absent_from_validation(root: Path):
    shutil.rmtree(root / "valid" / "a")
    splits = read(root, condition="label")
    assert splits.train.labels.tolist() == [0, 0, 1, 1]
    assert splits.test.labels.tolist() == [1, 1]
    assert splits.test.num_classes == 2


@pytest.mark.parametrize(
    ("stray", "reason"),
    [
        ("train/x.png", r"train/x\.png is in no class folder, unlike other images"),
        ("valid/x.png", r"valid/x\.png is in no class folder, unlike other images"),
        ("valid/c/x.png", "valid has the folder c, which train does not"),
    ],
)
def test_labels_that_are_dropped_are_dropped_aloud(root: Path, stray: str, reason: str, capsys):
    write(root / stray)
    with pytest.raises(DataError, match=rf"--condition label: folder .* with nothing \(.*{reason}"):
        read(root, condition="label")
    assert not (root / ".packed").exists(), "said before hours of packing"
    assert read(root).train.labels is None
    assert "WARNING: the images get no labels: " in capsys.readouterr().err


def test_nothing_is_said_where_there_are_no_class_folders(root: Path, capsys):
    shutil.rmtree(root / "train" / "b")
    assert read(root).train.labels is None
    assert "WARNING" not in capsys.readouterr().err

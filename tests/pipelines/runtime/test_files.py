"""Atomic writing: modes and links are kept, files are refused, nothing is left behind."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.runtime.errors import WriteError
from pipelines.runtime.files import at_home, whole_file, write_text


def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    path.chmod(0o640)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one_and_its_target_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_new_file_never_replaces_one(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(WriteError, match="exists already"), whole_file(path):
        path.write_text("another process's")
    assert path.read_text() == "another process's"
    assert os.listdir(tmp_path) == ["file"]


def test_devices_and_folders_are_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (Path("/dev/null"), tmp_path / "folder"):
        with pytest.raises(WriteError, match="not a regular file"):
            write_text(path, "text")


WRITERS = {
    "bytes": lambda stream: stream.write(bytes(9000)),
    "torch": lambda stream: torch.save(torch.zeros(9000), stream),
    "numpy": lambda stream: np.save(stream, np.zeros(9000)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, largest_file, write):
    """torch.save makes a RuntimeError of its own of it."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(WriteError, match=r"cannot write .*file: File too large; what was"):  # noqa: SIM117
        with largest_file(1000), whole_file(path, replace=True) as stream:
            write(stream)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(5, "of another file"), RuntimeError(), SystemExit()])
def test_an_error_of_the_block_s_own_passes_through(tmp_path, error):
    with pytest.raises(type(error)) as raised, whole_file(tmp_path / "file"):
        raise error
    assert raised.value is error
    assert not os.listdir(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "no" / "file"
    with pytest.raises(WriteError, match=f"cannot write {path}: No such file"):
        write_text(path, "text")


def test_the_home_of_nobody_is_a_name_like_any_other(monkeypatch, tmp_path):
    """`Path.expanduser` raises a RuntimeError over it, which would be a bug to a command."""
    assert at_home("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~/x") == tmp_path / "x"

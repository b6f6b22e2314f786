"""Run directories: whole or not at all, damage is seen, and nothing in them can run code."""

import errno
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.runtime.errors import CheckpointError, WriteError
from pipelines.runtime.files import write_text
from pipelines.training import checkpoint
from pipelines.training.checkpoint import DamagedCheckpointError

ROOT = Path(__file__).parents[3]


def save(run_dir, step, *, keep=2, best=None):
    state = {"step": step, "weights": torch.full((100,), float(step)), "nested": [{"a": 1.5}]}
    return checkpoint.save_state(run_dir, state, keep=keep, best=best)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = save(tmp_path, 7)
    state = checkpoint.read_state(path)
    assert state["nested"] == [{"a": 1.5}]
    assert torch.equal(state["weights"], torch.full((100,), 7.0))
    assert checkpoint.newest_valid(tmp_path) == path


def test_the_newest_and_the_best_stay(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step, keep=2, best=2)
    steps = [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)]
    assert steps == [5, 4, 2]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_no_checkpoint_is_no_error(tmp_path):
    assert checkpoint.newest_valid(tmp_path) is None


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path, capsys, damage):
    good = save(tmp_path, 1)
    bad = save(tmp_path, 2)
    damage(bad)
    assert checkpoint.newest_valid(tmp_path) == good
    said = capsys.readouterr().err
    assert "WARNING" in said
    assert bad.name in said
    assert not bad.exists()  # set aside, so that it doesn't count among those to keep
    assert bad.with_name(bad.name + ".damaged").exists()


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    flip(save(tmp_path, 1))
    with pytest.raises(CheckpointError, match="every checkpoint"):
        checkpoint.newest_valid(tmp_path)


def unreadable(path, monkeypatch):
    path.unlink()
    path.mkdir()  # root may read whatever the permissions say, but not this
    return "cannot read .*: Is a directory"


def no_memory(path, monkeypatch):
    def load(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nand a trace")

    monkeypatch.setattr(torch, "load", load)
    return "which is not damaged: DefaultCPUAllocator: can't allocate memory$"


def of_another_version(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path.unlink()
    save(path.parents[1], 2)
    monkeypatch.undo()
    return "format 1, got format 2: resume with the version of this toolkit that wrote it"


@pytest.mark.parametrize("fault", [unreadable, no_memory, of_another_version])
def test_a_checkpoint_that_merely_cannot_be_read_is_left_alone(
    tmp_path, monkeypatch, capsys, fault
):
    """Nothing is passed over and nothing renamed: reading it again may well succeed."""
    save(tmp_path, 1)
    says = fault(save(tmp_path, 2), monkeypatch)
    before = sorted((tmp_path / "checkpoints").iterdir())
    with pytest.raises(CheckpointError, match=says) as raised:
        checkpoint.newest_valid(tmp_path)
    assert not isinstance(raised.value, DamagedCheckpointError)
    assert sorted((tmp_path / "checkpoints").iterdir()) == before
    assert "damaged" not in capsys.readouterr().err


class Malicious:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return (Path.touch, (self.sentinel,))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_malicious_checkpoint_runs_nothing(tmp_path, how):
    sentinel = tmp_path / "owned"
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    unnamed = folder / "unnamed"
    content = {"format": 1, "step": 9, "payload": Malicious(sentinel)}
    if how == "pickle":
        unnamed.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, unnamed)
    digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()[:16]
    unnamed.rename(folder / f"step-000000009-{digest}.pt")
    with pytest.raises(CheckpointError):
        checkpoint.newest_valid(tmp_path)
    assert not sentinel.exists()


def test_a_write_that_the_system_cuts_short_leaves_the_old_one(tmp_path, largest_file):
    good = save(tmp_path, 1)
    with largest_file(1000), pytest.raises(WriteError, match=r"cannot write .* untouched"):
        save(tmp_path, 2)
    assert list((tmp_path / "checkpoints").iterdir()) == [good]
    assert checkpoint.newest_valid(tmp_path) == good


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_or_read_only_folder_leaves_the_old_one(tmp_path, monkeypatch, call, number):
    good = save(tmp_path, 1)
    write_text(tmp_path / "file", "old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(WriteError, match=os.strerror(number)):
        save(tmp_path, 2)
    with pytest.raises(WriteError, match=os.strerror(number)):
        write_text(tmp_path / "file", "new")
    monkeypatch.undo()
    assert checkpoint.newest_valid(tmp_path) == good
    assert (tmp_path / "file").read_text() == "old"


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from pipelines.training import checkpoint
from pipelines.training.run_directory import remove_leftovers

run_dir, kills = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)

def save_forever(step):
    while True:
        step += 1
        state = {"step": step, "weights": torch.full((200_000,), float(step))}
        checkpoint.save_state(run_dir, state, keep=2, best=None)

checkpoint.save_state(run_dir, {"step": 0, "weights": torch.zeros(200_000)}, keep=2, best=None)
random.seed(0)
last, leftovers = 0, 0
for _ in range(kills):
    child = os.fork()
    if child == 0:
        save_forever(last)
    time.sleep(random.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    leftovers += len(list((run_dir / "checkpoints").glob(".*.unfinished")))
    remove_leftovers(run_dir)
    state = checkpoint.read_state(checkpoint.checkpoints(run_dir)[0])  # raises if damaged
    assert state["step"] >= last
    assert torch.equal(state["weights"], torch.full((200_000,), float(state["step"])))
    last = state["step"]
print("saves", last, "cut short", leftovers)
"""


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_in_a_save_loop_always_leaves_a_loadable_checkpoint(tmp_path, kills):
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), str(kills)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert int(words[1]) > 0
    if kills == 100:
        assert int(words[-1]) > 0, "no kill fell into the middle of a write"

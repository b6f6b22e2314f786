"""Lock of a run directory, between real processes that are really killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runtime import lock
from pipelines.runtime.lock import LOCK, LockedError, hold

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from pathlib import Path
from pipelines.runtime.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""
# Each tries for its turns; whoever has one must be alone. In between, one is killed while it holds.
CONTENDER = """
import os, sys
from pathlib import Path
from pipelines.runtime.lock import LockedError, hold
folder, turns = Path(sys.argv[1]), 0
while turns < 30:
    try:
        with hold(folder):
            os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
            os.unlink(folder / "alone")
            turns += 1
    except LockedError:
        pass
"""


def start(script, *args):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def holder(tmp_path):
    process = start(HOLDER, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write_owner(folder, **changes):
    owner = {
        "host": socket.gethostname(),
        "boot": lock._boot(),
        "pid": os.getpid(),
        "since": "then",
    }
    owner["started"] = lock._started(os.getpid())
    (folder / LOCK).write_text(json.dumps({**owner, **changes}))


def test_another_process_is_refused_and_told_who_writes(tmp_path, holder):
    who = f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()}, since"
    with pytest.raises(LockedError, match=who), hold(tmp_path):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_is_no_hindrance(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not os.listdir(tmp_path)


def test_of_many_processes_one_at_a_time_gets_it(tmp_path, holder):
    contenders = [start(CONTENDER, tmp_path) for _ in range(4)]
    holder.kill()
    for contender in contenders:
        contender.communicate(timeout=60)
        assert contender.returncode == 0
    assert not os.listdir(tmp_path)


def test_within_one_process_it_is_held_once(tmp_path):
    with hold(tmp_path):
        with hold(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_another_machine_s_lock_is_left_to_the_user(tmp_path):
    write_owner(tmp_path, host="elsewhere", boot="another", pid=7)
    before = (tmp_path / LOCK).read_bytes()
    says = f"may be in use by process 7 on elsewhere, since then: .* delete {tmp_path / LOCK}"
    with pytest.raises(LockedError, match=says), hold(tmp_path):
        pass
    assert (tmp_path / LOCK).read_bytes() == before


@pytest.mark.parametrize(
    "left",
    [{"pid": 7}, {"host": "a container on this machine"}, {"boot": "before it was started again"}],
)
def test_a_lock_known_to_be_stale_is_taken_over(tmp_path, left):
    write_owner(tmp_path, **left)
    with hold(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 3}'])
def test_without_a_readable_owner_the_kernel_decides(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    if content == '{"pid": 3}':  # of some machine
        with pytest.raises(LockedError, match="an unknown machine"), hold(tmp_path):
            pass
    else:
        with hold(tmp_path):
            pass


class TestWithoutKernelLocks:
    """As on some network file systems."""

    @pytest.fixture(autouse=True)
    def _none(self, monkeypatch):
        monkeypatch.setattr(lock, "_lock", lambda file: False)

    def test_a_living_owner_is_respected(self, tmp_path):
        write_owner(tmp_path)
        with pytest.raises(LockedError, match=f"may be in use by process {os.getpid()}"):  # noqa: SIM117
            with hold(tmp_path):
                pass

    def test_another_process_of_the_same_number_is_not_the_owner(self, tmp_path):
        write_owner(tmp_path, started=1)
        with hold(tmp_path):
            pass

    def test_a_dead_owner_is_gone(self, tmp_path):
        write_owner(tmp_path, pid=2**22 + 1)  # more than the kernel's largest
        with hold(tmp_path):
            pass

    def test_a_new_lock_needs_no_kernel(self, tmp_path):
        with hold(tmp_path):
            assert (tmp_path / LOCK).exists()


def test_a_folder_that_is_not_there_or_not_writable_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"no folder {tmp_path / 'none'}"), hold(tmp_path / "none"):
        pass

"""Packing always ends: dead workers, full disks, other processes, folders that can't be written."""

from __future__ import annotations

import errno
import json
import os
import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import cache, decoding, packing, part, workers
from pipelines.data.cache import cache_folder, cache_folders
from pipelines.data.image_files import Rules
from pipelines.data.listing import list_folder
from pipelines.data.packing import pack
from pipelines.data.sets import DataConfig, load
from pipelines.runtime.errors import DataError

SIDE = 4
RULES = Rules((3, SIDE, SIDE))


def write_images(folder: Path, count: int, seed: int = 0) -> np.ndarray:
    """`count` RGB bitmaps, and their levels (N, 3, 4, 4) in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    for index, image in enumerate(levels):
        Image.fromarray(image).save(folder / f"{index:06d}.bmp")
    return np.moveaxis(levels, 3, 1)


def within(seconds: float, do) -> Exception | None:
    """What `do` raised; fails the test if it takes longer than that."""
    raised: list[Exception] = []

    def call() -> None:
        try:
            do()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"it hangs: still running after {seconds} s"
    return raised[0] if raised else None


# ---- workers -----------------------------------------------------------------------------------

DEATHS = {
    "never starts": ("sys.exit(3)", "exit code 3"),
    "killed at once": ("os.kill(os.getpid(), 9)", "signal 9"),
    "killed later": ("answer(2); os.kill(os.getpid(), 9)", "signal 9"),
    "a bus error": ("answer(1); os.kill(os.getpid(), signal.SIGBUS)", "signal 7"),
    "a full disk": ("answer(2); raise OSError(28, 'No space left')", "[Errno 28] No space left"),
    "half an answer": ("print('[', end='', flush=True); sys.exit(1)", "exit code 1"),
    "out of memory": ("answer(1); raise MemoryError", "MemoryError"),
}


@pytest.mark.parametrize(("death", "cause"), DEATHS.values(), ids=DEATHS.keys())
@pytest.mark.parametrize("count", [1, 3])
def test_a_dead_worker_ends_packing_in_one_sentence(
    tmp_path: Path, monkeypatch, death: str, cause: str, count: int
):
    (tmp_path / "dying.py").write_text(
        "import os, signal, sys\n"
        "sys.stdin.readline()\n"
        "def answer(times):\n"
        "    for _ in range(times): sys.stdin.readline(); print('[]', flush=True)\n"
        f"{death}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(workers, "START", "import dying")
    tasks = [{"start": number} for number in range(12)]
    error = within(60, lambda: list(workers.run_workers(tasks, {}, count)))
    assert isinstance(error, DataError)
    assert cause in str(error)
    assert "run the command again" in str(error)
    assert "\n" not in str(error)


def test_workers_end_when_packing_does(tmp_path: Path, monkeypatch):
    """Also those that are busy: nobody waits for a task whose result nobody wants."""
    (tmp_path / "busy.py").write_text(
        "import sys, time\n"
        "sys.stdin.readline()\n"
        "for line in sys.stdin:\n"
        "    if '\"start\": 0' not in line: time.sleep(1000)\n"
        "    print('[]', flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(workers, "START", "import busy")

    def first_of_many() -> None:
        run = workers.run_workers([{"start": number} for number in range(12)], {}, 3)
        next(run)
        run.close()

    assert within(60, first_of_many) is None


# ---- disks -------------------------------------------------------------------------------------


def test_a_disk_that_is_full_is_said_in_one_sentence(tmp_path: Path):
    """The system's limit on file sizes is met as a full disk is, by every kind of write."""
    write_images(tmp_path / "images", 40)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(DataError, match=r"the packed images need .*--cache-dir"):
            pack(list_folder(tmp_path / "images"), RULES, tmp_path / "cache" / "set")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_the_room_is_taken_before_anything_is_decoded(tmp_path: Path):
    """Blocks, not a file with holes, which a full disk would end later, or by a bus error."""
    shape = (1000, 3, 8, 8)
    status = part.create(tmp_path / f"set-{'0' * 20}.npy", shape).stat()
    assert status.st_size == len(part.npy_header(shape)) + 1000 * 3 * 64
    assert status.st_blocks * 512 >= status.st_size


def test_a_file_system_without_allocation_gets_a_file_with_holes(tmp_path: Path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(part.os, "posix_fallocate", refuse)
    levels = write_images(tmp_path / "images", 3)
    packed = pack(list_folder(tmp_path / "images"), RULES, tmp_path / "set")
    np.testing.assert_array_equal(packed.pixels[:], levels)


def test_a_disk_that_fills_later_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch):
    levels, folder = write_images(tmp_path / "images", 3), tmp_path / "images"

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "fill", fail)
        with pytest.raises(DataError, match=r"No space left on device: make room, .*--cache-dir"):
            pack(list_folder(folder), RULES, tmp_path / "cache" / "set")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    packed = pack(list_folder(folder), RULES, tmp_path / "cache" / "set")
    np.testing.assert_array_equal(packed.pixels[:], levels)


# ---- several packings in one folder ------------------------------------------------------------


def test_a_whole_packing_leaves_those_of_parts_alone(tmp_path: Path):
    """A run with --limit may be packing at the same time; what a killed one left is removed."""
    levels, folder = write_images(tmp_path / "images", 6), tmp_path / "images"
    other, dead = (tmp_path / f"{name}-{'0' * 20}.part" for name in ("set-2", "set"))
    for path in (other, dead):
        path.write_bytes(b"begun")
    packed = pack(list_folder(folder), RULES, tmp_path / "set")
    np.testing.assert_array_equal(packed.pixels[:], levels)
    assert other.exists()
    assert not dead.exists()


def test_sets_of_earlier_listings_are_removed_and_no_others(tmp_path: Path, capsys):
    folder, target = tmp_path / "images", tmp_path / "cache" / "set"
    write_images(folder, 5)
    listing, rows = list_folder(folder), np.array([0, 3])
    gray = Rules((1, SIDE, SIDE), convert=True)
    old = [pack(listing, RULES, target), pack(listing, gray, target)]
    pack(listing, RULES, target.with_name("other"))
    few = pack(listing, Rules((1, 2, 2), convert=True, resize=True), target, rows=rows)
    assert len(list(target.parent.glob("*.npy"))) == 4, "other rules and parts are kept"
    assert len(few.pixels) == 2
    kept = old[0].pixels[:].copy()
    levels = write_images(folder, 6, seed=1)
    new = pack(list_folder(folder), RULES, target)
    np.testing.assert_array_equal(new.pixels[:], levels)
    np.testing.assert_array_equal(old[0].pixels[:], kept, "an open set stays readable")
    names = sorted(path.name.rsplit("-", 1)[0] for path in target.parent.glob("*.npy"))
    assert names == ["other", "set"]
    assert len(list(target.parent.glob("*.json"))) == 2
    assert capsys.readouterr().err.count("removed ") == 3


def test_one_who_waits_for_another_process_says_so(tmp_path: Path, monkeypatch, capsys):
    levels, folder = write_images(tmp_path / "images", 3), tmp_path / "images"
    fill, began = decoding.fill, threading.Event()

    def slow(*args):
        began.set()
        time.sleep(0.5)
        return fill(*args)

    monkeypatch.setattr(decoding, "fill", slow)
    first = threading.Thread(target=lambda: pack(list_folder(folder), RULES, tmp_path / "set"))
    first.start()
    began.wait(30)
    monkeypatch.setattr(decoding, "fill", None)  # it must not pack
    packed = pack(list_folder(folder), RULES, tmp_path / "set")
    first.join()
    np.testing.assert_array_equal(packed.pixels[:], levels)
    assert "waiting for another process, which packs set" in capsys.readouterr().err


# ---- where packed sets are kept ----------------------------------------------------------------


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Read-only data, a user id that nobody knows, no HOME; returns the data folder."""
    source = tmp_path / "data"
    source.mkdir()
    source.chmod(0o555)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    return source


def test_without_a_home_the_cache_is_the_systems_temporary_folder(no_home, tmp_path, capsys):
    folder = cache_folder(no_home)
    assert folder.parent == tmp_path / "tmp" / f"pixel-decoders-{os.getuid()}"
    assert "packed images go to" in capsys.readouterr().err


def test_a_temporary_folder_of_someone_else_is_not_used(no_home, tmp_path, monkeypatch):
    folder = tmp_path / "tmp" / f"pixel-decoders-{os.getuid()}"
    folder.mkdir(parents=True)
    assert folder in cache_folder(no_home).parents
    folder.rmdir()
    folder.symlink_to(tmp_path)
    monkeypatch.setattr(cache.os, "getuid", lambda: 54321)
    folder.rename(folder.with_name("pixel-decoders-54321"))
    with pytest.raises(DataError, match="name another with --cache-dir"):
        cache_folder(no_home)


def test_a_data_folder_in_no_home_is_one_sentence(monkeypatch):
    def unknown(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    for data in ("mnist", "npz", "cifar10", "folder"):
        with pytest.raises(DataError, match="--data-dir ~/data: there is no home folder"):
            load(DataConfig(data))


def test_a_home_that_cannot_be_written_is_passed_over(no_home, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: no_home)
    assert tmp_path / "tmp" in cache_folder(no_home).parents


def test_xdg_cache_home_is_honored_if_it_is_absolute(no_home, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(no_home).parent == tmp_path / "xdg" / "pixel-decoders"
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert tmp_path / "tmp" in cache_folder(no_home).parents


def test_the_flag_goes_before_all_else(no_home, tmp_path):
    folder = cache_folder(no_home, str(tmp_path / "mine"))
    assert folder.parent == tmp_path / "mine"
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(DataError, match=r"none of .*locked.* can: name another with --cache-dir"):
        cache_folder(no_home, str(tmp_path / "locked"))


def test_a_packed_set_in_a_folder_that_became_read_only_is_used(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "data"
    for split in ("train", "test"):
        levels = write_images(source / split, 3)
    load(DataConfig("folder", str(source)))
    source.chmod(0o555)
    monkeypatch.setattr(packing, "_pack", None)  # calling it would raise
    splits = load(DataConfig("folder", str(source)))
    np.testing.assert_array_equal(splits.test.batch(np.arange(3)).x, levels)
    assert not (tmp_path / "cache").exists()
    assert cache_folders(source)[0] == source / ".packed"


def test_the_flag_is_for_data_sets_that_are_packed(tmp_path: Path):
    for split in ("train", "test"):
        write_images(tmp_path / "data" / split, 3)
    load(DataConfig("folder", str(tmp_path / "data"), cache_dir=str(tmp_path / "mine")))
    assert len(list((tmp_path / "mine").rglob("folder-*.npy"))) == 2
    assert not (tmp_path / "data" / ".packed").exists()


def test_the_sidecar_names_the_state_of_the_source(tmp_path: Path):
    write_images(tmp_path / "images", 3)
    listing = list_folder(tmp_path / "images")
    pack(listing, RULES, tmp_path / "set")
    pack(listing, RULES, tmp_path / "set", rows=np.array([1]))
    states = {json.loads(path.read_text())["listing"] for path in tmp_path.glob("*.json")}
    assert len(states) == 1

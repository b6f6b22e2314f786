"""Packing gives exactly the decoded images, once, or nothing, and names what is bad."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import decoding, fingerprint, packing, part
from pipelines.data.cache import cache_folder
from pipelines.data.decoding import Rules
from pipelines.data.listing import list_batches, list_folder
from pipelines.data.packing import pack
from pipelines.data.tars import list_tar
from pipelines.runtime.errors import DataError

SIDE = 8
RULES = Rules((3, SIDE, SIDE))


def write_images(folder: Path, count: int, seed: int = 0) -> np.ndarray:
    """`count` RGB PNGs, and their levels (N, 3, 8, 8) in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    for index, image in enumerate(levels):
        Image.fromarray(image).save(folder / f"{index:06d}.png")
    return np.moveaxis(levels, 3, 1)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Enough images for several workers."""
    folder = tmp_path_factory.mktemp("many")
    return folder, write_images(folder, 1500)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_decode_every_image_to_its_own_row(many, tmp_path: Path, workers: int):
    folder, levels = many
    packed = pack(list_folder(folder), RULES, tmp_path / "set", workers=workers)
    np.testing.assert_array_equal(packed.pixels, levels)
    np.testing.assert_array_equal(packed.kept, np.arange(1500))
    assert not packed.pixels.flags.writeable


def test_the_sidecar_describes_the_array(tmp_path: Path):
    write_images(tmp_path / "images", 5)
    packed = pack(list_folder(tmp_path / "images"), RULES, tmp_path / "set", variant="new")
    (path,) = tmp_path.glob("*.json")
    sidecar = json.loads(path.read_text())
    assert sidecar["count"] == 5
    assert sidecar["shape"] == [3, SIDE, SIDE]
    assert sidecar["variant"] == "new"
    assert sidecar["source"] == str(tmp_path / "images")
    assert sidecar["fingerprint"] == fingerprint.of_pixels(packed.pixels)
    assert np.load(path.with_suffix(".npy"), allow_pickle=False).shape == (5, 3, SIDE, SIDE)


def test_a_packed_set_is_reused_until_its_source_changes(tmp_path: Path, monkeypatch):
    folder = tmp_path / "images"
    write_images(folder, 5)
    pack(list_folder(folder), RULES, tmp_path / "set")
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_pack", None)  # calling it would raise
        pack(list_folder(folder), RULES, tmp_path / "set")
    levels = write_images(folder, 6, seed=1)
    np.testing.assert_array_equal(pack(list_folder(folder), RULES, tmp_path / "set").pixels, levels)
    os.utime(folder / "000003.png", ns=(1, 1))  # the same names and sizes, another time
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_pack", None)
        with pytest.raises(TypeError):
            pack(list_folder(folder), RULES, tmp_path / "set")


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_packing_leaves_nothing(many, tmp_path: Path, monkeypatch, workers: int):
    folder, levels = many

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing.Progress, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pack(list_folder(folder), RULES, tmp_path / "set", workers=workers)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    packed = pack(list_folder(folder), RULES, tmp_path / "set", workers=workers)
    np.testing.assert_array_equal(packed.pixels, levels)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".lock", ".npy"]


def test_a_killed_packing_is_never_taken_for_a_whole_one(many, tmp_path: Path):
    folder, levels = many
    program = (
        "import sys; from pathlib import Path; from pipelines.data.image_files import Rules;"
        "from pipelines.data.listing import list_folder; from pipelines.data.packing import pack;"
        "pack(list_folder(Path(sys.argv[1])), Rules((3, 8, 8)), Path(sys.argv[2]), workers=2)"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "set")]
    root = Path(packing.__file__).parents[2]
    for patience in (0.0, 0.3):  # seconds from the first byte to the signal
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=root)
        while process.poll() is None and not list(tmp_path.glob("*.part")):
            time.sleep(0.001)
        time.sleep(patience)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in tmp_path.glob("*.npy"):  # finished before the signal came
            assert packing._is_whole(path)
    np.testing.assert_array_equal(pack(list_folder(folder), RULES, tmp_path / "set").pixels, levels)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".lock", ".npy"]


def test_a_shortened_packed_file_is_packed_anew(tmp_path: Path):
    levels = write_images(tmp_path / "images", 5)
    pack(list_folder(tmp_path / "images"), RULES, tmp_path / "set")
    (path,) = tmp_path.glob("*.npy")
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1)
    packed = pack(list_folder(tmp_path / "images"), RULES, tmp_path / "set")
    np.testing.assert_array_equal(packed.pixels, levels)


def test_some_images_are_packed_without_decoding_the_others(tmp_path: Path):
    folder, rows = tmp_path / "images", np.array([1, 4, 8])
    levels = write_images(folder, 10)
    (folder / "000009.png").write_bytes(b"")
    listing = list_folder(folder)
    few = pack(listing, RULES, tmp_path / "a", rows=rows)
    np.testing.assert_array_equal(few.pixels[:], levels[rows])
    assert few.kept.tolist() == rows.tolist()
    assert len(pack(listing, RULES, tmp_path / "b", skip_damaged=True).pixels) == 9
    (again,) = tmp_path.glob("b-*.npy")
    few = pack(listing, RULES, tmp_path / "b", rows=rows, skip_damaged=True)
    np.testing.assert_array_equal(few.pixels[np.arange(3)], levels[rows])
    assert [again] == list(tmp_path.glob("b-*.npy")), "the whole set has them"
    few = pack(listing, RULES, tmp_path / "b", rows=np.array([0, 9]), skip_damaged=True)
    assert few.kept.tolist() == [0]
    with pytest.raises(DataError, match=r"000009\.png is empty"):
        pack(listing, RULES, tmp_path / "b", rows=np.array([0, 9]))


def damage(folder: Path, kind: str) -> str:
    """Spoil image 2 in one way; returns what the message must say of it."""
    path = folder / "000002.png"
    pixels = np.full((SIDE, SIDE), 7, dtype=np.uint8)
    if kind == "empty":
        path.write_bytes(b"")
        return "is empty"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
        return "is truncated"
    if kind == "text":
        path.write_text("no image at all, but long enough to look for a header")
        return "not an image"
    if kind == "gray":
        Image.fromarray(pixels).save(path)
        return "is gray, not RGB: --rgb converts it"
    if kind == "rgba":
        Image.new("RGBA", (SIDE, SIDE), (1, 2, 3, 255)).save(path)
        return "is RGBA, not RGB: --rgb converts it"
    if kind == "gray16":
        Image.fromarray(pixels.astype(np.uint16)).save(path)
        return "has 16 bits per channel"
    if kind == "rgb16":
        path.write_bytes(path.read_bytes()[:24] + b"\x10" + path.read_bytes()[25:])
        return "has 16 bits per channel"
    if kind == "cmyk":
        Image.new("CMYK", (SIDE, SIDE)).save(path, format="JPEG")
        return "is CMYK"
    Image.new("RGB", (SIDE + 1, SIDE)).save(path)
    return f"is {SIDE + 1}x{SIDE} pixels, not {SIDE}x{SIDE}"


DAMAGES = ("empty", "truncated", "text", "gray", "rgba", "gray16", "rgb16", "cmyk", "size")


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_image_is_named_with_its_reason_and_can_be_skipped(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture
):
    folder = tmp_path / "images"
    levels = write_images(folder, 5)
    reason = damage(folder, kind)
    with pytest.raises(DataError, match=r"000002\.png ") as caught:
        pack(list_folder(folder), RULES, tmp_path / "set")
    assert reason in str(caught.value)
    packed = pack(list_folder(folder), RULES, tmp_path / "set", skip_damaged=True)
    np.testing.assert_array_equal(packed.pixels, np.delete(levels, 2, axis=0))
    assert packed.kept.tolist() == [0, 1, 3, 4]
    assert reason in capsys.readouterr().err
    with pytest.raises(DataError, match=r"000002\.png "):  # skipping once is not consent for ever
        pack(list_folder(folder), RULES, tmp_path / "set")


def test_several_damaged_images_are_all_named(tmp_path: Path):
    folder = tmp_path / "images"
    write_images(folder, 3)
    for index in (0, 2):
        (folder / f"{index:06d}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"000000\.png is empty.*; 1 more .*000002\.png$"):
        pack(list_folder(folder), RULES, tmp_path / "set")


def test_a_set_with_no_good_image_is_an_error_even_when_skipping(many, tmp_path: Path, monkeypatch):
    folder, _ = many
    wrong = Rules((3, 4, 4))
    with pytest.raises(DataError, match=r"is 8x8 pixels, not 4x4.*; 255 more .*…$"):
        pack(list_folder(folder), wrong, tmp_path / "a", workers=1)  # one task, then no more
    with pytest.raises(DataError, match=r"is 8x8 pixels, not 4x4.*; 1,499 more .*…$"):
        pack(list_folder(folder), wrong, tmp_path / "b", workers=2, skip_damaged=True)


def test_flags_convert_gray_and_rgba_but_never_16_bits(tmp_path: Path):
    folder = tmp_path / "images"
    write_images(folder, 5)
    rules = RULES._replace(convert=True)
    for kind in ("gray", "rgba"):
        damage(folder, kind)
        assert len(pack(list_folder(folder), rules, tmp_path / "set").pixels) == 5
    damage(folder, "gray16")
    with pytest.raises(DataError, match="16 bits"):
        pack(list_folder(folder), rules, tmp_path / "set")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_conversion_agrees_with_pillow(tmp_path: Path, mode: str):
    image = Image.new("RGB", (SIDE, SIDE), (200, 30, 90)).convert(mode)
    image.save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    rgb = decoding.decode(data, Rules((3, SIDE, SIDE), convert=True))
    np.testing.assert_array_equal(np.moveaxis(rgb, 0, -1), np.asarray(image.convert("RGB")))
    gray = decoding.decode(data, Rules((1, SIDE, SIDE), convert=True))
    np.testing.assert_array_equal(gray[0], np.asarray(image.convert("RGBA").convert("L")))


def test_resizing_crops_at_the_center_and_averages(tmp_path: Path):
    levels = np.zeros((8, 16, 3), dtype=np.uint8)
    levels[:, 4:12:2] = 100
    Image.fromarray(levels).save(tmp_path / "x.png")
    rules = Rules((3, 4, 4), resize=True)
    small = decoding.decode((tmp_path / "x.png").read_bytes(), rules)
    assert (small == 50).all()


def test_a_tar_is_read_in_place(tmp_path: Path):
    levels = write_images(tmp_path / "images", 20)
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "images", arcname="train_8x8")
    listing = list_tar(path, tmp_path / "index.npz")
    np.testing.assert_array_equal(pack(listing, RULES, tmp_path / "set").pixels, levels)
    again = list_tar(path, tmp_path / "index.npz")
    assert again.paths == listing.paths
    assert again.name(3) == f"{path}: train_8x8/000003.png"

    packed = tmp_path / "train.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(tmp_path / "images", arcname="train_8x8")
    packed.rename(path)
    with pytest.raises(DataError, match="uncompressed tar"):
        list_tar(path, tmp_path / "other.npz")


def test_npz_batches_are_packed_in_their_order(tmp_path: Path):
    levels = np.random.default_rng(0).integers(0, 256, (30, 3 * SIDE * SIDE), dtype=np.uint8)
    paths = [tmp_path / "train_data_batch_1.npz", tmp_path / "train_data_batch_2.npz"]
    np.savez(paths[0], data=levels[:10])
    np.savez_compressed(paths[1], data=levels[10:])
    listing = list_batches(paths)
    assert listing.count == 30
    assert listing.name(10) == str(paths[1])
    packed = pack(listing, RULES, tmp_path / "set", workers=2)
    np.testing.assert_array_equal(packed.pixels.reshape(30, -1), levels)
    for rows in ([0, 3, 9, 10, 29], [12], [9]):
        few = pack(listing, RULES, tmp_path / "few", rows=np.array(rows))
        np.testing.assert_array_equal(few.pixels[:].reshape(len(rows), -1), levels[rows])

    np.savez(paths[0], pixels=levels)
    with pytest.raises(DataError, match=r"train_data_batch_1.npz .*no array 'data'"):
        list_batches(paths)
    np.savez(paths[0], data=levels[:, :-1])
    with pytest.raises(DataError, match=r"train_data_batch_1.npz is damaged .*191 bytes, not 192"):
        pack(list_batches(paths), RULES, tmp_path / "set", workers=2, skip_damaged=True)
    np.savez(paths[0], data=np.array([{}, 1], dtype=object))
    with pytest.raises(DataError, match="not uint8"):
        list_batches(paths)
    paths[0].write_bytes(paths[1].read_bytes()[:-100])
    with pytest.raises(DataError, match="not a batch of images"):
        list_batches(paths)
    paths[0].write_bytes(pickle.dumps(levels))
    with pytest.raises(DataError, match="not a batch of images"):
        list_batches(paths)


def test_hidden_folders_and_other_files_are_no_images(tmp_path: Path):
    write_images(tmp_path / "b", 1)
    write_images(tmp_path / "a" / "c", 1)
    write_images(tmp_path / ".packed", 1)
    (tmp_path / "notes.txt").write_text("not an image")
    assert list_folder(tmp_path).paths == ["a/c/000000.png", "b/000000.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none holds no images"):
        list_folder(tmp_path / "none")


def test_packed_sets_lie_in_the_folder_or_in_the_cache_of_a_read_only_one(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "data"
    source.mkdir()
    assert cache_folder(source) == source / ".packed"
    source.chmod(0o555)  # respected even by root
    assert cache_folder(source).parent == tmp_path / "cache" / "pixel-decoders"
    other = tmp_path / "other" / "data"
    other.mkdir(parents=True)
    other.chmod(0o555)
    assert cache_folder(other) != cache_folder(source)


def test_no_room_is_said_before_anything_is_decoded(tmp_path: Path, monkeypatch):
    write_images(tmp_path / "images", 2)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(part.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="MiB free"):
        pack(list_folder(tmp_path / "images"), RULES, tmp_path / "set")
    assert not list(tmp_path.glob("*.part"))

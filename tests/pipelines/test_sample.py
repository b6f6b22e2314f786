"""The sample command draws what it is asked for, keeps what it is told to, overwrites nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from pipelines.data.sets import DataConfig, load
from pipelines.finished.plan import kept
from pipelines.sample import main

Train = Callable[..., Path]


@pytest.fixture
def run(train_run: Train, tmp_path: Path) -> Callable[..., Path]:
    """(pipeline, flags) -> a copy of that run, to leave pictures in."""

    def copy(pipeline: str, *flags: str) -> Path:
        run_dir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        shutil.copytree(train_run(pipeline, *flags), run_dir)
        return run_dir

    return copy


def sampled(run_dir: Path, *flags: object) -> np.ndarray:
    """The levels that a command draws."""
    file = run_dir / "drawn.npy"
    file.unlink(missing_ok=True)
    main([str(run_dir), *map(str, flags), "--npy", str(file)])
    return np.load(file)


def fails(capsys, *argv: object) -> str:
    """The one sentence with which a command ends that exits with code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in argv])
    assert exit_.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_draws(run):
    """So many images of the right kind; the seed decides them, and the temperature matters."""
    run_dir = run("pixelcnn")
    x = sampled(run_dir, "--num", 5)
    assert x.shape == (5, 1, 8, 8)
    assert x.dtype == np.uint8
    assert x.max() < 17
    np.testing.assert_array_equal(x, sampled(run_dir, "--num", 5))
    assert (x != sampled(run_dir, "--num", 5, "--seed", 1)).any()
    modes = sampled(run_dir, "--num", 5, "--temperature", 0)
    assert (modes == modes[:1]).all()
    in_parts = sampled(run_dir, "--num", 5, "--batch-size", 2)
    assert in_parts.shape == x.shape


def test_overwrites_nothing(run, capsys):
    """The same command again writes another file; a name that is taken is refused."""
    run_dir = run("pixelcnn")
    before = {path.name for path in run_dir.iterdir()}
    for _ in range(2):
        main([str(run_dir), "--num", "4", "--temperature", "0.9"])
    written = {path.name for path in run_dir.iterdir()} - before
    assert written == {"samples-t0.9-seed0.png", "samples-t0.9-seed0-2.png"}
    out = run_dir / "samples-t0.9-seed0.png"
    content = out.read_bytes()
    assert "exists already" in fails(capsys, run_dir, "--out", out)
    (run_dir / "x.npy").write_bytes(b"")
    assert "exists already" in fails(capsys, run_dir, "--npy", run_dir / "x.npy")
    assert out.read_bytes() == content


@pytest.mark.parametrize("part", ["top", "bottom", "left", "right", "center"])
def test_completion_keeps(run, part):
    """What is kept of each test image is there in each of its completions, and the rest varies."""
    run_dir = run("pixelcnn")
    x = sampled(run_dir, "--num", 9, "--complete", part)
    test = load(DataConfig()).test.batch(np.arange(3)).x.repeat_interleave(3, 0).numpy()
    mask = kept(part, (1, 8, 8)).numpy()
    assert x.shape == test.shape
    assert mask.mean() in (0.5, 0.25)
    np.testing.assert_array_equal(x[:, mask], test[:, mask])
    assert (x[:, ~mask] != test[:, ~mask]).any()


def test_labels(run):
    """--label asks for one; --grid classes gives each class a row; otherwise they come in turn."""
    run_dir = run("pixelcnn", "--condition=label")
    assert sampled(run_dir, "--num", 7, "--label", 3).shape[0] == 7
    assert sampled(run_dir, "--num", 23).shape[0] == 23
    x = sampled(run_dir, "--num", 30, "--grid", "classes")
    assert x.shape[0] == 30
    with Image.open(run_dir / "samples-classes-seed0.png") as picture:
        assert picture.size[1] > 3 * picture.size[0]  # ten rows of three
    assert sampled(run_dir, "--num", 4, "--label", 3, "--complete", "top").shape[0] == 4


def test_caption(run, capsys):
    """--caption is what is drawn; what can't be read is refused."""
    run_dir = run("pixelcnn", "--data=shapes", "--condition=caption")
    caption = "a large circle"
    x = sampled(run_dir, "--num", 2, "--caption", caption)
    assert x.shape[0] == 2
    assert sampled(run_dir, "--num", 4).shape[0] == 4  # the captions of test images
    assert "printable ASCII" in fails(capsys, run_dir, "--caption", "größer")
    assert "got none" in fails(capsys, run_dir, "--caption", " ")


def test_other_kinds(run):
    """A PixelVAE draws from its prior, an autoencoder from the codes of test images."""
    assert sampled(run("pixelvae"), "--num", 6).shape == (6, 1, 8, 8)
    assert sampled(run("pixelvae"), "--num", 4, "--complete", "top").shape[0] == 4
    assert sampled(run("autoencoder"), "--num", 4).shape[0] == 4


def test_sizes(run, capsys):
    """Convolutional decoders draw other sizes with the same weights; others say why not."""
    assert sampled(run("pixelcnn"), "--num", 2, "--size", "5x13").shape == (2, 1, 5, 13)
    same = run("pixelcnn")
    np.testing.assert_array_equal(sampled(same, "--size", "8x8"), sampled(same))
    assert sampled(run("pixelvae"), "--num", 2, "--size", "9x7").shape == (2, 1, 9, 7)
    assert sampled(run("autoencoder"), "--num", 4, "--size", "9x7").shape == (4, 1, 9, 7)
    deconv = run("pixelcnn", "--decoder=deconv")
    assert "draws 8x8 only" in fails(capsys, deconv, "--size", "9x9")
    to_map = run("pixelvae", "--latent-to=map")
    assert "is a map of 8×8" in fails(capsys, to_map, "--size", "9x9")
    for wrong in ("9", "9x", "0x9", "9x9x9", "axb"):
        assert "expected --size" in fails(capsys, same, "--size", wrong)
    assert "leave out --size" in fails(capsys, same, "--size", "9x9", "--complete", "top")


def test_without_the_data(run, tmp_path, capsys):
    """A run whose data set is gone draws what needs no test images."""
    data = tmp_path / "data"
    data.mkdir()
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        np.save(data / f"{split}.npy", random.integers(0, 4, (20, 1, 6, 6), dtype=np.uint8))
    run_dir = run("pixelcnn", "--data=npy", f"--data-dir={data}", "--native-levels=4", "--limit=10")
    moved = data.rename(tmp_path / "moved")
    assert sampled(run_dir, "--num", 3).shape == (3, 1, 6, 6)
    fails(capsys, run_dir, "--complete", "top")
    x = sampled(run_dir, "--num", 1, "--complete", "top", "--data-dir", moved)
    np.testing.assert_array_equal(x[0, :, :3], np.load(moved / "test.npy")[0, :, :3])


def test_animation(run, capsys):
    """The animation begins with nothing, ends with the picture, and only ever adds."""
    run_dir = run("pixelcnn")
    main([str(run_dir), "--num", "4", "--gif"])
    with Image.open(run_dir / "samples-seed0.gif") as animation:
        frames = [
            np.asarray(frame.convert("RGB")).astype(int)
            for frame in ImageSequence.Iterator(animation)
        ]
        size = animation.size
    assert len(frames) > 30
    assert np.ptp(frames[0]) == 0
    changed = [np.abs(b - a).sum(axis=2) > 0 for a, b in pairwise(frames)]
    assert np.sum(changed, axis=0).max() == 1  # a place changes once: from grey to its value
    with Image.open(run_dir / "samples-seed0.png") as picture:
        final = np.asarray(picture.resize(size, Image.Resampling.NEAREST)).astype(int)
    assert np.abs(final - frames[-1]).max() <= 1
    deconv = run("pixelcnn", "--decoder=deconv")
    assert "all at once" in fails(capsys, deconv, "--gif")


def test_refusals(run, tmp_path, capsys):
    """Each wrong input is named in one sentence."""
    run_dir, labelled = run("pixelcnn"), run("pixelcnn", "--condition=label")
    assert "no run directory" in fails(capsys, tmp_path / "none")
    assert "expected --num" in fails(capsys, run_dir, "--num", 0)
    assert "--temperature" in fails(capsys, run_dir, "--temperature", -1)
    assert "--temperature" in fails(capsys, run_dir, "--temperature", "nan")
    assert "--seed" in fails(capsys, run_dir, "--seed", -1)
    assert "--batch-size" in fails(capsys, run_dir, "--batch-size", 0)
    assert "--device" in fails(capsys, run_dir, "--device", "nowhere")
    assert "given labels" in fails(capsys, run_dir, "--label", 3)
    assert "given labels" in fails(capsys, run_dir, "--grid", "classes")
    assert "given captions" in fails(capsys, run_dir, "--caption", "a circle")
    assert "expected --label 0..9, got 10" in fails(capsys, labelled, "--label", 10)
    assert "expected --label 0..9, got -1" in fails(capsys, labelled, "--label", -1)
    assert "every class" in fails(capsys, labelled, "--label", 3, "--grid", "classes")
    assert "to end in .png" in fails(capsys, run_dir, "--out", run_dir / "x.jpg")
    assert "no folder" in fails(capsys, run_dir, "--out", tmp_path / "none" / "x.png")
    (run_dir / "weights.safetensors").unlink()
    assert "weights.safetensors" in fails(capsys, run_dir)


def test_masks():
    """Odd sizes: a half is rounded down, so that something is always left to draw."""
    assert kept("top", (2, 5, 3)).sum() == 2 * 2 * 3
    assert kept("bottom", (1, 5, 3))[0, :, 0].tolist() == [False, False, False, True, True]
    assert torch.equal(kept("left", (1, 2, 5)).flip(2), kept("right", (1, 2, 5)))

"""The sample command draws what it is asked for, keeps what it is told to, overwrites nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from pipelines.runs import scoring
from pipelines.runs.load import load_splits, open_run
from pipelines.runs.sample_plan import kept
from pipelines.sample import main

Train = Callable[..., Path]


def sampled(run_dir: Path, *flags: object) -> np.ndarray:
    """The levels that a command draws."""
    file = run_dir / "drawn.npy"
    file.unlink(missing_ok=True)
    main([str(run_dir), *map(str, flags), "--npy", str(file)])
    return np.load(file)


def test_draws(copy_run):
    """So many images of the right kind; the seed decides them, and the temperature matters."""
    run_dir = copy_run("pixelcnn")
    x = sampled(run_dir, "--num", 5)
    assert x.shape == (5, 1, 8, 8)
    assert x.dtype == np.uint8
    assert x.max() < 17
    np.testing.assert_array_equal(x, sampled(run_dir, "--num", 5))
    assert (x != sampled(run_dir, "--num", 5, "--seed", 1)).any()
    modes = sampled(run_dir, "--num", 5, "--temperature", 0)
    assert (modes == modes[:1]).all()
    in_parts = sampled(run_dir, "--num", 5, "--score-batch", 2)
    assert in_parts.shape == x.shape


def test_overwrites_nothing(copy_run, refusal):
    """The same command again writes another file; a name that is taken is refused."""
    run_dir = copy_run("pixelcnn")
    before = {path.name for path in run_dir.iterdir()}
    for _ in range(2):
        main([str(run_dir), "--num", "4", "--temperature", "0.9"])
    written = {path.name for path in run_dir.iterdir()} - before
    assert written == {"samples-t0.9-seed0.png", "samples-t0.9-seed0-2.png"}
    out = run_dir / "samples-t0.9-seed0.png"
    content = out.read_bytes()
    assert "exists already" in refusal(main, run_dir, "--out", out)
    (run_dir / "x.npy").write_bytes(b"")
    assert "exists already" in refusal(main, run_dir, "--npy", run_dir / "x.npy")
    assert out.read_bytes() == content


@pytest.mark.parametrize("part", ["top", "bottom", "left", "right", "center"])
def test_completion_keeps(copy_run, part):
    """What is kept of each test image is there in each of its completions, and the rest varies."""
    run_dir = copy_run("pixelcnn")
    x = sampled(run_dir, "--num", 9, "--complete", part)
    images = load_splits(open_run(run_dir)).test
    test = images.batch(scoring.part(images, 3)).x.repeat_interleave(3, 0).numpy()
    mask = kept(part, (1, 8, 8)).numpy()
    assert x.shape == test.shape
    assert mask.mean() in (0.5, 0.25)
    np.testing.assert_array_equal(x[:, mask], test[:, mask])
    assert (x[:, ~mask] != test[:, ~mask]).any()


def test_labels(copy_run):
    """--label asks for one; --grid classes gives each class a row; otherwise they come in turn."""
    run_dir = copy_run("pixelcnn", "--condition=label")
    assert sampled(run_dir, "--num", 7, "--label", 3).shape[0] == 7
    assert sampled(run_dir, "--num", 23).shape[0] == 23
    x = sampled(run_dir, "--num", 30, "--grid", "classes")
    assert x.shape[0] == 30
    with Image.open(run_dir / "samples-classes-seed0.png") as picture:
        assert picture.size[1] > 3 * picture.size[0]  # ten rows of three
    assert sampled(run_dir, "--num", 4, "--label", 3, "--complete", "top").shape[0] == 4


def test_caption(copy_run, refusal):
    """--caption is what is drawn; what can't be read is refused."""
    run_dir = copy_run("pixelcnn", "--data=shapes", "--condition=caption")
    caption = "a large circle"
    x = sampled(run_dir, "--num", 2, "--caption", caption)
    assert x.shape[0] == 2
    assert sampled(run_dir, "--num", 4).shape[0] == 4  # the captions of test images
    assert "printable ASCII" in refusal(main, run_dir, "--caption", "größer")
    assert "got none" in refusal(main, run_dir, "--caption", " ")


def test_other_kinds(copy_run):
    """A PixelVAE draws from its prior, an autoencoder from the codes of test images."""
    assert sampled(copy_run("pixelvae"), "--num", 6).shape == (6, 1, 8, 8)
    assert sampled(copy_run("pixelvae"), "--num", 4, "--complete", "top").shape[0] == 4
    assert sampled(copy_run("autoencoder"), "--num", 4).shape[0] == 4


def test_sizes(copy_run, refusal):
    """Convolutional decoders draw other sizes with the same weights; others say why not."""
    assert sampled(copy_run("pixelcnn"), "--num", 2, "--size", "5x13").shape == (2, 1, 5, 13)
    same = copy_run("pixelcnn")
    np.testing.assert_array_equal(sampled(same, "--size", "8x8"), sampled(same))
    assert sampled(copy_run("pixelvae"), "--num", 2, "--size", "9x7").shape == (2, 1, 9, 7)
    assert sampled(copy_run("autoencoder"), "--num", 4, "--size", "9x7").shape == (4, 1, 9, 7)
    deconv = copy_run("pixelcnn", "--decoder=deconv")
    assert "draws 8x8 only" in refusal(main, deconv, "--size", "9x9")
    to_map = copy_run("pixelvae", "--latent-to=map")
    assert "is a map of 8×8" in refusal(main, to_map, "--size", "9x9")
    for wrong in ("9", "9x", "0x9", "9x9x9", "axb"):
        assert "expected --size" in refusal(main, same, "--size", wrong)
    assert "leave out --size" in refusal(main, same, "--size", "9x9", "--complete", "top")


def test_without_the_data(copy_run, tmp_path, refusal):
    """A run whose data set is gone draws what needs no test images."""
    data = tmp_path / "data"
    data.mkdir()
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        np.save(data / f"{split}.npy", random.integers(0, 4, (20, 1, 6, 6), dtype=np.uint8))
    run_dir = copy_run(
        "pixelcnn", "--data=npy", f"--data-dir={data}", "--native-levels=4", "--limit=10"
    )
    moved = data.rename(tmp_path / "moved")
    assert sampled(run_dir, "--num", 3).shape == (3, 1, 6, 6)
    refusal(main, run_dir, "--complete", "top")
    x = sampled(run_dir, "--num", 1, "--complete", "top", "--data-dir", moved)
    tops = np.load(moved / "test.npy")[:, :, :3]
    assert (x[0, :, :3] == tops).all(axis=(1, 2, 3)).sum() == 1
    np.save(moved / "test.npy", random.integers(0, 4, (20, 1, 7, 6), dtype=np.uint8))
    np.save(moved / "train.npy", random.integers(0, 4, (20, 1, 7, 6), dtype=np.uint8))
    other = ["--complete", "top", "--data-dir", moved]
    assert "the --data-dir it was trained on" in refusal(main, run_dir, *other)


def test_animation(copy_run, refusal):
    """The animation begins with nothing, ends with the picture, and only ever adds."""
    run_dir = copy_run("pixelcnn")
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
    deconv = copy_run("pixelcnn", "--decoder=deconv")
    assert "all at once" in refusal(main, deconv, "--gif")


def test_refusals(copy_run, tmp_path, refusal):
    """Each wrong input is named in one sentence."""
    run_dir, labelled = copy_run("pixelcnn"), copy_run("pixelcnn", "--condition=label")
    assert "no run directory" in refusal(main, tmp_path / "none")
    assert "--num must be at least 1" in refusal(main, run_dir, "--num", 0)
    assert "--temperature" in refusal(main, run_dir, "--temperature", -1)
    assert "--temperature" in refusal(main, run_dir, "--temperature", "nan")
    assert "--seed" in refusal(main, run_dir, "--seed", -1)
    assert "--score-batch" in refusal(main, run_dir, "--score-batch", 0)
    assert "called --score-batch" in refusal(main, run_dir, "--batch-size", 2)
    assert "called --accelerator" in refusal(main, run_dir, "--device", "cpu")
    assert "not needed here" in refusal(main, run_dir, "--data-dir", tmp_path)
    assert "given labels" in refusal(main, run_dir, "--label", 3)
    assert "given labels" in refusal(main, run_dir, "--grid", "classes")
    assert "given captions" in refusal(main, run_dir, "--caption", "a circle")
    assert "expected --label 0..9, got 10" in refusal(main, labelled, "--label", 10)
    assert "expected --label 0..9, got -1" in refusal(main, labelled, "--label", -1)
    assert "every class" in refusal(main, labelled, "--label", 3, "--grid", "classes")
    assert "to end in .png" in refusal(main, run_dir, "--out", run_dir / "x.jpg")
    assert "no folder" in refusal(main, run_dir, "--out", tmp_path / "none" / "x.png")
    (run_dir / "weights.safetensors").unlink()
    assert "weights.safetensors" in refusal(main, run_dir)


def test_masks():
    """Odd sizes: a half is rounded down, so that something is always left to draw."""
    assert kept("top", (2, 5, 3)).sum() == 2 * 2 * 3
    assert kept("bottom", (1, 5, 3))[0, :, 0].tolist() == [False, False, False, True, True]
    assert torch.equal(kept("left", (1, 2, 5)).flip(2), kept("right", (1, 2, 5)))

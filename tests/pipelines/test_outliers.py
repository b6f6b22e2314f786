"""A run's own images are no outliers, however they come in; noise is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pipelines.data.sets import DataConfig, load
from pipelines.outliers import main

VAE = ("pixelvae", "--latent-dim=3")


@pytest.fixture(scope="module")
def levels():
    """The first 100 test digits, those that the runs are scored on."""
    return load(DataConfig()).test.batch(np.arange(100)).x.numpy()


def scored(run_dir, *flags):
    before = set(run_dir.glob("outliers*.json"))
    main([str(run_dir), *map(str, flags)])
    (new,) = set(run_dir.glob("outliers*.json")) - before
    assert new.with_suffix(".png").exists()
    return json.loads(new.read_text())


def test_own_images_are_no_outliers(copy_run, levels, tmp_path):
    """As levels, as 8-bit files and by name, the test images score what they scored before."""
    run_dir = copy_run("pixelcnn")
    np.save(tmp_path / "own.npy", levels[:, 0])
    (tmp_path / "own").mkdir()
    for number, image in enumerate(levels[:, 0]):
        gray = -(-image.astype(int) * 256 // 17)  # the smallest byte that becomes this level
        Image.fromarray(gray.astype(np.uint8)).save(tmp_path / "own" / f"{number:03}.png")
    for flags in (
        ["--images", tmp_path / "own.npy", "--native-levels", 17],
        ["--images", tmp_path / "own"],
        ["--images", "digits", "--num", 100],
    ):
        record = scored(run_dir, *flags)
        one, other = record["bits_per_dim"]["test"], record["bits_per_dim"]["images"]
        assert one == pytest.approx(other)
        assert record["auroc"] == pytest.approx(0.5, abs=0.01)
    assert one["mean"] == pytest.approx(
        json.loads((run_dir / "result.json").read_text())["bits_per_dim"]
    )


def test_noise_costs_more_bits(copy_run, tmp_path, capsys):
    """Colour files of another size are turned grey, and fitted if asked to."""
    rng = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for number in range(5):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((20, 16), Image.Resampling.NEAREST).save(
            tmp_path / "noise" / f"{number}.png"
        )
    for args in (("pixelcnn",), VAE, ("autoencoder",)):
        record = scored(copy_run(*args), "--images", tmp_path / "noise", "--resize")
        assert record["bits_per_dim"]["images"]["count"] == 5
        assert record["auroc"] > 0.9
        assert record["kind"] in ("exact", "bound", "given code")
    assert "AUROC" in capsys.readouterr().out


def test_auroc_counts_pairs(copy_run, levels, tmp_path):
    """A set of five, held by hand against every test image."""
    run_dir = copy_run("pixelcnn")
    np.save(tmp_path / "five.npy", levels[10:15])
    record = scored(run_dir, "--images", tmp_path / "five.npy", "--native-levels", 17)
    nll = np.load(run_dir / "nll.npy")
    gaps = nll[10:15, None] - nll[None]
    by_hand = np.where(np.abs(gaps) < 1e-4, 0.5, gaps > 0).mean()
    assert record["auroc"] == pytest.approx(by_hand)


def test_models_given_labels_need_dropout(copy_run, refusal):
    """What images from elsewhere come without must be something that the model can do without."""
    assert "--code-dropout" in refusal(
        main, copy_run("pixelcnn", "--condition=label"), "--images=digits"
    )
    run_dir = copy_run("pixelcnn", "--condition=label", "--code-dropout=0.5")
    record = scored(run_dir, "--images", "digits", "--num", 20)
    assert record["kind"] == "exact"
    assert record["auroc"] == pytest.approx(0.5, abs=0.01)


def test_refuses(train_run, refusal, tmp_path):
    run_dir = train_run("pixelcnn")

    def fails(*flags):
        return refusal(main, run_dir, "--images", *flags)

    assert "there is no nowhere" in fails("nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in fails(tmp_path / "empty")
    np.save(tmp_path / "wide.npy", np.zeros((2, 8, 9), np.uint8))
    assert "expected images of shape [1, 8, 8]" in fails(tmp_path / "wide.npy")
    np.save(tmp_path / "floats.npy", np.zeros((2, 8, 8)))
    assert "expected uint8" in fails(tmp_path / "floats.npy")
    np.save(tmp_path / "bright.npy", np.full((2, 8, 8), 200, np.uint8))
    assert "has level 200" in fails(tmp_path / "bright.npy", "--native-levels", 17)
    Image.new("L", (9, 8)).save(tmp_path / "empty" / "a.png")
    assert "--resize fits" in fails(tmp_path / "empty")
    (tmp_path / "empty" / "a.png").write_bytes(b"no image")
    assert "a.png is truncated or not an image" in fails(tmp_path / "empty")
    assert "--num of at least 0" in fails("digits", "--num", -1)
    assert "--native-levels" in fails("digits", "--native-levels", 1)
    assert not list(run_dir.glob("outliers*"))

"""A run's own images are no outliers, however they come in; noise is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import compress
from pipelines.data.levels import append_levels
from pipelines.data.sets import DataConfig, load
from pipelines.outliers import main

VAE = ("pixelvae", "--latent-dim=3")


@pytest.fixture(scope="module")
def levels():
    """The 100 test digits that the runs are scored on."""
    return load(DataConfig(limit=100)).test.batch(np.arange(100)).x.numpy()


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
    np.savez(tmp_path / "own.npz", train=levels[:0], test=levels, test_labels=np.arange(100))
    (tmp_path / "own").mkdir()
    for number, image in enumerate(levels[:, 0]):
        gray = -(-image.astype(int) * 256 // 17)  # the smallest byte that becomes this level
        Image.fromarray(gray.astype(np.uint8)).save(tmp_path / "own" / f"{number:03}.png")
    for flags in (
        ["--images", tmp_path / "own.npy", "--native-levels", 17],
        ["--images", tmp_path / "own.npy"],
        ["--images", tmp_path / "own.npz"],
        ["--images", tmp_path / "own"],
    ):
        record = scored(run_dir, *flags)
        one, other = record["bits_per_dim"]["test"], record["bits_per_dim"]["images"]
        assert one == pytest.approx(other)
        assert record["auroc"] == pytest.approx(0.5, abs=0.01)
        assert other["drawn"] == "all 100"
    assert one["mean"] == pytest.approx(
        json.loads((run_dir / "result.json").read_text())["bits_per_dim"]
    )


def test_a_part_of_a_sorted_set_is_no_outlier(copy_run, levels, tmp_path):
    """The test images sorted by what they cost: --limit samples them all, not the cheapest."""
    run_dir = copy_run("pixelcnn")
    np.save(tmp_path / "sorted.npy", levels[np.argsort(np.load(run_dir / "nll.npy"))])
    record = scored(run_dir, "--images", tmp_path / "sorted.npy", "--limit", 40)
    assert record["auroc"] == pytest.approx(0.5, abs=0.12)
    both = record["bits_per_dim"]
    assert both["images"]["drawn"] == "40 of 100, drawn with seed 0"
    assert both["test"]["drawn"] == "40 of 100, drawn with seed 0, stratified by label"
    again = scored(run_dir, "--images", tmp_path / "sorted.npy", "--limit", 40)
    assert again == record


def test_folders_keep_their_share(copy_run, tmp_path):
    """Of a folder with a small and a large class, both are drawn in proportion."""
    for name, count in (("a", 10), ("b", 30)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (8, 8), number).save(tmp_path / "images" / name / f"{number}.png")
    run_dir = copy_run("pixelcnn")
    record = scored(run_dir, "--images", tmp_path / "images", "--limit", 8)
    assert record["bits_per_dim"]["images"]["count"] == 8
    folders = [Path(row["file"]).parent.name for row in rows(run_dir)]
    assert sorted(folders) == ["a"] * 2 + ["b"] * 6


def rows(run_dir):
    (file,) = run_dir.glob("outliers*.csv")
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_image_gets_a_line(copy_run, levels, tmp_path):
    """Its file, its nats and bits/dim, and its rank: 1 costs most."""
    run_dir = copy_run("pixelcnn")
    np.save(tmp_path / "own.npy", levels)
    scored(run_dir, "--images", tmp_path / "own.npy")
    found = rows(run_dir)
    assert list(found[0]) == ["file", "row", "nats", "bits_per_dim", "rank"]
    nll = np.load(run_dir / "nll.npy")
    assert [int(row["rank"]) for row in found] == list(range(1, 101))
    order = [int(row["row"]) for row in found]
    assert sorted(order) == list(range(100))
    nats = np.array([float(row["nats"]) for row in found])
    assert (np.diff(nats) <= 0).all()
    np.testing.assert_allclose(nats, nll[order], rtol=1e-5)
    for row in found:
        assert float(row["bits_per_dim"]) == pytest.approx(float(row["nats"]) / 64 / np.log(2))
        assert row["file"] == str(tmp_path / "own.npy")


def test_a_single_picture_is_scored(copy_run, levels, tmp_path, monkeypatch):
    """Its name may be anything: what would be a formula in a spreadsheet is written as a path."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(levels[0, 0] * 15).save("=1+1.png")
    run_dir = copy_run("pixelcnn")
    record = scored(run_dir, "--images", "=1+1.png")
    assert record["bits_per_dim"]["images"]["count"] == 1
    (row,) = rows(run_dir)
    assert (row["file"], row["row"], row["rank"]) == ("./=1+1.png", "0", "1")


def test_transparent_pictures_need_a_background(copy_run, refusal, tmp_path):
    run_dir = copy_run("pixelcnn")
    (tmp_path / "sprites").mkdir()
    Image.new("RGBA", (8, 8)).save(tmp_path / "sprites" / "a.png")
    flags = (run_dir, "--images", tmp_path / "sprites")
    said = refusal(main, *flags)
    assert "a.png has transparent pixels: --background white (black, or r,g,b) fills them" in said
    assert "--resize" not in said
    assert scored(*flags, "--background", "black")["bits_per_dim"]["images"]["count"] == 1
    (tmp_path / "sprites" / "b.png").symlink_to("gone")
    assert "b.png cannot be read (No such file" in refusal(main, *flags, "--background", "black")


def test_own_arrays_are_read_with_the_levels_they_carry(copy_run, refusal, tmp_path):
    """Exported test images and samples are read as what they are, and not as bytes."""
    run_dir = copy_run("pixelcnn")
    compress.main([str(run_dir), "export", str(tmp_path / "test.npy")])
    record = scored(run_dir, "--images", tmp_path / "test.npy")
    assert record["auroc"] == pytest.approx(0.5, abs=0.01)
    said = refusal(main, run_dir, "--images", tmp_path / "test.npy", "--native-levels", 256)
    assert "says that it has 17 levels, but --native-levels is 256" in said
    with (tmp_path / "four.npy").open("wb") as stream:
        np.save(stream, np.zeros((2, 8, 8), np.uint8))
        append_levels(stream, 4)
    assert "has 4 levels, but the run has 17" in refusal(
        main, run_dir, "--images", tmp_path / "four.npy"
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


def test_a_data_set_by_name(copy_run):
    """The run's own test set, and lines that name it."""
    run_dir = copy_run("pixelcnn", "--limit=0")
    record = scored(run_dir, "--images", "digits", "--limit", 0)
    assert record["auroc"] == 0.5
    found = rows(run_dir)
    assert {row["file"] for row in found} == {"digits test"}
    assert len(found) == record["bits_per_dim"]["images"]["count"] == 360


def test_auroc_counts_pairs(copy_run, levels, tmp_path):
    """A set of five, held by hand against every test image."""
    run_dir = copy_run("pixelcnn")
    np.save(tmp_path / "five.npy", levels[10:15])
    record = scored(run_dir, "--images", tmp_path / "five.npy", "--native-levels", 17)
    nll = np.load(run_dir / "nll.npy")
    gaps = nll[10:15, None] - nll[None]
    by_hand = np.where(np.abs(gaps) < 1e-4, 0.5, gaps > 0).mean()
    assert record["auroc"] == pytest.approx(by_hand)


def test_models_given_labels_need_dropout(copy_run, refusal, levels, tmp_path):
    """What images from elsewhere come without must be something that the model can do without."""
    assert "--code-dropout" in refusal(
        main, copy_run("pixelcnn", "--condition=label"), "--images=digits"
    )
    run_dir = copy_run("pixelcnn", "--condition=label", "--code-dropout=0.5")
    np.save(tmp_path / "own.npy", levels)
    record = scored(run_dir, "--images", tmp_path / "own.npy")
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
    np.save(tmp_path / "negative.npy", np.full((2, 8, 8), -1))
    assert "has level -1" in fails(tmp_path / "negative.npy")
    np.save(tmp_path / "bright.npy", np.full((2, 8, 8), 200, np.uint8))
    assert "has level 200" in fails(tmp_path / "bright.npy", "--native-levels", 17)
    bare = fails(tmp_path / "bright.npy")
    assert "this run's images have 17 levels" in bare
    assert "--native-levels" in bare
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 8, 8), np.uint8), b=np.zeros((2, 8, 8), np.uint8))
    assert "'test' or 'valid'" in fails(tmp_path / "two.npz")
    Image.new("L", (9, 8)).save(tmp_path / "empty" / "a.png")
    assert "--resize fits" in fails(tmp_path / "empty")
    (tmp_path / "empty" / "a.png").write_bytes(b"no image")
    assert "a.png is truncated or not an image" in fails(tmp_path / "empty")
    assert "--limit must be at least 0" in fails("digits", "--limit", -1)
    assert "called --limit" in fails("digits", "--num", 8)
    assert "--resize does not apply to a data set" in fails("digits", "--resize")
    assert "--images-dir is for a data set" in fails(tmp_path / "wide.npy", "--images-dir", ".")
    assert "--native-levels" in fails("digits", "--native-levels", 1)
    assert not list(run_dir.glob("outliers*"))

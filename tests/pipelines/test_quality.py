"""Distances vanish between equal sets, copies are found, and one classifier serves many runs."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from eval.quality import nearest_neighbors
from pipelines.data.sets import DataConfig, load
from pipelines.quality import main
from pipelines.runs import classifier, quality
from pipelines.runs.load import load_splits, open_run
from pipelines.runs.quality import Drawn
from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError

LABEL = ("pixelcnn", "--condition=label")


@pytest.fixture(scope="module")
def fabric():
    return make_fabric(DeviceConfig("cpu", "1"))


@pytest.fixture(scope="module")
def trained(fabric, tmp_path_factory):
    """The folder of a classifier of all digits, and their splits with labels."""
    folder = tmp_path_factory.mktemp("classifier")
    splits = load(DataConfig(condition="label"))
    classifier.train(fabric, splits.train, folder)
    return folder, splits


def test_classifier_learns_and_comes_back(trained):
    folder, splits = trained
    network, saved = classifier.load(folder, splits.test)
    x, y = splits.test.batch(np.arange(360))
    assert classifier.accuracy(network, x, y) > 0.8
    assert saved["fingerprint"] == splits.train.fingerprint
    features = classifier.features(network, x[:5])
    assert features.shape == (5, 64)
    in_parts = classifier.features(network, x[:5], batch_size=2)
    np.testing.assert_allclose(in_parts, features, atol=1e-4)
    y = torch.tensor([3, 1])
    nats = network(x[:2], y).distortion
    expected = -network.logits(x[:2]).log_softmax(1)[[0, 1], y]
    torch.testing.assert_close(nats, expected)


def test_equal_sets_are_at_no_distance(trained):
    """Samples that are the test images themselves; noise is farther than training images are."""
    folder, splits = trained
    network, _ = classifier.load(folder, splits.test)
    test = splits.test.batch(np.arange(360)).x
    found = quality.compare(network, Drawn(test, None), splits, 360, 256)["frechet"]
    assert found["samples"] == pytest.approx(0, abs=1e-6)
    assert found["train"] > 1
    noise = torch.randint(17, test.shape, dtype=torch.uint8)
    worse = quality.compare(network, Drawn(noise, None), splits, 360, 256)["frechet"]
    assert worse["train"] == found["train"]
    assert worse["samples"] > 2 * found["train"]


def test_labels_that_were_given_are_recognised(trained):
    """Of test images "drawn" given their own labels, as many as the classifier gets right."""
    folder, splits = trained
    network, _ = classifier.load(folder, splits.test)
    x, y = splits.test.batch(np.arange(50))
    found = quality.compare(network, Drawn(x, np.arange(50)), splits, 50, 256)
    assert found["label_agreement"] == classifier.accuracy(network, x, y)


def test_copies_are_found(trained):
    """Training images passed off as samples: each is its own nearest neighbor."""
    _, splits = trained
    stolen = splits.train.batch(np.array([7, 1400, 3])).x
    pixels = quality.Pixels(splits.train)
    near = nearest_neighbors(stolen.numpy(), pixels, 2, chunk=500)
    assert near.index[:, 0].tolist() == [7, 1400, 3]
    found = quality.copies(near, splits, 3)
    assert found["samples"]["copies"] == 3
    assert found["test"]["copies"] == 0
    assert found["test"]["median"] > 0
    np.testing.assert_array_equal(pixels[5:9], splits.train.batch(np.arange(5, 9)).x.numpy())
    canvas = quality.neighbor_grid(Drawn(stolen, None), near, splits.train)
    assert canvas.shape == (3, 3 * 10 + 2, 3 * 10 + 2)
    assert torch.equal(canvas[:, :, 2:10], canvas[:, :, 12:20])


def test_command_trains_its_classifier_once(copy_run, capsys, monkeypatch):
    """Pictures and numbers under new names each time, the classifier kept between the two."""
    run_dir = copy_run(*LABEL)
    main([str(run_dir), "--num", "20"])
    monkeypatch.setattr(classifier, "train", None)
    main([str(run_dir), "--num", "20", "--seed", "1"])
    printed = capsys.readouterr().out
    assert "not an FID" in printed
    written = {path.name for path in run_dir.glob("quality*")}
    assert written == {
        f"quality{n}{end}"
        for n in ("", "-2")
        for end in ("-neighbors.png", "-classes.png", ".json")
    }
    first, second = (json.loads((run_dir / f"quality{n}.json").read_text()) for n in ("", "-2"))
    assert first["features"] == second["features"]
    assert first["given"] == "the test images' label"
    assert first["label_agreement"] * 20 == pytest.approx(round(first["label_agreement"] * 20))
    assert first["neighbors"]["samples"]["images"] == 20


@pytest.mark.parametrize("pipeline", ["pixelcnn", "pixelvae", "autoencoder"])
def test_another_runs_classifier_serves(copy_run, trained, pipeline):
    """Samples of every kind of model; the very same network makes two runs comparable."""
    folder, _ = trained
    run_dir = copy_run(pipeline)
    main([str(run_dir), "--num", "9", "--features", str(folder)])
    record = json.loads((run_dir / "quality.json").read_text())
    assert record["features"]["folder"] == str(folder)
    assert record["given"] == ("the test images' code" if pipeline == "autoencoder" else "nothing")
    assert not (run_dir / "classifier").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--num", 1], "--num must be at least 2"),
        (["--num", 101], "--num from 2 to 100"),
        (["--num", 20, "--neighbors", 101], "--neighbors from 1 to 100"),
        (["--num", 20, "--score-batch", 0], "--score-batch must be at least 1"),
        (["--num", 20, "--features", "nowhere"], "not a run directory"),
    ],
)
def test_refuses(train_run, refusal, flags, sentence):
    assert sentence in refusal(main, train_run(*LABEL), *flags)


def test_refuses_classifiers_of_other_images(train_run, trained, fabric, refusal, tmp_path):
    run_dir = train_run(*LABEL)
    assert "has no classifier" in refusal(main, run_dir, "--num=20", "--features", run_dir)
    other = tmp_path / "other"
    shutil.copytree(trained[0], other)
    saved = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**saved, "num_levels": 2}))
    assert "of 2 levels, these are" in refusal(main, run_dir, "--num=20", "--features", other)
    run = open_run(run_dir)
    splits = load_splits(run)
    bare = splits._replace(train=dataclasses.replace(splits.train, labels=None))
    with pytest.raises(UserError, match="no labels to train a classifier on"):
        quality.find_network(fabric, run, run_dir, bare, "", "")


def test_a_users_own_network_serves(copy_run, tmp_path, monkeypatch, capsys):
    """Fréchet distances in its features are those of the images it is given, in [0, 1]."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef small():\n    return nn.AvgPool2d(4)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run_dir = copy_run(*LABEL)
    main([str(run_dir), "--num", "20", "--features", "mine:small"])
    assert "in the features of the network mine:small; not an FID" in capsys.readouterr().out
    record = json.loads((run_dir / "quality.json").read_text())
    assert record["features"] == {"network": "the network mine:small"}
    assert 0 < record["frechet"]["samples"] < 4  # the four features lie in [0, 1]
    assert "label_agreement" not in record
    assert not (run_dir / "classifier").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.like:this", "can't be imported (No module named 'nothing'): name"),
        ("math:nothing", "can't be imported (module 'math' has no attribute 'nothing'): name"),
        ("torch.nn:Linear", "can't be called"),
        ("torch.nn:PairwiseDistance", "does not take images of shape (1, 8, 8)"),
        ("builtins:dict", "to return an nn.Module, got a dict"),
    ],
)
def test_what_is_no_network_is_refused(copy_run, name, message, capsys):
    run_dir = copy_run(*LABEL)
    with pytest.raises(SystemExit) as error:
        main([str(run_dir), "--num", "20", "--features", name])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(run_dir.glob("quality*"))

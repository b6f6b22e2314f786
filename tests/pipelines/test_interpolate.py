"""Walks begin and end where they should, move only what they say, and are measured as said."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.interpolate import main
from pipelines.runs import traversal
from pipelines.runs.load import load_splits, open_run
from pipelines.runs.traversal import Ends

VAE = ("pixelvae", "--latent-dim=3")
TWO = ("pixelvae", "--levels-of-latents=2", "--latent-dim=3", "--latent-map", "2", "4", "4")
LABEL = ("pixelcnn", "--condition=label")


def between(first, last):
    return Ends(np.array([first]), np.array([last]))


@pytest.fixture
def opened(train_run):
    def open_one(*args):
        run = open_run(train_run(*args))
        return run.model, load_splits(run).test

    return open_one


def test_files_and_numbers(copy_run, capsys):
    """A picture, an animation there and back, and the smoothness, which is that of the pictures."""
    run_dir = copy_run(*VAE)
    main([str(run_dir), "--pairs", "2", "--steps", "4"])
    printed = capsys.readouterr().out
    png = run_dir / "interpolation-slerp.png"
    record = json.loads(png.with_suffix(".json").read_text())
    assert [str(png.with_suffix(s)) in printed for s in (".png", ".gif", ".json")] == [True] * 3
    with Image.open(png) as picture, Image.open(png.with_suffix(".gif")) as animation:
        assert picture.width % (6 * 10 + 2) == 0  # 4 steps between 2 images, 8 pixels and a gap
        assert animation.n_frames <= 7
    run = open_run(run_dir)
    test = load_splits(run).test
    ends = traversal.image_ends(test, 2)
    walks = traversal.between_images(run.model, test, ends, 4)
    changes = walks.x.double().diff(dim=0).abs().mean()
    assert record["smoothness"]["mean"] == pytest.approx(float(changes))
    off = (walks.x[0].double() - test.batch(ends.first).x.double()).abs().mean()
    assert record["reconstruction"]["first"] == pytest.approx(float(off))
    assert record["ends"] == np.stack(ends, axis=1).tolist()


def test_ends_are_the_codes_of_the_images(opened):
    """The first picture is drawn from the first image's code, with the walk's noise."""
    model, test = opened(*VAE)
    x = traversal.between_images(model, test, between(4, 7), 3, seed=5).x
    noise = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(5))
    for place, image in ((0, 4), (2, 7)):
        (posterior,) = model.encoder.posterior(test.batch(np.array([image])).x)
        h = model.encoder.to_h((posterior.mean,))
        assert torch.equal(x[place], model.decoder.sample(h, noise=noise))


def test_common_noise_changes_nothing_where_the_code_stays(opened):
    """From an image to itself nothing moves, unless the noise is drawn anew at every step."""
    for args in (VAE, LABEL, ("autoencoder",)):
        model, test = opened(*args)
        x = traversal.between_images(model, test, between(3, 3), 3).x
        assert (x == x[:1]).all()
        x = traversal.between_images(model, test, between(3, 3), 3, noise="independent").x
        assert (x != x[:1]).any()


def test_top_moves_while_the_bottom_keeps_its_noise(opened):
    """A walk of the top level and its reverse meet the same pictures."""
    model, test = opened(*TWO)
    head = model.encoder.top_head
    with torch.no_grad():  # so that the top differs between images, in its direction too
        head.weight.mul_(500)
        means = model.encoder.posterior(test.batch(np.arange(10)).x)[0].mean
        head.bias[:3] -= means.mean(0)
    pairs = Ends(np.arange(5), np.arange(5, 10))
    there = traversal.between_images(model, test, pairs, 3, level="top").x
    back = traversal.between_images(model, test, Ends(pairs.last, pairs.first), 3, level="top").x
    assert torch.equal(there, back.flip(0))
    assert (there[0] != there[-1]).any()


def test_bottom_moves_while_the_top_stays(opened):
    """Only the first image's top level counts; there is no last image."""
    model, test = opened(*TWO)
    walks = [
        traversal.between_images(model, test, between(0, last), 3, level="bottom")
        for last in (5, 6)
    ]
    assert torch.equal(walks[0].x, walks[1].x)
    assert walks[0].last is None
    assert (walks[0].x[0] != walks[0].x[-1]).any()


def test_between_labels(opened, copy_run):
    """The ends are drawn given the two labels; every pair of labels comes once."""
    model, _ = opened(*LABEL)
    x = traversal.between_labels(model, between(2, 9), 3, seed=1).x
    noise = torch.rand((1, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    assert torch.equal(x[2], model.sample(1, torch.tensor([9]), noise=noise))
    pairs = list(zip(*traversal.label_ends(90, 10), strict=True))
    assert len(set(pairs)) == 90
    assert all(first != last for first, last in pairs)
    run_dir = copy_run(*LABEL)
    main([str(run_dir), "--between", "labels", "--pairs", "3", "--steps", "2"])
    record = json.loads((run_dir / "interpolation-lerp-between-labels.json").read_text())
    assert record["ends"] == [[0, 1], [1, 2], [2, 3]]
    assert record["reconstruction"] == {}


def test_an_arc_only_where_codes_are_round(opened):
    assert traversal.default_method(opened(*VAE)[0]) == "slerp"
    assert traversal.default_method(opened("pixelvae", "--latent-dim=1")[0]) == "lerp"
    assert traversal.default_method(opened(*LABEL)[0]) == "lerp"
    assert traversal.default_method(opened("autoencoder")[0]) == "lerp"


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--pairs", 0], "--pairs must be at least 1"),
        (["--pairs", 51], "at most 50, the number of pairs of 100 test images"),
        (["--steps", 1], "--steps must be at least 2"),
        (["--ends", 1, 2, 3], "two --ends for each interpolation"),
        (["--ends", 1, 100], "from 0 to 99"),
        (["--level", "top"], "two levels"),
        (["--between", "labels"], "given labels"),
        (["--out", "x.gif"], "end in .png"),
        (["--seed", -1], "--seed"),
        (["--ends", 1, 2, "--pairs", 1], "leave out --pairs"),
    ],
)
def test_refuses(train_run, refusal, flags, sentence):
    assert sentence in refusal(main, train_run(*VAE), *flags)


def test_refuses_models_without_codes_and_taken_names(copy_run, refusal, tmp_path):
    assert "has no encoder" in refusal(main, copy_run("pixelcnn"))
    assert "no run directory" in refusal(main, tmp_path / "nowhere")
    out = tmp_path / "x.png"
    out.with_suffix(".json").write_text("mine")
    assert "exists already" in refusal(main, copy_run(*VAE), "--out", out)
    assert not out.exists()
    assert "at most 90" in refusal(main, copy_run(*LABEL), "--between=labels", "--pairs=91")

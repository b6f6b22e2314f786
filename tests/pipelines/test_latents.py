"""What the latents say ends up in the result, and nothing else of it changes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eval import compare, read_result, report, write_result
from pipelines.data.sets import to_display
from pipelines.latents import main
from pipelines.runs import latent_codes, scoring
from pipelines.runs.load import load_splits, open_run

VAE = ("pixelvae", "--latent-dim=3")
ABSENT = "cuda" if torch.backends.mps.is_available() else "mps"  # no machine has both
TWO = ("pixelvae", "--levels-of-latents=2", "--latent-dim=3", "--latent-map", "2", "4", "4")


@pytest.fixture
def vae(train_run):
    run = open_run(train_run(*VAE))
    return run.model, load_splits(run).test


def test_every_run_with_a_code_ends_with_its_latents(train_run):
    """Rates per level and dimension add up to the rate of the result; probes stand beside."""
    for args, dims in ((VAE, [3]), (TWO, [3, 32])):
        result = read_result(train_run(*args))
        latents = result.latents
        assert [level.dims for level in latents.levels] == dims
        assert [level.rate for level in latents.levels] == pytest.approx(result.rates)
        for level in latents.levels:
            assert sum(level.rate_per_dimension) == pytest.approx(level.rate)
            assert level.mutual_information_cap == pytest.approx(np.log(100))
        assert latents.scored == latents.count == 100
        names = {probe.features for probe in result.probes}
        assert names == ({"code"} if len(dims) == 1 else {"top", "bottom"}) | {"pixels", "pca"}
    free = read_result(train_run("autoencoder")).latents.levels
    assert [level.rate for level in free] == [None]
    assert read_result(train_run("pixelcnn")).latents is None
    assert read_result(train_run("pixelcnn", "--condition=label")).latents is None


def test_command_only_adds(copy_run, capsys):
    """All other keys of result.json stay, and pictures appear; twice is as good as once."""
    run_dir = copy_run(*TWO)
    before = json.loads((run_dir / "result.json").read_text())
    for _ in range(2):
        main([str(run_dir), "--points", "30"])
    after = json.loads((run_dir / "result.json").read_text())
    assert {**after, "latents": 0, "probes": 0} == {**before, "latents": 0, "probes": 0}
    assert after["latents"]["levels"] == before["latents"]["levels"]
    for level in ("top", "bottom"):
        for method in ("pca", "tsne"):
            assert (run_dir / f"latents-{level}-{method}.png").stat().st_size > 1000
    assert after["latents"]["verdict"] in capsys.readouterr().out


def test_codes_are_the_posteriors(vae):
    model, test = vae
    chosen = np.array([90, 3, 4, 50, 6, 7, 8])
    found = latent_codes.encode(model, test, chosen, batch_size=3)
    x = test.batch(chosen).x
    with torch.no_grad():
        (q,) = model.encoder.posterior(x)
    torch.testing.assert_close(found.levels[0], (q.mean, q.std))
    assert torch.equal(found.x, x)
    assert found.labels.tolist() == test.labels[chosen].tolist()
    few = found.part(3)
    assert [len(few.x), len(few.levels[0][0]), len(few.labels)] == [3, 3, 3]


def test_gain_is_that_over_the_code_of_another_image_of_the_whole_set(vae):
    """By hand, on five images of 100; a decoder that ignores its code gains nothing."""
    model, test = vae
    chosen = np.array([1, 20, 21, 50, 99])
    found = latent_codes.gain(model, test, chosen, batch_size=2)
    others = scoring.others(len(test))[chosen]
    assert not np.isin(others, chosen).all()
    h = []
    with torch.no_grad():
        for part in (chosen, others):
            noise = scoring.latent_noise(((3,),), scoring.CODES, part, 0, 1)
            h.append(model.encoder(test.batch(part).x, noise=noise).h)
        x = test.batch(chosen).x
        by_hand = model.decoder.log_prob(x, h[0]) - model.decoder.log_prob(x, h[1])
        for name, weight in model.decoder.named_parameters():
            if "cond" in name:
                weight.zero_()
    np.testing.assert_allclose(found.values, by_hand.numpy(), rtol=1e-4, atol=1e-4)
    assert latent_codes.gain(model, test, chosen).mean == 0


def test_worth_of_a_code_does_not_depend_on_the_order_of_the_set():
    """Two classes with a code each: sorted by class or mixed, half of the others differ."""
    count = 4000
    labels = np.repeat([0, 1], count // 2)
    differs = labels != labels[scoring.others(count)]
    assert differs.mean() == pytest.approx(0.5, abs=0.03)


def test_equal_images_end_in_a_result(copy_run, tmp_path):
    """All codes are equal, and what divides by their spread must not end the interpreter."""
    x = np.full((16, 8, 8), 7, np.uint8)
    y = np.arange(16) % 2
    np.savez(tmp_path / "x.npz", train=x, test=x[:8], train_labels=y, test_labels=y[:8])
    run_dir = copy_run("pixelvae", "--latent-dim=3", "--data=npz", f"--data-dir={tmp_path}/x.npz")
    main([str(run_dir)])
    result = read_result(run_dir)
    assert not any(result.latents.levels[0].active)
    assert {probe.accuracy for probe in result.probes} == {0.5}
    assert (run_dir / "latents-tsne.png").exists()


def test_images_of_a_study_are_recorded(copy_run):
    """Those with codes, those with swapped codes, and those that probes were fitted to."""
    run_dir = copy_run(*VAE)
    main([str(run_dir), "--limit", "20", "--fit", "30", "--points", "0"])
    assert read_result(run_dir).latents.images == {
        "codes": "20 of 100, drawn with seed 0, stratified by label",
        "swapped": "20 of 100, drawn with seed 0, stratified by label",
        "fitted": "30 of 100, drawn with seed 0, stratified by label",
    }


def test_tensorboard_gets_projector_and_final_scores(copy_run):
    """Codes with labels and thumbnails, once however often; settings beside the final scores."""
    run_dir = copy_run(*VAE, "--num-samples=4")
    main([str(run_dir), "--no-tsne"])
    events = run_dir / "tensorboard"
    assert (events / "projector_config.pbtxt").read_text().count("embeddings {") == 1
    folder = events / "00000" / "code"
    run = open_run(run_dir)
    labels = load_splits(run).test.labels
    assert (folder / "metadata.tsv").read_text().split() == [str(label) for label in labels]
    rows = [line.split("\t") for line in (folder / "tensors.tsv").read_text().splitlines()]
    assert np.shape(rows) == (100, 3)
    assert (folder / "sprite.png").exists()
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    scalars = accumulator.Scalars("test/bits_per_dim")
    assert [one.value for one in scalars] == pytest.approx([read_result(run_dir).bits_per_dim])
    assert "_hparams_/session_start_info" in accumulator.summary_metadata
    drawn = {"samples", "reconstructions", "interpolation", "receptive_field"}
    assert set(accumulator.Tags()["images"]) == drawn


def test_reports_and_comparisons_read_what_is_kept(copy_run, tmp_path):
    """images.npy holds the scored images in order, for display; both pages can be written."""
    a, b = copy_run(*VAE), copy_run(*TWO)
    test = load_splits(open_run(a)).test
    shown = to_display(test.batch(np.arange(100)).x, 17).numpy()
    np.testing.assert_array_equal(np.load(a / "images.npy"), shown)
    assert compare.main([str(a), str(b), "--out", str(tmp_path / "compare.html")]) == 0
    assert report.main([str(a), str(b), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "nearest neighbors" in page
    assert "log N" in page


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--limit", 1], "at least two images"),
        (["--limit", -1], "--limit must be at least 0"),
        (["--fit", 3], "at least 5 training images"),
        (["--points", 3], "four to draw"),
        (["--score-batch", 0], "--score-batch must be at least 1"),
        (["--accelerator", ABSENT], f"--accelerator {ABSENT}"),
    ],
)
def test_refuses(copy_run, refusal, flags, sentence):
    assert sentence in refusal(main, copy_run(*VAE), *flags)


def test_refuses_runs_without_codes_or_results(copy_run, refusal):
    assert "kind 'exact'" in refusal(main, copy_run("pixelcnn"))
    run_dir = copy_run(*VAE)
    result = read_result(run_dir)
    write_result(dataclasses.replace(result, fingerprint="other"), run_dir / "result.json")
    assert "other images" in refusal(main, run_dir)
    (run_dir / "result.json").write_text("{")
    assert "can't be added to" in refusal(main, run_dir)
    (run_dir / "result.json").unlink()
    assert "pixel-decoders evaluate" in refusal(main, run_dir)

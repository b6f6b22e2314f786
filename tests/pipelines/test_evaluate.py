"""Scoring again gives the same numbers, and says what was given; the run itself is left alone."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from eval import read_result
from pipelines.data.sets import DataConfig, load
from pipelines.data.subset import draw
from pipelines.evaluate import main
from pipelines.runs.evaluate import Shuffled
from pipelines.runs.load import load_splits, open_run
from pipelines.training.weights import save_weights

VAE = ("pixelvae", "--latent-dim=3")
DROPOUT = ("pixelcnn", "--condition=label", "--code-dropout=0.5")


def scored(run_dir, *flags):
    """The result that a call adds to the run."""
    before = set(run_dir.glob("result*.json"))
    main([str(run_dir), "--accelerator=cpu", "--importance-samples=0", *map(str, flags)])
    (file,) = set(run_dir.glob("result*.json")) - before
    return read_result(file)


def test_scores_repeat(copy_run):
    """Value, per-image scores and provenance are those of the run, whose own files stay."""
    for args in (("pixelcnn",), VAE):
        run_dir = copy_run(*args)
        before = (run_dir / "result.json").read_bytes()
        first, again = read_result(run_dir), scored(run_dir)
        assert again.value == pytest.approx(first.value, rel=1e-6)
        assert (again.kind, again.fingerprint) == (first.kind, first.fingerprint)
        assert again.steps == first.steps == 20
        assert again.train_seconds is None, "it was not this command's"
        assert again.command.startswith(f"{first.command} && python "), "what trained it, too"
        np.testing.assert_allclose(
            np.load(run_dir / "result-test.nll.npy"), np.load(run_dir / "nll.npy"), rtol=1e-5
        )
        assert (run_dir / "result.json").read_bytes() == before


def test_batches_do_not_matter_and_limits_do(copy_run):
    run_dir = copy_run("pixelcnn")
    whole = scored(run_dir)
    assert scored(run_dir, "--score-batch", 7).value == pytest.approx(whole.value, rel=1e-6)
    few = scored(run_dir, "--limit", 10)
    assert few.count == 10
    assert few.subset
    labels = load(DataConfig()).test.labels
    drawn = np.isin(draw(360, 100, labels), draw(360, 10, labels))
    assert drawn.sum() == 10, "a smaller draw is part of a larger one"
    assert few.value == pytest.approx(np.load(run_dir / "nll.npy")[drawn].mean(), rel=1e-5)


def test_another_split_and_another_file(copy_run, tmp_path):
    run_dir = copy_run("pixelcnn")
    train = scored(run_dir, "--split=train")
    assert train.split == "train"
    assert train.fingerprint != read_result(run_dir).fingerprint
    out = tmp_path / "mine.json"
    main([str(run_dir), "--accelerator=cpu", f"--out={out}"])
    assert read_result(out).split == "test"
    assert (tmp_path / "mine.nll.npy").exists()


def test_nothing_is_scored_over(copy_run, refusal):
    """Each scoring has a name that says what it is of, numbered where that is taken."""
    run_dir = copy_run(*DROPOUT)
    for flags in (["--limit=10"], ["--limit=20"], ["--condition=dropped"]):
        scored(run_dir, *flags)
    names = {file.name for file in run_dir.glob("result-*.json")}
    assert names == {"result-test.json", "result-test-2.json", "result-test-dropped.json"}
    assert read_result(run_dir / "result-test.json").count == 10
    assert "exists already" in refusal(main, run_dir, f"--out={run_dir / 'result.json'}")
    (run_dir / "mine.nll.npy").write_bytes(b"of another result")
    assert "exists already" in refusal(main, run_dir, f"--out={run_dir / 'mine.json'}")
    assert "no folder" in refusal(main, run_dir, f"--out={run_dir / 'nowhere' / 'a.json'}")


def test_estimates_tighten_with_more_samples(copy_run):
    run_dir = copy_run(*VAE)
    result = scored(run_dir, "--importance-samples=10")
    curve = {point.k: point.nats for point in result.estimates}
    assert list(curve) == [1, 10]
    assert result.estimate.k == 10
    assert curve[10] < curve[1]


@pytest.mark.slow
def test_a_compiled_estimate_is_the_plain_one(copy_run):
    run_dir = copy_run(*VAE)
    plain = scored(run_dir, "--importance-samples=10").estimate.nats
    compiled = scored(run_dir, "--importance-samples=10", "--compile").estimate.nats
    assert compiled == pytest.approx(plain, rel=1e-6)


def test_shuffled_annotations_say_so(copy_run):
    """Every image gets another one's label; the kind can't be taken for the honest one."""
    run_dir = copy_run(*DROPOUT)
    result = scored(run_dir, "--condition=shuffled")
    assert result.kind == "given shuffled label"
    assert result.name.endswith("(condition shuffled)")
    test = load_splits(open_run(run_dir)).test
    shuffled = Shuffled(test)
    indices = np.arange(len(test))
    assert (shuffled.batch(indices).x == test.batch(indices).x).all()
    assert sorted(shuffled.batch(indices).y.tolist()) == sorted(test.labels.tolist())
    assert (shuffled.others != indices).all()


def test_dropped_conditions_leave_an_exact_likelihood(copy_run):
    result = scored(copy_run(*DROPOUT), "--condition=dropped")
    assert (result.kind, result.condition) == ("exact", "none")


@pytest.mark.parametrize(
    ("args", "flags", "sentence"),
    [
        (VAE, ["--condition=shuffled"], "with conditioning"),
        (("autoencoder",), ["--condition=shuffled"], "which encodes the image itself"),
        (("pixelcnn", "--condition=label"), ["--condition=dropped"], "--code-dropout"),
        (VAE, ["--importance-samples=-1"], "--importance-samples must be at least 0"),
        (("pixelcnn", "--condition=label"), ["--condition=shuffled", "--limit=1"], "two images"),
        (VAE, ["--score-batch=0"], "--score-batch must be at least 1"),
        (VAE, ["--limit=-1"], "--limit must be at least 0"),
        (VAE, ["--split=valid"], "has no valid split"),
        (VAE, ["--devices=three"], "--devices three"),
    ],
)
def test_refuses(train_run, refusal, args, flags, sentence):
    run_dir = train_run(*args)
    assert sentence in refusal(main, run_dir, "--accelerator=cpu", *flags)
    assert not (run_dir / "result-test.json").exists()


def test_weights_that_diverged_are_named_not_averaged(copy_run, refusal):
    run_dir = copy_run("pixelcnn")
    model = open_run(run_dir).model
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    save_weights(run_dir, model, step=20)
    assert "did training diverge?" in refusal(main, run_dir, "--accelerator=cpu")
    assert not (run_dir / "result-test.json").exists()


@pytest.mark.parametrize(
    "change", [{"config": None}, {"images": {}}, {"config": {"kernel_size": 4}}]
)
def test_a_config_that_describes_no_model_is_named(copy_run, refusal, change):
    run_dir = copy_run("pixelcnn")
    saved = json.loads((run_dir / "config.json").read_text())
    for key, value in change.items():
        if value:
            saved[key] |= value
        else:
            del saved[key]
    (run_dir / "config.json").write_text(json.dumps(saved))
    assert "config.json describes no" in refusal(main, run_dir)


def test_refuses_directories_that_are_no_finished_run(copy_run, refusal, tmp_path):
    assert "no run directory" in refusal(main, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refusal(main, tmp_path / "empty")
    run_dir = copy_run("pixelcnn")
    (run_dir / "weights.safetensors").unlink()
    assert "no weights.safetensors" in refusal(main, run_dir)
    saved = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps({**saved, "pipeline": "diffusion"}))
    assert "pipeline 'diffusion'" in refusal(main, run_dir)
    saved["config"]["colour"] = 1
    (run_dir / "config.json").write_text(json.dumps(saved))
    assert "there is no field 'colour'" in refusal(main, run_dir)


def test_refuses_images_that_the_model_was_not_built_for(copy_run, refusal):
    run_dir = copy_run("pixelcnn")
    saved = json.loads((run_dir / "config.json").read_text())
    saved["config"]["pad"] = 1
    (run_dir / "config.json").write_text(json.dumps(saved))
    assert "give the --data-dir it was trained on" in refusal(main, run_dir)

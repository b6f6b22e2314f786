"""A model of one's own, from Python: trained on one's own data, and opened by every command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import pipelines
from decoders import Decoder, GatedPixelCNN, PixelCNN
from encoders import ConvEncoder, Deterministic, GaussianEncoder, LabelEmbedding
from pipelines import Images, Model, evaluate, load, train
from pipelines import evaluate as evaluate_command
from pipelines import sample as sample_command
from pipelines.runs import own_images

LEVELS, SHAPE = 5, (1, 6, 6)


class Squares(Dataset):
    """Floats in [0, 1] with labels, or what a test puts in their place."""

    def __init__(self, count: int = 40, *, labels: bool = False, change: Any = None):
        noise = np.random.default_rng(0).integers(0, 2, (count, *SHAPE)) * 4
        self.images = torch.from_numpy(noise).float() / 4
        self.labels, self.change = labels, change

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        x = self.images[index]
        if self.change is not None:
            x = self.change(x)
        return (x, index % 3) if self.labels else x


def decoder(**options: Any) -> GatedPixelCNN:
    return GatedPixelCNN(
        SHAPE, num_levels=LEVELS, num_layers=1, hidden_channels=8, kernel_size=3, **options
    )


def quick(model: Any, *sets: Any, out: Path, **options: Any) -> Any:
    small = {"steps": 3, "num_samples": 0, "accelerator": "cpu", "batch_size": 8}
    return train(model, *sets, out=out, **{**small, **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("own") / "run"
    quick(decoder(), Squares(), Squares(12), out=out, num_samples=4)
    return out


def test_a_run_says_what_it_is_and_keeps_its_images(run):
    record = json.loads((run / "config.json").read_text())
    assert record["pipeline"] == "own"
    assert record["config"]["model"]["class"] == "pipelines:Model"
    assert record["config"]["model"]["arguments"]["decoder"]["class"] == "decoders:GatedPixelCNN"
    result = json.loads((run / "result.json").read_text())
    assert (result["data"], result["split"], result["count"]) == ("own", "valid", 12)
    with np.load(run / "data.npz") as kept:
        assert kept["train"].shape == (40, *SHAPE)
        assert int(kept["valid"].max()) == LEVELS - 1


def test_a_run_is_loaded_and_scores_what_it_scored(run):
    model = load(run)
    assert not model.training
    found = evaluate(model, Squares(12), batch_size=5)
    result = json.loads((run / "result.json").read_text())
    assert found.nats == pytest.approx(result["value"], abs=1e-4)
    assert (found.kind, found.count) == ("exact", 12)
    assert found.bits_per_dim == pytest.approx(found.nats / (36 * np.log(2)))


def test_every_command_that_needs_images_finds_them(run, tmp_path, capsys):
    evaluate_command.main([str(run), "--accelerator=cpu", f"--out={tmp_path / 'again.json'}"])
    again = json.loads((tmp_path / "again.json").read_text())
    result = json.loads((run / "result.json").read_text())
    for name in ("value", "data", "split", "fingerprint", "levels", "baseline", "count"):
        assert again[name] == result[name], name
    for flags in (["--complete=top", "--num=2"], ["--size=7x5", "--num=2"]):
        sample_command.main([str(run), *flags, "--accelerator=cpu"])


def test_a_moved_run_keeps_its_images(run, tmp_path):
    run.rename(tmp_path / "moved")
    try:
        evaluate_command.main(
            [str(tmp_path / "moved"), "--accelerator=cpu", f"--out={tmp_path / 'again.json'}"]
        )
    finally:
        (tmp_path / "moved").rename(run)
    assert (tmp_path / "again.json").is_file()


def test_images_too_many_to_keep_are_asked_for(run, tmp_path, monkeypatch, refusal, capsys):
    monkeypatch.setattr(own_images, "MOST_BYTES", 100)
    quick(decoder(), Squares(), Squares(12), out=tmp_path / "run")
    assert "too large to keep" in capsys.readouterr().err
    said = refusal(evaluate_command.main, tmp_path / "run", "--accelerator=cpu")
    assert "give --data-dir FILE.npz" in said
    evaluate_command.main(
        [str(tmp_path / "run"), f"--data-dir={run / 'data.npz'}", "--accelerator=cpu"]
    )


def test_a_tenth_is_held_out_without_a_validation_set(tmp_path, capsys):
    result = quick(decoder(), Squares(), out=tmp_path / "run")
    assert result.count == 4
    assert "4 of 40 images are held out" in capsys.readouterr().err


def test_labels_are_given_to_a_model_that_reads_them(tmp_path):
    model = Model(decoder(cond_shape=(4,)), LabelEmbedding(3, 4))
    result = quick(model, Squares(labels=True), Squares(12, labels=True), out=tmp_path / "run")
    assert result.kind == "given label"
    assert evaluate(load(tmp_path / "run"), Squares(12, labels=True)).kind == "given label"
    sample_command.main([str(tmp_path / "run"), "--num=3", "--accelerator=cpu"])


def test_a_pixelvae_has_its_estimate(tmp_path):
    model = Model(
        decoder(cond_shape=(2,)), GaussianEncoder(SHAPE, 2, num_levels=LEVELS, hidden_channels=4)
    )
    result = quick(
        model, Squares(), Squares(12), out=tmp_path / "run", importance_samples=2, kl_warmup=2
    )
    assert result.kind == "bound"
    found = evaluate(model, Squares(12), importance_samples=2)
    assert found.estimate is not None


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(0).integers(0, LEVELS, (20, 6, 6)).astype(np.uint8),
        torch.rand(20, *SHAPE),
        (torch.rand(20, *SHAPE), torch.arange(20) % 2),
    ],
    ids=["levels", "floats", "pair"],
)
def test_arrays_are_data_sets_too(data, tmp_path):
    assert quick(decoder(), data, data, out=tmp_path / "run").count == 20


def test_images_of_a_named_data_set_train_too(tmp_path):
    splits = pipelines.load_data("digits", limit=30)
    model = PixelCNN((1, 8, 8), num_levels=17, num_layers=1, hidden_channels=8)
    result = quick(model, splits.train, splits.test, out=tmp_path / "run")
    assert result.data == "digits"


def test_options_of_a_named_data_set_are_applied(tmp_path):
    """The run keeps what the model saw: two levels, padded; what is drawn again it can't keep."""
    options = {"levels": 2, "pad": 1, "limit": 30}
    images = pipelines.load_data("digits", **options).train
    decoder = GatedPixelCNN((1, 10, 10), num_levels=2, num_layers=1, hidden_channels=4)
    train(decoder, images, out=tmp_path / "run", steps=1, num_samples=0)
    with np.load(tmp_path / "run" / "data.npz") as kept:
        assert kept["train"].shape[1:] == (1, 10, 10)
        assert kept["train"].max() == 1
    drawn = pipelines.load_data("digits", binarize="dynamic", pad=1).train
    with pytest.raises(ValueError, match="binarized again for each batch"):
        train(decoder, drawn, out=tmp_path / "other", steps=1)
    assert not (tmp_path / "other").exists()


def test_own_optimizer_and_resumption(tmp_path):
    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    torch.manual_seed(0)
    first, second = decoder(), decoder()
    second.load_state_dict(first.state_dict())
    whole = quick(first, Squares(), Squares(9), out=tmp_path / "a", steps=6, optimizer=sgd)
    quick(second, Squares(), Squares(9), out=tmp_path / "b", steps=3, optimizer=sgd)
    parts = quick(
        second, Squares(), Squares(9), out=tmp_path / "b", steps=6, optimizer=sgd, resume=True
    )
    assert parts.value == whole.value


def test_what_save_pretrained_wrote_is_loaded(tmp_path):
    decoder().save_pretrained(tmp_path / "decoder")
    assert type(load(tmp_path / "decoder").decoder) is GatedPixelCNN
    Model(decoder()).save_pretrained(tmp_path / "model")
    assert isinstance(load(str(tmp_path / "model")), Model)
    ConvEncoder(SHAPE, num_levels=LEVELS, code_shape=(3,)).save_pretrained(tmp_path / "encoder")
    with pytest.raises(
        ValueError, match=r"holds a ConvEncoder.*load it with ConvEncoder.from_pretrained"
    ):
        load(tmp_path / "encoder")


def test_an_unknown_name_suggests(tmp_path):
    assert load("mnist-gated").decoder.image_shape == (1, 28, 28)
    with pytest.raises(ValueError, match=r"did you mean .*mnist-gated"):
        load("mnist-gate")


# A user's own decoder


def test_a_users_decoder_is_opened_at_the_users_word(tmp_path, monkeypatch, refusal, capsys):
    (tmp_path / "own_network.py").write_text(
        "from decoders import GatedPixelCNN\nclass Mine(GatedPixelCNN):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = __import__("own_network").Mine(SHAPE, num_levels=LEVELS, num_layers=1, hidden_channels=8)
    quick(mine, Squares(), Squares(9), out=tmp_path / "run")
    sys.modules.pop("own_network")
    said = refusal(sample_command.main, tmp_path / "run", "--accelerator=cpu")
    assert "--trust own_network" in said
    with pytest.raises(ValueError, match="own_network:Mine, which is not part of the toolkit"):
        load(tmp_path / "run")
    assert "own_network" not in sys.modules
    assert type(load(tmp_path / "run", trust=["own_network"]).decoder).__name__ == "Mine"
    sample_command.main(
        [str(tmp_path / "run"), "--trust=own_network", "--num=2", "--accelerator=cpu"]
    )


# Refusals: one sentence each, and nothing written


class Nothing(Squares):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Squares(change=lambda x: x + 1), r"expected floats in \[0, 1\], got 1\.\.2"),
        (Squares(change=lambda x: x - 1), r"expected floats in \[0, 1\], got -1\.\.0"),
        (Squares(change=lambda x: x[:, :5]), r"expected images \[1, 6, 6\] of 5 levels.*5, 6"),
        (Squares(change=lambda x: x[0, 0]), r"\(H, W\), \(C, H, W\) or \(H, W, C\)"),
        (Squares(change=lambda x: (x * 300).long()), r"expected levels 0\.\.4"),
        (Squares(change=lambda x: "a picture"), r"own\[0\]"),
        (Squares(change=lambda x: 1 / 0), r"own\[0\] raised ZeroDivisionError"),
        (Nothing(), "no images"),
        (Squares(1), "has one image: give a valid_set"),
        ([], "no images"),
        (3, "expected a map-style dataset"),
    ],
)
def test_a_bad_data_set_is_one_sentence(data, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        quick(decoder(), data, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def own_network() -> Model:
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    return Model(decoder(cond_shape=(3,)), Deterministic(network, (3,), num_levels=LEVELS))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (decoder, {"step": 3}, r"train has no argument 'step': did you mean 'steps'\?"),
        (decoder, {"batch_size": 0}, "--batch-size must be at least 1"),
        (decoder, {"optimizer": torch.optim.SGD, "learning_rate": 1.0}, "learning_rate means noth"),
        (decoder, {"kl_warmup": 5}, "--kl-warmup has no effect"),
        (lambda: decoder(cond_shape=(4,)), {}, "give it the encoder that makes h"),
        (lambda: Model(decoder(cond_shape=(4,)), LabelEmbedding(3, 4)), {}, r"yield \(x, y\)"),
        (lambda: nn.Linear(1, 1), {}, "expected a Model or a decoder, got a Linear"),
        (own_network, {}, "a Sequential as its argument 'network' can't be saved"),
    ],
)
def test_a_bad_argument_is_one_sentence(make, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        quick(make(), Squares(), out=tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())


def test_a_label_that_the_model_lacks_is_refused(tmp_path):
    model = Model(decoder(cond_shape=(4,)), LabelEmbedding(2, 4))
    with pytest.raises(ValueError, match="expected labels below 2"):
        quick(model, Squares(labels=True), out=tmp_path / "run")


def test_a_run_directory_that_is_not_empty_is_refused(run, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(ValueError, match="is not empty"):
        quick(decoder(), Squares(), Squares(12), out=run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


class InScript(GatedPixelCNN):
    pass


def test_a_decoder_of_a_script_is_worth_a_warning(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(InScript, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "InScript", InScript, raising=False)
    model = InScript(SHAPE, num_levels=LEVELS, num_layers=1, hidden_channels=8)
    quick(model, Squares(), Squares(9), out=tmp_path / "run")
    assert "InScript is defined in a script" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"importance_samples": -1}])
def test_bad_options_of_evaluate_are_refused(options):
    with pytest.raises(ValueError, match="expected batch_size of at least 1"):
        evaluate(decoder(), Squares(), **options)


def test_evaluate_refuses_what_train_refuses():
    with pytest.raises(ValueError, match="expected images"):
        evaluate(decoder(), np.zeros((3, 5, 5), np.uint8))
    images = Images.from_arrays(np.zeros((3, 6, 6), np.uint8), num_levels=7)
    with pytest.raises(ValueError, match=r"expected images .* of 5 levels"):
        evaluate(decoder(), images)
    assert isinstance(decoder(), Decoder)

"""Three training commands, from the command line to the result: every kind of model, resumed,
untrained, and refused with one sentence where the flags make no sense.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from decoders import Categorical, FactorizedDecoder
from encoders import Code, Encoder
from encoders.base import fixed_code
from eval import read_result
from pipelines import autoencoder, pixelcnn, pixelvae
from pipelines.model import Model
from pipelines.runs import train as training
from pipelines.runs.load import open_run
from pipelines.runs.record import ImageSpec

ROOT = Path(__file__).parents[3]
MODULES = {"pixelcnn": pixelcnn, "autoencoder": autoencoder, "pixelvae": pixelvae}
SMALL = [
    "--steps=3", "--limit=30", "--batch-size=8", "--hidden-channels=8", "--num-layers=1",
    "--num-samples=4", "--importance-samples=2", "--accelerator=cpu",
]  # fmt: skip
DIMS = 64


def train(pipeline: str, *flags: object) -> None:
    module = MODULES[pipeline]
    small = [one for one in SMALL if "--decoder=deconv" not in flags or "num-layers" not in one]
    argv = [*small, *map(str, flags)]
    module.PIPELINE.main(argv)


MODELS = [
    ("pixelcnn", [], "exact"),
    ("pixelcnn", ["--decoder=pixelcnn", "--likelihood=logistic", "--num-components=2"], "exact"),
    ("pixelcnn", ["--decoder=deconv"], "exact"),
    ("pixelcnn", ["--condition=label"], "given label"),
    ("pixelcnn", ["--condition=label", "--code-dropout=0.5", "--decoder=deconv"], "given label"),
    ("pixelcnn", ["--data=shapes", "--condition=caption"], "given caption"),
    ("pixelcnn", ["--data=shapes", "--condition=mask"], "given map"),
    ("autoencoder", [], "given code"),
    ("autoencoder", ["--decoder=deconv"], "given code"),
    ("pixelvae", [], "bound"),
    ("pixelvae", ["--decoder=deconv", "--latent-dim=2"], "bound"),
    ("pixelvae", ["--decoder=pixelcnn", "--free-bits=0.5"], "bound"),
    ("pixelvae", ["--latent-to=map", "--map-channels=4"], "bound"),
    ("pixelvae", ["--latent-dim=1"], "bound"),
    (
        "pixelvae",
        ["--levels-of-latents=2", "--latent-map", 2, 4, 4, "--prior-channels=8", "--latent-dim=2"],
        "bound",
    ),
]


@pytest.mark.parametrize(("pipeline", "flags", "kind"), MODELS, ids=lambda value: str(value)[:40])
def test_trains_scores_and_draws(pipeline, flags, kind, tmp_path, capsys):
    """Each model leaves a result that agrees with itself, pictures, and a run that opens again."""
    out = tmp_path / "run"
    train(pipeline, *flags, f"--out={out}")
    result = read_result(out)
    assert (result.kind, result.pipeline) == (kind, pipeline)
    assert result.count == 30
    assert result.subset
    assert result.extra["validation"] == "test: all 30"
    assert 0 < result.distortion < 10 * result.dims
    names = {"samples.png", "images.npy", "nll.npy", "config.json", "metrics.jsonl"}
    names |= {"reconstructions.png"} if kind in ("bound", "given code") else set()
    names |= set() if "--decoder=deconv" in flags else {"receptive_field.png"}
    names |= {"interpolation.png"} if kind != "exact" else set()
    assert names <= {path.name for path in out.iterdir()}
    printed = capsys.readouterr().out
    assert f"{result.value:.3f}" in printed
    assert f"{result.bits_per_dim:.4f}" in printed
    opened = open_run(out)
    assert opened.steps == 3
    assert sum(p.numel() for p in opened.model.parameters()) == result.parameters
    if kind == "bound":
        assert result.estimate.k == 2
        assert len(result.rates) == (2 if "--levels-of-latents=2" in flags else 1)


def test_resumed_equals_uninterrupted(tmp_path):
    """Two steps and then two more score what four at once do, to the last bit.

    At a constant learning rate: a cosine depends on how many steps there will be.
    """
    flags = ["--num-samples=0", "--importance-samples=0", "--lr-decay=constant", "--eval-every=0"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train("pixelvae", *flags, "--steps=4", f"--out={whole}")
    train("pixelvae", *flags, "--steps=2", f"--out={parts}")
    train("pixelvae", *flags, "--steps=4", f"--out={parts}", "--resume")
    assert read_result(parts).value == read_result(whole).value
    assert (parts / "nll.npy").read_bytes() == (whole / "nll.npy").read_bytes()
    rows = (parts / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--learning-rate=0.1", "learning_rate: 0.003 there, 0.1 here"),
        ("--hidden-channels=16", "hidden_channels: 8 there, 16 here"),
        ("--no-residual", "residual: True there, False here"),
        ("--dropout=0.5", "dropout: 0.1 there, 0.5 here"),
        ("--limit=20", "training set"),
        ("--levels=4", "images"),
    ],
)
def test_resuming_as_another_run_is_refused_and_harms_nothing(
    train_run, copy_run, refusal, flag, sentence
):
    """Whatever is computed must be the same, whether or not a weight's shape would tell."""
    run_dir = copy_run("pixelcnn", "--hidden-channels=8", "--lr-decay=constant")
    before = {file.name: file.read_bytes() for file in run_dir.iterdir() if file.is_file()}
    resumed = ["--resume", f"--out={run_dir}", "--accelerator=cpu", flag]

    def again(argv: list[str]) -> None:
        pixelcnn.PIPELINE.main(argv)

    assert sentence in refusal(again, *resumed)
    assert {f.name: f.read_bytes() for f in run_dir.iterdir() if f.is_file()} == before


def test_a_resumed_run_may_be_reported_otherwise(copy_run):
    """More steps, another name: what does not change the steps that were taken."""
    run_dir = copy_run("pixelcnn", "--hidden-channels=8", "--lr-decay=constant")
    more = ["--steps=21", "--name=longer", "--score-batch=7", "--num-samples=4"]
    argv = ["--resume", f"--out={run_dir}", *more]
    pixelcnn.PIPELINE.main(argv)
    result = read_result(run_dir)
    assert (result.name, result.steps) == ("longer", 21)


def test_a_resumed_result_names_every_command_that_led_to_it(tmp_path, monkeypatch):
    """Each once, in their order: together they make the result again."""
    given = []
    monkeypatch.setattr(training, "command", lambda: given[-1])
    flags = ["--num-samples=0", "--lr-decay=constant", f"--out={tmp_path / 'run'}"]
    for command, more in (
        ("python a", ["--steps=2"]),
        ("python b --resume", ["--steps=3", "--resume"]),
        ("python c --resume", ["--steps=4", "--resume"]),
        ("python b --resume", ["--steps=4", "--resume"]),
    ):
        given.append(command)
        train("pixelcnn", *flags, *more)
    assert read_result(tmp_path / "run").command == (
        "python a && python b --resume && python c --resume"
    )


class Brightness(Encoder):
    """An encoder with no more than what one has to write."""

    given = "code"
    code_shape = (1,)

    def forward(self, x: Tensor | None, y: object = None) -> Code:
        assert x is not None
        return fixed_code(x.float().mean(dim=(1, 2, 3))[:, None])


class Independent(FactorizedDecoder):
    """A decoder with no more than what one has to write."""

    def __init__(self, image_shape: tuple[int, int, int], num_levels: int):
        super().__init__(image_shape, Categorical(num_levels), (1,))
        self.logits = nn.Linear(1, num_levels)

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        assert h is not None
        return self.logits(h)[:, :, None, None].expand(-1, -1, *x.shape[2:])


def test_ones_own_decoder_and_encoder_make_a_command(tmp_path):
    """Only what cannot be drawn of them is left out: where pixels enter the decoder is unknown."""

    def build(config: pixelcnn.Config, spec: ImageSpec) -> Model:
        return Model(Independent(spec.image_shape, spec.num_levels), Brightness())

    out = tmp_path / "run"
    argv = ["--steps=3", "--limit=30", "--num-samples=4", "--accelerator=cpu", f"--out={out}"]
    replace(pixelcnn.PIPELINE, build=build).main(argv)
    assert read_result(out).kind == "given code"
    assert (out / "interpolation.png").exists()
    assert not (out / "receptive_field.png").exists()


def test_untrained_models_are_scored(tmp_path):
    """--epochs 0 scores and draws from fresh weights: not far from a uniform distribution."""
    train("pixelcnn", "--epochs=0", f"--out={tmp_path / 'run'}")
    result = read_result(tmp_path / "run")
    assert result.steps == 0
    assert result.bits_per_dim == pytest.approx(math.log2(17), rel=0.2)


@pytest.mark.parametrize(
    ("pipeline", "flags", "sentence"),
    [
        ("pixelcnn", ["--kernel-size=4"], "odd kernel size"),
        ("pixelcnn", ["--data=mnist", "--preset=nothing"], "--preset nothing"),
        ("pixelcnn", ["--data=npz", "--data-dir=nowhere"], "nowhere"),
        ("pixelcnn", ["--condition=caption"], "--condition caption: digits"),
        ("pixelcnn", ["--levels=99"], "--levels 99"),
        ("pixelcnn", ["--accelerator=cpu", "--devices=none"], "--devices none"),
        ("pixelcnn", ["--code-dropout=0.5"], "--code-dropout has no effect without --condition"),
        ("autoencoder", ["--condition=label"], "--condition none for an autoencoder"),
        ("pixelvae", ["--condition=label"], "--condition none for a PixelVAE"),
        ("pixelvae", ["--levels-of-latents=2", "--latent-map", "2", "5", "5"], "5"),
    ],
)
def test_refuses(refusal, tmp_path, pipeline, flags, sentence):
    """One sentence that names the flag; nothing is created."""
    out = tmp_path / "run"
    assert sentence in refusal(lambda argv: train(pipeline, *argv), *flags, f"--out={out}")
    assert not out.exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--data=digit"],
        ["--limit=-1"],
        ["--learning-rat=1"],
        ["--batch-size=0"],
        ["--score-batch=0"],
        ["--num-samples=-1"],
        ["--importance-samples=-1"],
        ["--steps=-1"],
        ["--latent-dim=0"],
        ["--hidden-channels=0"],
        ["--num-layers=-1"],
    ],
)
def test_unknown_flags_and_values_are_refused(capsys, tmp_path, flags):
    with pytest.raises(SystemExit) as exit_:
        train("pixelvae", *flags, f"--out={tmp_path / 'run'}")
    assert exit_.value.code == 2
    assert flags[0].split("=")[0].lstrip("-")[:9] in capsys.readouterr().err.replace("_", "-")
    assert not (tmp_path / "run").exists()


def test_overwrites_no_run(refusal, tmp_path):
    """A folder with anything in it is refused, and so is resuming what isn't there, or another."""

    def fails(pipeline, *flags):
        return refusal(lambda argv: train(pipeline, *argv), *flags)

    out = tmp_path / "run"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    assert "is not empty" in fails("pixelcnn", f"--out={out}")
    assert [path.name for path in out.iterdir()] == ["diary.txt"]
    assert "not a run directory" in fails("pixelcnn", f"--out={tmp_path / 'none'}", "--resume")
    train("pixelcnn", "--num-samples=0", f"--out={tmp_path / 'other'}")
    before = (tmp_path / "other" / "result.json").read_bytes()
    assert "pipelines.pixelcnn" in fails("pixelvae", f"--out={tmp_path / 'other'}", "--resume")
    assert (tmp_path / "other" / "result.json").read_bytes() == before


def test_a_resumption_that_is_refused_changes_nothing(tmp_path, refusal):
    """Also if it is the checkpoints that refuse it, which are read after everything else."""
    out = tmp_path / "run"
    train("pixelcnn", "--num-samples=0", f"--out={out}")
    (path,) = (out / "checkpoints").iterdir()
    path.write_bytes(b"damaged")
    (out / ".mine.tmp").write_text("mine")
    kept = {file: file.read_bytes() for file in out.glob("*") if file.is_file()}
    again = ["--num-samples=0", f"--out={out}", "--resume", "--steps=9", "--name=another"]
    assert "every checkpoint" in refusal(lambda argv: train("pixelcnn", *argv), *again)
    assert {file: file.read_bytes() for file in out.glob("*") if file.is_file()} == kept


def test_a_full_disk_ends_training_in_one_sentence(tmp_path, largest_file, refusal):
    out = tmp_path / "run"
    flags = ["--num-samples=0", "--log-every=1", f"--out={out}"]
    with largest_file(20_000):
        error = refusal(lambda argv: train("pixelcnn", *argv), *flags)
    assert "checkpoints/step-000000003.pt: File too large; what was saved before" in error
    assert error.endswith("then resume with --resume")
    left = {path.name for path in out.rglob("*") if "tfevents" not in path.name}
    assert left == {"config.json", "metrics.jsonl", "tensorboard", "checkpoints"}
    train("pixelcnn", *flags, "--resume")
    assert read_result(out).steps == 3


def test_arguments_that_are_not_utf_8_lose_nothing(tmp_path, capsys, monkeypatch):
    """Names and folders of any bytes, as a shell hands them over."""
    out = f"{tmp_path}/run\udce9"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pipelines.pixelcnn", f"--out={out}"])
    for more in ([], ["--resume", "--steps=4"]):
        train("pixelcnn", "--num-samples=0", "--name=caf\udce9", f"--out={out}", *more)
        result = read_result(Path(out))
        assert result.name == result.config["name"] == "caf\udce9"
        assert result.command.endswith(rf"pipelines.pixelcnn $'--out={tmp_path}/run\xe9'")
    assert "on digits" in capsys.readouterr().out


def test_processes_exit_with_2_and_one_sentence(tmp_path):
    """As a user types it: no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.interpolate", str(tmp_path / "nowhere")],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no run directory")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""

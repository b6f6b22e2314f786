"""Open doors: a decoder, an encoder, a likelihood, a pipeline and a data set of a user's package.

Each is named on a command line, trained, opened again by the other commands, ranked and reported,
without an edit in this repository. Reading a run runs no code that its user has not named.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from eval import compare, leaderboard, read_result, report
from pipelines import evaluate, interpolate, latents, pixelcnn, pixelvae, receptive_field, sample
from pipelines.runs.options import options_of

PACKAGE = {
    "nets.py": '''
import torch
from torch import nn

from decoders import Categorical, Decoder, FactorizedDecoder


class Above(FactorizedDecoder):
    """Predicts each pixel from the row above.

    Args:
        width: Features of that row.
    """

    def __init__(self, image_shape, *, likelihood=None, cond_shape=(), width: int = 4):
        likelihood = likelihood or Categorical(256)
        super().__init__(image_shape, likelihood, cond_shape)
        self.up = nn.Conv2d(image_shape[0], width, (1, 3), padding=(0, 1))
        self.h = nn.Linear(cond_shape[0], width) if cond_shape else None
        self.out = nn.Conv2d(width, likelihood.num_params(image_shape[0]), 1)

    def params(self, x, h=None):
        x = x.to(self.out.weight.dtype)
        row = nn.functional.pad(x, (0, 0, 1, 0))[:, :, :-1]
        features = self.up(row)
        if h is not None:
            features = features + self.h(h)[:, :, None, None]
        return self.out(features.relu())


class Narrow(Categorical):
    """A softmax with a temperature of its own.

    Args:
        warmth: Factor on the logits.
    """

    def __init__(self, num_levels=256, *, warmth: float = 1.0):
        super().__init__(num_levels)
        self.warmth = warmth

    def log_prob(self, params, x):
        return super().log_prob(params * self.warmth, x)


class Headless(FactorizedDecoder):
    def __init__(self, image_shape, *, cond_shape=()):
        super().__init__(image_shape, Categorical(256), cond_shape)
''',
    "images.py": """
import numpy as np


def stripes():
    x = np.random.default_rng(0).integers(4, size=(90, 1, 6, 1)).repeat(5, axis=3)
    labels = x[:, 0, 0, 0]
    return {"train": (x[:60], labels[:60]), "test": (x[60:], labels[60:])}
""",
    "mean.py": '''
"""Train an autoencoder whose code is the mean of each row."""

from dataclasses import dataclass, field

from encoders import Code, Encoder, fixed_code
from pipelines.model import Model
from pipelines.runs.config import RunConfig
from pipelines.runs.networks import make_decoder
from pipelines.runs.pipeline import Pipeline


class RowMeans(Encoder):
    given = "code"

    def __init__(self, height, scale):
        super().__init__()
        self.code_shape, self.scale = (height,), scale

    def forward(self, x, y=None):
        return fixed_code(x.float().mean(dim=(1, 3)) * self.scale)


@dataclass(frozen=True)
class MeanConfig:
    """The code."""

    scale: float = 1.0
    """Factor on the means."""


@dataclass(frozen=True)
class Config(RunConfig):
    """Flags."""

    code: MeanConfig = field(default_factory=MeanConfig)


def build(config, spec):
    encoder = RowMeans(spec.image_shape[1], config.code.scale)
    return Model(make_decoder(config.decoder, spec, encoder.code_shape), encoder)


PIPELINE = Pipeline("minekit.mean:PIPELINE", Config, {"digits": Config.of(epochs=1)}, build)
''',
    "broken.py": "raise RuntimeError('no licence')",
}
SMALL = ["--steps=4", "--num-samples=4", "--accelerator=cpu"]
OWN = ["--data=minekit.images:stripes", "--native-levels=4", "--decoder=minekit.nets:Above"]


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    """A package `minekit` outside the repository."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "minekit").mkdir()
    (folder / "minekit" / "__init__.py").touch()
    for name, source in PACKAGE.items():
        (folder / "minekit" / name).write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    options_of.cache_clear()
    for name in [name for name in sys.modules if name.startswith("minekit")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a user's decoder and likelihood on a user's data."""
    out = tmp_path_factory.mktemp("runs") / "stripes"
    flags = [*OWN, "--width=3", "--likelihood=minekit.nets:Narrow", "--warmth=0.5"]
    pixelcnn.main([*SMALL, *flags, f"--out={out}"])
    return out


TRUST = "--trust=minekit"


def test_flags_of_one_s_own_decoder_and_likelihood_reach_them(run):
    config = read_result(run).config
    assert (config["decoder"], config["width"]) == ("minekit.nets:Above", 3)
    assert (config["likelihood"], config["warmth"]) == ("minekit.nets:Narrow", 0.5)


def test_every_command_opens_the_run_again(run, tmp_path):
    """By its directory, and the user's word for the module: scored alike, drawn, measured."""
    again, npy = tmp_path / "again.json", tmp_path / "drawn.npy"
    evaluate.main([str(run), TRUST, f"--out={again}", "--accelerator=cpu"])
    assert read_result(again).value == pytest.approx(read_result(run).value)
    sample.main([str(run), TRUST, "--num=4", f"--npy={npy}", f"--out={tmp_path / 'drawn.png'}"])
    assert np.load(npy).shape == (4, 1, 6, 5)
    receptive_field.main([str(run), TRUST])


def test_the_run_is_ranked_compared_and_reported(run, tmp_path):
    assert leaderboard.main([str(run), "--out", str(tmp_path / "board.md")]) == 0
    assert "Above" in (tmp_path / "board.md").read_text()
    assert report.main([str(run), "--out", str(tmp_path / "report.html")]) == 0
    assert compare.main([str(run), str(run), "--out", str(tmp_path / "compare.html")]) == 0


def test_the_run_resumes(run):
    """The user names the parts again, and they are the same."""
    flags = [*OWN, "--likelihood=minekit.nets:Narrow"]
    pixelcnn.main(["--resume", f"--out={run}", "--steps=6", *flags])
    assert read_result(run).steps == 6


def test_one_s_own_decoder_in_a_vae(tmp_path):
    out = tmp_path / "vae"
    flags = ["--latent-dim=2", "--importance-samples=2", f"--out={out}"]
    pixelvae.main([*SMALL, *OWN, *flags])
    assert read_result(out).kind == "bound"
    latents.main([str(out), TRUST, "--no-tsne", "--accelerator=cpu"])
    interpolate.main([str(out), TRUST, "--accelerator=cpu"])


def test_one_s_own_pipeline(tmp_path):
    """A model that no flags of ours describe, trained by our loop and opened by every command."""
    from minekit.mean import PIPELINE  # pyright: ignore[reportMissingImports]

    out = tmp_path / "mean"
    PIPELINE.main([*SMALL, *OWN, "--scale=0.5", f"--out={out}"])
    result = read_result(out)
    assert (result.pipeline, result.kind) == ("minekit.mean:PIPELINE", "given code")
    evaluate.main([str(out), TRUST, f"--out={tmp_path / 'again.json'}", "--accelerator=cpu"])
    assert read_result(tmp_path / "again.json").value == pytest.approx(result.value)
    sample.main([str(out), TRUST, "--num=4", f"--out={tmp_path / 'drawn.png'}"])
    PIPELINE.main(["--resume", f"--out={out}", "--steps=5", *OWN])
    assert read_result(out).steps == 5


def test_reading_a_run_imports_nothing_that_is_not_named(run, refusal, tmp_path):
    """Each part asks for itself, and a run of another pipeline too."""
    said = refusal(sample.main, run)
    assert "give --trust minekit.nets" in said
    said = refusal(evaluate.main, run, "--trust=minekit.nets", "--accelerator=cpu")
    assert "give --trust minekit.images" in said
    config = (run / "config.json").read_text()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(config.replace('"pixelcnn"', '"minekit.broken:PIPELINE"', 1))
    assert "give --trust minekit.broken" in refusal(sample.main, other, "--trust=minekit.nets")
    assert "no licence" in refusal(sample.main, other, TRUST)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--decoder=minekit.absent:Above"], "there is no module minekit.absent"),
        (["--decoder=minekit.nets:Beyond"], "minekit.nets has no 'Beyond'"),
        (["--decoder=minekit.broken:Above"], "importing it failed (RuntimeError: no licence)"),
        (["--decoder=minekit.nets:Narrow"], "to be a subclass of Decoder"),
        (["--decoder=minekit.nets:Headless"], "to take 'likelihood'"),
        (["--likelihood=minekit.nets:Above"], "to be a subclass of Likelihood"),
        (["--decoder=minekit.nets:Above", "--num-blocks=3"], "a flag of --decoder pixelcnn++"),
        (["--num-blocks=3"], "--num-blocks is a flag of --decoder pixelcnn++"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(flags, sentence, refusal, tmp_path):
    out = tmp_path / "run"
    assert sentence in refusal(pixelcnn.main, *SMALL, *flags, f"--out={out}")
    assert not out.exists()


def test_resuming_imports_nothing_that_is_not_named_again(run, refusal):
    flags = ["--resume", f"--out={run}", "--steps=6"]
    sentence = "give --decoder minekit.nets:Above again"
    assert sentence in refusal(pixelcnn.main, *flags)
    named = ["--decoder=minekit.nets:Above", "--likelihood=minekit.nets:Narrow"]
    sentence = "give --data minekit.images:stripes again"
    assert sentence in refusal(pixelcnn.main, *flags, *named)

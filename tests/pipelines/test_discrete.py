"""An encoder with discrete latents goes through a whole run: trained, scored, drawn and studied."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eval import read_result
from pipelines import pixelcnn
from pipelines.compression.codecs import method_of
from pipelines.data.sets import DataConfig, load
from pipelines.model import Model
from pipelines.runs import latent_codes, report_pictures, scoring, traversal
from pipelines.runs.networks import make_decoder
from pipelines.runs.record import ImageSpec
from pipelines.runtime.errors import UserError
from tests.encoders.quantizer import FreeQuantizer, Quantizer

FLAGS = ["--steps=6", "--limit=60", "--hidden-channels=8", "--num-layers=1", "--num-samples=4",
         "--importance-samples=4", "--log-every=2", "--accelerator=cpu"]  # fmt: skip
RATE = 16 * math.log(8)  # a uniform prior over eight vectors at 4×4 positions


def build(config: pixelcnn.Config, spec: ImageSpec, encoder: type[Quantizer] = Quantizer) -> Model:
    own = encoder(spec.image_shape, num_levels=spec.num_levels)
    return Model(make_decoder(config.decoder, spec, own.code_shape), own)


def build_free(config: pixelcnn.Config, spec: ImageSpec) -> Model:
    return build(config, spec, FreeQuantizer)


def train(out: Path, *flags: str, build=build) -> Path:
    argv = [*FLAGS, f"--out={out}", *flags]
    replace(pixelcnn.PIPELINE, build=build).main(argv)
    return out


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("discrete") / "run")


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    config = pixelcnn.Config.of(hidden_channels=8, num_layers=1, kernel_size=3, first_kernel_size=3)
    return build(config, ImageSpec((1, 8, 8), 17)).eval()


def test_its_score_is_a_bound_of_distortion_and_rate_alone(run_dir):
    result = read_result(run_dir)
    assert result.kind == "bound"
    assert result.rate == pytest.approx(RATE)
    assert result.value == pytest.approx(result.distortion + RATE)
    assert result.estimate is not None
    assert result.estimate.nats == pytest.approx(result.value)  # every weight is the same
    assert "auxiliary" not in (run_dir / "result.json").read_text()


def test_training_minimizes_and_logs_the_auxiliary_loss(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "objective" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert line["auxiliary"] > 0
        assert line["objective"] == pytest.approx(line["nats"] + line["auxiliary"])
        assert line["nats"] == pytest.approx(line["distortion"] + RATE)


def test_a_resumed_run_logs_the_same_auxiliary_loss(tmp_path):
    """Also of a step that was done before the checkpoint, in the middle of a line of metrics."""
    part = train(tmp_path / "run", "--steps=3", "--lr-decay=constant")
    train(part, "--steps=4", "--lr-decay=constant", "--resume")
    whole = train(tmp_path / "whole", "--steps=4", "--lr-decay=constant")
    last = [
        json.loads(line)
        for run in (part, whole)
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if json.loads(line)["step"] == 4 and "auxiliary" in json.loads(line)
    ]
    assert len(last) == 2
    assert last[0]["auxiliary"] == last[1]["auxiliary"]


def test_the_study_says_what_is_not_defined(run_dir):
    """Where a non-Gaussian posterior used to end in a traceback after training."""
    latents = read_result(run_dir).latents
    assert latents is not None
    assert latents.rate == pytest.approx(RATE)
    assert "Mutual information is estimated only for Gaussian posteriors" in latents.verdict
    (level,) = latents.levels
    assert level.mutual_information is None
    assert (len(level.rate_per_dimension), len(level.active)) == (16, 48)


def test_pictures_are_drawn(run_dir):
    for name in ("samples", "reconstructions", "interpolation", "receptive_field", "latents-pca"):
        assert (run_dir / f"{name}.png").stat().st_size > 0, name


def test_codes_without_a_prior_are_given(tmp_path):
    result = read_result(train(tmp_path / "run", build=build_free))
    assert (result.kind, result.rate) == ("given code", None)
    assert result.latents is not None
    assert "free code" in result.latents.verdict
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"auxiliary"' in metrics


def test_interpolation_follows_a_line_between_the_vectors(model):
    images = load(DataConfig(limit=20)).test
    assert traversal.default_method(model) == "lerp"
    walk = traversal.between_images(model, images, traversal.image_ends(images, 2), 3)
    assert walk.x.shape == (3, 2, 1, 8, 8)


def test_bits_back_coding_is_refused_in_one_sentence(model):
    with pytest.raises(UserError, match=r"needs one level of latents .*Gaussian.* a Quantizer"):
        method_of(model, bits_back=True)


def test_reconstructions_and_codes(model):
    images = load(DataConfig(limit=20)).test
    assert report_pictures.reconstruction_grid(model, images, 4, 0).shape[0] == 3
    codes = latent_codes.encode(model, images, scoring.part(images, 7), batch_size=3)
    assert [(mean.shape, std) for mean, std in codes.levels] == [((7, 3, 4, 4), None)]
    assert codes.part(2).levels[0][1] is None

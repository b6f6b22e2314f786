"""Scores belong to an image and a model: neither batches, processes nor the order matter."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.data.sets import DataConfig, load
from pipelines.model import Model
from pipelines.runs import scoring
from pipelines.runs.load import open_run
from pipelines.runs.results import VALIDATION_IMAGES, validate
from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric

TWO = ("--levels-of-latents=2", "--latent-dim=3", "--latent-map", "2", "4", "4")
CASES = {"one level": ("--latent-dim=3",), "two levels": TWO}


class OneOf:
    """A process among several, as scoring sees its Fabric; it reduces nothing."""

    def __init__(self, rank: int, world: int):
        self.global_rank, self.world_size = rank, world
        self.is_global_zero, self.device = False, torch.device("cpu")


@pytest.fixture(scope="module")
def fabric() -> Any:
    return make_fabric(DeviceConfig("cpu", "1"))


@pytest.fixture(scope="module")
def digits() -> Any:
    return load(DataConfig()).test


@pytest.fixture(params=CASES)
def model(train_run: Any, request: pytest.FixtureRequest) -> Model:
    return open_run(train_run("pixelvae", *CASES[request.param])).model


def test_a_score_does_not_depend_on_the_batch_size(fabric, digits, model):
    """Bound and estimate of latents, image by image, beyond the last digits of float32."""
    few = np.arange(30)
    bounds = [scoring.score(fabric, model, digits, batch_size=b, chosen=few) for b in (1, 7, 64)]
    for other in bounds[1:]:
        for name in ("distortion", "rate"):
            found, expected = getattr(other, name).values, getattr(bounds[0], name).values
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    small = load(DataConfig(limit=10)).test
    curves = [scoring.estimate(fabric, model, small, (1, 4), batch_size=b) for b in (1, 3, 64)]
    for other in curves[1:]:
        for k in (1, 4):
            np.testing.assert_allclose(other[k].values, curves[0][k].values, rtol=1e-5, atol=1e-4)


def test_a_score_does_not_depend_on_the_number_of_processes(fabric, digits, model):
    """Each of three processes gives its images the latents that one process alone gives them."""
    chosen = scoring.part(digits, 20)
    whole = scoring.score(fabric, model, digits, batch_size=8)
    noise = scoring._noise(model, scoring.BOUND, chosen)
    assert noise is not None
    for rank in range(3):
        one: Any = OneOf(rank, 3)
        for places, (x, y) in scoring.batches(one, digits, chosen, 4, "score"):
            with torch.no_grad():
                terms = model(x, y, noise=noise(places, 0, 1))
            expected = whole.nll.values[chosen[places]]
            found = (terms.distortion + terms.rate).double().numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_scores_leave_the_random_state_alone(fabric, digits, model):
    before = torch.get_rng_state()
    scoring.score(fabric, model, digits, batch_size=8, chosen=np.arange(4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shapes", [((3,),), ((4,), (2, 3, 3))])
def test_noise_is_standard_normal_and_a_function_of_the_image_and_the_draw(shapes):
    def drawn(indices, first, num, purpose=scoring.BOUND):
        return scoring.latent_noise(shapes, purpose, np.array(indices), first, num)

    many = drawn(range(3000), 0, 2)
    for level, shape in zip(many, shapes, strict=True):
        assert level.shape == (6000, *shape)
        assert level.mean().abs() < 0.03
        assert (level.std() - 1).abs() < 0.03
        assert len(level.unique()) > 0.999 * level.numel()
    for position, level in enumerate(drawn([7, 2], 1, 1)):
        both = many[position].unflatten(0, (3000, 2))
        assert torch.equal(level, both[[7, 2], 1])
    assert not torch.equal(drawn([7], 0, 1, scoring.CODES)[0], many[0][14:15])


def test_validation_scores_a_part_that_represents_the_set(fabric, model, monkeypatch):
    """More images than validation takes, sorted by label: every label keeps its share."""
    images = load(DataConfig()).train
    assert len(images) > VALIDATION_IMAGES
    seen: list[np.ndarray] = []

    def score(*_: Any, chosen: np.ndarray, **__: Any) -> Any:
        seen.append(chosen)
        raise InterruptedError

    monkeypatch.setattr(scoring, "score", score)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            validate(fabric, model, images, batch_size=64)
    np.testing.assert_array_equal(*seen)
    assert len(seen[0]) == VALIDATION_IMAGES
    assert images.labels is not None
    shares = np.bincount(images.labels) * VALIDATION_IMAGES / len(images)
    assert np.abs(np.bincount(images.labels[seen[0]]) - shares).max() <= 1


def test_baseline_counts_a_part_that_represents_a_sorted_set(monkeypatch):
    """Half of the training images are black, half white; a part of them scores as all do."""
    monkeypatch.setattr(scoring, "BASELINE_IMAGES", 40)
    white = np.repeat([0, 255], 200).astype(np.uint8)
    pixels = np.broadcast_to(white[:, None, None, None], (400, 1, 2, 2))
    images = dataclasses.replace(
        load(DataConfig(binarize="threshold")).train,
        image_shape=(1, 2, 2), labels=white // 255, _pixels=pixels, _native_levels=256,
    )  # fmt: skip
    found = scoring.independent_pixels(images, images)
    assert found["bits_per_dim"] == pytest.approx(1.0, abs=0.01)
    assert found["train_images"] == "40 of 400, drawn with seed 0, stratified by label"


def test_others_are_other_images_of_the_whole_set():
    for count in (2, 3, 100):
        found = scoring.others(count)
        assert sorted(found) == list(range(count))
        assert (found != np.arange(count)).all()

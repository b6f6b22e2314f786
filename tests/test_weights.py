"""The shipped weights are small, open like any run, and still score what they scored.

Each folder has `check.npz`, made when the weights were: a few test images, and what each scored, in
nats: exactly, or distortion and rate of a latent drawn after `torch.manual_seed(0)`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import load
from pipelines.runs.load import open_run

WEIGHTS = sorted((Path(__file__).parent.parent / "weights").glob("*/"))


def test_there_are_some() -> None:
    assert WEIGHTS


@pytest.mark.parametrize("folder", WEIGHTS, ids=lambda folder: folder.name)
def test_weights_score_what_was_committed(folder: Path) -> None:
    run = open_run(folder)
    with np.load(folder / "check.npz") as check:
        x, nats = torch.from_numpy(check["x"]), check["nats"]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        terms = run.model(x, None)
    found = torch.stack([terms.distortion, terms.rate]).double().numpy()
    np.testing.assert_allclose(found, nats, rtol=0, atol=0.02)
    drawn = run.model.sample(4, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (4, *run.spec.image_shape)
    assert 0 < drawn.float().mean() < 0.5 * (run.spec.num_levels - 1)  # digits are mostly dark


@pytest.mark.parametrize("folder", WEIGHTS, ids=lambda folder: folder.name)
def test_weights_are_small_and_say_what_they_are(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["data_dir"] in ("", "data")
    about = (folder.parent / "README.md").read_text()
    assert f"## {folder.name}" in about
    assert "CC BY-SA 3.0" in about


@pytest.mark.parametrize("folder", WEIGHTS, ids=lambda folder: folder.name)
def test_weights_come_back_from_save_pretrained_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    model = load(folder.name)
    model.save_pretrained(tmp_path / "saved")
    with np.load(folder / "check.npz") as check:
        x = torch.from_numpy(check["x"])[:2]
    scores = []
    for one in (model, load(tmp_path / "saved")):
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            scores.append(one(x))
    assert torch.equal(scores[0].distortion, scores[1].distortion)
    assert torch.equal(scores[0].rate, scores[1].rate)

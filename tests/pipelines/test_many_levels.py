"""Images of more than 256 levels, such as the codes of a VQ-VAE, pass every command as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import read_result
from pipelines import compress, evaluate, interpolate, outliers, sample

LEVELS = 400


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("codes") / "codes.npz"
    maps = draws.integers(0, LEVELS, (30, 4, 4))
    maps[0, 0, 0] = LEVELS - 1
    np.savez(path, train=maps[:20], test=maps[20:])
    return path


@pytest.mark.parametrize("pipeline", ["pixelcnn", "pixelvae", "autoencoder"])
def test_all_pipelines_train_and_score(train_run: Callable[..., Path], codes: Path, pipeline: str):
    run_dir = train_run(pipeline, "--data=npz", f"--data-dir={codes}", "--limit=0")
    result = read_result(run_dir)
    assert (result.levels, result.count) == (LEVELS, 10)
    assert 8 < result.bits_per_dim < 10, "about log2(400)"


def test_compressed_codes_come_back(copy_run: Callable[..., Path], codes: Path, tmp_path: Path):
    """Exported, encoded and decoded, none of them cut to a byte."""
    run_dir = str(copy_run("pixelcnn", "--data=npz", f"--data-dir={codes}", "--limit=0"))
    exported, coded, back = (tmp_path / name for name in ("x.npy", "x.pxl", "back.npy"))
    compress.main([run_dir, "export", str(exported)])
    with np.load(codes) as archive:
        np.testing.assert_array_equal(np.load(exported)[:, 0], archive["test"])
    compress.main([run_dir, "encode", str(exported), str(coded)])
    compress.main([run_dir, "decode", str(coded), str(back)])
    assert back.read_bytes() == exported.read_bytes()


def test_commands_on_a_finished_run_take_them(
    copy_run: Callable[..., Path], codes: Path, tmp_path: Path
):
    run_dir = copy_run("pixelvae", "--data=npz", f"--data-dir={codes}", "--limit=0")
    drawn = tmp_path / "drawn.npy"
    sample.main([str(run_dir), "--num=6", f"--npy={drawn}"])
    assert np.load(drawn).dtype == np.int64
    assert np.load(drawn).max() > 255
    outliers.main([str(run_dir), "--images", str(drawn)])
    interpolate.main([str(run_dir), "--pairs=1", "--steps=3"])
    evaluate.main([str(run_dir), "--importance-samples=0", "--limit=4"])
    for kind in ("outliers*.csv", "interpolation*.png", "result-test.json"):
        assert list(run_dir.glob(kind)), kind


def test_a_file_of_other_levels_is_refused(
    copy_run: Callable[..., Path], refusal: Callable[..., str], codes: Path, tmp_path: Path
):
    run_dir = copy_run("pixelcnn", "--data=npz", f"--data-dir={codes}", "--limit=0")
    images = torch.zeros(2, 1, 4, 4, dtype=torch.int64).numpy()
    for wrong, said in (
        (images.astype(np.uint8), "expected int64 levels"),
        (images + LEVELS, f"image 0 has level {LEVELS}"),
        (images - 1, "image 0 has level -1"),
    ):
        np.save(tmp_path / "wrong.npy", wrong)
        assert said in refusal(
            compress.main, run_dir, "encode", tmp_path / "wrong.npy", tmp_path / "wrong.pxl"
        )

"""Batches of images: order, quantization, binarization, gray and padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipelines.data.config import DataConfig
from pipelines.data.images import to_display
from pipelines.data.sets import load
from tests.pipelines.data.samples import all_images, arrays


def test_a_batch_has_its_images_in_the_order_of_the_indices():
    train = load(DataConfig("digits", condition="label")).train
    indices = np.array([7, 3, 3, 1000])
    batch = train.batch(indices)
    np.testing.assert_array_equal(batch.x.numpy(), all_images(train)[indices])
    assert isinstance(batch.y, torch.Tensor)
    assert batch.y.dtype == torch.int64
    assert batch.y.tolist() == train.labels[indices].tolist()
    batch.x.zero_()
    assert train.batch(indices).x.any(), "a batch is a copy"


def test_to_display_spreads_levels_over_bytes():
    bytes_ = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_display(bytes_, 256), bytes_)
    assert to_display(torch.tensor([0, 1], dtype=torch.uint8), 2).tolist() == [0, 255]
    assert to_display(torch.tensor([8, 16], dtype=torch.uint8), 17).tolist() == [128, 255]


def test_levels_quantize_evenly():
    plain, few = load(DataConfig("digits")).test, load(DataConfig("digits", levels=4)).test
    assert few.num_levels == 4
    np.testing.assert_array_equal(all_images(few), all_images(plain).astype(int) * 4 // 17)


def test_threshold_is_above_half(tmp_path: Path):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.savez(tmp_path / "a.npz", train=ramp, test=ramp)
    images = load(DataConfig("npz", str(tmp_path), binarize="threshold")).test
    assert images.num_levels == 2
    np.testing.assert_array_equal(all_images(images)[0, 0], ramp[0] > 127)


def test_dynamic_binarization_draws_anew_in_training_and_once_for_evaluation(tmp_path: Path):
    gray = np.full((4, 100, 100), 51, dtype=np.uint8)  # a probability of one in five
    gray[0], gray[1] = 0, 255
    np.savez(tmp_path / "a.npz", train=gray, test=gray)
    splits = load(DataConfig("npz", str(tmp_path), binarize="dynamic"))
    everything = np.arange(4)
    one, two = (splits.train.batch(everything, noise_seed=(0, step)).x for step in (1, 2))
    again = splits.train.batch(everything, noise_seed=(0, 1)).x
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    assert not torch.equal(one[2], one[3]), "images with one content get their own draws"
    alone = splits.train.batch(np.array([3]), noise_seed=(0, 1)).x
    assert torch.equal(alone[0], one[3]), "a draw does not depend on the rest of the batch"
    fixed = splits.test.batch(everything, noise_seed=(0, 1)).x
    assert torch.equal(fixed, splits.test.batch(everything, noise_seed=(5, 2)).x)
    for x in (one, two, fixed):
        assert not x[0].any()
        assert x[1].all()
        assert abs(x[2:].float().mean().item() - 0.2) < 0.012  # four standard errors


def test_gray_and_pad(tmp_path: Path):
    config = arrays(tmp_path)
    plain = load(config).train
    assert plain.image_shape == (3, 6, 5)
    changed = load(DataConfig("npz", str(tmp_path), gray=True, pad=2)).train
    assert changed.image_shape == (1, 10, 9)
    x = all_images(changed)
    assert not x[:, :, :2].any()
    assert not x[:, :, :, -2:].any()
    picture = Image.fromarray(np.moveaxis(all_images(plain)[3], 0, -1)).convert("L")
    np.testing.assert_array_equal(x[3, 0, 2:-2, 2:-2], np.asarray(picture))


def test_pad_extends_masks_and_keypoints():
    plain = load(DataConfig("shapes", condition="mask")).test
    padded = load(DataConfig("shapes", condition="mask", pad=3)).test
    x, y = padded.batch(np.arange(5))
    assert tuple(x.shape[2:]) == tuple(y.shape[1:]) == (26, 26)
    assert torch.equal(y[:, 3:-3, 3:-3], plain.batch(np.arange(5)).y)

"""Fingerprints tell data and options apart."""

from __future__ import annotations

import numpy as np

from pipelines.data import fingerprint
from pipelines.data.config import DataConfig
from pipelines.data.sets import load


def test_fingerprints_tell_data_and_options_apart():
    configs = [
        DataConfig("digits"),
        DataConfig("digits", limit=100),
        DataConfig("digits", levels=2),
        DataConfig("digits", binarize="threshold"),
        DataConfig("digits", binarize="dynamic"),
        DataConfig("digits", pad=1),
    ]
    prints = [images.fingerprint for config in configs for images in load(config)[:2]]
    assert len(set(prints)) == len(prints)
    again = load(DataConfig("digits", "/elsewhere", condition="label"))
    assert again.train.fingerprint == prints[0]


def test_the_fingerprint_samples_large_arrays_and_reads_small_ones_whole():
    pixels = np.zeros((100, 1, 4, 4), dtype=np.uint8)
    changed = pixels.copy()
    changed[37] = 1
    assert fingerprint.of_pixels(pixels) != fingerprint.of_pixels(changed)
    assert fingerprint.of_pixels(pixels) != fingerprint.of_pixels(pixels[:99])
    sampled = fingerprint.of_pixels(pixels, small=10, sample=5)
    assert sampled == fingerprint.of_pixels(changed, small=10, sample=5)
    changed[99] = 1
    assert sampled != fingerprint.of_pixels(changed, small=10, sample=5)

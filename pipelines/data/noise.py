"""Counter-based randomness: a pure function of integer seeds and counters.

Data order, dynamic binarization and the drawn data sets must not depend on how many images came
before, on the composition of a batch, or on the NumPy release. A hash of (seed, counter) has these
properties; a stateful generator has none of them.

Source: SplitMix64, G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators",
2014, https://doi.org/10.1145/2660193.2660195
"""

from __future__ import annotations

import numpy as np
import torch

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _key(seed: tuple[int, ...]) -> int:
    key = 0
    for part in seed:
        mixed = _mix(np.array([(key + (part + 1) * _GOLDEN) & _MASK], dtype=np.uint64))
        key = int(mixed[0])
    return key


def bits(seed: tuple[int, ...], counters: np.ndarray) -> np.ndarray:
    """Return 64 random bits (uint64) per counter, a function of `seed` and the counter.

    Example:
        >>> bits((0, 1), np.arange(3)).tolist() == bits((0, 1), np.arange(5)).tolist()[:3]
        True
    """
    steps = np.asarray(counters).astype(np.uint64) * np.uint64(_GOLDEN)
    return _mix(steps + np.uint64(_key(seed)))


def integers(seed: tuple[int, ...], counters: np.ndarray, high: int | np.ndarray) -> np.ndarray:
    """Return one int64 in [0, high) per counter."""
    return np.floor(uniform(seed, counters) * high).astype(np.int64)


def uniform(seed: tuple[int, ...], counters: np.ndarray) -> np.ndarray:
    """Return one float64 in [0, 1), a multiple of 2^-32, per counter."""
    return (bits(seed, counters) >> np.uint64(32)).astype(np.float64) * 2.0**-32


def normal(seed: tuple[int, ...], counters: np.ndarray) -> np.ndarray:
    """Return one float64 from N(0, 1) per counter, within ±8.3.

    Example:
        >>> values = normal((0,), np.arange(100_000))
        >>> bool(abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01)
        True
    """
    uniforms = ((bits(seed, counters) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return torch.special.ndtri(torch.from_numpy(uniforms)).numpy()


def permutation(seed: tuple[int, ...], count: int) -> np.ndarray:
    """Return a permutation of 0..count-1 (int64), a function of `seed` and `count`."""
    return np.argsort(bits(seed, np.arange(count)), kind="stable")

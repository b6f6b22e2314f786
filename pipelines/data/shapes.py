"""The data sets `shapes` and `shapes_color`: a circle, square or triangle, with annotations.

Every image is a pure function of (seed, index): nothing is downloaded or stored. Shape, size and
place (and color) are uniform, and every choice gives a different picture. So the entropy of the
source is known, the lowest negative log-likelihood that any model can reach: see `entropy`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.data import noise

SIDE = 20
SHAPES = ("circle", "square", "triangle")
SIZES = {3: "small", 4: "medium", 5: "large", 6: "huge"}  # radius in pixels -> its word
COLORS = {  # name -> levels 0..3 of red, green and blue
    "red": (3, 0, 0),
    "green": (0, 3, 0),
    "blue": (0, 0, 3),
    "yellow": (3, 3, 0),
    "cyan": (0, 3, 3),
    "magenta": (3, 0, 3),
    "orange": (3, 1, 0),
    "white": (3, 3, 3),
}
# British spelling stays in the data: another caption is another data set.
KEYPOINTS = ("centre", "top", "bottom", "left", "right")
CAPTION_LENGTH = 48  # the longest caption has 42 characters
_ROWS = ("top", "", "bottom")
_COLUMNS = ("left", "", "right")


class Drawing(NamedTuple):
    """Drawn images and their annotations."""

    pixels: np.ndarray  # (N, 1, 20, 20) levels 0..1, or (N, 3, 20, 20) levels 0..3, uint8
    labels: np.ndarray  # (N,) int64: 0 circle, 1 square, 2 triangle
    mask: np.ndarray  # (N, 20, 20) uint8: 0 background, 1 + label on the shape
    keypoints: np.ndarray  # (N, 5, 20, 20) uint8: one pixel set per channel, see KEYPOINTS
    captions: list[str]  # 'a small red circle at the top left'


def draw(indices: np.ndarray, *, color: bool = False, seed: int = 0) -> Drawing:
    """Draw the images with these indices, binary or in four levels of red, green and blue.

    Example:
        >>> one = draw(np.array([5]), color=True)
        >>> one.pixels.shape, one.captions[0]
        ((1, 3, 20, 20), 'a medium orange square at the top left')
    """
    indices = np.asarray(indices)
    labels = noise.integers((seed, 0), indices, len(SHAPES))
    radius = min(SIZES) + noise.integers((seed, 1), indices, len(SIZES))
    places = SIDE - 2 * radius  # the whole shape stays inside the picture
    row = radius + noise.integers((seed, 2), indices, places)
    column = radius + noise.integers((seed, 3), indices, places)
    tint = noise.integers((seed, 4), indices, len(COLORS))

    inside = _inside(labels, radius, row, column)
    pixels = inside[:, None].astype(np.uint8)
    if color:
        palette = np.array(list(COLORS.values()), dtype=np.uint8)
        pixels = pixels * palette[tint][:, :, None, None]
    mask = inside * (1 + labels[:, None, None])
    names = list(COLORS)
    captions = [
        _caption(SHAPES[k], SIZES[int(r)], names[t] if color else "", int(y), int(x))
        for k, r, t, y, x in zip(labels, radius, tint, row, column, strict=True)
    ]
    keypoints = _keypoints(labels, radius, row, column)
    return Drawing(pixels, labels, mask.astype(np.uint8), keypoints, captions)


def entropy(*, color: bool = False) -> float:
    """Return the entropy of the source in nats per image: no expected NLL is below it.

    Example:
        >>> round(entropy(), 3)
        7.238
    """
    places = [2.0 * np.log(SIDE - 2 * radius) for radius in SIZES]
    tints = np.log(len(COLORS)) if color else 0.0
    return float(np.log(len(SHAPES)) + np.log(len(SIZES)) + np.mean(places) + tints)


def _inside(
    labels: np.ndarray, radius: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Return the pixels inside the shape, (N, 20, 20) booleans."""
    grid = np.arange(SIDE)
    dy = grid[None, :, None] - row[:, None, None]
    dx = grid[None, None, :] - column[:, None, None]
    r = radius[:, None, None]
    circle = dy**2 + dx**2 <= r**2
    square = np.maximum(abs(dy), abs(dx)) <= r
    triangle = (abs(dy) <= r) & (2 * abs(dx) <= dy + r)
    return np.choose(labels[:, None, None], [circle, square, triangle])


def _keypoints(
    labels: np.ndarray, radius: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Return a binary channel per keypoint; a triangle's left and right are its lower corners."""
    side = np.where(labels == SHAPES.index("triangle"), row + radius, row)
    rows = (row, row - radius, row + radius, side, side)
    columns = (column, column, column, column - radius, column + radius)
    channels = np.zeros((len(labels), len(KEYPOINTS), SIDE, SIDE), dtype=np.uint8)
    for k, (y, x) in enumerate(zip(rows, columns, strict=True)):
        channels[np.arange(len(labels)), k, y, x] = 1
    return channels


def _caption(shape: str, size: str, color: str, row: int, column: int) -> str:
    place = f"{_ROWS[3 * row // SIDE]} {_COLUMNS[3 * column // SIDE]}".strip() or "centre"
    return " ".join(word for word in ("a", size, color, shape, "at the", place) if word)

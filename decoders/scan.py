"""Raster scan: sampling, completion and coding are three uses of it.

A `Scan` visits the sub-pixels in the order (row, column, channel). It gives the parameters of the
next one and is told its value. `run` drives it, and a chooser decides the
values: `Draw` samples, a coder encodes or decodes.

Parts of the scans of convolutional networks are in `decoders.caches`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from decoders.arguments import NonFiniteError
from decoders.likelihoods import Likelihood, widest_float
from decoders.recording import can_record, recorded


class Scan(ABC):
    """One pass over a batch of images in raster order.

    Attributes:
        row_period: number of rows after which the same operations on the same memory come again,
            once `begin_row` has returned; 0 if they never do. A GPU records that many rows, after
            as many others, and replays them.

    >>> from decoders import GatedPixelCNN
    >>> decoder = GatedPixelCNN((1, 4, 4), num_levels=2, num_layers=1, hidden_channels=4)
    >>> with torch.no_grad():
    ...     scan = decoder.scan(None, num=3)
    ...     scan.begin_row(0)
    ...     params = scan.params(0, 0, 0)
    ...     scan.push(0, 0, 0, torch.ones(3, dtype=torch.uint8))
    >>> params.shape
    torch.Size([3, 2])
    """

    row_period = 0

    def begin_row(self, row: int) -> None:  # noqa: B027
        """Do what a row needs before its first `params`; by default nothing."""

    @abstractmethod
    def params(self, row: int, col: int, channel: int) -> Tensor:
        """Return the parameters (B, P) of a pixel, right for this channel of it.

        They may be in a buffer that the next call overwrites.
        """

    @abstractmethod
    def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
        """Take the values (B,) of the sub-pixel whose parameters were given last."""

    def row(self, row: int) -> Tensor | None:
        """Return the parameters (N, P, …) of all pixels of the row just completed.

        They are looked at once a row, as each look makes the CPU wait for a GPU. None from a scan
        that keeps no rows: then they are looked at step by step, and no row is recorded.
        """
        return None


class Network(Protocol):
    """A decoder as the scans without caches see it."""

    image_shape: tuple[int, int, int]

    @property
    def dtype(self) -> torch.dtype: ...

    def params(self, x: Tensor, h: Tensor | None = None) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class PlainScan(Scan):
    """A scan without caches: the whole network again for each sub-pixel. Right for any decoder."""

    def __init__(self, decoder: Network, h: Tensor | None, num: int):
        self.decoder, self.h, self.x = decoder, h, blank(decoder, num)

    def params(self, row: int, col: int, channel: int) -> Tensor:
        self.whole = self.decoder.params(self.x, self.h)
        return self.whole[:, :, row, col]

    def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
        self.x[:, channel, row, col] = values.to(self.x.dtype)

    def row(self, row: int) -> Tensor:
        return self.whole[:, :, row]


class ReadyScan(Scan):
    """A scan of independent pixels: one pass of the network gives the parameters of all."""

    row_period = 1

    def __init__(self, params: Tensor):
        self.rows = params.permute(2, 3, 0, 1)  # (H, W, B, P)
        # The current row, always in the same place.
        self.current = torch.empty_like(self.rows[0], memory_format=torch.contiguous_format)

    def begin_row(self, row: int) -> None:
        self.current.copy_(self.rows[row])

    def params(self, row: int, col: int, channel: int) -> Tensor:
        return self.current[col]

    def push(self, row: int, col: int, channel: int, values: Tensor) -> None:
        """Ignore the values: nothing depends on them."""

    def row(self, row: int) -> Tensor:
        return self.current.permute(1, 2, 0)


def blank(decoder: Network, num: int) -> Tensor:
    """Return images of zeros, (num, C, H, W)."""
    device = next(decoder.parameters()).device
    return torch.zeros((num, *decoder.image_shape), dtype=decoder.dtype, device=device)


class Chooser(ABC):
    """A way to decide the value of each sub-pixel: by drawing it, or by reading it from a file.

    Attributes:
        rows_alike: whether every row repeats the same operations on the same memory, once
            `begin_row` has returned.
    """

    rows_alike = False

    def begin_row(self, row: int) -> None:  # noqa: B027
        """Do what a row needs before its first sub-pixel; by default nothing."""

    @abstractmethod
    def __call__(self, params: Tensor, pixel: Tensor, row: int, col: int, channel: int) -> Tensor:
        """Return the values (B,) of a sub-pixel from its parameters (B, P) and pixel (B, C)."""

    def defined(self, params: Tensor) -> Tensor:
        """Return True where parameters (N, P, …) can be chosen by; see `Likelihood.defined`."""
        return params.isfinite()


class Draw(Chooser):
    """A chooser that samples from the likelihood, except where the values are known."""

    rows_alike = True

    def __init__(
        self,
        likelihood: Likelihood,
        noise: Tensor,
        temperature: float = 1.0,
        known: tuple[Tensor, Tensor] | None = None,
    ):
        self.likelihood, self.temperature = likelihood, temperature
        wide = widest_float(noise.device)
        self.noise = _by_rows(noise.to(wide))
        self.known = [_by_rows(part) for part in known or ()]
        # What the current row needs, always in the same place.
        self.row_noise = torch.empty_like(self.noise[0])
        self.row_known = [torch.empty_like(part[0]) for part in self.known]

    def begin_row(self, row: int) -> None:
        self.row_noise.copy_(self.noise[row])
        for own, part in zip(self.row_known, self.known, strict=True):
            own.copy_(part[row])

    def __call__(self, params: Tensor, pixel: Tensor, row: int, col: int, channel: int) -> Tensor:
        noise = self.row_noise[col, channel]
        values = self.likelihood.sample(params, pixel, channel, noise, self.temperature)
        if not self.row_known:
            return values
        image, mask = (part[col, channel] for part in self.row_known)
        return torch.where(mask, image.to(values.dtype), values)

    def defined(self, params: Tensor) -> Tensor:
        return self.likelihood.defined(params)


def _by_rows(images: Tensor) -> Tensor:
    """Return (B, C, H, W) as (H, W, C, B)."""
    return images.permute(2, 3, 1, 0).contiguous()


def run(
    scan: Scan,
    choose: Chooser,
    image_shape: tuple[int, int, int],
    num: int,
    dtype: torch.dtype,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
    *,
    record: bool = True,
) -> Tensor:
    """Scan `num` images, choosing the value of each sub-pixel.

    Args:
        scan: gives the parameters.
        choose: decides the values.
        image_shape: (C, H, W).
        num: B.
        dtype: type of the values.
        progress: wraps the loop over rows.
        record: whether a GPU records rows as CUDA graphs and replays them for those below, where
            scan and chooser allow it. The same operations run on the same numbers either way.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: parameters, or continuous values, are not finite.
    """
    channels, height, width = image_shape
    pixels: list[Tensor] = []  # (B, C) for each column of the current row

    def one_row(row: int) -> None:
        for col in range(width):
            for channel in range(channels):
                params = scan.params(row, col, channel)
                if not keeps_rows:
                    check_defined(choose.defined(params), row)
                if not pixels:
                    shape = (width, num, channels)
                    pixels.extend(torch.zeros(shape, dtype=dtype, device=params.device))
                values = choose(params, pixels[col], row, col, channel)
                pixels[col][:, channel] = values
                scan.push(row, col, channel, values)

    keeps_rows = type(scan).row is not Scan.row
    period = scan.row_period if record and choose.rows_alike and keeps_rows else 0
    replays: list[Callable[[int], None]] = []
    rows = []
    for row in (progress or iter)(range(height)):
        scan.begin_row(row)
        choose.begin_row(row)
        if len(replays) < period <= row and can_record(pixels[0].device):
            replays.append(recorded(one_row, row))
        (replays[row % period] if replays else one_row)(row)
        if (whole := scan.row(row)) is not None:
            check_defined(choose.defined(whole), row)
        rows.append(torch.stack(pixels))
    image = torch.stack(rows).permute(2, 3, 0, 1).contiguous()
    if dtype.is_floating_point and not bool(image.isfinite().all()):
        raise NonFiniteError(
            "expected finite values, got NaN or infinity: draw at a lower temperature, or use the "
            "weights of an earlier checkpoint"
        )
    return image


def check_defined(defined: Tensor, row: int | None = None) -> None:
    """Raise a NonFiniteError unless all are True: NaN would be drawn as black or white.

    Reads one number back, so call it once for many pixels.
    """
    if not bool(defined.all()):
        where = "" if row is None else f" in row {row}"
        raise NonFiniteError(
            f"expected finite parameters of the decoder, got NaN or infinity{where}: its weights "
            "have diverged, so use those of an earlier checkpoint"
        )


_lock = threading.Lock()
_evaluated: dict[nn.Module, tuple[int, bool]] = {}
"""Number of users that evaluate a module, and its mode before the first of them."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode within a context: no dropout in a likelihood or a draw.

    Threads may share it: the mode of before comes back when the last of them leaves.
    """
    parts = list(module.modules())
    with _lock:
        for part in parts:
            users, training = _evaluated.get(part, (0, part.training))
            _evaluated[part] = users + 1, training
        module.eval()
    try:
        yield
    finally:
        with _lock:
            for part in parts:
                users, training = _evaluated.pop(part)
                if users > 1:
                    _evaluated[part] = users - 1, training
                else:
                    part.training = training

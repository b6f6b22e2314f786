"""Receptive field of a decoder, measured and shown as text and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from decoders import Decoder
from decoders.checks import SubPixel, receptive_field, show_field
from pipelines.runs.decoders import DecoderConfig
from pipelines.runs.find import find_run
from pipelines.runs.flags import Findings
from pipelines.runs.load import open_run
from pipelines.runs.networks import checked, make_decoder
from pipelines.runs.pictures import save, shade_field
from pipelines.runs.record import ImageSpec
from pipelines.runtime.errors import UserError
from pipelines.runtime.output import refuse_existing


def decoder_of(run: str | Path, trust: Sequence[str] = ()) -> Decoder:
    """Return the decoder of a run."""
    return open_run(find_run(run), trust).model.decoder


def untrained(config: DecoderConfig, image_shape: tuple[int, int, int], levels: int) -> Decoder:
    """Return the decoder that flags describe, with the same random weights every time."""
    torch.manual_seed(0)
    return checked(make_decoder, config, ImageSpec(image_shape, levels))


def show_receptive_field(
    decoder: Decoder,
    row: int | None = None,
    col: int | None = None,
    channel: int | None = None,
    *,
    out: Path | None = None,
) -> Findings:
    """Measure which sub-pixels the prediction of one depends on, and write a picture.

    Args:
        decoder: an autoregressive decoder.
        row: row of the predicted sub-pixel, or None for the middle one.
        col: its column, or None for the middle one.
        channel: its channel, or None for the last one.
        out: the picture to write, if any.

    Raises:
        UserError: the decoder is not autoregressive, or there is no such sub-pixel.
    """
    refuse_existing(out)
    if not decoder.autoregressive:
        raise UserError(
            f"expected an autoregressive decoder, got {type(decoder).__name__}, whose pixels do "
            "not see one another"
        )
    channels, height, width = decoder.image_shape
    target = SubPixel(
        height // 2 if row is None else row,
        width // 2 if col is None else col,
        channels - 1 if channel is None else channel,
    )
    inside = 0 <= target.row < height and 0 <= target.col < width and 0 <= target.channel < channels
    if not inside:
        raise UserError(
            f"expected a sub-pixel within {height} rows, {width} columns and {channels} channels, "
            f"got row {target.row}, column {target.col}, channel {target.channel}"
        )
    field = receptive_field(decoder, target)
    before = (target.row * width + target.col) * channels + target.channel
    if out is not None:
        save(shade_field(field.double().mean(dim=-1), target.row, target.col), out)
    text = (
        f"{show_field(field, target)}\n"
        f"{type(decoder).__name__}: sub-pixel (row {target.row}, column {target.col}, channel "
        f"{target.channel}) depends on {int(field.sum())} of the {before} sub-pixels before it"
    )
    return Findings(text, [] if out is None else [out])

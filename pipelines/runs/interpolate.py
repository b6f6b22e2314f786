"""Interpolations between codes of a run's model: a picture, an animation and their smoothness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from eval import smoothness
from eval.interpolation import Method
from pipelines.runs import pictures, traversal
from pipelines.runs.find import find_run
from pipelines.runs.flags import Findings
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runs.traversal import Ends, Level, Noise, Traversal
from pipelines.runtime.config import Accelerator, DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import free_name, refuse_existing, write_record

PAIRS = 8


class Wanted(NamedTuple):
    """The interpolations to draw, as the flags of `pixel-decoders interpolate` ask for them."""

    between: Literal["images", "labels"]
    pairs: int
    ends: Sequence[int]
    steps: int
    method: Method
    noise: Noise
    level: Level
    seed: int
    data_dir: str


def interpolate(
    run: str | Path,
    *,
    trust: Sequence[str] = (),
    pairs: int | None = None,
    steps: int = 9,
    between: Literal["images", "labels"] = "images",
    ends: Sequence[int] = (),
    method: Literal["auto", "slerp", "lerp"] = "auto",
    out: Path | None = None,
    noise: Noise = "common",
    level: Level = "all",
    seed: int = 0,
    data_dir: str = "",
    accelerator: Accelerator = "auto",
) -> Findings:
    """Draw interpolations between codes, and write a picture, an animation and their smoothness.

    The arguments are the flags of `pixel-decoders interpolate`.

    Raises:
        UserError: the arguments don't fit one another, the model or its data.
    """
    run_dir = find_run(run)
    opened = open_run(run_dir, trust)
    wanted = Wanted(
        between,
        PAIRS if pairs is None else pairs,
        ends,
        steps,
        traversal.default_method(opened.model) if method == "auto" else method,
        noise,
        level,
        seed,
        data_dir,
    )
    check_model(opened, wanted)
    files = _files(run_dir, wanted, out)
    opened.model.to(make_fabric(DeviceConfig(accelerator, "1")).device)
    try:
        traversals, chosen = draw(opened, wanted)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    record = {"run": str(run_dir), **measure(opened, wanted, traversals, chosen)}
    _write(traversals, record, opened.spec.num_levels, files)
    return Findings(table(record), files)


def check_model(run: Run, wanted: Wanted) -> None:
    """Raise a UserError for flags that do not apply to the model."""
    model, encoder = run.model, run.model.encoder
    if encoder is None:
        raise UserError("this model has no encoder: there are no codes to interpolate between")
    levels = len(encoder.latent_shapes)
    if wanted.level != "all" and levels != 2:
        raise UserError(
            f"--level {wanted.level} is for two levels of latents, this model has "
            f"{levels or 'none'}"
        )
    if wanted.between == "labels" and not model.num_classes:
        raise UserError(f"--between labels is for a model given labels, not {model.kind!r}")
    if wanted.between == "labels" and wanted.data_dir:
        raise UserError("--data-dir is for test images, and labels need no images: leave it out")


def draw(run: Run, wanted: Wanted) -> tuple[Traversal, Ends]:
    """Return the decoded interpolations and their ends.

    Raises:
        UserError: there are no such ends.
        ValueError: there is no arc between two codes.
    """
    options: dict[str, Any] = {"method": wanted.method, "noise": wanted.noise, "seed": wanted.seed}
    if wanted.between == "labels":
        classes = run.spec.num_classes
        ends = _named_ends(wanted, classes, classes * (classes - 1), "labels")
        ends = ends or traversal.label_ends(wanted.pairs, classes)
        return traversal.between_labels(run.model, ends, wanted.steps, **options), ends
    images = load_splits(run, data_dir=wanted.data_dir).test
    ends = _named_ends(wanted, len(images), len(images) // 2, "test images")
    ends = ends or traversal.image_ends(images, wanted.pairs)
    options["level"] = wanted.level
    return traversal.between_images(run.model, images, ends, wanted.steps, **options), ends


def _named_ends(wanted: Wanted, count: int, most: int, what: str) -> Ends | None:
    """Return the ends that --ends names, or None if they are to be drawn.

    Raises:
        UserError: there are no such ends, or fewer pairs than --pairs.
    """
    ends = tuple(wanted.ends)
    if ends:
        if not all(0 <= end < count for end in ends):
            raise UserError(f"expected --ends from 0 to {count - 1}, the {what}, got {ends}")
        return Ends(np.array(ends[::2]), np.array(ends[1::2]))
    if wanted.pairs > most:
        raise UserError(
            f"expected --pairs of at most {most}, the number of pairs of {count} {what}, "
            f"got {wanted.pairs}"
        )
    return None


def measure(run: Run, wanted: Wanted, traversals: Traversal, ends: Ends) -> dict[str, Any]:
    """Return the smoothness of interpolations, and the distance of their ends from the images."""
    smooth = smoothness(traversals.x, run.spec.num_levels)
    coded = wanted.level == "all" and run.model.encodes_images
    between = {"first": traversals.first, "last": traversals.last}
    return {
        "kind": run.model.kind,
        **{name: getattr(wanted, name) for name in ("between", "steps", "noise", "level", "seed")},
        "method": wanted.method,
        "pairs": len(ends.first),
        "ends": np.stack(ends, axis=1).tolist(),
        "levels": run.spec.num_levels,
        "smoothness": smooth._asdict(),
        "reconstruction": {
            name: change(traversals.x[place], image)
            for place, (name, image) in zip((0, -1), between.items(), strict=True)
            if coded and image is not None
        },
    }


def change(drawn: Tensor, image: Tensor) -> float:
    """Return the mean absolute difference of two sets of images, in levels per sub-pixel."""
    return float((drawn.double() - image.double()).abs().mean())


def table(record: dict[str, Any]) -> str:
    """Return the text that the command prints."""
    smooth, top = record["smoothness"], record["levels"] - 1
    lines = [
        f"{record['pairs']} interpolations of {record['steps']} steps between {record['between']} "
        f"({record['method']}, {record['noise']} noise, level: {record['level']})",
        f"  mean change per step     {smooth['mean']:.3f} levels per sub-pixel "
        f"({smooth['normalized']:.2%} of the range)",
        f"  largest step             {smooth['largest']:.2f} times the mean (1: even)",
    ]
    if smooth["detour"] is not None:
        lines.append(
            f"  length of the path       {smooth['detour']:.2f} times the change from end to end"
        )
    for name, levels in record["reconstruction"].items():
        lines.append(
            f"  {name} image to its end    ".ljust(27) + f"{levels:.3f} levels per sub-pixel "
            f"({levels / top:.2%} of the range)"
        )
    return "\n".join(lines)


def _files(run_dir: Path, wanted: Wanted, out: Path | None) -> tuple[Path, Path, Path]:
    """Return new names for the picture, the animation and the record."""
    words = ["interpolation", wanted.method]
    words += [f"between-{wanted.between}"] * (wanted.between != "images")
    words += [wanted.level] * (wanted.level != "all")
    words += ["independent"] * (wanted.noise != "common")
    words += [f"seed{wanted.seed}"] * (wanted.seed != 0)
    png = out or free_name(run_dir, "-".join(words), ".png")
    files = png, png.with_suffix(".gif"), png.with_suffix(".json")
    refuse_existing(*files)
    return files


def _write(
    traversals: Traversal, record: dict[str, Any], num_levels: int, files: tuple[Path, Path, Path]
) -> None:
    png, gif, numbers = files
    canvas = traversal.grid(traversals, num_levels)
    pictures.save(canvas, png)
    with whole_file(gif) as stream:
        pictures.save_gif(traversal.frames(traversals, num_levels), stream, palette_of=canvas)
    write_record(numbers, record)

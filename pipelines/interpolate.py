"""Draw interpolations between the codes of test images, or between labels.

A picture with one interpolation in each row, an animation, and a JSON file that tells how smoothly
the pictures change go to new files in the run directory, or next to --out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from torch import Tensor

from eval import smoothness
from eval.interpolation import Method
from pipelines.runs import pictures, traversal
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runs.traversal import Ends, Traversal
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import whole_file
from pipelines.runtime.output import expanded, free_name, refuse_existing
from pipelines.runtime.provenance import prog


@dataclass(frozen=True)
class Config:
    """Flags of `python -m pipelines.interpolate`."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """The directory of a finished run."""
    pairs: int = 8
    """How many walks; between test images, their ends are drawn from all."""
    steps: int = 9
    """Pictures on each walk, both ends included."""
    method: Literal["auto", "slerp", "lerp"] = "auto"
    """Along an arc, or along a straight line; auto: an arc between latents, else a line."""
    noise: Literal["common", "independent"] = "common"
    """The pixels' random numbers: the same at every step of a walk, or drawn anew."""
    between: Literal["images", "labels"] = "images"
    """What stands at the ends: test images, or labels."""
    ends: tuple[int, ...] = ()
    """Numbers of the images (or labels) at the ends, two for each walk, in place of --pairs."""
    level: Literal["all", "top", "bottom"] = "all"
    """What moves, of two levels of latents: both; the top, while the noise of the bottom is fixed;
    or the bottom, between two draws given the top of the first image."""
    seed: int = 0
    """Decides all noise."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """The picture to write, the others beside it (default: new names in the run directory)."""
    data_dir: str = ""
    """Where the data set is now (default: where it was in training)."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device."""

    @property
    def wanted(self) -> Method | None:
        """The method that is asked for, if any is."""
        return None if self.method == "auto" else self.method


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for what a user can mend."""
    with exit_codes():
        config = expanded(
            tyro.cli(Config, args=argv, prog=prog("pipelines.interpolate"), description=__doc__)
        )
        check(config)
        run = open_run(config.run_dir)
        fabric = make_fabric(DeviceConfig(config.accelerator, "1"))
        run.model.to(fabric.device)
        files = _files(run, config)
        try:
            walks, ends = take(run, config)
        except (ValueError, TypeError) as error:
            raise UserError(str(error)) from error
        record = measure(run, config, walks, ends)
        _write(walks, record, run.spec.num_levels, files)
        print(table(record))
        print(*files, sep="\n")


def check(config: Config) -> None:
    """Raise a UserError for numbers that make no sense, whatever the model."""
    if config.pairs < 1:
        raise UserError(f"expected --pairs of at least 1, got {config.pairs}")
    if config.steps < 2:
        raise UserError(f"expected --steps of at least 2, both ends, got {config.steps}")
    if len(config.ends) % 2:
        raise UserError(f"expected two --ends for each walk, got {len(config.ends)} numbers")
    if not 0 <= config.seed < 2**63:
        raise UserError(f"expected a --seed of at least 0 (and below 2^63), got {config.seed}")
    if config.out is not None and config.out.suffix != ".png":
        raise UserError(f"expected --out to end in .png, got {config.out}")


def take(run: Run, config: Config) -> tuple[Traversal, Ends]:
    """The walks that the flags ask for.

    Raises:
        UserError: the flags don't fit the model or its data.
        ValueError: there is no arc between two codes.
    """
    model, encoder = run.model, run.model.encoder
    if encoder is None:
        raise UserError(
            f"{config.run_dir} holds a model without an encoder: it has no codes to "
            "interpolate between"
        )
    levels = len(encoder.latent_shapes)
    if config.level != "all" and levels != 2:
        raise UserError(
            f"--level {config.level} is for two levels of latents, this model has "
            f"{levels or 'none'}"
        )
    if config.between == "labels":
        if not model.num_classes:
            raise UserError(f"--between labels is for a model given labels, not {model.kind!r}")
        classes = run.spec.num_classes
        ends = _named_ends(config, classes, classes * (classes - 1), "labels")
        ends = ends or traversal.label_ends(config.pairs, classes)
        options: dict[str, Any] = {"noise": config.noise, "seed": config.seed}
        return traversal.between_labels(
            model, ends, config.steps, method=config.wanted, **options
        ), ends
    images = load_splits(run, data_dir=config.data_dir).test
    ends = _named_ends(config, len(images), len(images) // 2, "test images")
    ends = ends or traversal.image_ends(images, config.pairs)
    options = {"level": config.level, "noise": config.noise, "seed": config.seed}
    walks = traversal.between_images(
        model, images, ends, config.steps, method=config.wanted, **options
    )
    return walks, ends


def _named_ends(config: Config, count: int, most: int, what: str) -> Ends | None:
    """The ends that are named by number, if any are; else check that there are enough pairs."""
    if config.ends:
        if not all(0 <= end < count for end in config.ends):
            raise UserError(f"expected --ends from 0 to {count - 1}, the {what}, got {config.ends}")
        return Ends(np.array(config.ends[::2]), np.array(config.ends[1::2]))
    if config.pairs > most:
        raise UserError(
            f"expected --pairs of at most {most}, the number of pairs of {count} {what}, "
            f"got {config.pairs}"
        )
    return None


def measure(run: Run, config: Config, walks: Traversal, ends: Ends) -> dict[str, Any]:
    """How smooth the walks are, and how far their ends are from the images they are codes of."""
    method = config.wanted or traversal.default_method(run.model)
    smooth = smoothness(walks.x, run.spec.num_levels)
    coded = config.level == "all" and run.model.encodes_images
    between = {"first": walks.first, "last": walks.last}
    return {
        "run": str(config.run_dir),
        "kind": run.model.kind,
        **{name: getattr(config, name) for name in ("between", "steps", "noise", "level", "seed")},
        "method": method,
        "pairs": len(ends.first),
        "ends": np.stack(ends, axis=1).tolist(),
        "levels": run.spec.num_levels,
        "smoothness": smooth._asdict(),
        "reconstruction": {
            name: change(walks.x[place], image)
            for place, (name, image) in zip((0, -1), between.items(), strict=True)
            if coded and image is not None
        },
    }


def change(drawn: Tensor, image: Tensor) -> float:
    """The mean absolute difference of two sets of images, in levels per sub-pixel."""
    return float((drawn.double() - image.double()).abs().mean())


def table(record: dict[str, Any]) -> str:
    """What is printed of a record."""
    smooth, top = record["smoothness"], record["levels"] - 1
    lines = [
        f"{record['pairs']} walks of {record['steps']} steps between {record['between']} "
        f"({record['method']}, {record['noise']} noise, level: {record['level']})",
        f"  mean change per step     {smooth['mean']:.3f} levels per sub-pixel "
        f"({smooth['normalized']:.2%} of the range)",
        f"  largest step             {smooth['largest']:.2f} times the mean (1: even)",
    ]
    if smooth["detour"] is not None:
        lines.append(
            f"  length of the way        {smooth['detour']:.2f} times the change from end to end"
        )
    for name, levels in record["reconstruction"].items():
        lines.append(
            f"  {name} image to its end    ".ljust(27) + f"{levels:.3f} levels per sub-pixel "
            f"({levels / top:.2%} of the range)"
        )
    return "\n".join(lines)


def _files(run: Run, config: Config) -> tuple[Path, Path, Path]:
    """Where the picture, the animation and the numbers go: none of them is there yet."""
    words = ["interpolation", config.wanted or traversal.default_method(run.model)]
    words += [f"between-{config.between}"] * (config.between != "images")
    words += [config.level] * (config.level != "all")
    words += ["independent"] * (config.noise != "common")
    words += [f"seed{config.seed}"] * (config.seed != 0)
    png = config.out or free_name(config.run_dir, "-".join(words), ".png")
    files = png, png.with_suffix(".gif"), png.with_suffix(".json")
    refuse_existing(*files)
    return files


def _write(
    walks: Traversal, record: dict[str, Any], num_levels: int, files: tuple[Path, Path, Path]
) -> None:
    png, gif, numbers = files
    canvas = traversal.grid(walks, num_levels)
    with whole_file(png) as stream:
        pictures.to_image(canvas).save(stream, format="PNG")
    with whole_file(gif) as stream:
        pictures.save_gif(traversal.frames(walks, num_levels), stream, colours=canvas)
    with whole_file(numbers) as stream:
        stream.write((json.dumps(record, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()

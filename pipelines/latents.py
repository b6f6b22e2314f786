"""Tell what the codes of a finished run carry, and whether its decoder reads them.

Rate per level and dimension, active units, mutual information, what an image's own code is worth to
it over another's, and whether simple classifiers find the label in the code. All of it is added to
the run's result.json, TensorBoard's projector gets the codes, and pictures show them in the plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from eval import Latents, ResultError, read_result
from pipelines.runs import latent_study, scoring, tensorboard
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.output import expanded
from pipelines.runtime.provenance import prog


@dataclass(frozen=True)
class Config:
    """Flags of `python -m pipelines.latents`."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """The directory of a finished run, scored."""
    num: int = 0
    """Measure the codes of N test images, drawn from all (0: all)."""
    fit: int = 5000
    """Fit the probes to the codes of N training images, drawn from all (0: no probes)."""
    points: int = 2000
    """Show the codes of N of the test images in pictures (0: no pictures)."""
    tsne: bool = True
    """Draw a t-SNE too, beside the PCA."""
    seed: int = 0
    """Of the t-SNE."""
    data_dir: str = ""
    """Where the data set is now (default: where it was in training)."""
    score_batch: int = 64
    """Images at once."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for what a user can mend."""
    with exit_codes():
        config = expanded(
            tyro.cli(Config, args=argv, prog=prog("pipelines.latents"), description=__doc__)
        )
        check(config)
        run = open_run(config.run_dir)
        if not run.model.encodes_images:
            raise UserError(
                f"{config.run_dir} holds a model of kind {run.model.kind!r}, which does not encode "
                "images: it has no latents to look at"
            )
        latents, probes, files = study(run, config)
        print(table(latents, probes))
        print(*files, sep="\n")


def check(config: Config) -> None:
    """Raise a UserError for numbers that make no sense, whatever the model."""
    for flag, least in (("num", 0), ("fit", 0), ("points", 0), ("seed", 0), ("score_batch", 1)):
        if getattr(config, flag) < least:
            name = flag.replace("_", "-")
            raise UserError(f"expected --{name} of at least {least}, got {getattr(config, flag)}")
    if config.num == 1 or 0 < config.points < 4:
        raise UserError("expected at least two images to measure (--num), and four to draw")


def study(run: Run, config: Config) -> tuple[Latents, list[dict[str, Any]], list[Path]]:
    """Measure, probe and draw; returns what was found, and the pictures.

    Raises:
        UserError: the run was not scored, or on other images; there are too few.
    """
    fabric = make_fabric(DeviceConfig(config.accelerator, "1"))
    run.model.to(fabric.device)
    splits = load_splits(run, data_dir=config.data_dir)
    _check_result(config.run_dir, splits.test.fingerprint)
    size, chosen = config.score_batch, scoring.part(splits.test, config.num)
    if len(chosen) < 2:
        raise UserError("expected at least two test images, got one: no code differs from another")
    evaluation = scoring.score(fabric, run.model, splits.test, batch_size=size, chosen=chosen)
    test = latent_study.encode(run.model, splits.test, chosen, batch_size=size)
    latents = latent_study.measure(
        run.model, splits.test, evaluation, test, chosen, batch_size=size
    )
    described = scoring.describe_part(splits.test, config.num)
    drawn = {"codes": described, "swapped": described}
    probes = []
    if config.fit and splits.train.labels is not None:
        chosen = scoring.part(splits.train, config.fit)
        drawn["fitted"] = scoring.describe_part(splits.train, config.fit)
        train = latent_study.encode(run.model, splits.train, chosen, batch_size=size)
        if not latent_study.can_probe(train):
            raise UserError(
                f"expected at least {latent_study.FEWEST_TO_FIT} training images of two labels to "
                f"fit probes to, got {len(train.x)}: raise --fit, or choose --fit 0 for no probes"
            )
        probes = latent_study.probe(train, test)
    latent_study.add_to_result(config.run_dir, latents, evaluation.nll.count, probes, drawn)
    shown = test.part(config.points)
    files = []
    if len(shown.x) >= 4:
        methods = ("pca", "tsne") if config.tsne else ("pca",)
        files = latent_study.draw(config.run_dir, shown, methods, config.seed)
        tensorboard.add_projector(
            config.run_dir, shown.means, shown.x, run.spec.num_levels, shown.labels
        )
    return latents, probes, files


def _check_result(run_dir: Path, fingerprint: str) -> None:
    """Refuse to add to a result that is not there, or of other images."""
    if not (run_dir / "result.json").exists():
        raise UserError(
            f"{run_dir} has no result.json to add to: score it first by "
            f"python -m pipelines.evaluate {run_dir} --out {run_dir / 'result.json'}"
        )
    try:
        result = read_result(run_dir)
    except ResultError as error:
        raise UserError(f"the result can't be added to: {error}") from error
    if result.fingerprint != fingerprint:
        raise UserError(
            f"{run_dir / 'result.json'} was scored on other images than the test set found now: "
            "give the --data-dir of that one"
        )


def table(latents: Latents, probes: Sequence[dict[str, Any]]) -> str:
    """What is printed of the latents: a line for each level, and for each probe."""
    lines = [latents.verdict, "  level       rate    active units    mutual information"]
    for place, level in enumerate(latents.levels, start=1):
        rate = "free" if level.rate is None else f"{level.rate:.2f}"
        active = f"{sum(level.active)} of {level.dims}"
        information, cap = level.mutual_information, level.mutual_information_cap
        shared = "" if information is None else f"{information:.2f} (cap log N = {cap:.2f})"
        lines.append(f"  {f'{place} of {len(latents.levels)}':<8}{rate:>8}{active:>16}    {shared}")
    if latents.gain is not None:
        lines.append(f"  own code over another's: {latents.gain:.2f} ± {latents.gain_stderr:.2f}")
    lines.append(f"  all in nats per image, of {latents.count:,} images")
    for probe in probes:
        name = f"{probe['classifier']} on {probe['features']} ({probe['dims']})"
        lines.append(f"  {name:<44}{probe['accuracy']:.1%} ± {probe['stderr']:.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

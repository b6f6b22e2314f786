"""Study of a finished run's codes, which is added to its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from eval import Latents, Probe, ResultError, read_result
from pipelines.data.sets import Splits
from pipelines.runs import latent_codes, scoring, tensorboard
from pipelines.runs.find import find_run
from pipelines.runs.flags import Findings
from pipelines.runs.latent_codes import Codes
from pipelines.runs.load import load_splits, open_run
from pipelines.runtime.config import Accelerator, DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError

FIT = 5000  # default number of training images, if there are labels


def study_latents(
    run: str | Path,
    *,
    trust: Sequence[str] = (),
    limit: int = 0,
    fit: int | None = None,
    points: int = 2000,
    tsne: bool = True,
    seed: int = 0,
    data_dir: str = "",
    accelerator: Accelerator = "auto",
    score_batch: int = 64,
) -> Findings:
    """Measure the codes of a run's model, add them to its result, and draw them.

    The arguments are the flags of `pixel-decoders latents`.

    Raises:
        UserError: the model does not encode images, the run has no result or one of other images,
            or there are too few images.
    """
    run_dir = find_run(run)
    opened = open_run(run_dir, trust)
    model = opened.model
    if not model.encodes_images:
        raise UserError(
            f"{run_dir} holds a model of kind {model.kind!r}, which does not encode images: it has "
            "no codes to study"
        )
    fabric = make_fabric(DeviceConfig(accelerator, "1"))
    model.to(fabric.device)
    splits = load_splits(opened, data_dir=data_dir)
    _check_result(run_dir, splits.test.fingerprint)
    chosen = scoring.part(splits.test, limit)
    if len(chosen) < 2:
        raise UserError("expected at least two test images, got one: increase --limit")
    evaluation = scoring.score(fabric, model, splits.test, batch_size=score_batch, chosen=chosen)
    test = latent_codes.encode(model, splits.test, chosen, batch_size=score_batch)
    latents = latent_codes.measure(
        model, splits.test, evaluation, test, chosen, batch_size=score_batch
    )
    described = scoring.describe_part(splits.test, limit)
    drawn = {"codes": described, "swapped": described}
    probes: list[Probe] = []
    if count := _images_to_fit(splits, fit):
        chosen = scoring.part(splits.train, count)
        drawn["fitted"] = scoring.describe_part(splits.train, count)
        train = latent_codes.encode(model, splits.train, chosen, batch_size=score_batch)
        probes = _probe(train, test)
    latents = dataclasses.replace(latents, scored=evaluation.nll.count, images=drawn)
    latent_codes.add_to_result(run_dir, latents, probes)
    files = []
    shown = test.part(points)
    if len(shown.x) >= 4:
        files = latent_codes.draw(run_dir, shown, ("pca", "tsne") if tsne else ("pca",), seed)
        tensorboard.add_projector(
            run_dir, shown.means, shown.x, opened.spec.num_levels, shown.labels
        )
    return Findings(table(latents, probes), files)


def _images_to_fit(splits: Splits, asked: int | None) -> int:
    """Return the number of training images to fit probes to, or 0 for no probes.

    Raises:
        UserError: --fit is given, and there are no labels.
    """
    if splits.train.labels is not None:
        return FIT if asked is None else asked
    if asked:
        raise UserError(f"--fit is for labels, and {splits.train.name} has none: leave it out")
    return 0


def _probe(train: Codes, test: Codes) -> list[Probe]:
    """Return the accuracy on test codes of simple classifiers fitted to training codes."""
    if not latent_codes.can_probe(train):
        raise UserError(
            f"expected at least {latent_codes.FEWEST_TO_FIT} training images of two labels to "
            f"fit probes to, got {len(train.x)}: increase --fit, or give --fit 0 for no probes"
        )
    return latent_codes.probe(train, test)


def _check_result(run_dir: Path, fingerprint: str) -> None:
    """Raise a UserError if there is no result to add to, or one of other images."""
    if not (run_dir / "result.json").exists():
        raise UserError(
            f"{run_dir} has no result.json to add to: score it first with "
            f"pixel-decoders evaluate {run_dir} --out {run_dir / 'result.json'}"
        )
    try:
        result = read_result(run_dir)
    except ResultError as error:
        raise UserError(f"the result can't be added to: {error}") from error
    if result.fingerprint != fingerprint:
        raise UserError(
            f"{run_dir / 'result.json'} was scored on other images than the test set found now: "
            "give the --data-dir of those"
        )


def table(latents: Latents, probes: Sequence[Probe]) -> str:
    """Return the text that the command prints, with a line for each level and each probe."""
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
        name = f"{probe.classifier} on {probe.features} ({probe.dims})"
        lines.append(f"  {name:<44}{probe.accuracy:.1%} ± {probe.stderr:.1%}")
    return "\n".join(lines)

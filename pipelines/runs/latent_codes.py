"""Codes of a model: encoded, measured, probed, drawn, and added to a run's result.

images ── encoder ─> posteriors per level ─┬─ eval.latents ─> result.json: latents
scores of all images ──────────────────────┤
                                           ├─ eval.probes ──> result.json: probes, pictures
                                           └─ TensorBoard's projector
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from encoders import Posterior
from encoders.base import device_of
from eval import (
    Evaluation,
    Latents,
    Probe,
    Score,
    measure_latents,
    read_result,
    swap_gain,
    write_result,
)
from pipelines.data import subset
from pipelines.data.sets import Images, Splits
from pipelines.model import Model
from pipelines.runs import scoring, tensorboard
from pipelines.runs.scoring import describe_part, move
from pipelines.runtime.files import whole_file
from pipelines.runtime.lock import hold
from pipelines.runtime.progress import Progress

AFTER_TRAINING = 1000  # images whose codes are studied at the end of training
MOST_SWAPPED = 2**20  # sub-pixels scored with their own and with another's code at that time
MOST_CLASSES = 100  # limit of the probes at that time; with more, fitting takes minutes
FEWEST_TO_FIT = 5  # the number of neighbors of the k-NN probe


class Codes(NamedTuple):
    """The codes of some images of a set, on the CPU.

    Attributes:
        x: (N, C, H, W) levels.
        levels: top level first, the posterior's mean and standard deviation, (N, …) each. The
            latter is None if the posterior isn't Gaussian.
        labels: (N,), or None.
    """

    x: Tensor
    levels: tuple[tuple[Tensor, Tensor | None], ...]
    labels: np.ndarray | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the levels, top first."""
        count = len(self.levels)
        known = {1: ("code",), 2: ("top", "bottom")}
        return known.get(count, tuple(f"level{number}" for number in range(1, count + 1)))

    @property
    def means(self) -> dict[str, Tensor]:
        """The posterior means, by the name of the level."""
        return {name: mean for name, (mean, _) in zip(self.names, self.levels, strict=True)}

    def part(self, num: int) -> Codes:
        """Return `num` of these codes (0: none), drawn as in `pipelines.data.subset`."""
        rows = subset.draw(len(self.x), num, self.labels) if num else np.arange(0)
        labels = None if self.labels is None else self.labels[rows]
        levels = tuple(
            (mean[rows], None if std is None else std[rows]) for mean, std in self.levels
        )
        return Codes(self.x[rows], levels, labels)


@torch.no_grad()
def encode(model: Model, images: Images, chosen: np.ndarray, *, batch_size: int = 256) -> Codes:
    """Encode the images at the positions `chosen`."""
    assert model.encoder is not None
    device = device_of(model)
    pixels, levels = [], []
    for start in range(0, len(chosen), batch_size):
        x, y = images.batch(chosen[start : start + batch_size])
        pixels.append(x)
        found = model.encoder.posterior(x.to(device), move(y, device))
        levels.append([_moments(posterior) for posterior in found])
    joined = tuple(_joined(parts) for parts in zip(*levels, strict=True))
    labels = None if images.labels is None else np.asarray(images.labels[chosen])
    return Codes(torch.cat(pixels), joined, labels)


def _moments(posterior: Posterior) -> tuple[Tensor, Tensor | None]:
    """Return the mean and, if Gaussian, the standard deviation, on the CPU."""
    if not isinstance(posterior, Posterior):
        raise TypeError(
            "expected the encoder's posterior method to return Posterior objects, such as "
            f"encoders.GaussianPosterior(mean, std), got a {type(posterior).__name__}"
        )
    return posterior.mean.cpu(), None if posterior.std is None else posterior.std.cpu()


def _joined(parts: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    """Concatenate the batches of a level, and the standard deviations if all batches have them."""
    stds = [std for _, std in parts if std is not None]
    means = torch.cat([mean for mean, _ in parts])
    return means, torch.cat(stds) if len(stds) == len(parts) else None


@torch.no_grad()
def gain(model: Model, images: Images, chosen: np.ndarray, *, batch_size: int = 256) -> Score:
    """Return the gain in nats of each chosen image from its own code over another image's.

    The other images are those of `scoring.others`, from the whole set.
    """
    swapped = scoring.others(len(images))
    gains = []
    with torch.random.fork_rng(), Progress(len(chosen), "swap codes", unit="image") as bar:
        torch.manual_seed(0)  # for a user's encoder without latent_shapes
        for start in range(0, len(chosen), batch_size):
            part = chosen[start : start + batch_size]
            x, own = _draw_code(model, images, part)
            _, other = _draw_code(model, images, swapped[part])
            gains.append(swap_gain(model.decoder.log_prob, x, own, other).cpu().double())
            bar.update(len(part))
    return Score(torch.cat(gains).numpy())


def _draw_code(model: Model, images: Images, part: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return images on the model's device, and a code h drawn for each of them."""
    assert model.encoder is not None
    device, shapes = device_of(model), model.latent_shapes
    noise = scoring.latent_noise(shapes, scoring.CODES, part, 0, 1)
    x, y = images.batch(part)
    x = x.to(device)
    return x, model.encoder(x, move(y, device), **({"noise": noise} if shapes else {})).h


def measure(
    model: Model,
    images: Images,
    evaluation: Evaluation,
    codes: Codes,
    swapped: np.ndarray,
    *,
    batch_size: int = 256,
) -> Latents:
    """Measure the latents, and whether the decoder uses them.

    Args:
        model: a model that encodes images.
        images: the set that was scored.
        evaluation: scores of the set.
        codes: codes of some of its images.
        swapped: positions of the images to score with another image's code.
        batch_size: number of images at once.
    """
    return measure_latents(
        evaluation.distortion.mean,
        evaluation.kl if model.has_latents else None,
        codes.levels,
        gain(model, images, swapped, batch_size=batch_size),
        generator=torch.Generator().manual_seed(0),
    )


def can_probe(codes: Codes) -> bool:
    """Return True if there are enough labels to fit a classifier to."""
    labels = codes.labels
    return labels is not None and len(labels) >= FEWEST_TO_FIT and len(np.unique(labels)) > 1


def probe(train: Codes, test: Codes) -> list[Probe]:
    """Return accuracies of simple classifiers on each level's code, on pixels, and on PCA."""
    from eval import probes  # scikit-learn and matplotlib take seconds to import

    assert train.labels is not None
    assert test.labels is not None
    found: dict[tuple[str, str, int], Probe] = {}
    for name in train.names:
        splits = [
            probes.Split(codes.means[name].numpy(), codes.x.numpy(), np.asarray(codes.labels))
            for codes in (train, test)
        ]
        for one in probes.probe(splits[0], splits[1]):
            features = name if one.features == "code" else one.features
            named = dataclasses.replace(one, features=features)
            found[features, one.classifier, one.dims] = named
    return list(found.values())


def draw(
    run_dir: Path, codes: Codes, methods: Sequence[Literal["pca", "tsne"]], seed: int = 0
) -> list[Path]:
    """Draw the codes as points of a plane, colored by label, in files such as latents-pca.png."""
    from eval import probes  # scikit-learn and matplotlib take seconds to import

    files = []
    for name, mean in codes.means.items():
        for method in methods:
            level = "" if name == "code" else f"{name}-"
            title = f"{'t-SNE' if method == 'tsne' else 'PCA'} of {len(mean):,} codes"
            points = probes.embed(mean.numpy(), method, seed=seed)
            figure = probes.embedding_figure(
                points, codes.labels, title if name == "code" else f"{title}, {name} level"
            )
            file = run_dir / f"latents-{level}{method}.png"
            with whole_file(file, replace=True) as stream:
                figure.savefig(stream, dpi=150)
            files.append(file)
    return files


def add_to_result(run_dir: Path, latents: Latents, probes: Sequence[Probe]) -> None:
    """Add latents and probes to a finished run's result.json, and keep the rest of it.

    Raises:
        ResultError: the result can't be read.
        LockedError: another process writes to the run.
    """
    with hold(run_dir):
        result = read_result(run_dir)
        result = dataclasses.replace(result, latents=latents, probes=tuple(probes) or result.probes)
        write_result(result, run_dir / "result.json")


class Study(NamedTuple):
    """Study of a model's codes at the end of training.

    Attributes:
        latents: measures of the codes.
        probes: accuracies of classifiers, if there are labels.
        codes: the measured codes.
    """

    latents: Latents
    probes: tuple[Probe, ...]
    codes: Codes


def study(model: Model, splits: Splits, evaluation: Evaluation, *, batch_size: int) -> Study | None:
    """Measure and probe a model's codes, in seconds.

    Returns:
        The study, or None for a model that does not encode images or a set of fewer than two.
    """
    if not model.encodes_images or len(splits.test) < 2:
        return None
    train, test = splits.train, splits.test
    codes = encode(model, test, scoring.part(test, AFTER_TRAINING), batch_size=batch_size)
    swapped = min(AFTER_TRAINING, max(2, MOST_SWAPPED // evaluation.dims))
    latents = measure(
        model, test, evaluation, codes, scoring.part(test, swapped), batch_size=batch_size
    )
    drawn = {"codes": describe_part(test, AFTER_TRAINING), "swapped": describe_part(test, swapped)}
    probes: list[Probe] = []
    if test.labels is not None and test.num_classes <= MOST_CLASSES:
        fitted = encode(model, train, scoring.part(train, AFTER_TRAINING), batch_size=batch_size)
        drawn["fitted"] = describe_part(train, AFTER_TRAINING)
        probes = probe(fitted, codes) if can_probe(fitted) else []
    latents = dataclasses.replace(latents, scored=evaluation.nll.count, images=drawn)
    return Study(latents, tuple(probes), codes)


def show(run_dir: Path, codes: Codes, num_levels: int, *, pictures: bool) -> None:
    """Draw at least four codes as points of a plane, and show them in the projector."""
    if pictures and len(codes.x) >= 4:  # a plane of fewer points shows nothing
        draw(run_dir, codes, ("pca",))
    tensorboard.add_projector(run_dir, codes.means, codes.x, num_levels, codes.labels)

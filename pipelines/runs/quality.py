"""Quality of a run's samples, compared with its test images and its training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from encoders.base import device_of
from eval import Neighbors, frechet_distance, nearest_neighbors
from pipelines.data.sets import Images, Splits, load
from pipelines.runs import classifier, pictures, scoring
from pipelines.runs.classifier import Classifier, FeatureNetwork
from pipelines.runs.find import find_run
from pipelines.runs.flags import Findings
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runs.report_pictures import sample_grid
from pipelines.runs.scoring import move
from pipelines.runs.user_network import load as load_network
from pipelines.runtime.config import Accelerator, DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import at_home
from pipelines.runtime.output import free_name, write_record
from pipelines.runtime.progress import Progress

SHOWN = 10  # number of samples whose neighbors are shown


class Drawn(NamedTuple):
    """Samples, each with the test image whose label, code or other annotation it was given."""

    x: Tensor  # (N, C, H, W) levels
    given: np.ndarray | None  # (N,) positions in the test set


def judge_samples(
    run: str | Path,
    *,
    trust: Sequence[str] = (),
    num: int = 500,
    features: str = "",
    neighbors: int = 5,
    seed: int = 0,
    data_dir: str = "",
    accelerator: Accelerator = "auto",
    score_batch: int = 256,
) -> Findings:
    """Draw samples, and measure their distance from test images and from training images.

    The arguments are the flags of `pixel-decoders quality`.

    Raises:
        UserError: the arguments don't fit one another, the model or its images.
    """
    run_dir = find_run(run)
    opened = open_run(run_dir, trust)
    splits = load_splits(opened, data_dir=data_dir)
    check_counts(splits, num, neighbors)
    fabric = make_fabric(DeviceConfig(accelerator, "1"))
    network, source = find_network(fabric, opened, run_dir, splits, features, data_dir)
    network.to(fabric.device)
    opened.model.to(fabric.device)
    drawn = draw(opened, splits.test, num, seed, score_batch)
    near = nearest_neighbors(drawn.x.numpy(), Pixels(splits.train), neighbors)
    given = opened.model.given
    record = {
        "run": str(run_dir),
        "kind": opened.model.kind,
        "num": num,
        "seed": seed,
        "given": "nothing" if drawn.given is None else f"the test images' {given}",
        "features": source,
        "compared": {
            name: scoring.describe_part(split, num)
            for name, split in (("train", splits.train), ("test", splits.test))
        },
        **compare(network, drawn, splits, num, score_batch),
        "neighbors": copies(near, splits, num),
    }
    canvases = {"neighbors": neighbor_grid(drawn, near, splits.train)}
    if opened.model.num_classes:
        count = 10 * opened.spec.num_classes
        canvases["classes"] = sample_grid(opened.model, splits.test, count, seed)
    return Findings(table(record), _write(run_dir, canvases, record))


def check_counts(splits: Splits, num: int, neighbors: int) -> None:
    """Raise a UserError if there are too few images to compare with."""
    most = len(splits.train)
    if not 2 <= num <= most:
        raise UserError(
            f"expected --num from 2 to {most}, the training images to compare with, got {num}"
        )
    if not 1 <= neighbors <= most:
        raise UserError(f"expected --neighbors from 1 to {most}, got {neighbors}")
    if len(splits.test) < 2:
        raise UserError("expected at least two test images to compare with, got one")


def find_network(
    fabric: Fabric, run: Run, run_dir: Path, splits: Splits, named: str, data_dir: str
) -> tuple[FeatureNetwork, dict[str, Any]]:
    """Return the named network, or the run's classifier, which is trained if there is none yet.

    Raises:
        UserError: it is not a network, or there is no classifier and no labels to train one on.
        CheckpointError: the network is for other images.
    """
    folder = at_home(named or run_dir / "classifier")
    if ":" in named and not folder.exists():
        return load_network(named, splits.test), {"network": f"the network {named}"}
    if not named and not (folder / "config.json").exists():
        if splits.train.labels is None or splits.train.num_classes < 2:
            raise UserError(
                f"{run.config.data.data} has no labels to train a classifier on: give "
                "--features with one that was trained on images of this shape and number of levels"
            )
        data = run.config.data
        data_dir = data_dir or data.data_dir
        labeled = load(dataclasses.replace(data, data_dir=data_dir, condition="label"))
        classifier.train(fabric, labeled.train, folder)
    network, saved = classifier.load(folder, splits.test)
    if not named and saved["num_classes"] != splits.train.num_classes:
        raise UserError(f"{folder} was trained on other images: delete it to train it again")
    source = {
        "network": f"a small classifier trained on the labels of {saved['data']}",
        "folder": str(folder),
        "fingerprint": saved["fingerprint"],
    }
    labels = splits.test.labels
    if labels is not None and splits.test.num_classes == saved["num_classes"]:
        x = _images(splits.test, np.arange(len(labels)))
        source["accuracy"] = classifier.accuracy(network, x, torch.from_numpy(np.array(labels)))
    return network, source


@torch.no_grad()
def draw(run: Run, test: Images, num: int, seed: int, batch_size: int) -> Drawn:
    """Draw samples from the prior, or given the annotations of the test images, in turn."""
    model, device = run.model, device_of(run.model)
    generator = torch.Generator().manual_seed(seed)
    chosen = in_turn(test, num) if model.given else None
    starts = range(0, num, batch_size)
    drawn = []
    with Progress(len(starts) * test.image_shape[1], "sample", unit="row") as bar:
        options: dict[str, Any] = {"generator": generator, "progress": pictures.count_rows(bar)}
        for start in starts:
            count = min(batch_size, num - start)
            if chosen is None:
                drawn.append(model.sample(count, **options).cpu())
                continue
            x, y = test.batch(chosen[start : start + count])
            drawn.append(model.reconstruct(x.to(device), move(y, device), **options).cpu())
    return Drawn(torch.cat(drawn), chosen)


def in_turn(images: Images, num: int) -> np.ndarray:
    """Return positions of `num` images: all of them as often as possible, then some of them."""
    rounds, rest = divmod(num, len(images))
    every = [np.arange(len(images))] * rounds
    return np.concatenate([*every, scoring.part(images, rest)] if rest else every)


def compare(
    network: FeatureNetwork, drawn: Drawn, splits: Splits, num: int, batch_size: int
) -> dict[str, Any]:
    """Return the Fréchet distances to test images of samples and of as many training images."""
    train, test = (
        _images(split, scoring.part(split, num)) for split in (splits.train, splits.test)
    )
    sets = [classifier.features(network, x, batch_size=batch_size) for x in (drawn.x, train, test)]
    found: dict[str, Any] = {
        "frechet": {
            "samples": frechet_distance(sets[0], sets[2]),
            "train": frechet_distance(sets[1], sets[2]),
            "test_images": len(test),
        }
    }
    labeled = drawn.given is not None and "label" in splits.test.condition
    if labeled and isinstance(network, Classifier):
        assert splits.test.labels is not None
        asked = torch.from_numpy(np.asarray(splits.test.labels)[drawn.given])
        found["label_agreement"] = classifier.accuracy(network, drawn.x, asked)
    return found


class Pixels:
    """Levels of a set, as an array that is read in slices and need not fit in memory."""

    def __init__(self, images: Images):
        self.images = images
        self.shape = (len(images), *images.image_shape)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> np.ndarray:
        return _images(self.images, np.arange(*part.indices(len(self)))).numpy()


def copies(near: Neighbors, splits: Splits, num: int) -> dict[str, Any]:
    """Return the distances of samples, and of test images, to their nearest training images."""
    test = _images(splits.test, scoring.part(splits.test, num))
    unseen = nearest_neighbors(test.numpy(), Pixels(splits.train)).distance[:, 0]
    return {
        name: {
            "median": float(np.median(distance)),
            "smallest": float(distance.min()),
            "copies": int((distance == 0).sum()),
            "images": len(distance),
        }
        for name, distance in (("samples", near.distance[:, 0]), ("test", unseen))
    }


def _images(images: Images, indices: np.ndarray) -> Tensor:
    return images.batch(indices).x


def neighbor_grid(drawn: Drawn, near: Neighbors, train: Images) -> Tensor:
    """Return a picture (3, height, width) of the samples nearest to training images.

    Each row is a sample and its neighbors.
    """
    rows = np.argsort(near.distance[:, 0], kind="stable")[:SHOWN]
    columns = [torch.cat([drawn.x[row : row + 1], _images(train, near.index[row])]) for row in rows]
    return pictures.grid(torch.cat(columns), train.num_levels, 1 + near.index.shape[1])


def _write(run_dir: Path, canvases: dict[str, Tensor], record: dict[str, Any]) -> list[Path]:
    """Write the pictures and the record to new files."""
    numbers = free_name(run_dir, "quality", ".json")
    files = []
    for name, canvas in canvases.items():
        files.append(free_name(run_dir, f"{numbers.stem}-{name}", ".png"))
        pictures.save(canvas, files[-1])
    write_record(numbers, record)
    return [*files, numbers]


def table(record: dict[str, Any]) -> str:
    """Return the text that the command prints."""
    frechet, near, source = record["frechet"], record["neighbors"], record["features"]
    accuracy = f" ({source['accuracy']:.1%} right on test images)" if "accuracy" in source else ""
    lines = [
        f"{record['num']:,} samples, given {record['given']}",
        f"Fréchet distance to {frechet['test_images']:,} test images, in the features of "
        f"{source['network']}{accuracy}; not an FID",
        f"  samples               {frechet['samples']:.3f}",
        f"  training images       {frechet['train']:.3f}",
        "Nearest training image (root mean squared difference in levels): median, smallest, copies",
    ]
    for name, key in (("samples", "samples"), ("test images", "test")):
        one = near[key]
        lines.append(
            f"  {name:<20}{one['median']:7.3f} {one['smallest']:7.3f} {one['copies']:5} "
            f"of {one['images']:,}"
        )
    if "label_agreement" in record:
        agreement = record["label_agreement"]
        lines.append(f"The classifier finds the label that was given in {agreement:.1%} of samples")
    return "\n".join(lines)

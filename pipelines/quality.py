"""Look at the samples of a finished run: how close to real images, and how close to copies?

The Fréchet distance between samples and test images is taken in the features of a network: one that
you name, or a small classifier that is trained here, once, on the labels of the training images. It
is no FID, and compares only with distances in the same features over as many images; that of
training images stands beside it.
A model that is given something draws given that of test images. Where not all images take part,
those that do are drawn from all, every class with its share. What is found goes to new files in the
run directory.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from lightning_fabric import Fabric
from torch import Tensor

from encoders.base import device_of
from eval import Neighbors, frechet_distance, nearest_neighbors
from pipelines.data.sets import Images, Splits, load
from pipelines.runs import classifier, features, pictures, scoring
from pipelines.runs.classifier import Classifier, FeatureNetwork
from pipelines.runs.load import Run, load_splits, open_run
from pipelines.runs.scoring import move
from pipelines.runtime.command import exit_codes
from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import make_fabric
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import at_home, whole_file
from pipelines.runtime.output import expanded, free_name
from pipelines.runtime.progress import Progress
from pipelines.runtime.provenance import prog

SHOWN = 10  # samples whose neighbours are drawn


@dataclass(frozen=True)
class Config:
    """Flags of `python -m pipelines.quality`."""

    run_dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_DIR")]
    """The directory of a finished run."""
    num: int = 500
    """Samples to draw."""
    neighbours: int = 5
    """Nearest training images to draw beside a sample."""
    features: Annotated[str, tyro.conf.arg(metavar="FOLDER|MODULE:NAME")] = ""
    """The folder of a classifier that another run of this command left; or your own network, an
    nn.Module or a function that makes one, for floats (B, C, H, W) in [0, 1] (default: the folder
    `classifier` in the run directory, trained if it is not there)."""
    seed: int = 0
    """Decides the samples."""
    batch_size: int = 256
    """Images at once."""
    data_dir: str = ""
    """Where the data set is now (default: where it was in training)."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device."""


class Drawn(NamedTuple):
    """Samples and, of each, the test image whose label, code or other annotation it was given."""

    x: Tensor  # (N, C, H, W) levels
    given: np.ndarray | None  # (N,) positions in the test set


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command: exit code 0, or 2 and one sentence for what a user can mend."""
    with exit_codes():
        config = expanded(
            tyro.cli(Config, args=argv, prog=prog("pipelines.quality"), description=__doc__)
        )
        run = open_run(config.run_dir)
        splits = load_splits(run, data_dir=config.data_dir)
        check(config, splits)
        fabric = make_fabric(DeviceConfig(config.accelerator, "1"))
        network, source = find_network(fabric, run, config, splits)
        network.to(fabric.device)
        run.model.to(fabric.device)
        drawn = draw(run, splits.test, config)
        near = nearest_neighbors(drawn.x.numpy(), Pixels(splits.train), config.neighbours)
        record = {
            "run": str(config.run_dir),
            "kind": run.model.kind,
            "num": config.num,
            "seed": config.seed,
            "given": "nothing" if drawn.given is None else f"the test images' {run.model.given}",
            "features": source,
            "compared": {
                name: scoring.describe_part(split, config.num)
                for name, split in (("train", splits.train), ("test", splits.test))
            },
            **compare(network, drawn, splits, config),
            "neighbours": copies(near, splits, config),
        }
        files = _write(run, config, splits, drawn, near, record)
        print(table(record))
        print(*files, sep="\n")


def check(config: Config, splits: Splits) -> None:
    """Raise a UserError for numbers that make no sense with these images."""
    most = len(splits.train)
    if not 2 <= config.num <= most:
        raise UserError(
            f"expected --num from 2 to {most}, the training images to compare with, "
            f"got {config.num}"
        )
    if not 1 <= config.neighbours <= most:
        raise UserError(f"expected --neighbours from 1 to {most}, got {config.neighbours}")
    if config.batch_size < 1:
        raise UserError(f"expected --batch-size of at least 1, got {config.batch_size}")
    if not 0 <= config.seed < 2**63:
        raise UserError(f"expected a --seed of at least 0 (and below 2^63), got {config.seed}")
    if len(splits.test) < 2:
        raise UserError("expected at least two test images to compare with, got one")


def find_network(
    fabric: Fabric, run: Run, config: Config, splits: Splits
) -> tuple[FeatureNetwork, dict[str, Any]]:
    """The network that is named, or the classifier of the run, trained if there is none yet.

    Raises:
        UserError: it is none, or there is none, and there are no labels to train one on.
        CheckpointError: it is for other images.
    """
    folder = at_home(config.features or config.run_dir / "classifier")
    if ":" in config.features and not folder.exists():
        network = features.load(config.features, splits.test)
        return network, {"network": f"the network {config.features}"}
    if not config.features and not (folder / "config.json").exists():
        if splits.train.labels is None or splits.train.num_classes < 2:
            raise UserError(
                f"{run.config.data.data} as found has no labels to train a classifier on: name one "
                "that was trained on images of this shape and number of levels by --features"
            )
        data_dir = config.data_dir or run.config.data.data_dir
        labelled = load(dataclasses.replace(run.config.data, data_dir=data_dir, condition="label"))
        classifier.train(fabric, labelled.train, folder)
    network, saved = classifier.load(folder, splits.test)
    if not config.features and saved["num_classes"] != splits.train.num_classes:
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
def draw(run: Run, test: Images, config: Config) -> Drawn:
    """Samples: from the prior, or given what the test images come with, in turn."""
    model, device = run.model, device_of(run.model)
    generator = torch.Generator().manual_seed(config.seed)
    chosen = in_turn(test, config.num) if model.given else None
    starts = range(0, config.num, config.batch_size)
    drawn = []
    with Progress(len(starts) * test.image_shape[1], "sample", unit="row") as bar:
        options: dict[str, Any] = {"generator": generator, "progress": pictures.count_rows(bar)}
        for start in starts:
            count = min(config.batch_size, config.num - start)
            if chosen is None:
                drawn.append(model.sample(count, **options).cpu())
                continue
            x, y = test.batch(chosen[start : start + count])
            drawn.append(model.reconstruct(x.to(device), move(y, device), **options).cpu())
    return Drawn(torch.cat(drawn), chosen)


def in_turn(images: Images, num: int) -> np.ndarray:
    """Positions of `num` images: all of them as often as they go, then a part of them."""
    rounds, rest = divmod(num, len(images))
    every = [np.arange(len(images))] * rounds
    return np.concatenate([*every, scoring.part(images, rest)] if rest else every)


def compare(
    network: FeatureNetwork, drawn: Drawn, splits: Splits, config: Config
) -> dict[str, Any]:
    """Fréchet distances of samples, and of as many training images, to the same test images."""
    train, test = (
        _images(split, scoring.part(split, config.num)) for split in (splits.train, splits.test)
    )
    sets = [
        classifier.features(network, x, batch_size=config.batch_size)
        for x in (drawn.x, train, test)
    ]
    found: dict[str, Any] = {
        "frechet": {
            "samples": frechet_distance(sets[0], sets[2]),
            "train": frechet_distance(sets[1], sets[2]),
            "test_images": len(test),
        }
    }
    labelled = drawn.given is not None and "label" in splits.test.condition
    if labelled and isinstance(network, Classifier):
        assert splits.test.labels is not None
        asked = torch.from_numpy(np.asarray(splits.test.labels)[drawn.given])
        found["label_agreement"] = classifier.accuracy(network, drawn.x, asked)
    return found


class Pixels:
    """The levels of a set as an array that is read in slices, so that it need not fit in memory."""

    def __init__(self, images: Images):
        self.images = images
        self.shape = (len(images), *images.image_shape)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> np.ndarray:
        return _images(self.images, np.arange(*part.indices(len(self)))).numpy()


def copies(near: Neighbors, splits: Splits, config: Config) -> dict[str, Any]:
    """Distances of samples to the nearest training image, beside those of unseen test images."""
    test = _images(splits.test, scoring.part(splits.test, config.num))
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


def neighbour_grid(drawn: Drawn, near: Neighbors, train: Images) -> Tensor:
    """The samples that are nearest to the training set, one a row, with the images they are near.

    A picture (3, height, width).
    """
    rows = np.argsort(near.distance[:, 0], kind="stable")[:SHOWN]
    columns = [torch.cat([drawn.x[row : row + 1], _images(train, near.index[row])]) for row in rows]
    return pictures.grid(torch.cat(columns), train.num_levels, 1 + near.index.shape[1])


def _write(
    run: Run,
    config: Config,
    splits: Splits,
    drawn: Drawn,
    near: Neighbors,
    record: dict[str, Any],
) -> list[Path]:
    """Write the pictures and the numbers, under new names."""
    numbers = free_name(config.run_dir, "quality", ".json")
    canvases = {"neighbours": neighbour_grid(drawn, near, splits.train)}
    if run.model.num_classes:
        num = 10 * run.spec.num_classes
        canvases["classes"] = pictures.sample_grid(run.model, splits.test, num, config.seed)
    files = []
    for name, canvas in canvases.items():
        files.append(free_name(config.run_dir, f"{numbers.stem}-{name}", ".png"))
        with whole_file(files[-1]) as stream:
            pictures.to_image(canvas).save(stream, format="PNG")
    with whole_file(numbers) as stream:
        stream.write((json.dumps(record, indent=2) + "\n").encode())
    return [*files, numbers]


def table(record: dict[str, Any]) -> str:
    """What is printed of a record."""
    frechet, near, source = record["frechet"], record["neighbours"], record["features"]
    accuracy = f" ({source['accuracy']:.1%} right on test images)" if "accuracy" in source else ""
    lines = [
        f"{record['num']:,} samples, given {record['given']}",
        f"Fréchet distance to {frechet['test_images']:,} test images, in the features of "
        f"{source['network']}{accuracy}; no FID",
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
        lines.append(f"The classifier sees the label that was given in {agreement:.1%} of samples")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

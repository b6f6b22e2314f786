"""Draw a command line, and damage to what it reads, from one seed."""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, Union

from tests.fuzz.damage import apply

TRAINING = ("pipelines.pixelcnn", "pipelines.autoencoder", "pipelines.pixelvae")
ON_RUNS = (
    "pipelines.evaluate", "pipelines.sample", "pipelines.interpolate", "pipelines.latents",
    "pipelines.quality", "pipelines.outliers", "pipelines.compress export",
    "pipelines.compress encode", "pipelines.compress decode", "pipelines.receptive_field",
    "eval.leaderboard", "eval.report", "eval.compare",
)  # fmt: skip
COMMANDS = (*TRAINING, *ON_RUNS)

INTS = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "5",
    "1000000000",
    "9223372036854775808",
    "1e3",
    "",
    "x",
    "\udcff",
    "1.5",
]
FLOATS = [
    "0",
    "-1",
    "1e-45",
    "1e-320",
    "0.5",
    "1",
    "1e38",
    "1e308",
    "nan",
    "inf",
    "-inf",
    "",
    "x",
    "0x1",
]
PATHS = [
    *("", "nowhere", "nowhere/deep.png", "empty", "notes.txt", "broken-link", "loop", "loop/x"),
    *("runs", "runs/pixelcnn", "runs/pixelcnn/result.json", "linked-run", "images.npy", "data.npz"),
    *("\udcff.png", "new.png", "new.npy", "new.json", "new", "x" * 300, "/proc/1/mem", "/dev/full"),
    *("page.md", ".", "runs/pixelcnn/checkpoints", "pixelcnn.pxl", "a\nb.npy", "~nobody-here/x"),
    *("runs/pixelcnn/weights.safetensors", "new.npz/../new.html"),
]
STRINGS = [
    *("", "x", "\udcff", "\x1b[2J", "a" * 5000, "-", "--", "0", "1", "-1", "8x8", "0x0", "red"),
    *("1,2,300", "json:loads", "os:getcwd", "torch.nn:Identity", "99999999x1", "auto", "0,0"),
    *("cuda:7", "meta", "white"),
]
SLOW = {"steps", "epochs"}  # a large number of these is only slow: it is drawn seldom


@dataclass
class Case:
    """One command line in a world of its own."""

    command: str
    number: int
    words: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    blamed: set[str] = field(default_factory=set)  # what a refusal may name
    signal: tuple[float, str] | None = None  # seconds until it comes, and its name

    @property
    def module(self) -> str:
        return self.command.split()[0]


def config_of(command: str) -> type:
    """Return the dataclass whose fields are a command's flags."""
    module, _, action = command.partition(" ")
    return getattr(importlib.import_module(module), action.capitalize() or "Config")


def flags(command: str) -> dict[str, Any]:
    """Return the type of each flag; positional ones are left out."""
    return dict(_flags(config_of(command)))


def _flags(config: type) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(config, include_extras=True)
    for item in dataclasses.fields(config):
        hint = hints[item.name]
        bare = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if dataclasses.is_dataclass(bare):
            yield from _flags(bare)
        elif "Positional" not in str(hint):
            yield item.name, bare


def generator(command: str, number: int, seed: int) -> Random:
    """Return the random numbers of a case."""
    return Random(f"{seed} {command} {number}")


def sound_case(command: str, number: int, seed: int) -> Case:
    """Return a case without any fault, which must succeed."""
    return Case(command, number, _sound(command, generator(command, number, seed))[0])


def draw_case(command: str, number: int, seed: int) -> tuple[Case, Random]:
    """Draw a case; the generator goes on to `damage`."""
    draw = generator(command, number, seed)
    case = Case(command, number)
    base, read = _sound(command, draw)
    case.words = base
    chosen = draw.choice(["flags", "flags", "damage", "damage", "both", "positions", "signal"])
    if chosen in ("flags", "both"):
        own = flags(command)
        for name in draw.sample(sorted(own), min(len(own), draw.choice([1, 1, 2, 3]))):
            words = _flag(name, own[name], draw)
            case.words += words
            case.blamed |= {name, name.replace("_", "-")}
            for word in words:
                case.blamed |= _names(word.partition("=")[2])
    if chosen == "positions":
        places = [place for place, word in enumerate(case.words) if _is_path(word)]
        if places:
            place = draw.choice(places)
            key, is_flag, _ = case.words[place].rpartition("=")
            new = draw.choice(PATHS)
            case.words[place] = f"{key}={new}" if is_flag else new
            case.blamed |= _names(new) | {key.removeprefix("--") or new}
    if chosen == "signal":
        case.signal = draw.uniform(0, 2), draw.choice(["SIGINT", "SIGTERM"])
        case.blamed.add("signal")
    if chosen in ("damage", "both"):
        case.damaged = [draw.choice(read) for _ in range(draw.choice([1, 1, 1, 2]))] if read else []
    return case, draw


def damage(case: Case, world: Path, draw: Random) -> list[str]:
    """Damage the files that a case reads; returns what was done, in words."""
    done = []
    for pattern in case.damaged:
        found = sorted(world.glob(pattern))
        if not found:
            continue
        path = draw.choice(found)
        if path.is_symlink():
            continue
        done.append(f"{apply(path, draw)} {path.relative_to(world)}")
        case.blamed |= {path.name, path.stem, path.parent.name}
    return done


def _names(value: str) -> set[str]:
    """Return how a sentence may show a value: its path, name or folder, escaped or not."""
    path = Path(value)
    shown = {value, str(path), path.name, path.name.replace("\n", " ")}
    shown |= {str(path.parent)} - {"."}
    return shown | {repr(part)[1:-1] for part in shown}


def _is_path(word: str) -> bool:
    value = word.rpartition("=")[2]
    return "/" in value or "." in value or value in ("pictures", "arrays")


def _sound(command: str, draw: Random) -> tuple[list[str], list[str]]:
    """Return a command line that works, quickly, and the files that it reads."""
    if command in TRAINING:
        return _training(command.partition(".")[2], draw)
    run = "runs/" + draw.choice(["pixelcnn", "labelled", "autoencoder", "pixelvae"])
    if command.endswith((".interpolate", ".latents")):
        run = "runs/" + draw.choice(["autoencoder", "pixelvae"])
    read = [f"{run}/config.json", f"{run}/weights.safetensors"]
    scored = [f"{run}/result.json", f"{run}/nll.npy", f"{run}/config.json"]
    words = {
        "pipelines.evaluate": [run, "--limit=6", "--importance-samples=1"],
        "pipelines.sample": [run, "--num=2"],
        "pipelines.interpolate": [run, "--pairs=1", "--steps=2"],
        "pipelines.latents": [run, "--fit=10", "--points=0"],
        "pipelines.quality": [run, "--num=12", "--features=classifier"],
        "pipelines.outliers": [
            "runs/pixelcnn", "--limit=6",
            "--images=" + draw.choice(["images.npy", "data.npz", "pictures", "digits"]),
        ],
        "pipelines.compress export": [run, "export", "new.npy", "--num=3"],
        "pipelines.compress encode": [
            "runs/pixelcnn", "encode", "images.npy", "new.pxl", "--no-compare",
            "--precision=float32",
        ],
        "pipelines.compress decode": ["runs/pixelcnn", "decode", "pixelcnn.pxl", "new.npy"],
        "pipelines.receptive_field": [run, "--out=new.png"],
        "eval.leaderboard": [
            "runs", draw.choice(["--format=csv", "--into=page.md", "--out=new.md"]),
        ],
        "eval.report": ["runs/pixelcnn", "runs/pixelvae", "--out=new.html"],
        "eval.compare": ["runs/pixelcnn", "runs/pixelvae", "--out=new.html"],
    }[command]  # fmt: skip
    if command.startswith("pipelines.compress") and "export" not in command and draw.random() < 0.3:
        words = [
            {"runs/pixelcnn": "runs/labelled", "pixelcnn.pxl": "labelled.pxl"}.get(w, w)
            for w in words
        ]
        if command.endswith("encode"):
            words.append("--labels=labels.npy")
    if command.startswith("eval."):
        read = [*scored, f"{run}/metrics.jsonl", f"{run}/*.png", f"{run}/images.npy"]
        read = [
            word.replace(run, name) for word in read for name in ("runs/pixelcnn", "runs/pixelvae")
        ]
    else:
        read = [word.replace(run, words[0]) for word in read]
    if command == "pipelines.quality":
        read += ["classifier", "classifier/*", "classifier/*"]
    if command == "pipelines.latents":
        read += scored
    for word in words:
        value = word.rpartition("=")[2]
        if value.endswith((".npy", ".npz", ".pxl", ".md")) and "new" not in value:
            read += [value] * 4
        if value == "pictures":
            read += ["pictures", "pictures/*", "pictures/*/*", *["pictures/*/*/*"] * 5]
    return words, read


def _training(name: str, draw: Random) -> tuple[list[str], list[str]]:
    small = [
        "--steps=1", "--hidden-channels=4", "--num-layers=1", "--num-samples=0", "--limit=8",
        "--importance-samples=0", "--accelerator=cpu", "--devices=1", "--batch-size=4",
    ]  # fmt: skip
    data = draw.choice(["digits", "npz", "npy", "folder", "resume"])
    if data == "resume":
        run = f"runs/{name}"
        names = ("config.json", "weights.safetensors", "metrics.jsonl", "result.json", "nll.npy")
        read = [f"{run}/{name}" for name in (*names, "checkpoints", *["checkpoints/*"] * 3)]
        return ["--resume", f"--out={run}", "--steps=3"], read
    words = [*small, f"--data={data}", "--out=new"]
    if data == "npz":
        return [*words, "--data-dir=data.npz", "--native-levels=17"], ["data.npz"]
    if data == "npy":
        return [*words, "--data-dir=arrays", "--native-levels=17"], ["arrays", *["arrays/*"] * 5]
    if data == "folder":
        read = ["pictures", "pictures/*", "pictures/*/*", *["pictures/*/*/*"] * 5]
        return [*words, "--data-dir=pictures"], read
    return words, []


def _flag(name: str, hint: Any, draw: Random) -> list[str]:
    """Return the words that give a flag some value of its type, or not of its type."""
    flag = "--" + name.replace("_", "-")
    if typing.get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if hint is bool:
        return [draw.choice([flag, "--no-" + flag[2:], f"{flag}=x"])]
    if typing.get_origin(hint) is Literal:
        return [f"{flag}={draw.choice([*typing.get_args(hint), '', 'unknown'])}"]
    if typing.get_origin(hint) is tuple:
        return [flag, *(draw.choice(INTS) for _ in range(draw.randrange(5)))]
    if hint is int:
        return [f"{flag}={draw.choice(INTS[:4] if name in SLOW and draw.random() < 0.9 else INTS)}"]
    if hint is float:
        return [f"{flag}={draw.choice(FLOATS)}"]
    values = (
        PATHS if hint is Path or name in ("out", "data_dir", "cache_dir", "images_dir") else STRINGS
    )
    return [f"{flag}={draw.choice(values)}"]

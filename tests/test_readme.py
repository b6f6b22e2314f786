"""Proves that what README.md and the other pages show is true.

The Python blocks of a page run one after another in one namespace. A block that begins with
`# name.py` is a module of that name, for the page's other blocks and commands. Every command of the
shell blocks must be one of these, or the test fails:

- *training* (`python -m pipelines.x …`, also with torchrun, or `python -m name` for a module of the
  page): its flags are parsed and its model is built. On built-in data it also runs end to end,
  untrained and on eight images.
- *tool* (evaluate, leaderboards, …): its flags are parsed. What it does is tested elsewhere.
  `pixel-decoders x …` is read as `python -m pipelines.x …`.
- *install*: the extras that it names exist. That they install is what .ci/run shows.
- *check* (pytest, .ci/run, pre-commit) and *example*: the file it names exists, and is run by CI.

One quick command also runs unchanged, in a process of its own. The map of the tree names every file
of the four packages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from pipelines.__main__ import COMMANDS
from pipelines.runs.networks import checked
from pipelines.runs.pipeline import PIPELINES, Pipeline
from pipelines.runs.record import ImageSpec

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "weights/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PACKAGES = ("decoders", "encoders", "eval", "pipelines")
BUILT_IN = ("digits", "shapes", "shapes_color")

# Images, levels, classes of data sets that are not built in.
GRAY = ImageSpec((1, 28, 28), 256, "none", 10)
SPECS = {
    "mnist": GRAY,
    "fashion_mnist": GRAY,
    "binarized_mnist": ImageSpec((1, 28, 28), 2),
    "cifar10": ImageSpec((3, 32, 32), 256, "none", 10),
    "imagenet32": ImageSpec((3, 32, 32), 256),
    "imagenet64": ImageSpec((3, 64, 64), 256),
    "folder": ImageSpec((3, 64, 64), 256),
    "npz": ImageSpec((1, 16, 16), 256, "none", 4),
    "mydata:photos": ImageSpec((3, 16, 16), 256, "none", 10),
}


def blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def commands(page: Path) -> Iterator[str]:
    """Every shell command of a page, one by one, without its comment."""
    for body in blocks(page, "bash", "sh", "shell", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            for command in line.split("#")[0].split("&&"):
                if command.strip():
                    yield " ".join(command.split())


def write_modules(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Write the modules of a page to a folder, where imports find them; returns their names."""
    names = set()
    for source in blocks(page, "python"):
        if found := NAMED.match(source):
            (folder / f"{found[1]}.py").write_text(source, encoding="utf-8")
            names.add(found[1])
    monkeypatch.syspath_prepend(str(folder))
    return names


SHOWN = sorted({(page.name, command) for page in PAGES for command in commands(page)})
PLACE = {page.name: page for page in PAGES}
TRAINING = re.compile(r"(?:python|torchrun(?: --[\w-]+(?:[ =][\w.:-]+)?)*) -m pipelines\.(\w+)(.*)")
NAMED = re.compile(r"# (\w+)\.py\n")
OWN_TRAINING = re.compile(r"python -m (\w+) (.*)")
PREFIXES = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
TOOL = re.compile(r"python -m ((?:pipelines|eval)\.\w+)(.*)")
INSTALL = re.compile(r'pip install -e "?\.(?:\[([\w,]+)\])?"?')
CHECKS = {
    "python -m pytest": "pyproject.toml",
    "python -m pytest -m slow": "pyproject.toml",
    "python -m pytest -m gpu": "pyproject.toml",
    "bash .ci/run": ".ci/run",
    "bash benchmarks/gpu.sh --data-dir DIR": "benchmarks/gpu.sh",
    "python benchmarks/gpu.py --show benchmarks/gpu.json": "benchmarks/gpu.json",
    "pre-commit install": ".pre-commit-config.yaml",
    "python -m pdoc -d google -o build/api decoders encoders eval pipelines": ".ci/run",
}
ELSEWHERE = {"tensorboard --logdir runs"}


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=lambda text: text[:70])
def test_command_is_right(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = write_modules(PLACE[page], tmp_path, monkeypatch)
    command = as_module(command)
    training = TRAINING.fullmatch(command)
    if training and training[1] in PIPELINES:
        module = importlib.import_module(f"pipelines.{training[1]}")
        check_training(module.PIPELINE, shlex.split(training[2]), tmp_path)
    elif (training := OWN_TRAINING.fullmatch(command)) and training[1] in own:
        check_training(own_pipeline(training[1]), shlex.split(training[2]), tmp_path)
    elif tool := TOOL.fullmatch(command):
        check_tool(tool[1], shlex.split(tool[2]))
    elif install := INSTALL.fullmatch(command):
        check_extras(install[1])
    elif command in CHECKS:
        assert (ROOT / CHECKS[command]).is_file()
    elif command.startswith("python examples/"):
        assert (ROOT / command.split()[1]).is_file()
    else:
        assert command in ELSEWHERE, f"{page}: nothing here proves that this works: {command}"


def as_module(command: str) -> str:
    """Return `pixel-decoders NAME …` as `python -m MODULE …`; other commands as they are."""
    script, _, rest = command.partition(" ")
    if script != "pixel-decoders":
        return command
    name, _, words = rest.partition(" ")
    return f"python -m {COMMANDS[name].module} {words}".strip()


def own_pipeline(module: str) -> Pipeline[Any]:
    """Return the one pipeline of a page's module."""
    values = vars(importlib.import_module(module)).values()
    (found,) = (value for value in values if isinstance(value, Pipeline))
    return found


def check_training(pipeline: Pipeline[Any], args: list[str], folder: Path) -> None:
    if "--help" in args:
        with pytest.raises(SystemExit, match=r"^0$"):
            pipeline.parse(args)
        return
    if "--resume" in args:  # over the configuration of a run that is not here
        args = [word for word in args if word != "--resume"]
    config = pipeline.parse(args)
    data = config.data
    if data.data in BUILT_IN:
        small = config.but(
            epochs=0, limit=8, num_samples=1, importance_samples=1, out=str(folder / "run"),
            accelerator="cpu", devices="1", num_nodes=1, strategy="auto", compile=False,
            precision="32-true",
        )  # fmt: skip
        pipeline.train(small)
        assert (folder / "run" / "result.json").is_file()
        return
    spec = SPECS[data.data]
    levels = 2 if data.binarize != "none" else data.levels or spec.num_levels
    channels = 1 if data.gray else spec.image_shape[0]
    spec = dataclasses.replace(
        spec,
        image_shape=(channels, *(side + 2 * data.pad for side in spec.image_shape[1:])),
        num_levels=levels,
        condition=data.condition,
    )
    assert checked(pipeline.build, config, spec).kind


def check_tool(module: str, args: list[str]) -> None:
    config: Any = importlib.import_module(module).Config
    with contextlib.redirect_stderr(sys.stdout):
        tyro.cli(config, args=args, config=PREFIXES)


def check_extras(extras: str | None) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in (extras or "").split(","):
        assert not extra or re.search(rf"^{extra} = \[", text, flags=re.MULTILINE), extra


def test_extras_that_messages_name_exist() -> None:
    named = {
        extra
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for extra in re.findall(r"pixel-decoders\[(\w+)\]", path.read_text(encoding="utf-8"))
    }
    assert "parquet" in named
    for extra in named:
        check_extras(extra)


def test_a_quick_command_runs_as_it_stands(tmp_path: Path) -> None:
    quick = [
        command
        for page, command in SHOWN
        if page == "getting-started.md" and "--steps 30" in command and "--out" in command
    ]
    assert quick
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    words = shlex.split(as_module(quick[0]))
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=tmp_path, env=env, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.rglob("result.json")
    assert (result.parent / "samples.png").is_file()
    assert "bits/dim" in done.stdout


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_modules(page, tmp_path, monkeypatch)
    namespace: dict[str, Any] = {"__name__": page.stem}
    with torch.random.fork_rng():
        for number, source in enumerate(blocks(page, "python")):
            if found := NAMED.match(source):
                importlib.import_module(found[1])
            else:
                name = f"{page.name}, Python block {number}"
                exec(compile(source, name, "exec", dont_inherit=True), namespace)


def test_the_two_commands_and_the_swap_are_shown() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install -e . && pixel-decoders pixelvae" in text
    assert 'pip install -e ".[dev]" && python -m pytest' in text
    assert "-decoder(to_levels(x), h=encoder(x)).mean()" in text


def test_the_map_names_every_file_of_the_packages() -> None:
    (tree,) = (body for body in blocks(ROOT / "README.md", "text") if "decoders/" in body)
    named: set[str] = set()
    folders: list[str] = []
    for line in tree.splitlines():
        if entry := re.match(r"( *)(\S+?)(/?)\s+\S", line):
            depth = len(entry[1]) // 2
            folders[depth:] = [entry[2]]
            if not entry[3]:
                named.add("/".join(folders))
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    mapped = {name for name in named if name.split("/")[0] in PACKAGES}
    assert mapped == there, f"missing: {sorted(there - mapped)}, gone: {sorted(mapped - there)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

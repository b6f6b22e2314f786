"""Run cases of the fuzz test by number: `python -m tests.fuzz --command pipelines.sample`."""

from __future__ import annotations

import importlib
import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from tests.fuzz import cases, running


@dataclass(frozen=True)
class Config:
    """Cases to run; every fault is printed, with the command that shows it."""

    seed: int = 17
    """Seed of all cases."""
    command: str = ""
    """Only the commands whose name contains this."""
    first: int = 0
    """Number of each command's first case."""
    count: int = 10
    """Cases of each command."""
    sound: bool = False
    """Run the cases without their faults."""
    world: str = ""
    """Folder of the world to copy; it is made if it is not there (default: a temporary one)."""
    seconds: float = math.inf
    """Begin no further case of a command after so long."""
    keep: str = ""
    """Folder to leave the worlds of failed cases in."""
    show: bool = False
    """Print how every case ended."""


def main(config: Config) -> None:
    """Run the cases."""
    for name in cases.COMMANDS:
        importlib.import_module(name.split()[0])
    with tempfile.TemporaryDirectory() as folder:
        template = Path(config.world or Path(folder, "template"))
        running.prepare(template)
        failed = total = 0
        for command in cases.COMMANDS:
            if config.command not in command:
                continue
            began = time.monotonic()
            for number in range(config.first, config.first + config.count):
                if time.monotonic() - began > config.seconds:
                    break
                case, draw = cases.draw_case(command, number, config.seed)
                if config.sound:
                    case = cases.sound_case(command, number, config.seed)
                scratch = Path(folder, "case")
                scratch.mkdir()
                faults, ended = running.run(case, draw, template, scratch)
                total += 1
                failed += bool(faults)
                if faults or config.show:
                    found = "; ".join(faults) or "sound"
                    print(f"== {command} {number}: {found} (code {ended.code})")
                    print(running.describe(case))
                    print("  " + "\n  ".join(ended.err.splitlines()[-12:]), flush=True)
                if faults and config.keep:
                    shutil.copytree(
                        scratch, Path(config.keep, f"{command}-{number}"), symlinks=True
                    )
                shutil.rmtree(scratch)
            print(f"{command}: {total} cases so far, {failed} failed", flush=True)
    print(f"{total} cases, {failed} failed")


if __name__ == "__main__":
    main(tyro.cli(Config))

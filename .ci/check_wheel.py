"""Check that a built wheel holds what the repository's packages hold: python check_wheel.py WHEEL.

Exits with 1, naming the files, if a module or data file of the four packages is missing, or if
anything else (tests, examples) got in.
"""

from __future__ import annotations

import subprocess
import sys
from email.parser import Parser
from zipfile import ZipFile

PACKAGES = ("decoders", "encoders", "eval", "pipelines")


def main(path: str) -> int:
    """Compare the wheel at `path` with the tracked files."""
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], capture_output=True, text=True, check=True
    )
    wanted = {name for name in tracked.stdout.splitlines() if not name.endswith(".md")}
    with ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        header = Parser().parsestr(wheel.read(metadata).decode())
    packed = {name for name in names if ".dist-info/" not in name}
    for what, faults in (
        ("missing from the wheel", wanted - packed),
        ("in the wheel, but not of the four packages", packed - wanted),
    ):
        for name in sorted(faults):
            print(f"{what}: {name}")
    licensed = any(name.endswith("/licenses/LICENSE") for name in names)
    if not licensed:
        print("missing from the wheel: LICENSE")
    print(f"{path}: {header['Name']} {header['Version']}, {len(packed)} files")
    return 0 if packed == wanted and licensed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

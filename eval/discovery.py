"""Discovery of results in run directories, files and folders, and of contradictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from eval.errors import ResultError
from eval.files import at_home
from eval.result_files import read_result, scores_beside
from eval.results import Result
from eval.text import complain


class Found(NamedTuple):
    """A result and its file."""

    result: Result
    path: Path

    @property
    def run_dir(self) -> Path | None:
        """Run directory, if the file is its `result.json`."""
        return self.path.parent if self.path.name == "result.json" else None


def _files(path: Path) -> list[Path]:
    """List the result files at a path."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise ResultError(f"{path} does not exist: name a run directory or a result file")
    if (path / "result.json").exists():
        return [path / "result.json"]
    found = sorted(
        file
        for file in path.rglob("*.json")
        if file.is_file() and (file.name == "result.json" or not _in_run(file.parent, path))
    )
    if not found:
        raise ResultError(f"{path} contains no result: train or evaluate a run there first")
    return found


def _in_run(folder: Path, root: Path) -> bool:
    """Tell whether a folder below root is in a run, whose other JSON files are not results."""
    if (folder / "config.json").exists() or (folder / "result.json").exists():
        return True
    return folder != root and _in_run(folder.parent, root)


def _same_run(r: Result) -> tuple[Any, ...]:
    return (r.pipeline, r.name, r.command, r.commit, r.date, r.seed, r.data, r.split, r.binarize)


def _own(r: Result) -> Result:
    """Return a result without what `pipelines.latents` may add to the run's file later."""
    return replace(r, latents=None, probes=(), estimates=(), extra={})


def discover(paths: Iterable[Path | str]) -> tuple[list[Found], list[str]]:
    """Find and read results in run directories, result files, and folders of either.

    Copies of a result count once. The outcome does not depend on the order of the paths.

    Returns:
        The results, and one sentence for each file that was left out.

    Raises:
        ResultError: a path doesn't exist or contains no result, or two files of the same run
            contain different numbers.
    """
    listed = [file for path in paths for file in _files(at_home(path))]
    files = {file.resolve(): file for file in sorted(listed, reverse=True)}.values()
    found: dict[tuple[Any, ...], Found] = {}
    problems = []
    # Run directories first: of two copies, keep the one with pictures next to it.
    for file in sorted(files, key=lambda file: (file.name != "result.json", file)):
        try:
            result = read_result(file)
        except ResultError as error:
            problems.append(str(error))
            continue
        first = found.setdefault(_same_run(result), Found(result, file))
        one, other = (json.dumps(_own(r).to_json()) for r in (first.result, result))
        if one != other:
            raise ResultError(
                f"{first.path} and {file} claim to be the same run ({result.name}) but differ: "
                "remove the wrong one"
            )
    return sorted(found.values(), key=lambda one: one.path), problems


def check_output(out: Path | None, paths: Iterable[Path | str]) -> None:
    """Refuse to overwrite a file that a command reads from these paths.

    That is a result file, the scores next to it, and every file in a run directory except its
    pages.

    Raises:
        ResultError: `out` is one of them, under any name.
    """
    if out is None or not at_home(out).exists():
        return
    for result in [file for path in paths for file in _files(at_home(path))]:
        files = [result, scores_beside(result)]
        if result.name == "result.json":
            files += [file for file in result.parent.rglob("*") if file.suffix != ".html"]
        if any(file.exists() and at_home(out).samefile(file) for file in files):
            raise ResultError(
                f"{out} belongs to the run in {result.parent}, which this command reads: write to "
                "another file"
            )


def report_problems(problems: Sequence[str]) -> None:
    """Name on stderr every file that was left out."""
    for problem in problems:
        complain("left out", problem)

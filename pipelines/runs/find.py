"""Find a run by its directory or by the name of a model that comes with the toolkit."""

from __future__ import annotations

import difflib
from pathlib import Path

from pipelines.runtime.errors import UserError
from pipelines.runtime.files import at_home

WEIGHTS = Path(__file__).parents[2] / "weights"


def find_run(name: str | Path) -> Path:
    """Return the run directory of this path, or the folder of the bundled model of this name.

    A directory takes precedence over a bundled model.

    Raises:
        UserError: there is no such directory or model.

    >>> find_run("mnist-gated").name
    'mnist-gated'
    >>> find_run("mnist-gate")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pipelines.runtime.errors.UserError: there is no run directory mnist-gate: did you mean the ...
    """
    path = at_home(name)
    if path.is_dir():
        return path
    models = bundled_models()
    if str(name) in models:
        return WEIGHTS / str(name)
    close = difflib.get_close_matches(str(name), models, n=1)
    cure = f"did you mean the bundled model {close[0]}?" if close else "check the path"
    raise UserError(f"there is no run directory {path}: {cure}")


def bundled_models() -> list[str]:
    """Return the names of the bundled models; none if `weights/` is missing."""
    return sorted(config.parent.name for config in WEIGHTS.glob("*/config.json"))

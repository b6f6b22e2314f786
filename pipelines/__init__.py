"""Pipelines: the commands that train, score and sample models, and the same from Python.

Each name is imported when it is first used, so that `import pipelines` needs no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from pipelines.runtime.provenance import __version__

if TYPE_CHECKING:
    from pipelines.data.config import DataConfig
    from pipelines.data.images import Images, Splits
    from pipelines.data.sets import load_data
    from pipelines.model import Model
    from pipelines.runs.config import RunConfig
    from pipelines.runs.pictures import grid
    from pipelines.runs.pictures import save as save_picture
    from pipelines.runs.pipeline import Pipeline
    from pipelines.runs.public import Measured, evaluate, load, train
    from pipelines.runs.record import ImageSpec

_HOME = {
    "DataConfig": "pipelines.data.config:DataConfig",
    "ImageSpec": "pipelines.runs.record:ImageSpec",
    "Images": "pipelines.data.images:Images",
    "Measured": "pipelines.runs.public:Measured",
    "Model": "pipelines.model:Model",
    "Pipeline": "pipelines.runs.pipeline:Pipeline",
    "RunConfig": "pipelines.runs.config:RunConfig",
    "Splits": "pipelines.data.images:Splits",
    "evaluate": "pipelines.evaluate:",  # the command's module, which can be called
    "grid": "pipelines.runs.pictures:grid",
    "load": "pipelines.runs.public:load",
    "load_data": "pipelines.data.sets:load_data",
    "save_picture": "pipelines.runs.pictures:save",
    "train": "pipelines.runs.public:train",
}

__all__ = [
    "DataConfig",
    "ImageSpec",
    "Images",
    "Measured",
    "Model",
    "Pipeline",
    "RunConfig",
    "Splits",
    "__version__",
    "evaluate",
    "grid",
    "load",
    "load_data",
    "save_picture",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, original = _HOME[name].partition(":")
    found = importlib.import_module(module)
    value = getattr(found, original) if original else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _find_namesake() -> str | None:
    """Return a sentence about a user's own `eval.py` or `encoders/` that hides ours, if one does.

    Python looks first in the folder that `python -m` is started in, or that a script is in.
    """
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for name in ("decoders", "encoders", "eval"):
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin])]
        if places and os.path.realpath(places[0] or "") != os.path.join(home, name):
            return (
                f"{places[0]} hides the package {name!r} of pixel-decoders: rename it, start "
                "`python -m` in another folder, or use the command `pixel-decoders`"
            )
    return None


if _namesake := _find_namesake():
    if sys.argv[0] == "-m":  # Python is looking for the command's module
        print(f"error: {_namesake}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(_namesake)

"""Pictures of a run for a page, re-encoded so that the page contains nothing but pixels."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

from PIL import Image, ImageSequence

from eval.files import is_own_file

FORMATS = {".png": "PNG", ".gif": "GIF"}
LARGEST_FILE = 8 * 2**20  # bytes
MOST_PIXELS = 2**26  # in all frames
FIRST = ("samples", "reconstructions", "interpolation")


def pictures(run_dir: Path) -> list[dict[str, str]]:
    """Return title and address of each picture in a run directory, the usual ones first.

    The address is empty if a picture can't be shown; the title then says why.
    """
    found = [path for path in run_dir.iterdir() if path.suffix.lower() in FORMATS]
    order = {name: place for place, name in enumerate(FIRST)}
    found.sort(key=lambda path: (order.get(path.stem, len(order)), path.name))
    shown = []
    for path in found:
        title = path.stem.replace("_", " ").replace("-", " ")
        address, reason = _shown(path)
        title += f" ({reason}: {path.name})" if reason else ""
        shown.append({"title": title, "address": address})
    return shown


def data_uri(*frames: Image.Image, duration: list[int] | None = None) -> str:
    """Return a picture, or the frames of an animation, as a `data:` address."""
    file = io.BytesIO()
    if len(frames) == 1:
        frames[0].save(file, "PNG")
        kind = "png"
    else:
        times = {} if duration is None else {"duration": duration}
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], loop=0, **times)
        kind = "gif"
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _shown(path: Path) -> tuple[str, str]:
    """Return the address of a picture, or the reason why there is none."""
    if not is_own_file(path):
        return "", "not a file of the run"
    if path.stat().st_size > LARGEST_FILE:
        return "", "too large to show here"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are bounded here
            with Image.open(path, formats=[*FORMATS.values()]) as picture:
                return _encoded(picture)
    except Image.DecompressionBombError:
        return "", "too large to show here"
    except Exception:  # of any kind, from a damaged or hostile file
        return "", "not a picture that can be read"


def _encoded(picture: Image.Image) -> tuple[str, str]:
    count = getattr(picture, "n_frames", 1)
    if picture.width * picture.height * count > MOST_PIXELS:
        return "", "too large to show here"
    frames, times = [], []
    for frame in ImageSequence.Iterator(picture):
        frames.append(_pixels(frame))
        times.append(int(frame.info.get("duration", 100)))
    return data_uri(*frames, duration=times), ""


def _pixels(frame: Image.Image) -> Image.Image:
    """Return the pixels without comments and color profiles."""
    clear = "A" in frame.mode or "transparency" in frame.info
    plain = frame.convert("RGBA" if clear else "RGB")
    bare = Image.new(plain.mode, plain.size)
    bare.paste(plain)
    return bare

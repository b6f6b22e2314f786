"""`--data package.module:function`: a user's own data set, or one sentence on what is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.config import DataConfig
from pipelines.data.sets import load
from pipelines.runtime.errors import UserError

HEAD = """
import numpy as np, torch
from torch.utils.data import TensorDataset
from pipelines.data.sets import DataConfig, Images, Splits, load
a = np.arange(240, dtype=np.uint8).reshape(10, 1, 6, 4) % 16
y = np.arange(10) % 3
def make():
    return """
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module whose function `make` returns this expression, and names the function."""
    monkeypatch.syspath_prepend(str(tmp_path))
    numbers = itertools.count()

    def write(returned: str, head: str = HEAD) -> str:
        name = f"own_{tmp_path.name.replace('-', '_')}_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(head + returned + "\n")
        return f"{name}:make"

    return write


FORMS = {
    "arrays": "{'train': a, 'test': a[:4]}",
    "pairs": "{'train': (a, y), 'test': (a[:4], y[:4])}",
    "datasets": "{'train': TensorDataset(torch.from_numpy(a), torch.from_numpy(y)), "
    "'test': TensorDataset(torch.from_numpy(a[:4]), torch.from_numpy(y[:4]))}",
    "images": "{'train': Images.from_arrays(a, y), 'test': Images.from_arrays(a[:4], y[:4])}",
    "splits": "Splits(Images.from_arrays(a, y), Images.from_arrays(a[:4], y[:4]))",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_that_of_an_npz(write: Write, tmp_path: Path, form: str):
    a = np.arange(240, dtype=np.uint8).reshape(10, 1, 6, 4) % 16
    arrays = {"train": a, "test": a[:4]}
    if form != "arrays":
        arrays |= {"train_labels": np.arange(10) % 3, "test_labels": np.arange(4) % 3}
    np.savez(tmp_path / "own.npz", **arrays)
    options = {"binarize": "threshold", "pad": 1, "limit": 3}
    splits = load(DataConfig(write(FORMS[form]), **options))
    expected = load(DataConfig("npz", str(tmp_path), **options))
    for one, other in zip(splits[:2], expected[:2], strict=True):
        assert one.fingerprint == other.fingerprint
        assert one.num_classes == other.num_classes
        assert one.variant == other.variant
    assert splits.test.name.endswith(":make")


def test_labels_and_native_levels(write: Write):
    name = write("{'train': (a, y), 'valid': (a, y)}")
    splits = load(DataConfig(name, native_levels=16, condition="label"))
    assert splits.train.num_levels == 16
    assert splits.test.split == "valid"
    assert splits.test.batch(np.array([4])).y.tolist() == [1]


def test_a_built_in_set_may_be_changed_and_returned(write: Write):
    splits = load(DataConfig(write("load(DataConfig('digits'))"), levels=2))
    assert splits.train.num_levels == 2
    assert len(splits.train) == 1437


BAD = {
    "returns nothing": ("None", "returned a NoneType, expected Splits, or a dict"),
    "no test": ("{'train': a}", "returned train, expected"),
    "another split": ("{'train': a, 'test': a, 'dev': a}", "returned train, test, dev, expected"),
    "raises": ("1 / 0", r"raised ZeroDivisionError: division by zero .*own_.*\.py:8"),
    "no images": ("{'train': a, 'test': a[:0]}", "make: test has no images"),
    "floats": ("{'train': a / 255, 'test': a}", "make: train: floats need num_levels"),
    "two shapes": ("{'train': a, 'test': a[:, :, 1:]}", "the test images have the shape"),
    "two numbers of levels": (
        "{'train': Images.from_arrays(a, num_levels=16), 'test': a}",
        "expected one number of levels, got 16 and 256",
    ),
    "options twice": (
        "load(DataConfig('digits', binarize='threshold'))",
        "the train images of digits have options applied",
    ),
    "no dataset": ("{'train': 3, 'test': 4}", "expected a map-style dataset, .* got a int"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_a_function_may_not_do(write: Write, kind: str):
    returned, message = BAD[kind]
    with pytest.raises(UserError, match=message) as caught:
        load(DataConfig(write(returned)))
    assert "\n" not in str(caught.value)


def test_a_name_that_leads_nowhere(write: Write):
    name = write("3").partition(":")[0]
    for data, message in (
        ("no_such_module_at_all:f", "there is no module no_such_module_at_all"),
        (f"{name}:other", "has no 'other'"),
        (f"{name}:y", "is a ndarray, expected a function"),
        (write("", "import no_such_module_at_all\n"), "importing it failed .*ModuleNotFoundError"),
        (write("", "1 / 0\n"), "importing it failed .ZeroDivisionError"),
        ("a:b:c", "--data a:b:c: expected package.module:function"),
        ("a/b.py:f", "expected package.module:function"),
    ):
        with pytest.raises(UserError, match=message):
            load(DataConfig(data))


def test_nothing_is_imported_before_the_images_are_read(write: Write, tmp_path: Path):
    trace = tmp_path / "trace"
    config = DataConfig(write("", f"open({str(trace)!r}, 'w').close()\n"))
    assert not trace.exists()
    with pytest.raises(UserError, match="has no 'make'"):
        load(config)
    assert trace.exists()


def test_options_of_files_do_not_apply():
    with pytest.raises(UserError, match=r"--image-size does not apply to a\.b:c: leave it out"):
        DataConfig("a.b:c", image_size=8)

"""A run is found by its path or by a bundled model's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.runs import find
from pipelines.runs.find import bundled_models, find_run
from pipelines.runtime.errors import UserError


def test_bundled_models_are_found_by_name() -> None:
    assert bundled_models() == ["mnist-gated", "mnist-latent"]
    assert find_run("mnist-gated") == find.WEIGHTS / "mnist-gated"


def test_a_directory_goes_before_a_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-gated").mkdir()
    assert find_run("mnist-gated") == Path("mnist-gated")


@pytest.mark.parametrize(
    ("name", "cure"),
    [("runs/none", "check the path"), ("mnist-latnet", "the bundled model mnist-latent?")],
)
def test_an_unknown_run_is_named(name: str, cure: str) -> None:
    with pytest.raises(UserError, match=f"there is no run directory {name}: .*{cure}"):
        find_run(name)


def test_without_the_folder_of_weights_there_are_no_bundled_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "WEIGHTS", tmp_path / "weights")
    assert bundled_models() == []

"""A run of a user's own data imports their module only if the user names it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.data.config import DataConfig
from pipelines.runs.load import load_splits
from pipelines.runtime.errors import UserError


@pytest.mark.parametrize(
    ("trusted", "message"),
    [
        ((), "this run's data set is no_such_module:f, which is not part of the toolkit: give"),
        (("no_such",), "give --trust no_such_module to import it"),
        (("no_such_module",), "--data no_such_module:f: there is no module no_such_module"),
    ],
)
def test_a_run_s_own_data_is_imported_at_the_user_s_word(trusted: tuple[str, ...], message: str):
    run: Any = SimpleNamespace(
        config=SimpleNamespace(data=DataConfig("no_such_module:f")), trusted=trusted
    )
    with pytest.raises(UserError, match=message):
        load_splits(run)

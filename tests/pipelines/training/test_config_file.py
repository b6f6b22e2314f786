"""config.json comes back as it was written, or is refused."""

import json

import pytest

from pipelines.runtime.errors import CheckpointError
from pipelines.training import config_file


def test_config_comes_back(tmp_path):
    config_file.write_config(tmp_path, {"pipeline": "pixelvae", "train": {"steps": 3}})
    assert config_file.read_config(tmp_path) == {"pipeline": "pixelvae", "train": {"steps": 3}}


def test_a_missing_or_damaged_config_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="is not a run directory"):
        config_file.read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(CheckpointError, match="is not JSON"):
        config_file.read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match="one JSON object"):
        config_file.read_config(tmp_path)

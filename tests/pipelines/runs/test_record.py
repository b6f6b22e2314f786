"""config.json: written once, read strictly, and by later versions too.

format1/ has a run of each pipeline as written before there was a format number, with the defaults
of that time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs.config import RunConfig
from pipelines.runs.pipeline import PIPELINES, find_pipeline
from pipelines.runs.record import FORMAT, ImageSpec, RunRecord, config_of, read_record
from pipelines.runtime.config import flat
from pipelines.runtime.errors import CheckpointError

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SPEC = ImageSpec((1, 8, 8), 17, "label", 10)


def old(pipeline: str) -> dict[str, Any]:
    return json.loads((HERE / "format1" / f"{pipeline}.json").read_text())


def opened(saved: dict[str, Any], run_dir: Path) -> RunConfig:
    (run_dir / "config.json").write_text(json.dumps(saved))
    record = read_record(run_dir)
    return config_of(record, find_pipeline(record.pipeline).config, run_dir)


def test_what_is_written_is_read(tmp_path):
    config = {"data": "digits", "decoder": "pixelcnn++", "latent_map": [4, 2, 2]}
    record = RunRecord("pixelvae", "0.2", "python", None, config, SPEC, "abc")
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    assert read_record(tmp_path).format == FORMAT


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_run_of_format_1_keeps_every_value(pipeline, tmp_path):
    """Renamed ones under their new name; flags of other decoders are gone."""
    saved = old(pipeline)
    now = flat(opened(saved, tmp_path))
    gone = {"num_blocks", "mixtures"}  # of --decoder pixelcnn++ and --likelihood logistic
    then = {name: value for name, value in saved["config"].items() if name not in gone}
    then["head_channels"] = None  # written as 0
    then = {name: tuple(v) if isinstance(v, list) else v for name, v in then.items()}
    assert {name: now[name] for name in then} == then


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_missing_field_of_format_1_has_the_value_of_its_time(pipeline, tmp_path):
    """Not today's default: files of still earlier versions lack some."""
    saved = old(pipeline)
    whole = opened(saved, tmp_path)
    for name in saved["config"]:
        if name != "embedding_dim":  # not the default there
            config = {key: v for key, v in saved["config"].items() if key != name}
            assert opened({**saved, "config": config}, tmp_path) == whole, name


def test_flags_of_another_decoder_are_read_in_format_1(tmp_path):
    saved = old("pixelcnn")
    saved["config"] |= {"decoder": "pixelcnn++", "likelihood": "logistic", "mixtures": 3}
    now = flat(opened(saved, tmp_path))
    assert (now["num_blocks"], now["num_components"]) == (2, 3)
    assert "num_layers" not in now


def test_an_encoder_with_a_table_of_levels_is_the_same_network(tmp_path):
    """--embedding-dim was the decoder's and the encoder's at once."""
    now = flat(opened(old("pixelvae"), tmp_path))
    assert (now["embedding_dim"], now["encoder_embedding_dim"]) == (3, 3)


@pytest.mark.parametrize("name", ["mnist-gated", "mnist-latent"])
def test_bundled_models_are_read(name):
    record = read_record(ROOT / "weights" / name)
    assert config_of(record, find_pipeline(record.pipeline).config, Path(name))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": FORMAT + 1, "version": "9.1"}, "by a later version of this toolkit (9.1)"),
        ({"format": "two"}, "describes no run"),
        ({"pipeline": 3}, "describes no run"),
        ({"images": {}}, "describes no run"),
        ({"images": {"image_shape": [8, 8], "num_levels": 2}}, "describes no run"),
        ({"config": []}, "describes no run"),
        ({"config": {"epochs": "many"}}, "epochs can't be 'many'"),
        ({"config": {"epochs": -1}}, "--epochs must be at least 0"),
        ({"config": {"epoch": 1}}, "did you mean 'epochs'?"),
        ({"config": {"compile": 1}}, "compile can't be 1"),
        ({"config": {"latent_map": [1, 2]}}, "latent_map can't be [1, 2]"),
        ({"config": {"decoder": "transformer"}}, "--decoder transformer is unknown"),
    ],
)
def test_a_file_that_was_changed_by_hand_is_refused_in_one_sentence(changes, sentence, tmp_path):
    saved = {**old("pixelvae"), "format": FORMAT, "config": {}, **changes}
    with pytest.raises(CheckpointError) as refused:
        opened(saved, tmp_path)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)

"""A decoder's flags are its constructor's: read off the source of ours, off a user's class."""

from __future__ import annotations

import sys

import pytest

from pipelines.runs.config import RunConfig
from pipelines.runs.decoders import DECODERS, LIKELIHOODS, likelihood_options, network_options
from pipelines.runs.options import import_arguments, options_of, read_arguments
from pipelines.runtime.config import flat
from pipelines.runtime.errors import ConfigError, UserError

OURS = [*DECODERS.values(), *LIKELIHOODS.values()]
GIVEN = ("num_levels", "cond_shape", "likelihood")


@pytest.mark.parametrize("target", OURS)
def test_what_is_read_without_an_import_is_what_an_import_finds(target):
    """Names, order, types, defaults and help of every flag."""
    read, imported = (
        [one for one in arguments(target) if one.name not in GIVEN]
        for arguments in (read_arguments, import_arguments)
    )
    assert read == imported


@pytest.mark.parametrize("target", OURS)
def test_every_flag_has_a_line_of_help(target):
    flags = [one for one in read_arguments(target) if one.name not in GIVEN]
    assert not [one.name for one in flags if not one.help]


def test_options_have_the_defaults_of_the_class():
    assert flat(network_options("gated")) | {"num_layers": 12} == flat(network_options("gated"))
    assert flat(likelihood_options("logistic")) == {"num_components": 10}
    assert flat(likelihood_options("categorical")) == {}


def test_another_decoder_keeps_chosen_flags_and_not_the_defaults():
    """PixelCNN has no gates unless asked, whatever GatedPixelCNN has."""
    config = RunConfig.of(hidden_channels=24, num_layers=3).but(decoder="pixelcnn")
    network = flat(config.decoder.network)
    assert (network["hidden_channels"], network["num_layers"]) == (24, 3)
    assert network["gated"] is False


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"decoder": "gatd"}, "--decoder gatd is unknown: did you mean 'gated'?"),
        ({"likelihood": "normal"}, "--likelihood normal is unknown: choose one of"),
        ({"num_blocks": 2}, "there is no field 'num_blocks': did you mean"),
        ({"decoder": "pixelcnn++", "num_layers": 2}, "there is no field 'num_layers'"),
        ({"num_layers": 2.5}, "num_layers can't be 2.5"),
        ({"color_order": "red"}, "color_order can't be 'red'"),
    ],
)
def test_flags_that_do_not_exist_are_refused(flags, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("?", r"\?").replace("+", r"\+")):
        RunConfig.of(**flags)


MODULE = '''
from typing import Literal
from decoders import GatedPixelCNN

class Mine(GatedPixelCNN):
    """Mine.

    Args:
        rate: Speed of the thing, in
            nats.
    """

    def __init__(self, image_shape, *, rate: float = 0.5, mode: Literal["a", "b"] = "a", **network):
        super().__init__(image_shape, **network)

class Bare(GatedPixelCNN):
    def __init__(self, image_shape, *, rate=1):
        pass

class Needy(GatedPixelCNN):
    def __init__(self, image_shape, *, rate: int):
        pass

number = 3
'''


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A module `usernet` of a user, and one that raises."""
    (tmp_path / "usernet.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "lacking.py").write_text("import absent_library")
    monkeypatch.syspath_prepend(str(tmp_path))
    options_of.cache_clear()
    yield
    sys.modules.pop("usernet", None)


@pytest.mark.usefixtures("user_module")
def test_a_user_s_decoder_has_its_own_flags_and_those_it_passes_on():
    arguments = {one.name: one for one in import_arguments("usernet:Mine")}
    assert arguments["rate"].default == 0.5
    assert arguments["rate"].help == "Speed of the thing, in nats."
    assert {"mode", "num_layers", "hidden_channels"} <= set(arguments)


@pytest.mark.usefixtures("user_module")
@pytest.mark.parametrize(
    ("decoder", "sentence"),
    [
        ("usernet:Absent", "usernet has no 'Absent'"),
        ("absentnet:Mine", "there is no module absentnet"),
        ("broken:Mine", "importing it failed (ZeroDivisionError: division by zero)"),
        ("lacking:Mine", "importing it failed (ModuleNotFoundError: No module named"),
        ("usernet:number", "to be a class, got a int"),
        ("usernet:Bare", "to annotate its argument 'rate'"),
        ("usernet:Needy", "to have a default for its argument 'rate'"),
    ],
)
def test_a_user_s_class_that_cannot_be_used_is_refused_in_one_sentence(decoder, sentence):
    with pytest.raises(UserError) as refused:
        RunConfig.of(decoder=decoder)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)

"""Prove that what is saved with its configuration comes back as it was, or is refused.

Decoders, encoders and models are saved and loaded by the same code, which each of the two packages
has a copy of.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from decoders import (
    Categorical,
    Decoder,
    DeconvDecoder,
    DiagonalGaussian,
    DiscretizedLogisticMixture,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelSNAIL,
    PretrainedError,
)
from decoders import Recorded as DecodersRecorded
from encoders import (
    ConvEncoder,
    Deterministic,
    Encoder,
    GaussianEncoder,
    HierarchicalEncoder,
    Joint,
    LabelEmbedding,
    MapEncoder,
    Recorded,
    TextEncoder,
    Upsample,
)
from encoders import PretrainedError as EncodersError
from pipelines.model import Model
from pipelines.training.ema import EMA
from tests.encoders.quantizer import Quantizer

ROOT = Path(__file__).parent.parent
SHAPE, LEVELS = (1, 8, 8), 4


class Flat(Recorded, nn.Module):
    """A network of a user's own that can be saved as part of an encoder."""

    def __init__(self, out: int, sizes: list[int], names: dict[str, tuple[int, ...]]):
        super().__init__()
        assert type(sizes) is list
        assert names == {"a": (1, 2)}
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def gated(**options: Any) -> GatedPixelCNN:
    small = {"num_levels": LEVELS, "num_layers": 1, "hidden_channels": 8, "kernel_size": 3}
    return GatedPixelCNN(SHAPE, **{**small, **options})


def hierarchical() -> HierarchicalEncoder:
    prior = GatedPixelCNN(
        (2, 4, 4), cond_shape=(3, 4, 4), likelihood=DiagonalGaussian(4.0), num_layers=1,
        hidden_channels=8,
    )  # fmt: skip
    return HierarchicalEncoder(
        SHAPE, map_shape=(2, 4, 4), latent_dim=3, prior=prior, num_levels=LEVELS, hidden_channels=4,
        prior_upsample=Upsample((3,), (3, 4, 4), hidden_channels=4),
        upsample=Upsample((2, 4, 4), (5, 8, 8), hidden_channels=4),
    )  # fmt: skip


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gated": gated,
    "pixelcnn": lambda: PixelCNN((3, 8, 8), num_levels=4, hidden_channels=12, num_layers=1),
    "plusplus": lambda: PixelCNNPlusPlus(
        (3, 8, 8), likelihood=DiscretizedLogisticMixture(16, 3), hidden_channels=8, num_blocks=1,
        cond_shape=(3,), weight_norm=True,
    ),
    "snail": lambda: PixelSNAIL(
        (3, 8, 8), num_levels=4, hidden_channels=8, num_blocks=1, num_heads=2, norm=True,
    ),
    "deconv": lambda: DeconvDecoder(SHAPE, num_levels=3, cond_shape=(2,), hidden_channels=4),
    "many levels": lambda: gated(num_levels=1000),
    "continuous": lambda: gated(num_levels=None, likelihood=DiagonalGaussian()),
}  # fmt: skip
ENCODERS: dict[str, tuple[Callable[[], Encoder], Any]] = {
    "conv": (lambda: ConvEncoder(SHAPE, num_levels=LEVELS, code_shape=(7,)), None),
    "own network": (
        lambda: Deterministic(Flat(7, [1], {"a": (1, 2)}), (7,), num_levels=LEVELS), None
    ),
    "gaussian": (
        lambda: GaussianEncoder(
            SHAPE, 3, num_levels=LEVELS, upsample=Upsample((3,), (5, 8, 8), hidden_channels=4)
        ), None,
    ),
    "hierarchical": (hierarchical, None),
    "quantizer": (lambda: Quantizer(SHAPE, num_levels=LEVELS), None),
    "label": (lambda: LabelEmbedding(3, 6), torch.tensor([0, 2])),
    "map": (
        lambda: MapEncoder(4, (6, 8, 8), hidden_channels=8, dilations=(1, 3)),
        torch.zeros(2, 8, 8, dtype=torch.uint8),
    ),
    "text": (lambda: TextEncoder(6, embedding_dim=5), torch.ones(2, 4, dtype=torch.uint8)),
    "joint": (
        lambda: Joint(LabelEmbedding(3, 2), ConvEncoder(SHAPE, num_levels=LEVELS, code_shape=(1,))),
        (torch.tensor([0, 2]), None),
    ),
}  # fmt: skip


def images(num_levels: int | None = LEVELS, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    if num_levels is None:
        return torch.randn(2, *shape)
    x = torch.randint(num_levels, (2, *shape))
    return x.to(torch.uint8 if num_levels <= 256 else torch.int64)


def moved(module: Any) -> Any:
    """Weights that no constructor makes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def seeded(function: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        return function()


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_comes_back(name, tmp_path):
    decoder = moved(DECODERS[name]())
    x = images(decoder.num_levels, decoder.image_shape)
    h = torch.randn(2, *decoder.cond_shape) if decoder.cond_shape else None
    decoder.save_pretrained(tmp_path / "saved")
    for cls in (type(decoder), Decoder):
        other = cls.from_pretrained(tmp_path / "saved")
        assert type(other) is type(decoder)
        assert repr(other) == repr(decoder)
        assert not other.training
        assert torch.equal(decoder.log_prob(x, h), other.log_prob(x, h))
        assert torch.equal(*(seeded(lambda d=d: d.sample(h, num=2)) for d in (decoder, other)))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_comes_back(name, tmp_path):
    make, y = ENCODERS[name]
    encoder, x = moved(make()), images()
    encoder.save_pretrained(tmp_path / "saved")
    other = Encoder.from_pretrained(tmp_path / "saved", trust=["tests"])
    assert repr(other) == repr(encoder)
    codes = [seeded(lambda e=e: e(x, y)) for e in (encoder, other)]
    assert torch.equal(codes[0].h, codes[1].h)
    assert torch.equal(codes[0].rate, codes[1].rate)


def test_every_public_class_is_among_these():
    """A new decoder or encoder is added above."""
    import decoders
    import encoders

    made = {type(make()) for make in DECODERS.values()}
    made |= {type(make()) for make, _ in ENCODERS.values()}
    for package, base in ((decoders, Decoder), (encoders, Encoder)):
        for name in package.__all__:
            found = getattr(package, name)
            if isinstance(found, type) and issubclass(found, base):
                assert found in made or found.__abstractmethods__, name


def test_a_model_comes_back_with_what_is_nested_in_it(tmp_path):
    model = moved(Model(gated(cond_shape=(5, 8, 8)), hierarchical()))
    model.save_pretrained(tmp_path / "saved")
    other = Model.from_pretrained(str(tmp_path / "saved"))
    x = images()
    before, after = (seeded(lambda m=m: m(x)) for m in (model, other))
    assert torch.equal(before.distortion, after.distortion)
    assert torch.equal(before.rate, after.rate)
    assert other.kind == "bound"


def test_the_layout_is_that_of_the_hub(tmp_path):
    gated().save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "config.json", "model.safetensors",
    }  # fmt: skip
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["GatedPixelCNN"]
    assert config["class"] == "decoders:GatedPixelCNN"
    assert config["arguments"]["image_shape"] == [1, 8, 8]
    assert config["arguments"]["hidden_channels"] == 8


def test_defaults_are_saved_too_those_of_base_classes_among_them(tmp_path):
    """A model stays what it is when a default changes."""
    gated().save_pretrained(tmp_path / "saved")
    arguments = json.loads((tmp_path / "saved" / "config.json").read_text())["arguments"]
    assert arguments["dropout"] == 0.0
    assert arguments["resize"] == "nearest"
    assert arguments["first_kernel_size"] == 7


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_the_weights_stays(dtype, tmp_path):
    decoder, x = moved(gated()).to(dtype), images()
    decoder.save_pretrained(tmp_path / "saved")
    other = GatedPixelCNN.from_pretrained(tmp_path / "saved")
    assert {p.dtype for p in other.parameters()} == {dtype}
    assert torch.equal(decoder(x), other(x))


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        copy.deepcopy,
        lambda decoder: EMA(decoder, 0.9).module,
        lambda decoder: decoder.train(),
    ],
    ids=["compiled", "copied", "averaged", "training"],
)
def test_a_wrapped_decoder_is_saved_as_it_is(wrap, tmp_path):
    decoder = moved(gated())
    wrap(decoder).save_pretrained(tmp_path / "saved")
    other = GatedPixelCNN.from_pretrained(tmp_path / "saved")
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_compiled_parts_of_a_model_are_saved_without_a_trace(tmp_path):
    model = Model(gated(cond_shape=(6,)), LabelEmbedding(3, 6))
    model.decoder = torch.compile(model.decoder)  # type: ignore[assignment]
    model.save_pretrained(tmp_path / "one")
    model.encoder = torch.compile(model.encoder)  # type: ignore[assignment]
    model.save_pretrained(tmp_path / "two")
    for name in ("one", "two"):
        other = Model.from_pretrained(tmp_path / name)
        assert type(other.decoder) is GatedPixelCNN


def test_a_part_wrapped_for_distributed_training_is_saved_without_a_trace(tmp_path):
    model = Model(gated(cond_shape=(6,)), LabelEmbedding(3, 6))
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model.decoder.layers = nn.parallel.DistributedDataParallel(model.decoder.layers)  # type: ignore[assignment]
        model.save_pretrained(tmp_path / "saved")
    finally:
        torch.distributed.destroy_process_group()
    Model.from_pretrained(tmp_path / "saved")


def test_saving_and_loading_leave_the_random_state_alone(tmp_path):
    decoder = gated()
    state = torch.get_rng_state()
    decoder.save_pretrained(tmp_path / "saved")
    GatedPixelCNN.from_pretrained(tmp_path / "saved")
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.gpu
def test_a_model_on_a_gpu_is_saved(tmp_path):
    decoder = moved(gated()).cuda()
    decoder.save_pretrained(tmp_path / "saved")
    other = GatedPixelCNN.from_pretrained(tmp_path / "saved")
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor.cpu())


# Refusals


def saved(tmp_path: Path, make: Callable[[], Any] = gated) -> Path:
    make().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_network_that_cannot_be_recorded_is_refused(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    encoder = Deterministic(network, (7,), num_levels=LEVELS)
    message = r"a Sequential as its argument 'network' can't be saved: .*encoders\.Recorded"
    with pytest.raises(ValueError, match=message):
        encoder.save_pretrained(tmp_path / "saved")
    model = Model(gated(cond_shape=(7,)), encoder)
    with pytest.raises(ValueError, match=message):
        model.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_a_decoder_that_was_rebuilt_is_refused(tmp_path):
    decoder = gated()
    decoder.extra = nn.Linear(1, 1)
    with pytest.raises(PretrainedError, match=r"was changed after it was built.*unknown extra"):
        decoder.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    folder = saved(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(PretrainedError, match="is not an empty folder: choose another name"):
        gated().save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(PretrainedError, match="is not an empty folder"):
        gated().save_pretrained(folder / "config.json")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_an_empty_folder_is_filled(tmp_path):
    gated().save_pretrained(tmp_path)
    GatedPixelCNN.from_pretrained(tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path, largest_file):
    with largest_file(2000), pytest.raises(PretrainedError, match=r"cannot write .*saved: "):
        gated().save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is damaged"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), r"config\.json is damaged"),
        (lambda f: (f / "config.json").write_text("[1]"), r"config\.json is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), r"safetensors can't be read"),
        (lambda f: edit(f, format=99), r"to be of format 1, got 99: update the toolkit"),
        (lambda f: edit(f, arguments=None), r"expected a class and its arguments"),
        (lambda f: edit(f, arguments={}), r"describes no decoders:GatedPixelCNN"),
        (lambda f: edit(f, arguments={"x": {"y": 1}}), r"expected a class, a list or a dict"),
        (lambda f: edit(f, **{"class": 3}), r"expected a class and its arguments"),
        (lambda f: edit(f, **{"class": "os:system"}), r"os:system is not a class of this toolkit"),
        (lambda f: edit(f, **{"class": "decoders:Nothing"}), r"can't be imported"),
        (lambda f: edit(f, **{"class": "pipelines.runs.load:Run"}), r"derives from"),
        (lambda f: edit(f, **{"class": "decoders:PixelCNN"}), r"describes no|another model"),
    ],
)  # fmt: skip
def test_damage_is_one_sentence(damage, message, tmp_path):
    folder = saved(tmp_path)
    damage(folder)
    with pytest.raises(PretrainedError, match=message) as caught:
        Decoder.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(next(iter(t))), "missing embed|missing layers|missing head"),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown extra"),
        (lambda t: t.update({k: v[:1] for k, v in t.items()}), "in place of"),
    ],
)
def test_other_weights_are_refused(change, message, tmp_path):
    folder = saved(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(PretrainedError, match=message):
        GatedPixelCNN.from_pretrained(folder)


def test_another_class_is_refused(tmp_path):
    folder = saved(tmp_path)
    with pytest.raises(PretrainedError, match="holds a GatedPixelCNN, not a PixelCNN: load it"):
        PixelCNN.from_pretrained(folder)
    with pytest.raises(EncodersError, match=r"holds a GatedPixelCNN, not an? Encoder"):
        Encoder.from_pretrained(folder)


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(PretrainedError, match=r"there is no folder .*nowhere: check the path"):
        GatedPixelCNN.from_pretrained(tmp_path / "nowhere")


# A user's own classes


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A user's module, which says so when it is imported."""
    name = f"mine{random.randrange(10**9)}"
    (tmp_path / f"{name}.py").write_text(
        "import os\n"
        "os.environ['IMPORTED'] = '1'\n"
        "from decoders import GatedPixelCNN\n"
        "class Mine(GatedPixelCNN):\n"
        "    def __init__(self, image_shape, *, depth=2, **network):\n"
        "        super().__init__(image_shape, num_layers=depth, skip=False, **network)\n"
        "not_a_decoder = os.system\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_a_users_class_is_imported_at_the_users_word_alone(own_module, tmp_path, monkeypatch):
    mine = __import__(own_module).Mine
    mine(SHAPE, num_levels=LEVELS, hidden_channels=8).save_pretrained(tmp_path / "saved")
    sys.modules.pop(own_module)
    monkeypatch.delenv("IMPORTED")
    with pytest.raises(PretrainedError, match=rf"{own_module}:Mine .*trust=\['{own_module}'\]"):
        Decoder.from_pretrained(tmp_path / "saved")
    assert own_module not in sys.modules
    other = Decoder.from_pretrained(tmp_path / "saved", trust=[own_module])
    assert type(other).__name__ == "Mine"
    assert type(type(other).from_pretrained(tmp_path / "saved")) is type(other)
    edit(tmp_path / "saved", **{"class": f"{own_module}:not_a_decoder"})
    with pytest.raises(PretrainedError, match="derives from"):
        Decoder.from_pretrained(tmp_path / "saved", trust=[own_module])


def test_a_module_that_is_gone_is_one_sentence(own_module, tmp_path):
    mine = __import__(own_module).Mine
    mine(SHAPE, num_levels=LEVELS, hidden_channels=8).save_pretrained(tmp_path / "saved")
    sys.modules.pop(own_module)
    (tmp_path / f"{own_module}.py").unlink()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    with pytest.raises(PretrainedError, match=f"{own_module}:Mine can't be imported"):
        Decoder.from_pretrained(tmp_path / "saved", trust=[own_module])


def test_a_class_defined_in_a_function_is_loaded_by_itself(tmp_path):
    class Local(GatedPixelCNN):
        pass

    Local(SHAPE, num_levels=LEVELS, num_layers=1, hidden_channels=8).save_pretrained(tmp_path / "a")
    assert type(Local.from_pretrained(tmp_path / "a")) is Local


def test_the_outermost_constructor_is_recorded():
    recorded = Categorical(4).recorded
    assert isinstance(recorded, dict)
    assert recorded == {"class": "decoders:Categorical", "arguments": {"num_levels": 4}}
    joint = Joint(LabelEmbedding(3, 2), TextEncoder(3)).recorded
    assert isinstance(joint, dict)
    assert [one["class"] for one in joint["positional"]] == [
        "encoders:LabelEmbedding", "encoders:TextEncoder",
    ]  # fmt: skip


def test_the_two_packages_have_the_same_code():
    for name in ("recorded.py", "pretrained.py"):
        ours, theirs = (
            (ROOT / package / name).read_bytes() for package in ("decoders", "encoders")
        )
        assert ours.replace(b"\nfrom decoders.", b"\nfrom encoders.") == theirs
    assert DecodersRecorded is not Recorded


# The Hugging Face Hub, without a network


class FakeHub:
    """Keeps what is uploaded in a folder."""

    def __init__(self, home: Path) -> None:
        self.home, self.asked = home, []

    def HfApi(self) -> FakeHub:  # noqa: N802
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.asked.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
        shutil.copytree(folder_path, self.home / repo_id)
        return f"https://hub/{repo_id}"

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: Any) -> str:
        if not (self.home / repo_id).is_dir():
            raise OSError(f"no repository\n{repo_id}")
        return str(self.home / repo_id)


def test_to_the_hub_and_back(tmp_path, monkeypatch):
    hub = FakeHub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    decoder = moved(gated())
    assert decoder.push_to_hub("me/digits", private=True) == "https://hub/me/digits"
    assert hub.asked == [("me/digits", True, True)]
    card = (tmp_path / "me/digits/README.md").read_text()
    assert "library_name: pixel-decoders" in card
    monkeypatch.chdir(tmp_path / "me")
    other, x = GatedPixelCNN.from_pretrained("me/digits"), images()
    assert torch.equal(decoder(x), other(x))
    with pytest.raises(PretrainedError, match=r"no folder me/other.*\(no repository me/other\)"):
        GatedPixelCNN.from_pretrained("me/other")


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (
        lambda: gated().push_to_hub("me/digits"),
        lambda: GatedPixelCNN.from_pretrained("me/digits"),
    ):
        with pytest.raises(PretrainedError, match=r'pip install "pixel-decoders\[hub\]"'):
            use()


def test_the_real_hub_takes_what_is_handed_to_it(monkeypatch):
    """Our calls fit the signatures of huggingface_hub."""
    hub = pytest.importorskip("huggingface_hub")
    api = SimpleNamespace(create_repo=None, upload_folder=None)
    import inspect

    inspect.signature(hub.HfApi.create_repo).bind(api, "a/b", private=False, exist_ok=True)
    inspect.signature(hub.HfApi.upload_folder).bind(
        api, repo_id="a/b", folder_path="x", commit_message="y"
    )
    inspect.signature(hub.snapshot_download).bind("a/b", revision=None, allow_patterns=["x"])

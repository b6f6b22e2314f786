"""A file is readable wherever its model is, and by no other; files of the first version too."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import encoders.posterior
from pipelines import pixelcnn
from pipelines.compress import main
from pipelines.compression import container
from pipelines.runs import model_identity
from pipelines.runs.load import open_run
from pipelines.training.weights import save_weights

HERE = Path(__file__).parent
WEIGHTS = Path(__file__).parents[3] / "weights"
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 12 random images of the digits' shape and levels."""
    file = tmp_path_factory.mktemp("images") / "x.npy"
    np.save(file, np.random.default_rng(0).integers(17, size=(12, 1, 8, 8), dtype=np.uint8))
    return file


def encode(run_dir: Path, images: Path, file: Path, *flags: str) -> Path:
    main([str(run_dir), "encode", str(images), str(file), "--no-compare", *flags])
    return file


def edited(run_dir: Path, **fields: object) -> None:
    """Change fields of a run's configuration."""
    config = json.loads((run_dir / "config.json").read_text())
    config["config"] |= fields
    (run_dir / "config.json").write_text(json.dumps(config))


def test_a_resumed_moved_and_renamed_run_reads_its_files(copy_run, images, tmp_path):
    """What was trained further not at all is the same model, whatever its configuration says."""
    run_dir = copy_run("pixelcnn")
    file = encode(run_dir, images, tmp_path / "f")
    argv = ["--steps=20", "--limit=100", "--hidden-channels=12", "--num-layers=2"]
    argv += ["--num-samples=0", "--importance-samples=0", "--accelerator=cpu"]
    again = [*argv, f"--out={run_dir}", "--resume", "--log-every=3", "--keep-checkpoints=5"]
    pixelcnn.PIPELINE.main(again)
    moved = run_dir.rename(tmp_path / "moved")
    edited(moved, data_dir="/elsewhere", name="another name", devices="2", seed=7)
    back = tmp_path / "back.npy"
    main([str(moved), "decode", str(file), str(back)])
    np.testing.assert_array_equal(np.load(back), np.load(images))


OTHERS = {
    "condition: 'none' there, 'label' here": ("pixelcnn", "--condition=label"),
    "pipeline: 'pixelcnn' there, 'pixelvae' here": ("pixelvae",),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_another_run_is_refused_with_what_differs(train_run, images, tmp_path, refusal, difference):
    file = encode(train_run("pixelcnn"), images, tmp_path / "f")
    other = train_run(*OTHERS[difference])
    error = refusal(main, other, "decode", file, tmp_path / "x.npy")
    assert f"was written with another model than that of {other}" in error
    assert difference in error
    assert len(list(tmp_path.iterdir())) == 1


def test_other_weights_and_each_other_flag_are_named(copy_run, images, tmp_path):
    run_dir = copy_run("pixelcnn")
    run = open_run(run_dir)
    header, _ = container.from_file(encode(run_dir, images, tmp_path / "f"))
    assert model_identity.check_model(header, run, tmp_path / "f", run_dir)
    for name, value in header.architecture.items():
        changed = header.architecture | {name: "another"}
        other = dataclasses.replace(header, architecture=changed)
        with pytest.raises(container.DataError) as error:
            model_identity.check_model(other, run, tmp_path / "f", run_dir)
        assert f"({name}: 'another' there, {value!r} here)" in str(error.value)
    for other, words in (
        (dataclasses.replace(header, num_levels=16), "levels: 16 there, 17 here"),
        (dataclasses.replace(header, image_shape=(1, 9, 8)), "images: [1, 9, 8] there"),
        (dataclasses.replace(header, method="given label"), "coded as 'given label' there"),
        (dataclasses.replace(header, model=bytes(16)), "same architecture, with other weights"),
    ):
        with pytest.raises(container.DataError) as error:
            model_identity.check_model(other, run, tmp_path / "f", run_dir)
        assert words in str(error.value)


def test_the_architecture_takes_few_bytes_and_comes_back(train_run):
    for pipeline in ("pixelcnn", "autoencoder", "pixelvae"):
        about = model_identity.architecture(open_run(train_run(pipeline)))
        assert container._unpacked(container._packed(about), container.VERSION) == about
        assert len(container._packed(about)) < 100
    assert {"hidden_channels", "likelihood", "latent_dim", "posterior_scale"} <= set(about)
    assert not {"data_dir", "steps", "out", "resume", "seed", "name", "limit"} & set(about)


def test_flags_of_later_versions_do_not_lock_a_file_out(train_run, images, tmp_path, monkeypatch):
    """What a file does not name did not exist when it was written."""
    full = model_identity.architecture

    def fewer(run):
        return {name: value for name, value in full(run).items() if name != "residual"} | {
            "gone": 1
        }

    with monkeypatch.context() as patch:
        patch.setattr(model_identity, "architecture", fewer)
        file = encode(train_run("pixelcnn"), images, tmp_path / "f")
    main([str(train_run("pixelcnn")), "decode", str(file), str(tmp_path / "x.npy")])


@pytest.mark.parametrize("name", ["gated", "latent"])
@pytest.mark.parametrize(("version", "number"), [("first", 1), ("second", 2)])
def test_files_of_earlier_versions_are_read(version, number, name, tmp_path):
    """All were written by the code of that time, from the first images of the weights' check."""
    run_dir, back = WEIGHTS / f"mnist-{name}", tmp_path / "back.npy"
    file = HERE / f"{version}-{name}.pxl"
    header, _ = container.from_file(file)
    assert header.version == number
    try:
        main([str(run_dir), "decode", str(file), str(back)])
    except SystemExit:
        # A latent depends on the last bit of a float32 exponential.
        assert name == "latent"
        pytest.skip(f"written with {header.written_with}, whose kernels are others than here")
    with np.load(run_dir / "check.npz") as check:
        np.testing.assert_array_equal(np.load(back), check["x"][:6])


def test_a_file_of_the_first_version_is_read_after_a_resumption(tmp_path, refusal):
    """Its fingerprint was of the whole configuration; now the images' checksum decides."""
    shutil.copytree(WEIGHTS / "mnist-gated", tmp_path / "run")
    edited(tmp_path / "run", out="elsewhere", resume=True, data_dir="/moved")
    main([str(tmp_path / "run"), "decode", str(HERE / "first-gated.pxl"), str(tmp_path / "x.npy")])
    latent = refusal(
        main, tmp_path / "run", "decode", HERE / "first-latent.pxl", tmp_path / "y.npy"
    )
    assert "--bits-back is for models with latent variables" in latent
    run = open_run(tmp_path / "run")
    with torch.no_grad():
        next(run.model.decoder.parameters()).view(-1)[0] += 0.1
    save_weights(tmp_path / "run", run.model, step=1)
    error = refusal(main, tmp_path / "run", "decode", HERE / "first-gated.pxl", tmp_path / "y.npy")
    assert f"another model than that of {tmp_path / 'run'}, or it was written in float64" in error
    assert not (tmp_path / "y.npy").exists()


def test_the_last_bit_of_the_posterior_does_not_matter(train_run, images, tmp_path, monkeypatch):
    """Other kernels differ there: in float64, 2**-52 of a number; float32 would be lost."""
    run_dir = train_run("pixelvae")
    flags = ["--bits-back", "--score-batch=4"]
    file = encode(run_dir, images, tmp_path / "f", *flags)
    exact = encoders.posterior.mean_and_std
    types = set()

    def next_float(part: torch.Tensor) -> torch.Tensor:
        types.add(part.dtype)
        return torch.nextafter(part, torch.full_like(part, torch.inf))

    def off(*args):
        return tuple(map(next_float, exact(*args)))

    monkeypatch.setattr(encoders.posterior, "mean_and_std", off)
    main([str(run_dir), "decode", str(file), str(tmp_path / "x.npy")])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.load(images))
    assert types == {torch.float64}


KERNELS = ("MKL_CBWR=COMPATIBLE", "ATEN_CPU_CAPABILITY=default", "MKL_ENABLE_INSTRUCTIONS=SSE4_2")


@pytest.mark.slow
def test_bits_back_files_are_read_by_other_kernels(tmp_path):
    """Real ones, as far as this processor offers them, on all images of the weights' check."""
    run_dir = WEIGHTS / "mnist-latent"
    with np.load(run_dir / "check.npz") as check:
        np.save(tmp_path / "x.npy", check["x"])
    file = encode(run_dir, tmp_path / "x.npy", tmp_path / "f", "--bits-back", "--score-batch=4")
    for number, setting in enumerate(KERNELS):
        name, value = setting.split("=")
        back = tmp_path / f"{number}.npy"
        command = [sys.executable, "-m", "pipelines.compress", str(run_dir), "decode"]
        subprocess.run(
            [*command, str(file), str(back)],
            env={**os.environ, name: value},
            cwd=WEIGHTS.parent,
            check=True,
            timeout=300,
        )
        np.testing.assert_array_equal(np.load(back), np.load(tmp_path / "x.npy"))


def test_a_header_that_nobody_writes_is_one_sentence(train_run, images, tmp_path, refusal):
    """Also where its checksum is right."""
    run_dir = train_run("pixelcnn")
    content = encode(run_dir, images, tmp_path / "f").read_bytes()
    fields = container._FIELDS[container.VERSION]
    size, place = fields.size, {"method": 5, "precision": 6, "layout": 7}
    changes = [(at, struct.pack("<B", 200)) for at in place.values()]
    changes += [(24, struct.pack("<I", 0)), (16, struct.pack("<Q", 0)), (size - 2, b"\xff\xff")]
    for number, (at, value) in enumerate(changes):
        head = bytearray(content[:size])
        head[at : at + len(value)] = value
        rest = content[size + container.DIGITS :]
        file = tmp_path / str(number)
        file.write_bytes(bytes(head) + container.checksum(bytes(head), rest) + rest)
        error = refusal(main, run_dir, "decode", file, tmp_path / "x.npy")
        assert "has a header that no version of this toolkit writes" in error


def test_a_diverged_posterior_is_one_sentence(copy_run, images, tmp_path, refusal):
    run_dir = copy_run("pixelvae")
    run = open_run(run_dir)
    with torch.no_grad():
        run.model.encoder.head.bias[0] = torch.nan
    save_weights(run_dir, run.model, step=1)
    error = refusal(main, run_dir, "encode", images, tmp_path / "f", "--bits-back")
    assert "the model diverged" in error
    assert not (tmp_path / "f").exists()


def test_a_narrow_posterior_costs_what_its_bound_says(copy_run, images, tmp_path, capsys):
    """Deviations of some 1/2,000: the first version coded them as if they were 1/256."""
    run_dir = copy_run("pixelvae")
    run = open_run(run_dir)
    encoder = run.model.encoder
    with torch.no_grad():
        encoder.head.weight[encoder.latent_dim :] = 0
        encoder.head.bias[encoder.latent_dim :] = -7.6
    save_weights(run_dir, run.model, step=1)
    np.save(tmp_path / "x.npy", np.concatenate([np.load(images)] * 20))
    file = encode(run_dir, tmp_path / "x.npy", tmp_path / "f", "--bits-back", "--score-batch=4")
    bits = {line.strip()[:14]: line.split()[-1] for line in capsys.readouterr().out.splitlines()}
    taken = float(bits["the file's con"]) - float(bits["of which initi"])
    assert taken == pytest.approx(float(bits["the model's bo"]), rel=0.01)
    header, _ = container.from_file(file)
    assert header.grid == 4096
    main([str(run_dir), "decode", str(file), str(tmp_path / "back.npy")])
    np.testing.assert_array_equal(np.load(tmp_path / "back.npy"), np.load(tmp_path / "x.npy"))


def test_two_outputs_of_one_name_are_refused(train_run, images, tmp_path, refusal):
    """The labels would be written over the images."""
    run_dir = train_run("pixelcnn", "--condition=label")
    np.save(tmp_path / "y.npy", np.zeros(12, dtype=np.int64))
    file = encode(run_dir, images, tmp_path / "f", "--labels", str(tmp_path / "y.npy"))
    out, same = tmp_path / "out.npy", tmp_path / "." / "sub" / ".." / "out.npy"
    (tmp_path / "sub").mkdir()
    for command in (["decode", str(file)], ["export"]):
        error = refusal(main, run_dir, *command, out, "--labels", same)
        assert "are one file: choose another name" in error
        assert not out.exists()

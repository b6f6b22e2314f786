"""Files are the images and nothing else: exact, as long as the model says, and never half there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.compress import main
from pipelines.compression import container, formats
from pipelines.data.levels import append_levels, read_levels
from pipelines.data.sets import DataConfig, load
from pipelines.runs.load import open_run
from pipelines.training.weights import save_weights

COUNT = 70  # more than a batch, and not a multiple of one
HEADER = 134  # bytes, without the architecture
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of test images of digits, and of their labels."""
    folder = tmp_path_factory.mktemp("digits")
    test = load(DataConfig(condition="label")).test
    x, y = test.batch(np.arange(COUNT))
    np.save(folder / "x.npy", x.numpy())
    assert isinstance(y, torch.Tensor)
    np.save(folder / "y.npy", y.numpy())
    return folder / "x.npy", folder / "y.npy"


@pytest.fixture(scope="module")
def packed(train_run: Train, digits: tuple[Path, Path], tmp_path_factory) -> tuple[Path, bytes]:
    """An unconditional run, and what the digits are under it."""
    file = tmp_path_factory.mktemp("packed") / "x.pxd"
    run_dir = train_run("pixelcnn")
    main([str(run_dir), "encode", str(digits[0]), str(file), "--no-compare"])
    return run_dir, file.read_bytes()


def printed_bits(text: str, label: str) -> float:
    line = next(line for line in text.splitlines() if label in line)
    return float(line.split()[-1])


CASES = {
    "exact": ("pixelcnn", [], []),
    "deconv": ("pixelcnn", ["--decoder=deconv"], []),
    "label": ("pixelcnn", ["--condition=label"], []),
    "code": ("autoencoder", [], []),
    "bits-back": ("pixelvae", [], ["--bits-back", "--score-batch=8"]),
    "bits-back-map": ("pixelvae", ["--latent-to=map"], ["--bits-back"]),
}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_round_trip(train_run, digits, tmp_path, capsys, case, precision):
    """Each kind of model gives back the very file, and takes the bits that it says, 0.5 % more.

    The number of levels follows the images.
    """
    pipeline, flags, options = CASES[case]
    run_dir = str(train_run(pipeline, *flags))
    labels = ["--labels", str(digits[1])] if case == "label" else []
    packed, back = tmp_path / "x.pxd", tmp_path / "x.npy"
    argv = [run_dir, "encode", str(digits[0]), str(packed), "--precision", precision]
    main([*argv, *options, *labels, "--no-compare"])
    text = capsys.readouterr().out
    said = printed_bits(text, "the model's")
    taken = printed_bits(text, "content")
    if case.startswith("bits-back"):
        taken -= printed_bits(text, "initial bits")
    # A draw of the latents is not their mean: bits-back coding reaches the bound on average.
    assert taken == pytest.approx(said, rel=0.03 if case.startswith("bits-back") else 0.005)
    file = printed_bits(text, "header included") * COUNT * 64 / 8
    assert file == pytest.approx(packed.stat().st_size, abs=1)
    labels = ["--labels", str(tmp_path / "y.npy")] if case == "label" else []
    main([run_dir, "decode", str(packed), str(back), *labels])
    assert back.read_bytes().startswith(digits[0].read_bytes())
    assert read_levels(back) == 17
    if labels:
        assert (tmp_path / "y.npy").read_bytes() == digits[1].read_bytes()


def test_counts_what_is_given(train_run, digits, tmp_path, capsys):
    """Labels and codes are in the file and in its bits/dim, at log2 10 bits and 16 a number."""
    sizes = {}
    for case in ("label", "code"):
        pipeline, flags, _ = CASES[case]
        run_dir = str(train_run(pipeline, *flags))
        labels = ["--labels", str(digits[1])] if case == "label" else []
        main([run_dir, "encode", str(digits[0]), str(tmp_path / case), *labels, "--no-compare"])
        sizes[case] = printed_bits(capsys.readouterr().out, f"of which {case}s")
    assert sizes["label"] == pytest.approx(np.log2(10) / 64, abs=1e-4)
    assert sizes["code"] == pytest.approx(16 * 10 / 64, abs=1e-4)


def test_agrees_with_the_result(packed, tmp_path, capsys):
    """The bits/dim printed are those of result.json, for the same images."""
    run_dir, _ = packed
    main([str(run_dir), "export", str(tmp_path / "x.npy")])
    main([str(run_dir), "encode", str(tmp_path / "x.npy"), str(tmp_path / "f"), "--no-compare"])
    result = json.loads((run_dir / "result.json").read_text())
    said = printed_bits(capsys.readouterr().out, "the model's NLL")
    assert said == pytest.approx(result["bits_per_dim"], abs=1e-4)


def test_more_levels_than_a_byte_has(copy_run, tmp_path, refusal):
    """Index maps of 512 levels are exported, encoded and decoded as int64."""
    maps = np.random.default_rng(0).integers(0, 512, (24, 1, 6, 6))
    np.savez(tmp_path / "maps.npz", train=maps[:16], test=maps[16:])
    flags = ("--data=npz", f"--data-dir={tmp_path}/maps.npz", "--native-levels=512")
    run_dir = copy_run("pixelcnn", *flags)
    x, packed_file, back = tmp_path / "x.npy", tmp_path / "f", tmp_path / "back.npy"
    main([str(run_dir), "export", str(x)])
    np.testing.assert_array_equal(np.load(x), maps[16:])
    main([str(run_dir), "encode", str(x), str(packed_file)])
    main([str(run_dir), "decode", str(packed_file), str(back)])
    assert back.read_bytes() == x.read_bytes()
    for wrong, said in ((-1, "has level -1"), (512, "has level 512")):
        maps[20, 0, 0, 0] = wrong
        np.save(tmp_path / "wrong.npy", maps[16:])
        assert said in refusal(main, run_dir, "encode", tmp_path / "wrong.npy", tmp_path / "g")


def test_arrays_carry_their_levels(packed, tmp_path, refusal):
    """Exported and decoded files are one and the same, and not taken for another run's levels."""
    run_dir, _ = packed
    x, packed_file, back = tmp_path / "x.npy", tmp_path / "f", tmp_path / "back.npy"
    main([str(run_dir), "export", str(x), "--num", "3"])
    main([str(run_dir), "encode", str(x), str(packed_file), "--no-compare"])
    main([str(run_dir), "decode", str(packed_file), str(back)])
    assert back.read_bytes() == x.read_bytes()
    with x.open("wb") as stream:
        np.save(stream, np.load(back))
        append_levels(stream, 256)
    said = refusal(main, run_dir, "encode", x, tmp_path / "other")
    assert "carries images of 256 levels, this run's model codes 17" in said


def test_damage(packed, tmp_path, refusal):
    """Any flipped byte and any missing end is noticed, and nothing is written."""
    run_dir, content = packed
    random = np.random.default_rng(0)
    places = [*range(HEADER), *random.integers(len(content), size=60)]
    file = tmp_path / "bad"
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= int(random.integers(1, 256))
        file.write_bytes(damaged)
        with pytest.raises(container.DataError, match=r"damaged|truncated"):
            container.from_file(file)
    for length in [0, 1, 4, 5, HEADER, *random.integers(len(content), size=40)]:
        file.write_bytes(content[:length])
        with pytest.raises(container.DataError, match=r"damaged|truncated"):
            container.from_file(file)
    file.write_bytes(content + b"\0")
    assert "damaged" in refusal(main, run_dir, "decode", file, tmp_path / "x.npy")
    file.write_bytes(content[:-7])
    error = refusal(main, run_dir, "decode", file, tmp_path / "x.npy")
    assert "is truncated" in error
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize("case", CASES)
def test_other_probabilities(train_run, digits, tmp_path, monkeypatch, refusal, case):
    """Images that came out otherwise than they went in are never written."""
    pipeline, flags, coding = CASES[case]
    run_dir = train_run(pipeline, *flags)
    labels = ["--labels", str(digits[1])] if case == "label" else []
    words = [*coding, *labels, "--no-compare"]
    main([str(run_dir), "encode", str(digits[0]), str(tmp_path / "f"), *words])

    def off(model, precision):
        with torch.no_grad():
            list(model.decoder.parameters())[-1].view(-1)[0] += 0.05  # the last bias
        return model.double()

    monkeypatch.setattr("pipelines.runs.compress._in_precision", off)
    error = refusal(main, run_dir, "decode", tmp_path / "f", tmp_path / "x.npy")
    assert "cannot be decoded here: it was written in float64 with torch" in error
    assert not (tmp_path / "x.npy").exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_other_model(packed, tmp_path, refusal):
    """A file of a model with one other weight is refused before anything is decoded."""
    run_dir, content = packed
    (tmp_path / "f").write_bytes(content)
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    model = open_run(other).model
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    save_weights(other, model, step=20)
    error = refusal(main, other, "decode", tmp_path / "f", tmp_path / "x.npy")
    assert "was written with another model" in error
    assert not (tmp_path / "x.npy").exists()
    moved = tmp_path / "moved"
    shutil.copytree(run_dir, moved)
    main([str(moved), "decode", str(tmp_path / "f"), str(tmp_path / "x.npy")])


def test_crash_leaves_nothing(packed, digits, tmp_path, monkeypatch):
    """A command that is interrupted leaves neither a file nor a part of one."""
    run_dir, _ = packed

    def interrupted(*_: object, **__: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(SystemExit) as exit_:
        main([str(run_dir), "encode", str(digits[0]), str(tmp_path / "f"), "--no-compare"])
    assert exit_.value.code == 130
    assert list(tmp_path.iterdir()) == []


def test_layouts(packed, digits, tmp_path, refusal):
    """(N, H, W) comes back as such; images of any other shape, type or level are refused."""
    run_dir, _ = packed
    x = np.load(digits[0])
    file, back = tmp_path / "x.npy", tmp_path / "back.npy"
    for number, layout in enumerate((x[:3, 0], x[:3].transpose(0, 2, 3, 1))):
        np.save(file, np.ascontiguousarray(layout))
        main([str(run_dir), "encode", str(file), str(tmp_path / f"{number}"), "--no-compare"])
        back.unlink(missing_ok=True)
        main([str(run_dir), "decode", str(tmp_path / f"{number}"), str(back)])
        assert back.read_bytes().startswith(file.read_bytes())
        assert np.array_equal(np.load(back), layout)
    above = x[:2].copy()
    above[1, 0, 3, 3] = 17
    refused = {
        "expected (N, 1, 8, 8)": x[:, :, :7],
        "expected uint8 levels (N, 1, 8, 8)": x.astype(np.float32),
        "image 1 has level 17, this run's model codes levels 0..16": np.stack(
            [x[0], x[0] * 0 + 17]
        ),
        "holds no images": x[:0],
    }
    for reason, array in refused.items():
        np.save(file, array)
        assert reason in refusal(main, run_dir, "encode", file, tmp_path / "f")
    file.write_bytes(file.read_bytes()[:50])
    assert "is damaged, or holds pickled" in refusal(main, run_dir, "encode", file, tmp_path / "f")
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    assert "is damaged, or holds pickled" in refusal(main, run_dir, "encode", file, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_refusals(train_run, packed, digits, tmp_path, capsys, refusal):
    """Flags that don't fit the model, and files that are there already, are refused."""
    run_dir, content = packed
    x, y, f = digits[0], digits[1], tmp_path / "f"
    latent = train_run("pixelvae")
    assert "bits-back coding" in refusal(main, latent, "encode", x, f)
    two = train_run("pixelvae", "--levels-of-latents=2", "--latent-map", "4", "4", "4")
    assert "one level of latents" in refusal(main, two, "encode", x, f, "--bits-back")
    assert "for models with latent variables" in refusal(
        main, run_dir, "encode", x, f, "--bits-back"
    )
    labelled = train_run("pixelcnn", "--condition=label")
    assert "give --labels" in refusal(main, labelled, "encode", x, f)
    assert "expected 70 integers" in refusal(main, labelled, "encode", x, f, "--labels", x)
    np.save(tmp_path / "y.npy", np.full(COUNT, 10))
    wrong = refusal(main, labelled, "encode", x, f, "--labels", tmp_path / "y.npy")
    assert "model has 0..9" in wrong
    assert "--labels is for" in refusal(main, run_dir, "encode", x, f, "--labels", y)
    assert "at least 1" in refusal(main, run_dir, "encode", x, f, "--score-batch", 0)
    assert "No such file" in refusal(main, run_dir, "encode", tmp_path / "none.npy", f)
    assert "no folder" in refusal(main, run_dir, "encode", x, tmp_path / "none" / "f")
    assert "no run directory" in refusal(main, tmp_path / "none", "encode", x, f)
    assert not f.exists()
    f.write_bytes(content)
    assert "exists already" in refusal(main, run_dir, "encode", x, f)
    assert "exists already" in refusal(main, run_dir, "decode", f, x)
    assert "no labels" in refusal(
        main, run_dir, "decode", f, tmp_path / "b.npy", "--labels", tmp_path / "c.npy"
    )
    assert "is not a file of" in refusal(main, run_dir, "decode", x, tmp_path / "b.npy")


def test_rivals(tmp_path):
    """PNG's size is that of a file with these pixels, bits packed where levels allow."""
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 9, 7), dtype=np.uint8)
    sizes = {rival.name: rival for rival in formats.sizes(x, 256)}
    written = 0
    for image in x:
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "x.png", optimize=True)
        written += (tmp_path / "x.png").stat().st_size
    assert sizes["PNG"].each == written
    assert sizes["WebP lossless"].each
    binary = formats.sizes(x[:, :1] & 1, 2)[0]
    assert binary.each is not None
    assert binary.each < 3 * (9 * 7 + 60)
    assert formats.sizes(x[:, :2], 256)[0].note == "not for 2 channels"
    sheet = formats.sheet(x.transpose(0, 2, 3, 1))
    assert sheet.size >= x.size
    np.testing.assert_array_equal(sheet[:9, :7], x[0].transpose(1, 2, 0))

"""The command shows what a prediction depends on, of a run or of flags, and overwrites nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.receptive_field import main

FLAGS = ["--image-shape", 1, 5, 7, "--num-layers=1", "--kernel-size=3", "--first-kernel-size=3"]


def show(*flags: object) -> None:
    main([str(flag) for flag in flags])


def test_flags_describe_an_untrained_decoder(capsys, tmp_path):
    """As text and as a picture: two layers of 3×3 see two pixels far, above and to the left."""
    out = tmp_path / "field.png"
    show(*FLAGS, f"--out={out}")
    text = capsys.readouterr().out.splitlines()
    assert text[:5] == [".#####.", ".#####.", ".##@...", ".......", "......."]
    assert "depends on 12 of the 17" in text[5]
    picture = np.asarray(Image.open(out))
    factor = picture.shape[0] // 5
    assert picture.shape == (5 * factor, 7 * factor, 3)
    small = picture[::factor, ::factor]
    assert small[2, 3].tolist() == [255, 0, 0]
    assert (small[..., 1] == 255).sum() == 12


def test_a_run_is_measured_where_one_asks(train_run, capsys):
    """The first pixel of all depends on nothing."""
    show(train_run("pixelcnn"), "--row=0", "--col=0")
    assert "depends on 0 of the 0 sub-pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([*FLAGS, "--row=9"], "within 5 rows"),
        (["--decoder=deconv"], "expected an autoregressive decoder"),
        ([*FLAGS, "--out=nowhere/field.png"], "no folder"),
        (["mnist-gated", *FLAGS], "is for an untrained decoder"),
    ],
)
def test_refuses(refusal, flags, sentence):
    assert sentence in refusal(main, *flags)


def test_overwrites_no_picture(refusal, tmp_path):
    (tmp_path / "field.png").write_bytes(b"mine")
    assert "exists already" in refusal(main, *FLAGS, f"--out={tmp_path / 'field.png'}")
    assert (tmp_path / "field.png").read_bytes() == b"mine"

"""Prove that every public name of eval is there, documented, and imported only when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import eval as package

TORCH_FREE = ("bits_per_dim", "Score", "Result", "read_result", "Latents", "ResultError")


@pytest.mark.parametrize("name", package.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(package, name).__doc__
    assert name in dir(package)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'eval' has no attribute 'evalute'"):
        package.evalute  # noqa: B018  # pyright: ignore


def test_what_needs_no_torch_imports_none():
    code = (
        f"import sys\nfrom eval import {', '.join(TORCH_FREE)}\n"
        "assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Names of files to write: those that are taken are refused before anything is computed."""

from __future__ import annotations

import pytest

from pipelines.runtime.errors import UserError
from pipelines.runtime.output import free_name, refuse_existing


@pytest.mark.parametrize("target", ["nowhere", "link.png"])
def test_a_link_to_nowhere_or_to_itself_takes_a_name(target, tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(target)
    with pytest.raises(UserError, match="exists already"):
        refuse_existing(link)
    assert free_name(tmp_path, "link", ".png").name == "link-2.png"


def test_a_name_that_no_file_can_have_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(OSError, match="too long"):
        refuse_existing(tmp_path / ("x" * 300))

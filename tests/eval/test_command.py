"""Prove what the three commands share: they parse their flags before anything slow is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eval.command import exit_code

SLOW = ("torch", "matplotlib", "jinja2", "sklearn")


@pytest.mark.parametrize("command", ["leaderboard", "report", "compare"])
@pytest.mark.parametrize("words", [["--help"], ["--tpyo"]])
def test_flags_are_parsed_before_anything_slow_is_imported(command, words):
    code = (
        f"import sys\nfrom eval.{command} import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n"
        f"    print('loaded:', *sorted(set({SLOW}) & set(sys.modules)))"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_a_leaderboard_needs_no_torch_at_all(run, tmp_path):
    folder = run(tmp_path / "run", pictures=False)
    code = (
        "import sys\nfrom eval.leaderboard import main\n"
        f"assert main([{str(folder)!r}]) == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("two\nlines"), 2, "error: two lines\n"),
        (MemoryError(), 2, "error: out of memory\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_command_that_cannot_go_on_ends_in_one_line_or_none(error, code, said, capsys):
    def work():
        raise error

    assert exit_code(work) == code
    assert capsys.readouterr().err == said

"""`pixel-decoders`: the list of commands, typos, completion, and files named like our packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipelines
from pipelines.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=ENV, capture_output=True, text=True, check=False)


@pytest.fixture
def script(tmp_path_factory) -> Path:
    """What pip writes for [project.scripts]."""
    file = tmp_path_factory.mktemp("bin") / "pixel-decoders"
    file.write_text("import sys\nfrom pipelines.__main__ import main\nsys.exit(main())\n")
    return file


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_list_names_every_command_in_a_line(argv, capsys):
    assert main(argv) is None
    lines = capsys.readouterr().out.splitlines()
    for name, command in COMMANDS.items():
        assert any(line.split()[:1] == [name] and command.summary in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_every_command_of_the_packages_is_in_the_list():
    scripts = {
        f"{package}.{file.stem}"
        for package in ("pipelines", "eval")
        for file in (ROOT / package).glob("*.py")
        if 'if __name__ == "__main__"' in file.read_text() and file.stem != "__main__"
    }
    assert {command.module for command in COMMANDS.values()} == scripts


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"pixel-decoders {pipelines.__version__}\n"


@pytest.mark.parametrize(
    ("word", "cure"),
    [("pixelvea", "did you mean pixelvae?"), ("--frobnicate", "`pixel-decoders --help` lists")],
)
def test_an_unknown_command_is_one_sentence(refusal, word, cure):
    assert cure in refusal(main, word)


def test_the_list_needs_no_torch(tmp_path):
    code = (
        "import sys; from pipelines.__main__ import main; main([]); "
        "print(sorted({'torch', 'numpy', 'tyro'} & set(sys.modules)))"
    )
    assert run("-c", code, cwd=tmp_path).stdout.endswith("\n[]\n")


@pytest.mark.parametrize("name", ["receptive-field", "pixelvae", "leaderboard"])
def test_usage_lines_say_how_the_command_was_started(script, tmp_path, name):
    shown = run(script, name, "--help", cwd=tmp_path).stdout
    assert shown.startswith(f"usage: pixel-decoders {name} ")


@pytest.fixture(params=["eval.py", "decoders.py", "encoders/__init__.py"])
def namesake(request, tmp_path):
    """A folder with a user's own file or folder that is called as one of the packages."""
    file = tmp_path / request.param
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise SystemExit('the wrong module was imported')\n")
    return file


def test_the_script_works_next_to_namesakes(script, namesake, tmp_path):
    done = run(script, "sample", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no run directory nowhere")


def test_the_script_finds_modules_of_the_working_directory(script, tmp_path):
    (tmp_path / "ownmodule.py").write_text("images = 3\n")
    done = run(script, "pixelcnn", "--data", "ownmodule:images", cwd=tmp_path)
    assert done.returncode == 2
    assert "ownmodule:images is a int, expected a function" in done.stderr


def test_the_m_form_names_what_hides_a_package(namesake, tmp_path):
    """No traceback, and nothing of the user's file is run."""
    done = run("-m", "pipelines.sample", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / namesake.relative_to(tmp_path).parts[0]} ")
    assert "`pixel-decoders`" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "found"),
    [("pixel-decoders in", ["interpolate"]), ("pixel-decoders sample --g", ["--gif", "--grid"])],
)
def test_bash_completes_commands_and_flags(script, tmp_path, typed, found):
    script.write_text(f"#!{sys.executable}\n{script.read_text()}")
    script.chmod(0o755)
    shell = (
        'eval "$(pixel-decoders --completion)"; read -ra COMP_WORDS <<<"$1"; '
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _pixel_decoders; echo "${COMPREPLY[@]}"'
    )
    env = {**ENV, "PATH": f"{script.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", shell, "bash", typed], cwd=tmp_path, env=env, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == found

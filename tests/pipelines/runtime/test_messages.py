"""Messages: whatever the terminal does, the command continues and keeps its exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runtime import messages

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pipelines.runtime.messages import escape_unprintable, say, show, warn
escape_unprintable()
for _ in range(3):
    say("some")
    warn("more")
    show("a ± b \\udce9")
sys.exit(7)
"""


@pytest.mark.parametrize("where", ["> /dev/full 2>&1", ">&- 2>&-", "2>&1 | true", "> out 2>&1"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_cannot_be_said_changes_nothing(tmp_path, where, encoding):
    shell = f'"$0" -c "$1" "$2" {where}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable, SCRIPT, str(ROOT)],
        env={"PYTHONIOENCODING": encoding}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "")
    if where.startswith("> out"):
        said = (tmp_path / "out").read_text()
        assert said.count("WARNING: more\n") == 3
        assert said.count("\\udce9") == 3


def test_what_a_message_quotes_does_not_drive_the_terminal(capsys):
    messages.say("error: a\x1b[2Jb\n  c")
    messages.show("d\x9be")
    captured = capsys.readouterr()
    assert captured.err == "error: a\\x1b[2Jb\n  c\n"
    assert captured.out == "d\\x9be\n"

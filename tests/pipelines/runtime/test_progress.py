"""Progress: a bar on a terminal, few plain lines elsewhere, with a rate and the time left."""

import io

from pipelines.runtime.progress import Progress, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_elsewhere_a_line_every_few_seconds_and_one_at_the_end(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    with Progress(100, "train", stream=stream, every=5.0) as bar:
        for _ in range(100):
            now += 0.125  # exact in binary
            bar.update(1, loss=3.14159)
    said = stream.getvalue().splitlines()
    assert said == [
        "train  40/100 steps  40%  8 steps/s  7s left  loss 3.142",
        "train  80/100 steps  80%  8 steps/s  2s left  loss 3.142",
        "train  100/100 steps  100%  8 steps/s  took 12s  loss 3.142",
    ]


def test_what_was_done_before_does_not_count_for_the_rate(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    with Progress(100, "train", initial=80, stream=stream, every=1.0) as bar:
        now += 10.0
        bar.update(10)
    assert stream.getvalue() == "train  90/100 steps  90%  1 steps/s  10s left\n"


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    with Progress(4, "score", unit="image", stream=stream) as bar:
        bar.update(4, nats=2.5)
    assert "score: 100%" in stream.getvalue()
    assert "4/4" in stream.getvalue()


def test_other_processes_show_nothing(capsys):
    assert list(progress("abc", 3, "letters", enabled=False)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_progress_counts_what_passes_through(capsys):
    assert list(progress("abc", 3, "spell", unit="letter")) == ["a", "b", "c"]
    assert "spell  3/3 letters  100%" in capsys.readouterr().err


def test_a_loop_left_early_leaves_no_bar_behind():
    stream = Terminal()
    bar = Progress(4, "score", stream=stream)
    with bar:
        bar.update(1)
    assert bar.bar is not None
    assert bar.bar.disable  # tqdm's sign of a closed bar

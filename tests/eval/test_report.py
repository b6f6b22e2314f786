"""Prove that the report is one self-contained page, and read it in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from eval.report import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Tables(HTMLParser):
    """The text of every table, row by row, and the address of everything that is loaded."""

    def __init__(self, page: str):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("img", "script", "link", "iframe"):
            self.addresses += [v for k, v in attrs if k in ("src", "href") and v]
        self.inside = tag in ("td", "th") or (self.inside and tag not in ("tr", "table"))

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data


@pytest.fixture(name="page")
def page_fixture(run, tmp_path):
    """A page about two runs, one with a hostile name."""
    run(tmp_path / "runs" / "a", name="<img src=x onerror=alert(1)>", config={"x": "</code><b>"})
    run(tmp_path / "runs" / "b", name="second", seed=1, shift=8.0, rates=(2.0, 4.0))
    out = tmp_path / "report.html"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    return out


def test_the_page_holds_everything_and_fetches_nothing(page):
    text = page.read_text()
    parsed = Tables(text)
    assert parsed.addresses
    assert all(address.startswith("data:image/") for address in parsed.addresses)
    assert "<img src=x" not in text
    assert "</code><b>" not in text
    for part in ("samples", "reconstructions", "interpolation", "receptive field"):
        assert text.count(f'alt="{part}"') == 2
    assert text.count("<svg") == 1 + 2 * 3  # bars; two curves and the importance curve per run
    for words in (
        "python -m pipelines.pixelvae --limit 40",
        "The code is used: 1 of 2 dimensions",
        "1 of 2",
        "3.69",
    ):
        assert words in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_ids_inside_the_figures_do_not_collide(page):
    svgs = re.findall(r"<svg.*?</svg>", page.read_text(), flags=re.DOTALL)
    clips = [set(re.findall(r'<clipPath id="(\w+)"', svg)) for svg in svgs]
    assert any(clips)
    for place, ids in enumerate(clips):
        for others in clips[place + 1 :]:
            assert not ids & others


def test_bad_input_is_one_sentence(run, tmp_path, capsys):
    out = str(tmp_path / "out.html")
    assert main(["--out", out]) == 2
    folder = run(tmp_path / "a", extra={"estimates": [{"k": 1}, {"k": 2}]})
    assert main([str(folder), "--out", out]) == 2
    folder = run(tmp_path / "b", extra={"probes": [{"features": "code"}]})
    assert main([str(folder), "--out", out]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in errors] == [True] * 3
    assert not Path(out).exists()


def dump(page: Path, profile: Path) -> str:
    """Return the page's document as the browser has it after running its script."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_the_table_and_sorts_it(page, tmp_path):
    """A copy of the page clicks twice on the score's column, and finds the worse run on top."""
    text = page.read_text()
    clicks = (
        "<script>const b = document.querySelectorAll('th button')[2]; b.click(); b.click();"
        "document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;</script>"
    )
    clicked = tmp_path / "clicked.html"
    clicked.write_text(text.replace("</body>", clicks + "</body>"))
    shown = dump(clicked, tmp_path / "profile")
    header, first, second = Tables(shown).tables[0]
    assert header == ["rank", "model", "bits/dim", "nats/image", "bound", "rate", "parameters"]
    assert second[1].startswith("<img src=x onerror=alert(1)>")
    assert first[1].startswith("second")
    assert [first[0], second[0]] == ["2", "1"]
    assert 'aria-sort="descending"' in shown
    assert 'data-wide="false"' in shown


DAMAGE = {
    "estimates": {"estimates": [{"k": 1}, {"k": 2}]},
    "estimates of text": {"estimates": "many"},
    "probes": {"probes": [{"features": "code"}]},
    "latents": {"latents": {"levels": 5}},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_result_that_was_edited_leaves_the_others(run, tmp_path, capsys, damage):
    run(tmp_path / "runs" / "good", name="the good one")
    run(tmp_path / "runs" / "bad", seed=1, extra=DAMAGE[damage])
    out = tmp_path / "out.html"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"left out: {tmp_path}/runs/bad/result.json: ")
    assert error.count("\n") == 1
    assert "the good one" in out.read_text()


@pytest.mark.parametrize("content", ['{"a": 1}\n{\n{"a": 1}\n', "[" * 99999 + "\n{}\n"])
def test_damaged_metrics_cost_a_run_its_curves_alone(run, tmp_path, capsys, content):
    folder = run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text(content)
    out = tmp_path / "out.html"
    assert main([str(folder), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"left out: {folder}/metrics.jsonl, line ")
    assert error.count("\n") == 1
    assert "Bits per dimension during training" not in out.read_text()
    assert "The code is used: " in out.read_text()

"""Prove that results are found wherever they lie, and one bad file leaves the rest standing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval import ResultError, read_result, write_result
from eval.discovery import discover


def test_discovery_takes_runs_files_and_folders_and_leaves_other_json_alone(run, result, tmp_path):
    run(tmp_path / "runs" / "a", seed=1)
    run(tmp_path / "runs" / "deep" / "b", seed=2)
    (tmp_path / "results").mkdir()
    write_result(result(), tmp_path / "results" / "mnist.json")
    found, problems = discover([tmp_path])
    assert problems == []
    assert [one.path.name for one in found] == ["mnist.json", "result.json", "result.json"]
    assert found[1].run_dir == tmp_path / "runs" / "a"
    assert found[0].run_dir is None
    again, _ = discover([tmp_path / "runs" / "deep", tmp_path / "results", tmp_path / "runs" / "a"])
    assert again == found


def test_a_bad_file_leaves_the_rest_standing_and_a_copy_counts_once(run, tmp_path):
    folder = run(tmp_path / "run")
    copies = tmp_path / "results"
    copies.mkdir()
    (copies / "copy.json").write_text((folder / "result.json").read_text())
    (copies / "torn.json").write_text('{"schema": 1,')
    for order in ([folder, copies], [copies, folder]):
        found, problems = discover(order)
        assert [one.path for one in found] == [folder / "result.json"]
        assert len(problems) == 1
        assert "torn.json" in problems[0]


def test_the_same_run_with_other_numbers_is_an_error(result, tmp_path):
    write_result(result(), tmp_path / "a.json")
    write_result(result(value=79.0), tmp_path / "b.json")
    with pytest.raises(ResultError, match="claim to be the same run"):
        discover([tmp_path / "b.json", tmp_path / "a.json"])
    write_result(result(value=79.0, seed=1), tmp_path / "b.json")
    assert len(discover([tmp_path])[0]) == 2


def test_a_copy_from_before_the_latents_were_studied_is_still_a_copy(run, tmp_path):
    """`pipelines.latents` adds to a run's own file; the fuller one counts."""
    folder, copy = run(tmp_path / "run"), tmp_path / "copy.json"
    full = read_result(folder)
    write_result(replace(full, latents=None, probes=()), copy)
    (found,), problems = discover([copy, folder])
    assert problems == []
    assert found.result == full


def test_a_path_without_results_is_an_error(tmp_path):
    with pytest.raises(ResultError, match="does not exist"):
        discover([tmp_path / "none"])
    with pytest.raises(ResultError, match="contains no result"):
        discover([tmp_path])

"""Processes that wait for one another without a collective, and machines that can't compile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.runtime.config import DeviceConfig
from pipelines.runtime.devices import compiled, make_fabric

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys, time
from datetime import timedelta
from types import SimpleNamespace

import torch.distributed as dist

from pipelines.runtime.errors import RelayedError
from pipelines.runtime.devices import on_main, wait_for_all

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=1)
)

def broadcast(message):
    messages = [message]
    dist.broadcast_object_list(messages)
    return messages[0]

fabric = SimpleNamespace(is_global_zero=rank == 0, world_size=2, broadcast=broadcast)

def slow():
    time.sleep(3)
    return "packed"

def fail():
    time.sleep(1.5)
    raise OSError("the disk is gone")

print(on_main(fabric, slow))
time.sleep(2 * rank)
wait_for_all(fabric)
try:
    on_main(fabric, fail)
except (RelayedError, OSError) as error:
    print(type(error).__name__, error)
"""


def test_the_first_process_may_outlast_the_timeout_of_collectives(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(tmp_path / "store")],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0][0] == "packed\nOSError the disk is gone\n"
    assert said[1][0] == "packed\nRelayedError the disk is gone\n"


def test_without_a_compiler_a_run_goes_on_uncompiled(monkeypatch, capfd):
    def no_compiler(_):
        raise RuntimeError("No working C++ compiler found\nand a hundred lines more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    module = torch.nn.Linear(1, 1)
    fabric = make_fabric(DeviceConfig("cpu", "1"))
    assert compiled(fabric, module) is module
    assert compiled(fabric, module) is module
    assert capfd.readouterr().err == (
        "WARNING: torch.compile does not work here, so this run is not compiled and slower: "
        "No working C++ compiler found\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["/nowhere/g++", "false"], ids=["none", "unsuited"])
def test_a_machine_without_a_compiler_trains_and_scores(tmp_path, compiler):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipelines.pixelvae", "--compile", "--steps=2", "--limit=20"),
            *("--num-samples=0", "--importance-samples=2", "--accelerator=cpu", "--out=run"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CXX": compiler,
             "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("so this run is not compiled") == 1
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "result.json").is_file()

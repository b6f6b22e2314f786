"""weights.safetensors: the same bytes, damage is seen, and another model is refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipelines.runtime.errors import CheckpointError
from pipelines.training.weights import load_weights, save_weights


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def truncate(content):
    return content[:-9]


def empty(content):
    return b""


def test_weights_come_back_and_know_their_step(tmp_path):
    layer = nn.Sequential(nn.Conv2d(1, 2, 3).to(memory_format=torch.channels_last))
    layer.register_buffer("count", torch.tensor(3))
    save_weights(tmp_path, layer, step=12)
    other = nn.Sequential(nn.Conv2d(1, 2, 3))
    other.register_buffer("count", torch.tensor(0))
    assert load_weights(tmp_path, other) == 12
    assert torch.equal(other[0].weight, layer[0].weight)
    assert other.count == 3


def test_the_same_weights_are_the_same_bytes(tmp_path):
    """Sort the metadata, which the library writes in random order."""
    layer = nn.Linear(3, 5)
    files = [save_weights(tmp_path, layer, step=3).read_bytes() for _ in range(20)]
    assert len(set(files)) == 1
    assert load_weights(tmp_path, layer) == 3


def test_a_run_without_weights_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no weights.safetensors.*--resume"):
        load_weights(tmp_path, nn.Linear(1, 1))


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_damaged_weights_are_an_error(tmp_path, damage):
    save_weights(tmp_path, nn.Linear(50, 50), step=1)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(tmp_path, nn.Linear(50, 50))


def test_weights_that_nothing_vouches_for_are_refused(tmp_path):
    """A file without the checksum and step that a run writes is of another tool."""
    layer = nn.Linear(2, 3)
    save_file(layer.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="has no checksum"):
        load_weights(tmp_path, layer)


def test_weights_of_another_model_are_listed(tmp_path):
    save_weights(tmp_path, nn.Linear(2, 3), step=1)
    with pytest.raises(CheckpointError, match=r"shapes: weight \(3, 2\) there, \(3, 4\) here"):
        load_weights(tmp_path, nn.Linear(4, 3))
    with pytest.raises(CheckpointError, match=r"missing: 0.weight, 0.bias; unknown: bias, weight"):
        load_weights(tmp_path, nn.Sequential(nn.Linear(2, 3)))

"""Labels, maps, captions and their combination: what they keep, and what they refuse."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from encoders import (
    ALPHABET,
    ConvEncoder,
    GaussianEncoder,
    Joint,
    LabelEmbedding,
    MapEncoder,
    TextEncoder,
    tokenize,
)
from tests.encoders.quantizer import FreeQuantizer


def test_labels_pick_their_own_row():
    encoder = LabelEmbedding(4, 3)
    labels = torch.tensor([2, 0, 2])
    assert torch.equal(encoder(None, labels).h, encoder.embedding.weight[labels])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 4]), r"expected labels 0\.\.3, got 4"),
        (torch.tensor([-1, 0]), r"expected labels 0\.\.3, got -1"),
        (torch.tensor([0.0]), r"integer labels \(B,\), got \(1,\) torch.float32"),
        (torch.tensor([[0]]), r"integer labels \(B,\), got \(1, 1\) torch.int64"),
        ((torch.tensor([0]),), "labels .* got a tuple"),
        (None, "labels .* got none"),
    ],
)
def test_wrong_labels_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        LabelEmbedding(4, 3)(None, y)


def test_class_ids_are_resized_by_the_nearest_neighbour():
    """Halving keeps every class id one that was there; nothing is averaged."""
    ids = torch.tensor([[0, 0, 3, 3], [0, 0, 3, 3], [1, 1, 2, 2], [1, 1, 2, 2]])[None]
    encoder = MapEncoder(4, (2, 2, 2))
    channels = encoder._one_hot(ids)
    assert torch.equal(channels.argmax(1), torch.tensor([[[0, 3], [1, 2]]]))
    assert torch.equal(channels.sum(1), torch.ones(1, 2, 2))
    assert torch.equal(MapEncoder(4, (2, 4, 4))._one_hot(ids).argmax(1), ids)


@pytest.mark.parametrize("size", [(3, 4), (5, 5), (20, 20), (33, 21)])
def test_no_keypoint_is_lost_by_resizing(size):
    encoder = MapEncoder(1, (2, *size))
    for cell in range(0, 400, 7):
        points = F.one_hot(torch.tensor([cell]), 400).reshape(1, 1, 20, 20).to(torch.uint8)
        assert encoder._keypoints(points).sum() >= 1


def test_a_heat_map_may_be_given_as_floats():
    heat = torch.rand(2, 3, 7, 7)
    encoder = MapEncoder(3, (2, 7, 7), hidden_channels=8)
    assert torch.equal(encoder._keypoints(heat), heat)
    assert encoder(None, heat).h.shape == (2, 2, 7, 7)


def test_each_location_of_a_map_code_sees_far_context():
    encoder = MapEncoder(1, (1, 21, 21), hidden_channels=8)
    points = torch.zeros(1, 1, 21, 21, requires_grad=True)
    encoder(None, points).h[0, 0, 10, 10].backward()
    assert points.grad is not None
    reach = points.grad[0, 0].abs() > 0
    assert reach[10, 0]
    assert reach[0, 10]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.full((1, 4, 4), 3, dtype=torch.uint8), r"expected class ids 0\.\.2, got 3"),
        (torch.rand(1, 4, 4), r"class ids .*got \(1, 4, 4\) torch.float32"),
        (torch.zeros(1, 2, 4, 4), r"keypoint channels \(B, 3, H, W\), got \(1, 2, 4, 4\)"),
        (torch.full((1, 3, 4, 4), 255, dtype=torch.uint8), r"channels .* 0\.\.1, got 255"),
        (None, "class ids .* got none"),
    ],
)
def test_wrong_maps_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        MapEncoder(3, (2, 4, 4))(None, y)


def test_map_code_shape_must_be_a_map():
    with pytest.raises(ValueError, match=r"expected code_shape \(K', H', W'\), got \(4,\)"):
        MapEncoder(3, (4,))  # pyright: ignore[reportArgumentType]


def test_tokens_are_places_in_the_alphabet_after_padding():
    tokens = tokenize([ALPHABET, "", "Az "])
    assert tokens.dtype == np.uint8
    assert tokens.shape == (3, len(ALPHABET))
    assert tokens[0].tolist() == list(range(1, len(ALPHABET) + 1))
    assert not tokens[1].any()
    assert "".join(ALPHABET[token - 1] for token in tokens[2] if token) == "Az "
    assert tokenize(["ab"], length=5).shape == (1, 5)
    assert tokenize([""]).shape == (1, 1)


def test_wrong_captions_are_refused():
    with pytest.raises(ValueError, match="got 'é' in the caption 'un carré'"):
        tokenize(["a square", "un carré"])
    with pytest.raises(ValueError, match="at most 3 characters, got 4 in 'long'"):
        tokenize(["abc", "long"], length=3)
    with pytest.raises(TypeError, match="got one text"):
        tokenize("a square")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(1, 3), r"integer caption tokens \(B, T\), got \(1, 3\) torch.float32"),
        (torch.zeros(3, dtype=torch.uint8), r"caption tokens \(B, T\), got \(3,\)"),
        (torch.zeros(2, 0, dtype=torch.uint8), r"caption tokens \(B, T\), got \(2, 0\)"),
        (torch.full((1, 3), 96, dtype=torch.uint8), r"expected tokens .*0\.\.95, got 96"),
        (None, "caption tokens .* got none"),
    ],
)
def test_wrong_tokens_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        TextEncoder(4)(None, y)


@pytest.mark.parametrize("text", ["", "a", "a red square at the top", "xy"])
def test_padding_changes_nothing(text):
    torch.manual_seed(0)
    encoder = TextEncoder(4, embedding_dim=5, hidden_channels=8)
    length = max(len(text), 1)
    codes = [
        encoder(None, torch.from_numpy(tokenize([text], length + extra))).h
        for extra in (0, 1, 2, 3, 17)
    ]
    for code in codes[1:]:
        assert torch.allclose(code, codes[0], atol=1e-6)


def test_the_order_of_characters_matters():
    torch.manual_seed(0)
    tokens = torch.from_numpy(tokenize(["circle over square", "square over circle"]))
    h = TextEncoder(4)(None, tokens).h
    assert (h[0] - h[1]).abs().max() > 1e-4


def test_joint_vectors_are_concatenated_in_order():
    joint = Joint(LabelEmbedding(3, 2), LabelEmbedding(5, 4))
    first, second = joint.encoders
    y = (torch.tensor([2, 0]), torch.tensor([4, 1]))
    expected = torch.cat([first(None, y[0]).h, second(None, y[1]).h], dim=1)
    assert torch.equal(joint(None, y).h, expected)


def test_joint_tiles_a_vector_over_the_map():
    joint = Joint(LabelEmbedding(3, 2), MapEncoder(4, (5, 6, 7)))
    y = (torch.tensor([2]), torch.zeros(1, 6, 7, dtype=torch.uint8))
    h = joint(None, y).h
    vector, structure = (
        encoder(None, part).h for encoder, part in zip(joint.encoders, y, strict=True)
    )
    assert torch.equal(h[:, :2], vector[:, :, None, None].expand(1, 2, 6, 7))
    assert torch.equal(h[:, 2:], structure)


def test_joint_adds_up_the_auxiliary_losses():
    free = FreeQuantizer((1, 4, 4), num_levels=4)
    x = torch.randint(0, 4, (3, 1, 4, 4), dtype=torch.uint8)
    joint = Joint(free, LabelEmbedding(3, 2), free)
    code = joint(x, (None, torch.tensor([0, 1, 2]), None))
    assert torch.allclose(code.auxiliary, 2 * free(x).auxiliary)
    assert not joint.reads_image


def test_joint_refuses_what_it_cannot_join():
    label = LabelEmbedding(3, 2)
    with pytest.raises(ValueError, match="expected two or more encoders to join, got 1"):
        Joint(label)
    with pytest.raises(ValueError, match="without latents, got a GaussianEncoder"):
        Joint(label, GaussianEncoder((1, 4, 4), 2))
    with pytest.raises(ValueError, match=r"maps of one size to join, got \[\(4, 4\), \(8, 8\)\]"):
        Joint(MapEncoder(2, (3, 8, 8)), ConvEncoder((1, 8, 8), code_shape=(3, 4, 4)))
    joint = Joint(label, LabelEmbedding(3, 2))
    with pytest.raises(ValueError, match="a tuple of 2 entries, one per encoder, got a Tensor"):
        joint(None, torch.tensor([0]))
    with pytest.raises(ValueError, match="2 entries, one per encoder, got a tuple of 1"):
        joint(None, (torch.tensor([0]),))


def test_an_annotation_takes_the_label_or_caption_that_is_asked_for():
    label, text = LabelEmbedding(3, 2), TextEncoder(2)
    assert label.annotation(2, label=1).tolist() == [1, 1]
    assert text.annotation(2, caption="ab").tolist() == [tokenize(["ab"])[0].tolist()] * 2
    y = torch.tensor([2, 0])
    assert label.annotation(2, y, caption="ab") is y
    joint = Joint(label, MapEncoder(4, (2, 4, 4)), text)
    ids = torch.zeros(2, 4, 4, dtype=torch.uint8)
    first, second, third = joint.annotation(2, (y, ids, None), label=1, caption="ab")
    assert (first.tolist(), third.shape) == ([1, 1], (2, 2))
    assert second is ids
    assert joint.parts == (label, *joint.parts[1:2], text)
    with pytest.raises(ValueError, match=r"expected a label 0\.\.2, got 3"):
        label.annotation(2, label=3)
    with pytest.raises(ValueError, match="a caption that says something, got none"):
        text.annotation(2, caption=" ")

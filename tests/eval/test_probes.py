"""Prove the probes against scikit-learn itself and on codes whose answer is known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from eval.probes import Split, embed, embedding_figure, probe


def digits() -> tuple[Split, Split]:
    """Digits, with a code that is half their pixels."""
    data = load_digits()
    images = np.asarray(data.data)
    labels = np.asarray(data.target)
    codes = images[:, 16:48]
    return (
        Split(codes[:600], images[:600].reshape(-1, 1, 8, 8), labels[:600]),
        Split(codes[600:900], images[600:900].reshape(-1, 1, 8, 8), labels[600:900]),
    )


def test_probes_are_scikit_learns_and_come_with_pixels_and_pca_beside_them():
    train, test = digits()
    probes = {(p.features, p.classifier): p for p in probe(train, test)}
    assert {features for features, _ in probes} == {"code", "pixels", "pca"}
    assert probes["pixels", "logistic regression"].dims == 64
    assert probes["pca", "logistic regression"].dims == 32
    scaler = StandardScaler().fit(train.codes)
    reference = LogisticRegression(max_iter=2000).fit(scaler.transform(train.codes), train.labels)
    own = probes["code", "logistic regression"]
    assert own.accuracy == reference.score(scaler.transform(test.codes), test.labels)
    assert own.stderr == pytest.approx((own.accuracy * (1 - own.accuracy) / 300) ** 0.5)
    assert probes["pixels", "nearest neighbors"].accuracy > 0.9


def test_a_code_without_information_probes_at_chance():
    train, test = digits()
    noise = np.random.default_rng(0).normal(size=(900, 2))
    probes = probe(train._replace(codes=noise[:600]), test._replace(codes=noise[600:]))
    assert all(p.accuracy < 0.2 for p in probes if p.features == "code")


def test_a_code_as_large_as_the_image_has_no_pca_beside_it():
    train, test = digits()
    probes = probe(train._replace(codes=train.pixels), test._replace(codes=test.pixels))
    assert {p.features for p in probes} == {"code", "pixels"}


def test_bad_input_is_named():
    train, test = digits()
    with pytest.raises(ValueError, match="expected as many"):
        probe(train._replace(labels=train.labels[:-1]), test)
    with pytest.raises(ValueError, match="two classes"):
        probe(train._replace(labels=np.zeros(600)), test)
    with pytest.raises(ValueError, match="umap"):
        embed(train.codes, "umap")  # pyright: ignore


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_embeddings_keep_two_far_clusters_apart_and_repeat(method):
    codes = np.random.default_rng(0).normal(size=(30, 5))
    codes[15:] += 50
    points = embed(codes, method, seed=1)
    assert points.shape == (30, 2)
    np.testing.assert_allclose(points, embed(codes, method, seed=1))
    a, b = points[:15], points[15:]
    gap = np.linalg.norm(a.mean(0) - b.mean(0))
    assert gap > np.linalg.norm(a - a.mean(0), axis=1).max()


def test_a_one_dimensional_code_lies_on_a_line_and_is_drawn():
    points = embed(np.arange(5.0)[:, None])
    assert not points[:, 1].any()
    file = io.BytesIO()
    embedding_figure(points, [0, 1, 0, 1, 0], "PCA").savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


DIRECTIONS = np.random.default_rng(0).normal(size=(8, 6))


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("codes", [0 * DIRECTIONS, 0 * DIRECTIONS + 0.1, 0.1 + 1e-9 * DIRECTIONS])
def test_equal_codes_are_one_point(codes, method):
    """t-SNE alone answers such codes with a segmentation fault."""
    np.testing.assert_array_equal(embed(codes, method), np.zeros((8, 2)))


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e200])
def test_the_scale_of_codes_does_not_matter(scale, method):
    np.testing.assert_allclose(embed(scale * DIRECTIONS, method), embed(DIRECTIONS, method), 1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_that_are_not_finite_are_refused(bad):
    codes = DIRECTIONS.copy()
    codes[3, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinities"):
        embed(codes, "tsne")
    with pytest.raises(ValueError, match="at least four codes"):
        embed(DIRECTIONS[:3])


def test_equal_images_are_probed_without_pca():
    labels = np.array([0, 1] * 4)
    split = Split(np.zeros((8, 2)), np.zeros((8, 1, 4, 4)), labels)
    probes = probe(split, split)
    assert {p.features for p in probes} == {"code", "pixels"}
    assert {p.accuracy for p in probes} == {0.5}

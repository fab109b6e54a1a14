"""Features judged by a linear probe and by neighbours, on images held out."""

import numpy as np
import pytest

from simclr.knn import knn_accuracy, knn_transfer
from simclr.probe import GRID, ProbeError, linear_probe


def clouds(count: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three labels, the last one rare, around centres that are far from zero."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(["a", "b", "c"], [count, count, max(2, count // 10)])
    centres = {"a": 5.0, "b": 6.0, "c": 7.0}
    features = generator.normal(size=(len(labels), 8)) * spread
    features[:, 0] += [centres[name] for name in labels]
    return features, labels


def test_what_is_there_is_found() -> None:
    probe = linear_probe(*clouds(100, 0.05, 0), *clouds(50, 0.05, 1))
    assert (probe.micro, probe.macro) == (1.0, 1.0)
    assert (probe.image_count, probe.label_count) == (105, 3)
    assert probe.c in GRID


def test_what_is_not_there_is_not() -> None:
    features, labels = clouds(300, 1.0, 0)
    held_out, held_out_labels = clouds(300, 1.0, 1)
    found = [
        linear_probe(
            features, np.random.default_rng(seed).permutation(labels), held_out, held_out_labels
        ).macro
        for seed in range(4)
    ]
    assert 0.25 < np.mean(found) < 0.42


def test_scales_of_features_do_not_matter() -> None:
    features, labels = clouds(100, 0.5, 0)
    held_out, held_out_labels = clouds(50, 0.5, 1)
    scale, shift = np.geomspace(1e-3, 1e3, 8), np.arange(8)
    probe = linear_probe(features, labels, held_out, held_out_labels)
    scaled = linear_probe(
        features * scale + shift, labels, held_out * scale + shift, held_out_labels
    )
    assert scaled.macro == pytest.approx(probe.macro, abs=0.02)


def test_rare_labels_weigh_as_much_as_others() -> None:
    features, labels = clouds(200, 0.25, 0)
    held_out, held_out_labels = clouds(200, 0.25, 1)
    probe = linear_probe(features, labels, held_out, held_out_labels)
    assert probe.macro > 0.9
    rare = held_out_labels == "c"
    assert linear_probe(features, labels, held_out[rare], held_out_labels[rare]).macro > 0.9


def test_a_label_with_one_image_and_a_label_never_learned() -> None:
    features, labels = clouds(30, 0.05, 0)
    rows = [*range(60), 60]
    held_out, held_out_labels = clouds(30, 0.05, 1)
    probe = linear_probe(features[rows], labels[rows], held_out, held_out_labels)
    assert probe.label_count == 3
    unknown = np.where(held_out_labels == "c", "d", held_out_labels)
    assert linear_probe(features, labels, held_out, unknown).macro == pytest.approx(2 / 3, abs=0.01)
    axes, names = np.eye(3).repeat(4, axis=0), np.repeat(["a", "b", "c"], 4)
    assert knn_transfer(axes, names, np.eye(3), np.array(["a", "b", "d"])).macro == 2 / 3
    few = linear_probe(np.eye(3), np.array(["a", "b", "c"]), np.eye(3), np.array(["a", "b", "c"]))
    assert few.c == GRID[len(GRID) // 2]


def test_nothing_to_tell_apart_is_refused() -> None:
    with pytest.raises(ProbeError, match="1 labels to learn and 3 held-out"):
        linear_probe(np.eye(3), np.array(["a"] * 3), np.eye(3), np.array(["a"] * 3))
    with pytest.raises(ProbeError, match="0 held-out"):
        linear_probe(np.eye(3), np.array(["a", "b", "c"]), np.empty((0, 3)), np.empty(0, str))


def test_neighbours_among_others_are_those_left_one_out() -> None:
    features, labels = clouds(40, 1.0, 0)
    one_by_one = [
        knn_transfer(
            np.delete(features, row, axis=0), np.delete(labels, row), features[[row]], labels[[row]]
        ).micro
        for row in range(len(labels))
    ]
    assert np.mean(one_by_one) == pytest.approx(knn_accuracy(features, labels).micro)

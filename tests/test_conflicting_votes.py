"""Simulated annotators err as stated; what is learned of them is scored against truth and votes."""

import csv
from pathlib import Path

import numpy as np
import pytest

import benchmarks.conflicting_votes as benchmark
from benchmarks.conflicting_votes import Cell, Votes, cells, run, show, tasks_of
from benchmarks.conflicting_votes_plot import draw
from benchmarks.ndsb import CONTROL, read_table, schema_of
from benchmarks.simulated_annotators import (
    accuracy_by_agreement,
    confusion_of,
    looks_like,
    majority,
    shares_of,
    simulate,
    weights_by_agreement,
)
from label_studio_config.votes import read_votes, vote_shares
from tests.test_pretrain import draw_shapes, small_encoder

K = 4


def likeness() -> np.ndarray:
    """Two pairs of labels that look alike."""
    centres = np.array([[1.0, 0, 0], [1, 0.2, 0], [0, 0, 1], [0, 0.2, 1]])
    labels = np.arange(K).repeat(30)
    noise = np.random.default_rng(0).normal(0, 0.2, (len(labels), 3))
    return looks_like(centres[labels] + noise, labels, K)


def test_errors_go_to_what_looks_alike() -> None:
    taken_for = likeness()
    assert np.allclose(taken_for.sum(axis=1), 1)
    assert np.all(np.diag(taken_for) == 0)
    assert np.all(taken_for + np.eye(K) > 0)
    assert list(taken_for.argmax(axis=1)) == [1, 0, 3, 2]


def test_annotators_err_as_often_as_stated() -> None:
    truth = np.random.default_rng(1).integers(0, K, 20_000)
    rates = (0.1, 0.25, 0.4)
    votes = simulate(
        truth, [confusion_of(rate, likeness()) for rate in rates], np.random.default_rng(2)
    )
    wrong = votes != truth[:, None]
    assert wrong.mean(axis=0) == pytest.approx(rates, abs=0.01)
    for label in range(K):
        assert wrong[truth == label].mean(axis=0) == pytest.approx(rates, abs=0.02)
    errors = votes[:, 2][(truth == 0) & wrong[:, 2]]
    assert np.bincount(errors, minlength=K) / len(errors) == pytest.approx(likeness()[0], abs=0.04)


def test_the_majority_is_the_modal_label_and_ties_are_drawn_evenly() -> None:
    votes = np.array([[1, 1, 2]] * 3 + [[0, 2, 3]] * 3000)
    labels, tied = majority(votes, K, np.random.default_rng(0))
    assert list(labels[:3]) == [1, 1, 1]
    assert not tied[:3].any()
    assert tied[3:].all()
    assert np.bincount(labels[3:], minlength=K) / 3000 == pytest.approx(
        [1 / 3, 0, 1 / 3, 1 / 3], abs=0.03
    )


def test_agreement_alone_tells_who_is_right_how_often() -> None:
    truth = np.random.default_rng(3).integers(0, 30, 20_000)
    anything = (1 - np.eye(30)) / 29
    confusions = [confusion_of(rate, anything) for rate in (0.1, 0.25, 0.4)]
    votes = simulate(truth, confusions, np.random.default_rng(4))
    assert accuracy_by_agreement(votes) == pytest.approx([0.9, 0.75, 0.6], abs=0.02)
    weights = weights_by_agreement(votes)
    assert weights.mean() == pytest.approx(1)
    assert weights[0] > weights[1] > weights[2] > 0
    with pytest.raises(ValueError, match="takes three"):
        accuracy_by_agreement(votes[:, :2])


def test_every_cell_has_its_own_file_and_both_sides_of_the_comparison() -> None:
    names = [cell.name for cell in cells()]
    assert len(names) == len(set(names))
    for cell in cells():
        for method in benchmark.COMPARED:
            other = Cell(cell.model, cell.share, cell.team, method, cell.seed)
            assert other.name in names


@pytest.fixture
def ndsb(tmp_path: Path) -> Path:
    """A folder like that of `ndsb`, with shapes for groups."""
    folder = tmp_path / "ndsb"
    _, labels = draw_shapes(folder, 150)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "functional_group", "source_class"])
        rows.writerows([name, label, label] for name, label in labels.items())
    return folder


SHAPES = np.array([[0, 0.5, 0.5], [0.1, 0, 0.9], [0.1, 0.9, 0]])


def test_the_tasks_hold_a_vote_of_each_person(ndsb: Path) -> None:
    table = read_table(ndsb)
    schema = schema_of(table, "groups")
    votes = Votes.draw(table, "poor", SHAPES, seed=0)
    again = Votes.draw(table, "poor", SHAPES, seed=0)
    assert np.array_equal(votes.votes, again.votes)
    read = read_votes(schema, tasks_of(table["image"], votes.said("kl"), votes.labels, schema))
    assert read.groupby("image_id")["annotator"].nunique().eq(3).all()
    shares, n_votes = vote_shares(schema.control(CONTROL), read, list(table["image"]))
    assert np.all(n_votes == 3)
    assert shares == pytest.approx(shares_of(votes.votes, 3))
    single = read_votes(
        schema, tasks_of(table["image"], votes.said("majority"), votes.labels, schema)
    )
    assert len(single) == len(table)


def test_methods_are_trained_and_scored_on_the_same_images(
    ndsb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = small_encoder().save(tmp_path / "encoder")
    results = [
        run(Cell("heads", 1.0, "mixed", method, 0), ndsb, encoder, SHAPES, tmp_path / "w" / "cells")
        for method in ("kl", "majority", "weighted", "truth")
    ]
    kl, most, weighted, truth = results
    held_out = read_table(ndsb)["held_out"].sum()
    for result in results:
        assert result["n_held_out"] == held_out
        assert result["wrong_votes"] == kl["wrong_votes"]
        assert 0 < result["votes"]["agreement"] <= 1
        # Refitting a temperature to what it was fitted to changes little.
        assert all(np.isfinite(part["factor"]) for part in result["retempered"].values())
    assert kl["alpha"] == weighted["alpha"]
    assert most["alpha"] is None
    assert len(set(weighted["weights"].values())) > 1
    assert kl["ceiling"]["agreement"] > 0.8
    assert truth["truth"]["nll"] < kl["truth"]["nll"]
    show(results)
    assert "kl minus majority" in capsys.readouterr().out
    plot = draw(benchmark.rows_of(results), tmp_path / "plot.svg")
    assert plot.read_text(encoding="utf-8").lstrip().startswith("<?xml")

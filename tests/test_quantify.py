"""Counts corrected for a classifier's confusion: do they get closer, and do intervals cover?"""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import softmax
from typer.testing import CliRunner

from label_studio_config import project, server_tasks
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest
from label_studio_config.phantoms import draw_phantoms
from label_studio_config.prediction import prediction_schema, prior_of
from label_studio_config.project import read_config
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import read_votes
from ml_backend.annotators import update_weights
from ml_backend.counting import count_images
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.plot_style import our_style
from ml_backend.quantify import (
    Counts,
    QuantifyError,
    checked_prior,
    draw_counts,
    em_counts,
    log_likelihoods,
)
from ml_backend.quantify_blind import hide_blind
from ml_backend.quantify_classifier import Correction, _directions
from ml_backend.quantify_columns import COLUMNS
from ml_backend.quantify_denied import denied_ids
from ml_backend.quantify_groups import Groups, group_images
from ml_backend.quantify_plot import _figure, plot_counts
from ml_backend.quantify_predicted import Predicted, read_predictions
from ml_backend.quantify_read import Validated, read_validated
from ml_backend.quantify_table import (
    ABSENT_AT_PRIOR_0,
    CONDITIONAL,
    NOT_KNOWN,
    SEEN_AT_PRIOR_0,
    UNCHECKED,
    count_labels,
    is_checked,
    method_of,
    output_path,
    write_counts,
)
from ml_backend.registry import Registry
from ml_backend.report_plots import confusion_plot
from planktrait import app
from simclr.encoder import Encoder
from tests.figures import FIGURES
from tests.trait_fixtures import XML, item

SCHEMA = LabelSchema.from_xml(XML)
DISC_ROD_RING = ("Disc", "Rod", "Ring")
NATURAL = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
K = len(NATURAL)


class Classifier:
    """Images are points around their label's centre; how it is wrong is known."""

    def __init__(self, seed: int, wrong: float) -> None:
        rng = np.random.default_rng(seed)
        self.centres = 1.6 * np.eye(K)
        self.confusion = rng.normal(size=(K, K)) * wrong
        self.bias = rng.normal(size=K) * wrong

    def answer(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Probabilities (n, k) at the natural prior, of new images of these labels."""
        points = self.centres[labels] + rng.normal(size=(len(labels), K))
        logs = points @ self.centres.T
        logs = logs + softmax(logs, axis=1) @ self.confusion + self.bias
        return softmax(logs + np.log(NATURAL), axis=1)


class Trial(NamedTuple):
    """Gain over raw counts; coverage and mean width of intervals; coverage of dominant labels."""

    gain: float
    coverage: float
    width: float
    dominant: float


def trial(
    wrong: float, n_validated: int, seed: int = 0, checked: bool = True, evenness: float = 1.0
) -> Trial:
    """Count 80 samples of 200 images, whose compositions are drawn from Dirichlet(evenness)."""
    rng = np.random.default_rng(seed)
    classifier = Classifier(seed, wrong)
    blind = rng.choice(K, n_validated, p=NATURAL)
    logs = log_likelihoods(classifier.answer(blind, rng), NATURAL)
    correction = Correction(logs, np.eye(K)[blind], NATURAL, np.arange(n_validated))
    compositions = rng.dirichlet(np.full(K, evenness), size=80)
    truth = np.array([rng.multinomial(200, composition) for composition in compositions])
    labels = np.concatenate([np.repeat(np.arange(K), counts) for counts in truth])
    groups = np.repeat(np.arange(80), 200)
    p = classifier.answer(labels, rng)
    raw = np.bincount(groups * K + p.argmax(axis=1), minlength=80 * K).reshape(80, K)
    logs = log_likelihoods(p, NATURAL)
    draws = draw_counts(logs, groups, 80, correction=correction if checked else None, n_draws=150)
    counts = Counts.of(draws)
    covered = (counts.low <= truth) & (truth <= counts.high)
    gain = 1 - np.abs(counts.mean - truth).sum() / np.abs(raw - truth).sum()
    dominant = covered[np.arange(80), truth.argmax(axis=1)].mean()
    width = (counts.high - counts.low).mean()
    return Trial(float(gain), float(covered.mean()), float(width), float(dominant))


def test_a_right_classifier_needs_no_check() -> None:
    gain, coverage, width, _ = trial(wrong=0.0, n_validated=100, checked=False)
    FIGURES.append(f"quantify, right classifier: gain {gain:.2f}, coverage {coverage:.3f}")
    assert gain > 0.4
    assert 0.90 <= coverage <= 0.98
    assert 0 < width < 60


def test_validated_images_make_the_intervals_of_a_wrong_classifier_cover() -> None:
    runs = np.array([trial(wrong=0.5, n_validated=300, seed=seed) for seed in range(3)])
    bare = np.array([trial(0.5, 300, seed=seed, checked=False) for seed in range(3)])
    gain, coverage, *_ = runs.mean(axis=0)
    FIGURES.append(
        f"quantify, wrong classifier: gain {gain:.2f}, coverage {coverage:.3f}, "
        f"unchecked {bare.mean(axis=0)[1]:.3f}"
    )
    assert gain > 0.4
    assert 0.90 <= coverage <= 0.98
    assert bare.mean(axis=0)[1] < coverage - 0.05


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_the_dominant_label_of_uneven_samples_is_covered_too(wrong: float) -> None:
    """A bloom: most samples hold one or two of the five labels."""
    runs = [trial(wrong, 300, seed, checked=wrong > 0, evenness=0.1) for seed in range(2)]
    assert np.mean([run.dominant for run in runs]) > 0.93
    assert np.mean([run.coverage for run in runs]) > 0.93


def test_intervals_widen_when_little_was_validated() -> None:
    widths = [trial(wrong=0.3, n_validated=n, seed=3).width for n in (10, 1000)]
    assert widths[0] > 1.2 * widths[1]


def test_groups_that_are_alike_support_each_other(monkeypatch) -> None:
    """Forty samples of 30 images at the usual frequencies: nothing is made of their noise."""
    rng = np.random.default_rng(0)
    truth = rng.multinomial(30, NATURAL, size=40)
    labels = np.concatenate([np.repeat(np.arange(K), counts) for counts in truth])
    groups = np.repeat(np.arange(40), 30)
    p = Classifier(0, 0.0).answer(labels, rng)
    logs = log_likelihoods(p, NATURAL)
    together = Counts.of(draw_counts(logs, groups, 40, prior=NATURAL, n_draws=100))
    monkeypatch.setattr("ml_backend.quantify.STRENGTHS", (1.0,))
    monkeypatch.setattr("ml_backend.quantify.SHARES", (0.0,))
    alone = Counts.of(draw_counts(logs, groups, 40, n_draws=100))
    raw = np.bincount(groups * K + p.argmax(axis=1), minlength=40 * K).reshape(40, K)
    errors = [np.abs(counts - truth).sum() for counts in (together.mean, alone.mean, raw)]
    assert errors[0] < 0.95 * errors[1]
    assert errors[0] < 0.95 * errors[2]


def test_counts_of_a_perfect_classifier_are_exact() -> None:
    labels = np.array([0, 0, 1, 2, 2, 2])
    logs = log_likelihoods(np.eye(3)[labels], np.full(3, 1 / 3))
    groups = np.array([0, 0, 0, 1, 1, 1])
    counts = Counts.of(draw_counts(logs, groups, 2, n_draws=50))
    np.testing.assert_allclose(counts.mean, [[2, 1, 0], [0, 0, 3]], atol=0.05)
    np.testing.assert_allclose(em_counts(logs, groups, 2), [[2, 1, 0], [0, 0, 3]], atol=1e-3)


def test_saerens_em_is_the_most_likely_composition() -> None:
    rng = np.random.default_rng(0)
    logs = log_likelihoods(rng.dirichlet(np.ones(3), 40), np.array([0.2, 0.3, 0.5]))
    counts = em_counts(logs, np.zeros(40, dtype=int), 1, iterations=2000)[0]
    theta = counts / 40

    def fit(composition: np.ndarray) -> float:
        return float(np.log(np.exp(logs) @ composition).sum())

    for other in rng.dirichlet(np.ones(3), 200):
        assert fit(0.99 * theta + 0.01 * other) <= fit(theta) + 1e-9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(2, 6), n_groups=st.integers(1, 4))
def test_every_image_is_counted_once_and_labels_have_no_order(seed, k, n_groups) -> None:
    rng = np.random.default_rng(seed)
    p, prior = rng.dirichlet(np.ones(k), 30), rng.dirichlet(np.ones(k))
    groups = rng.integers(0, n_groups, 30)
    logs = log_likelihoods(p, prior)
    sizes = np.bincount(groups, minlength=n_groups)
    draws = draw_counts(logs, groups, n_groups, n_draws=3, seed=seed)
    np.testing.assert_array_equal(draws.sum(axis=2), np.tile(sizes, (3, 1)))
    turn = rng.permutation(k)
    np.testing.assert_allclose(
        em_counts(log_likelihoods(p[:, turn], prior[turn]), groups, n_groups),
        em_counts(logs, groups, n_groups)[:, turn],
        atol=1e-9,
    )


def test_a_mean_lies_within_its_interval() -> None:
    """Also of a label that is in 1 % of the draws, or in all but 1 %; ties stay what they are."""
    draws = np.zeros((300, 1, 4), dtype=np.float32)
    draws[:3, 0, 0] = 2
    draws[3:, 0, 1] = 7
    draws[:, 0, 2] = 1 / 3
    draws[:, 0, 3] = 0.5
    counts = Counts.of(draws)
    np.testing.assert_allclose(counts.mean[0], [0.02, 6.93, 1 / 3, 0.5], atol=1e-6)
    np.testing.assert_allclose(counts.low[0], [0, 6, 1 / 3, 0.5], atol=1e-6)
    np.testing.assert_allclose(counts.high[0], [1, 7, 1 / 3, 0.5], atol=1e-6)
    assert (counts.low <= counts.mean).all()
    assert (counts.mean <= counts.high).all()


def test_a_fitted_temperature_is_the_one_that_is_applied() -> None:
    """One formula: the fit may not take for good what `apply` would not do."""
    rng = np.random.default_rng(0)
    logs = log_likelihoods(rng.dirichlet(np.ones(3), 40), np.full(3, 1 / 3))
    correction = Correction(
        logs, np.eye(3)[rng.integers(0, 3, 40)], np.full(3, 1 / 3), np.arange(40)
    )
    below = np.r_[-0.5, correction.fits[0].best[1:]]
    fitted = correction._logits(below) - correction.log_prior
    np.testing.assert_allclose(fitted, correction.apply(below, logs))


@pytest.mark.parametrize(
    "prior", [[0.5, -0.1, 0.6], [np.nan, 0.5, 0.5], [0.0, 0.0, 0.0], [0.5, 0.5]]
)
def test_a_prior_that_is_none_is_refused(prior) -> None:
    with pytest.raises(QuantifyError, match="prior"):
        checked_prior(np.array(prior), 3)


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(
        QuantifyError, match="of 1 image are no numbers, the first is number 1: predict again"
    ):
        log_likelihoods(np.array([[0.5, 0.5], [np.nan, 1.0]]), np.array([0.5, 0.5]))


def test_a_correction_of_many_labels_stays_small() -> None:
    rng = np.random.default_rng(0)
    assert _directions(rng.normal(size=(20, 121))).shape == (121, 7)
    assert _directions(rng.normal(size=(20, 2000))).shape == (2000, 0)
    prior = rng.dirichlet(np.ones(121))
    shares = np.eye(121)[rng.integers(0, 121, 40)]
    logs = log_likelihoods(rng.dirichlet(np.ones(121), 40), prior)
    correction = Correction(logs, shares, prior, np.arange(40) // 5)
    new = correction.apply(correction.draw(rng), logs)
    assert new.shape == (40, 121)
    assert np.isfinite(new).all()


# --- tables -----------------------------------------------------------------------------------


def predicted_of(labels: np.ndarray, prior: np.ndarray | None = None) -> Predicted:
    """A classifier that is right nine times in ten, and says so."""
    n = len(labels)
    p = np.full((n, 3), 0.05) + 0.85 * np.eye(3)[labels]
    return Predicted(
        "group",
        DISC_ROD_RING,
        np.full(3, 1 / 3) if prior is None else prior,
        [f"image-{row}" for row in range(n)],
        [""] * n,
        p.argmax(axis=1),
        p.astype(np.float32),
    )


def one_group(n: int) -> Groups:
    return Groups("sample_id", ["all"], np.zeros(n, dtype=int))


def test_validated_images_are_certain() -> None:
    said = np.array([0, 0, 1, 2])
    truth = np.array([0, 1, 1, 2])
    validated = Validated(np.arange(4), DISC_ROD_RING, np.eye(3)[truth], [])
    table = count_labels(predicted_of(said), one_group(4), validated).set_index("label")
    for column in ("corrected_count", "count_low95", "count_high95"):
        assert table[column].tolist() == [1, 2, 1]
    assert table["raw_count"].tolist() == [2, 1, 1]
    assert set(table["n_validated"]) == {4}
    assert "4 blind validated images, drawn by image" in table["method"].iloc[0]


def test_a_label_that_the_model_does_not_know_is_counted_as_validated() -> None:
    labels = (*DISC_ROD_RING, "Star")
    shares = np.array([[1, 0, 0, 0], [0, 0, 0, 1.0], [0, 0.5, 0, 0.5]])
    validated = Validated(np.array([0, 1, 2]), labels, shares, [])
    table = count_labels(predicted_of(np.zeros(40, dtype=int)), one_group(40), validated)
    star = table[table["label"] == "Star"]
    assert star["corrected_count"].tolist() == [1.5]
    assert star["raw_count"].tolist() == [0]
    # How many of the other 37 are stars cannot be told: that is no certainty.
    for column in ("count_low95", "count_high95", "frequency_low95", "frequency_high95"):
        assert star[column].isna().all()
    assert star["method"].tolist() == [NOT_KNOWN]
    assert method_of(table).startswith("posterior of the composition and the classifier")
    assert table["corrected_count"].sum() == pytest.approx(40, abs=1e-3)
    assert table["corrected_frequency"].sum() == pytest.approx(1, abs=1e-4)


def test_a_label_whose_prior_is_zero_does_not_occur_unless_people_saw_it(caplog) -> None:
    predicted = predicted_of(np.arange(30) % 3, np.array([0.5, 0.5, 0.0]))
    validated = Validated(np.array([2]), DISC_ROD_RING, np.eye(3)[[2]], [])
    with caplog.at_level(logging.WARNING):
        table = count_labels(predicted, one_group(30), validated).set_index("label")
    assert table.loc["Ring", "corrected_count"] == 1
    assert table.loc["Ring", "raw_count"] == 10
    assert np.isnan(table.loc["Ring", "count_high95"])
    assert table.loc["Ring", "method"] == SEEN_AT_PRIOR_0
    assert "1 blind validated image bears only labels that it cannot tell" in method_of(table)
    assert not is_checked(table)
    assert "cannot occur: ['Ring']" in caplog.text
    assert "people saw ['Ring']" in caplog.text


def test_a_label_that_the_model_cannot_tell_is_certain_where_people_saw_all() -> None:
    labels = (*DISC_ROD_RING, "Star")
    validated = Validated(np.arange(4), labels, np.eye(4)[[0, 1, 3, 3]], [])
    groups = Groups("sample_id", ["seen", "open"], np.array([0, 0, 0, 0, 1, 1]))
    table = count_labels(predicted_of(np.zeros(6, dtype=int)), groups, validated)
    star = table[table["label"] == "Star"].set_index("group")
    assert star.loc["seen", ["count_low95", "corrected_count", "count_high95"]].tolist() == [2] * 3
    assert np.isnan(star.loc["open", "count_high95"])
    absent = count_labels(predicted_of(np.arange(6) % 2, np.array([0.5, 0.5, 0])), one_group(6))
    assert absent.set_index("label").loc["Ring", "method"] == ABSENT_AT_PRIOR_0


def test_without_validated_images_the_table_says_so() -> None:
    table = count_labels(predicted_of(np.arange(30) % 3), one_group(30))
    assert set(table["method"]) == {UNCHECKED}
    assert set(table["n_validated"]) == {0}
    assert (table["count_low95"] <= table["corrected_count"]).all()
    assert (table["corrected_count"] <= table["count_high95"]).all()


def test_groups_come_from_the_manifest(caplog) -> None:
    table = pd.DataFrame(
        {
            "image_id": list("abcdefg"),
            "path": list("abcdefg"),
            "depth_m": [3.0, 12.0, 110.0, np.nan, 9.999, -4.0, 205.0],
            "captured_at": ["2016-05-02T10:00:00Z", "2016-05-10", None, "May", "", "x", "x"],
            "station": ["S10", "S9", None, "S9", " ", "S2", "S77"],
        }
    )
    manifest, ids = Manifest(table, "."), ["f", "b", "a", "c", "d", "e", "stranger"]
    with caplog.at_level(logging.WARNING):
        by_depth = group_images(manifest, ids, "depth")
    assert by_depth.names == [
        "-10 to 0 m", "0 to 10 m", "10 to 20 m", "110 to 120 m", "200 to 210 m", "unknown"
    ]  # fmt: skip
    assert by_depth.numbers.tolist() == [0, 2, 1, 3, 5, 1, 5]
    assert by_depth.n_not_predicted is not None
    assert by_depth.n_not_predicted.tolist() == [0, 0, 0, 0, 1, 0]
    assert "1 group has no predicted image: 200 to 210 m" in caplog.text
    assert "2 images have no depth_m" in caplog.text
    assert "1 predicted image is not in --source" in caplog.text
    assert group_images(manifest, ids, "depth", 50).names[1] == "0 to 50 m"
    assert group_images(manifest, ids, "day").names == ["2016-05-02", "2016-05-10", "unknown"]
    by_station = group_images(manifest, ids, "station")
    assert by_station.names == ["S2", "S9", "S10", "S77", "unknown"]
    with pytest.raises(
        QuantifyError, match=r"'sample_id' .* depth_m, .*: choose --by .* with --metadata"
    ):
        group_images(manifest, ids)
    with pytest.raises(QuantifyError, match="depth bin of 0"):
        group_images(manifest, ids, "depth", 0.0)
    with pytest.raises(QuantifyError, match="no predicted image is in --source"):
        group_images(manifest, ["x", "y"], "depth")


def test_numbers_and_days_that_differ_are_groups_of_their_own() -> None:
    table = pd.DataFrame(
        {
            "image_id": list("abcd"),
            "path": list("abcd"),
            "cast": [20260300.0, 20260301.0, np.nan, 0.1],
            "probe": np.array([0.1, 1e9, 1234567.0, 0.1], dtype=np.float32),
            "depth_m": [1234.5671, 1234.5682, 1234.5671, np.nan],
            "captured_at": ["20260304T101010", "2026-03-04T10:10:10", "20260305", "20261399"],
        }
    )
    manifest = Manifest(table, ".")
    names = {by: group_images(manifest, list("abcd"), by).names for by in ("cast", "probe")}
    assert names["cast"] == ["0.1", "20260300", "20260301", "unknown"]
    assert names["probe"] == ["0.1", "1234567", "1000000000"]
    assert group_images(manifest, list("abcd"), "depth", 0.001).names == [
        "1234.567 to 1234.568 m", "1234.568 to 1234.569 m", "unknown"
    ]  # fmt: skip
    days = group_images(manifest, list("abcd"), "day")
    assert days.names == ["2026-03-04", "2026-03-05", "unknown"]
    assert days.numbers.tolist() == [0, 0, 1, 2]


def test_files_stand_beside_each_other(tmp_path: Path) -> None:
    assert output_path(Path("a/counts.csv"), ".png") == Path("a/counts.png")
    assert output_path(Path("a/cruise.7"), ".png") == Path("a/cruise.7.png")
    table = count_labels(predicted_of(np.arange(30) % 3), one_group(30))
    csv, parquet, dictionary = write_counts(table, tmp_path / "new" / "counts.csv")
    assert dictionary.name == "counts.dictionary.csv"
    told = pd.read_csv(dictionary, keep_default_na=False)
    assert told["column"].tolist() == table.columns.tolist()
    assert told["meaning"].map(bool).all()
    assert told.set_index("column").loc["corrected_count", "type"] == "double"
    as_text = pd.read_csv(csv).fillna({"model_version": ""})
    pd.testing.assert_frame_equal(as_text, pd.read_parquet(parquet), check_dtype=False)


def test_the_documentation_has_every_column() -> None:
    page = (Path(__file__).parents[1] / "docs" / "counts.md").read_text()
    for name, (unit, meaning) in COLUMNS.items():
        assert f"| `{name}` | {unit} | {meaning} |" in page


def test_the_table_says_what_was_counted() -> None:
    predicted = replace(predicted_of(np.arange(30) % 3), model_version="project-1-v0003")
    table = count_labels(predicted, one_group(30))
    assert table.columns.tolist() == list(COLUMNS)
    assert set(table["model_version"]) == {"project-1-v0003"}


def test_the_plot_says_what_it_leaves_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(f"net {g}", f"label {k}") for g in range(70) for k in range(33)]
    table = pd.DataFrame(rows, columns=["group", "label"])
    for name in ("corrected_frequency", "frequency_low95", "frequency_high95", "raw_frequency"):
        table[name] = rng.random(len(table))
    table = table.assign(corrected_count=rng.random(len(table)), n_images=5, method="m")
    table["control"] = "group"
    texts = [text.get_text() for text in _figure(table, "sample_id").texts]
    assert any("group: share of each label by sample" in text for text in texts)
    assert any("30 most frequent of 33 labels, the 60 largest of 70 groups" in t for t in texts)
    small = table[table["group"].isin(["net 1", "net 2"]) & table["label"].eq("label 3")]
    paths = plot_counts(small, tmp_path / "counts", "sample_id")
    assert [path.suffix for path in paths] == [".svg", ".png"]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert not list(tmp_path.glob(".*"))


def counts_of(groups: list[str], labels: tuple[str, ...]) -> pd.DataFrame:
    predicted = replace(predicted_of(np.arange(30) % 3), labels=labels)
    return count_labels(predicted, Groups("sample_id", groups, np.arange(30) % len(groups)))


def test_long_names_differ_in_the_plot_and_stay_in_their_panel() -> None:
    groups = [f"ANTARES_2019_a_long_cruise_with_many_casts_cast_007_net_{net}" for net in "AB"]
    labels = (
        "Copepods (calanoid) with egg sac",
        "Copepods (calanoid) without egg sac",
        "Eukaryota>Metazoa>Arthropoda>Crustacea>Copepoda>Calanoida>Acartia",
    )
    with our_style(**{"font.size": 8}):
        figure = _figure(counts_of(groups, labels), "sample_id")
        figure.draw_without_rendering()
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        spans = [axes.get_tightbbox() for axes in figure.axes]
    assert len(set(titles)) == 3
    assert {"Copepods (calanoid)\nwith egg sac", "Copepods (calanoid)\nwithout egg sac"} < {*titles}
    assert any(title.endswith("Acartia") for title in titles)
    assert all(left.x1 < right.x0 for left, right in pairwise(spans))
    assert [name.split("  ")[0][-5:] for name in names] == ["net_A", "net_B"]
    assert all(name.startswith("ANTARES_2019") for name in names)


def test_names_are_no_mathematics_and_missing_letters_are_told_once(tmp_path, caplog) -> None:
    table = counts_of(["$\\bar$", "海 1"], ("$\\foo$", "cost $1$2", "海"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in plot_counts(table, tmp_path / "counts", "sample_id"):
            assert path.stat().st_size > 1000
        confusion_plot(["$\\foo$", "海"], np.array([[3, 1], [0, 2]]))
    told = [record.message for record in caplog.records if "no font here has" in record.message]
    assert len(told) in (0, 2)  # 0 where such a font is installed
    assert all("海: the plot shows boxes" in line for line in told)


# --- shards and votes -------------------------------------------------------------------------


def write_shards(folder: Path, predicted: Predicted, prior: list[float] | None) -> None:
    """Shards as `planktrait predict` writes them, one image with no answer for the control."""
    heads = {"group": predicted.labels, "flags": ("dark", "noisy")}
    priors = {} if prior is None else {"group": prior}
    schema = prediction_schema(SCHEMA, heads, 2, priors)
    n = len(predicted.image_ids)
    columns: dict[str, Any] = {name: [None] * n for name in schema.names}
    columns["image_id"] = predicted.image_ids
    columns["sample_id"] = predicted.sample_ids
    columns["group"] = [predicted.labels[k] for k in predicted.suggested]
    columns["group"][-1] = None
    columns["group__probabilities"] = list(predicted.probabilities)
    folder.mkdir(exist_ok=True)
    table = pa.table(columns, schema=schema)
    pq.write_table(table.slice(0, n // 2), folder / "part-00000.parquet")
    pq.write_table(table.slice(n // 2), folder / "part-00001.parquet")


def rewrite(path: Path, column: str, values: list[str]) -> None:
    """A shard with other text in one column."""
    names = [name for name in pq.read_schema(path).names if name != "embedding"]
    table = pq.ParquetFile(path).read(columns=names)
    place = table.schema.get_field_index(column)
    table = table.set_column(place, table.schema.field(place), pa.array(values))
    pq.write_table(table, path)


def test_shards_are_read(tmp_path: Path) -> None:
    written = predicted_of(np.arange(30) % 3)
    write_shards(tmp_path, written, [0.2, 0.3, 0.5])
    read = read_predictions(tmp_path, "group")
    assert read.image_ids == written.image_ids[:-1]
    assert read.not_asked == written.image_ids[-1:]
    assert read.select(np.arange(29) != 3).not_asked == ["image-29", "image-3"]
    assert read.labels == DISC_ROD_RING
    np.testing.assert_allclose(read.prior, [0.2, 0.3, 0.5])
    np.testing.assert_array_equal(read.suggested, written.suggested[:-1])
    np.testing.assert_array_equal(read.probabilities, written.probabilities[:-1])


def test_shards_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    predicted = predicted_of(np.arange(30) % 3)
    with pytest.raises(QuantifyError, match="planktrait predict"):
        read_predictions(tmp_path, "group")
    write_shards(tmp_path, predicted, None)
    with pytest.raises(QuantifyError, match=r"at which prior .* predict again"):
        read_predictions(tmp_path, "group")
    write_shards(tmp_path, predicted, [0.2, 0.3, 0.5])
    for unknown in ("shape", "flags"):
        with pytest.raises(QuantifyError, match=rf"'{unknown}': choose --control from \['group'\]"):
            read_predictions(tmp_path, unknown)
    (tmp_path / "part-00002.parquet").write_bytes((tmp_path / "part-00001.parquet").read_bytes())
    with pytest.raises(QuantifyError, match="predicted twice"):
        read_predictions(tmp_path, "group")
    write_shards(tmp_path / "other", predicted, [0.3, 0.3, 0.4])
    (tmp_path / "other" / "part-00000.parquet").replace(tmp_path / "part-00002.parquet")
    with pytest.raises(QuantifyError, match="several priors"):
        read_predictions(tmp_path, "group")


def test_shards_of_two_versions_are_refused(tmp_path: Path) -> None:
    """Also where labels and prior are the same."""
    write_shards(tmp_path, predicted_of(np.arange(30) % 3), [0.2, 0.3, 0.5])
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        rewrite(path, "model_version", [f"project-1-v000{number}"] * 15)
    with pytest.raises(QuantifyError, match=r"several versions \(project-1-v0000, project-1-v0001"):
        read_predictions(tmp_path, "group")


def test_shards_that_hold_no_predictions_name_the_image(tmp_path: Path) -> None:
    predicted = predicted_of(np.arange(30) % 3)
    predicted.probabilities[7, 1] = np.nan
    write_shards(tmp_path, predicted, [0.2, 0.3, 0.5])
    with pytest.raises(QuantifyError, match=r"1 image has .* e\.g\. 'image-7': predict again"):
        read_predictions(tmp_path, "group")
    rewrite(tmp_path / "part-00000.parquet", "group", ["Unheard of"] * 15)
    with pytest.raises(QuantifyError, match=r"'Unheard of' was suggested, .* predict again"):
        read_predictions(tmp_path, "group")


def task(number: int, *groups: str, blind: bool = True) -> dict[str, Any]:
    """One image, and what each annotator said."""
    return {
        "id": number,
        "data": {
            "image": f"/data/local-files/?d={number}.png",
            "image_id": f"image-{number}",
            "blind": "yes" if blind else "no",
        },
        "annotations": [
            {"id": 10 * number + i, "completed_by": i, "result": [item("group", "choices", [g])]}
            for i, g in enumerate(groups)
        ],
    }


def test_validated_labels_come_from_blind_tasks() -> None:
    predicted = predicted_of(np.arange(30) % 3)
    schema = LabelSchema.from_xml(
        XML.replace('value="Ring"/>', 'value="Ring"/><Choice value="S"/>')
    )
    tasks = [
        task(0, "Disc", "Disc", "Rod"),
        task(1, "Rod", "Ring"),
        task(2, "S"),
        task(3, "Cannot tell"),
        task(4, "Disc", blind=False),
        task(5),
        task(99, "Rod"),
    ]
    validated = read_validated(schema, tasks, predicted)
    assert validated.rows.tolist() == [0, 1, 2]
    assert validated.labels == (*DISC_ROD_RING, "S")
    assert validated.shares.tolist() == [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    notes = "; ".join(validated.notes)
    assert "does not know, counted as validated: ['S']" in notes
    assert "1 validated image has no prediction: left out" in notes
    assert "1 blind image that nobody could assess" in notes


def test_validated_labels_weigh_as_annotators_do() -> None:
    predicted = predicted_of(np.arange(30) % 3)
    tasks = [task(0, "Disc", "Rod"), task(1, "Disc", "Rod", "Rod"), task(2, "Cannot tell")]
    weighted = read_validated(SCHEMA, tasks, predicted, {"0": 3, "2": 0.5})
    assert weighted.shares.tolist() == [[1, 0, 0], [1, 0, 0]]
    assert "weight 0" not in "; ".join(weighted.notes)
    without = read_validated(SCHEMA, tasks, predicted, {"0": 0, "9": 0})
    assert without.shares.tolist() == [[0, 1, 0], [0, 1, 0]]
    # Nobody who counts looked at image 2 at all.
    assert without.notes == ["the answers of 1 person with weight 0 are left out"]


def test_who_has_no_weight_validates_nothing() -> None:
    predicted = predicted_of(np.arange(30) % 3)
    tasks = [task(0, "Disc", "Rod"), task(1, "Rod"), task(99, "Rod")]
    validated = read_validated(SCHEMA, tasks, predicted, {"0": 0, "1": 0})
    assert validated.rows.tolist() == []
    assert validated.notes == ["the answers of 2 people with weight 0 are left out"]
    table = count_labels(predicted, one_group(30), validated)
    pd.testing.assert_frame_equal(table, count_labels(predicted, one_group(30)))


def test_nothing_validated(tmp_path: Path) -> None:
    predicted = predicted_of(np.arange(30) % 3)
    for tasks in ([], [task(1, "Disc", blind=False), task(2)]):
        nothing = read_validated(SCHEMA, tasks, predicted)
        assert (nothing.rows.tolist(), nothing.notes) == ([], [])
    with pytest.raises(QuantifyError, match="none of the 1 validated images was predicted"):
        read_validated(SCHEMA, [task(99, "Disc")], predicted)
    other = LabelSchema.from_xml(XML.replace('name="group"', 'name="kind"').replace(
        'whenTagName="group"', 'whenTagName="kind"'
    ))  # fmt: skip
    with pytest.raises(QuantifyError, match="give --config"):
        read_validated(other, [], predicted)


# --- blind images -----------------------------------------------------------------------------


def counted_by_image(
    folder: Path, said: np.ndarray, blind: list[int], tasks: list[dict[str, Any]]
) -> pd.DataFrame:
    """One group an image, as a column of file names makes them."""
    predicted = predicted_of(said)
    write_shards(folder / "p", predicted, [0.2, 0.3, 0.5])
    table = pd.DataFrame({"image_id": predicted.image_ids, "path": predicted.image_ids})
    manifest = Manifest(table.assign(file=predicted.image_ids), folder)
    ids = {predicted.image_ids[row] for row in blind}
    told = count_images(folder / "p", manifest, SCHEMA, tasks, folder / "c", by="file", blind=ids)
    assert told.images == len(said) - 1  # of the last one it is not asked
    return pd.read_parquet(folder / "c.parquet")


def test_nothing_tells_what_the_model_says_of_a_blind_image(tmp_path: Path) -> None:
    """Were it to say anything else of those that nobody judged, each figure would be the same."""
    said = np.arange(30) % 3
    judged = [task(n, "Disc") for n in (3, 4, 5)]
    blind = [3, 4, 5, 6, 7, 8]
    tables = []
    for other in (0, 1):
        said[[6, 7, 8]] = (said[[6, 7, 8]] + other) % 3
        folder = tmp_path / str(other)
        folder.mkdir()
        tables.append(counted_by_image(folder, said, blind, judged))
    pd.testing.assert_frame_equal(*tables)
    of = tables[0].set_index(["group", "label"])
    sums = of.groupby("group").agg({"corrected_count": "sum", "n_images": "first"})
    assert (sums.corrected_count - sums.n_images).abs().max() < 1e-4
    assert sums.n_images.drop("image-29").eq(1).all()
    # Judged: people's label; not judged: any label, about as often as in the others.
    assert of.loc["image-4"].corrected_count.tolist() == [1, 0, 0]
    open_one = of.loc["image-7"]
    assert open_one.n_shared_out.tolist() == [1, 1, 1]
    assert open_one.count_low95.tolist() == [0, 0, 0]
    assert open_one.count_high95.tolist() == [1, 1, 1]
    assert open_one.raw_frequency.isna().all()
    assert of.loc["image-9"].n_shared_out.tolist() == [0, 0, 0]
    assert of.raw_count.sum() == 29 - len(blind)


def test_images_of_which_nothing_is_known_follow_their_group() -> None:
    said = np.repeat([0, 1, 2], [60, 30, 10])
    blind = np.zeros(100, dtype=bool)
    blind[::5] = True
    whole = count_labels(predicted_of(said), one_group(100))
    some = count_labels(predicted_of(said), one_group(100), blind=blind)
    assert some.corrected_count.sum() == pytest.approx(100, abs=1e-3)
    np.testing.assert_allclose(some.corrected_count, whole.corrected_count, atol=4)
    width = [(one.count_high95 - one.count_low95).mean() for one in (whole, some)]
    assert width[0] < width[1] < 2.5 * width[0]
    assert some.n_shared_out.tolist() == [20, 20, 20]


def test_that_a_question_is_asked_of_a_blind_image_is_not_told_either() -> None:
    """Nor are images that people still judge, where the question is not asked of every image."""
    predicted = predicted_of(np.arange(6) % 3)
    validated = Validated(np.array([4]), DISC_ROD_RING, np.eye(3)[[1]], [])
    blind = {"image-1", "image-4"}
    always = hide_blind(predicted, validated, blind, always_asked=True)
    assert always.predicted is predicted
    assert always.blind.tolist() == [False, True, False, False, True, False]
    assert "1 blind image was not judged by anybody yet" in always.notes[0]
    sometimes = hide_blind(predicted, validated, blind, always_asked=False)
    assert sometimes.predicted.image_ids == [f"image-{n}" for n in (0, 2, 3, 4, 5)]
    assert sometimes.predicted.suggested.tolist() == [0, 2, 0, 1, 2]
    assert sometimes.validated is not None
    assert sometimes.validated.rows.tolist() == [3]
    assert sometimes.blind.tolist() == [False, False, False, True, False]
    assert "did not answer this question" in sometimes.notes[0]
    # Were it asked of none that people still judge, the same would be told.
    for others in (set(), {"image-99"}):
        same = hide_blind(predicted, validated, {"image-4", *others}, always_asked=False)
        assert same.notes == sometimes.notes
    assert hide_blind(predicted, None, (), always_asked=False).notes == []


def test_that_only_blind_images_are_asked_is_told_as_if_none_were(tmp_path: Path) -> None:
    predicted = predicted_of(np.arange(6) % 3)
    with pytest.raises(QuantifyError, match="the model asks it of no image") as blind_ones:
        hide_blind(predicted, None, set(predicted.image_ids), always_asked=False)
    write_shards(tmp_path, predicted_of(np.arange(1)), [0.2, 0.3, 0.5])
    with pytest.raises(QuantifyError) as none:
        read_predictions(tmp_path, "group")
    assert str(none.value) == str(blind_ones.value)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object):
        answer = CliRunner().invoke(app, ["quantify", *(str(word) for word in words)])
        return answer.exit_code, " ".join(answer.output.split())

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    predicted = predicted_of(np.arange(60) % 3)
    write_shards(tmp_path / "p", predicted, [0.2, 0.3, 0.5])
    (tmp_path / "config.xml").write_text(XML)
    table = pd.DataFrame({"image_id": predicted.image_ids, "path": predicted.image_ids})
    table["sample_id"] = [f"haul-{n % 4}" for n in range(60)]
    table["depth_m"] = [np.nan if n < 5 else n % 30 for n in range(60)]
    Manifest(table, tmp_path).write(tmp_path / "m.parquet")
    export = [task(n, DISC_ROD_RING[n % 3]) for n in range(20)]
    (tmp_path / "export.json").write_text(json.dumps(export))
    return tmp_path


def test_the_command_writes_tables_and_plots(run, folder: Path) -> None:
    code, said = run("p", "--source", "m.parquet", "--export", "export.json", "--config",
                     "config.xml", "--by", "depth", "--output", "c")  # fmt: skip
    assert code == 0, said
    table = pd.read_csv("c.csv")
    assert table["group"].drop_duplicates().tolist() == [
        "0 to 10 m", "10 to 20 m", "20 to 30 m", "unknown"
    ]  # fmt: skip
    assert table.groupby("group")["n_images"].first()["unknown"] == 5
    assert table.groupby("group")["n_validated"].first().sum() == 20
    assert table.columns.tolist() == [
        "control", "by", "group", "label", "n_images", "n_validated", "n_shared_out", "n_not_asked",
        "n_not_predicted", "raw_count", "raw_frequency",
        "corrected_count", "count_low95", "count_high95", "corrected_frequency",
        "frequency_low95", "frequency_high95", "method", "model_version",
    ]  # fmt: skip
    assert set(table["control"]) == {"group"}
    assert set(table["by"]) == {"depth"}
    suffixes = (".parquet", ".png", ".svg", ".dictionary.csv")
    assert all(Path(f"c{suffix}").exists() for suffix in suffixes)
    assert "group" in said
    assert "by depth" in said
    assert "checked on 20 blind validated images" in said


@pytest.fixture
def unlike(folder: Path) -> list[dict[str, Any]]:
    """Blind tasks, saved as the export: person 0 alone on 5 images, against two others on 15."""
    tasks = [task(n, *(["Rod"] if n < 5 else ["Rod", "Disc", "Disc"])) for n in range(20)]
    (folder / "export.json").write_text(json.dumps(tasks))
    return tasks


EXPORT = ["p", "--source", "m.parquet", "--export", "export.json", "--config", "config.xml"]
NO_WEIGHT = "the answers of 1 person with weight 0 are left out"


def test_the_command_takes_weights_from_the_models_of_the_export(run, unlike) -> None:
    """From `models` if nothing is said, as `train --export` keeps them."""
    code, said = run(*EXPORT)
    assert code == 0, said
    assert "20 blind validated images" in said
    assert "left out" not in said
    for kept, words in (("models", []), ("others", ["--models", "others"])):
        update_weights(kept, {"0": 0})
        code, said = run(*EXPORT, *words)
        assert code == 0, said
        assert NO_WEIGHT in said
        assert "15 blind validated images" in said
    without = corrected_rods()
    update_weights("models", {"0": 3})
    assert run(*EXPORT)[0] == 0
    assert corrected_rods() > without + 10


def corrected_rods() -> float:
    table = pd.read_csv("counts.csv")
    return float(table["corrected_count"][table["label"] == "Rod"].sum())


def test_the_command_takes_weights_from_the_home_of_a_project(
    run, unlike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "find_project", lambda *_: SimpleNamespace(id=7))
    known = {"id": 7, "label_config": XML}
    monkeypatch.setattr(server_tasks, "fetch_project", lambda *_: known)
    monkeypatch.setattr(server_tasks, "fetch_tasks", lambda *_, **__: unlike)
    home = Home(tmp_path / "home")
    (home.folder / "settings.json").write_text("{}")  # it was served
    update_weights(home.models_folder(7), {"0": 0})
    code, said = run("p", "--source", "m.parquet", "--project", "P", "--home", "home")
    assert code == 0, said
    assert NO_WEIGHT in said
    assert "15 blind validated images" in said


def test_the_command_tells_of_images_without_a_prediction(run, folder: Path) -> None:
    """A run of `predict` that was killed: its counts are not those of the whole samples."""
    Path("p/part-00001.parquet").unlink()
    code, said = run("p", "--source", "m.parquet", "--config", "config.xml")
    assert code == 0, said
    assert "30 of 60 images have no prediction, e.g. 'image-30', and are not counted" in said
    table = pd.read_csv("counts.csv")
    assert table.groupby("group")["n_not_predicted"].first().tolist() == [7, 7, 8, 8]
    assert table.groupby("group")["n_images"].first().tolist() == [8, 8, 7, 7]


def test_an_image_of_which_it_is_not_asked_is_not_taken_for_one_without_prediction(
    run, folder: Path
) -> None:
    code, said = run("p", "--source", "m.parquet", "--config", "config.xml")
    assert code == 0, said
    assert "no prediction" not in said
    table = pd.read_csv("counts.csv")
    assert set(table["n_not_predicted"]) == {0}
    assert table.groupby("group")["n_not_asked"].first().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("size", [0, 40, 2000])
def test_a_shard_that_was_cut_off_is_named(run, folder: Path, size: int) -> None:
    path = Path("p/part-00001.parquet")
    path.write_bytes(path.read_bytes()[:size])
    code, said = run("p", "--source", "m.parquet", "--config", "config.xml")
    assert code == 1
    assert "p/part-00001.parquet is not a whole shard" in said
    assert "run `planktrait predict` again, then count again" in said


def test_a_folder_without_metadata_says_what_to_give(run, folder: Path) -> None:
    (folder / "images").mkdir()
    Image.new("L", (8, 8)).save(folder / "images" / "good.png")
    (folder / "images" / "broken.png").write_bytes(b"no image")
    code, said = run("p", "--source", "images", "--config", "config.xml")
    assert code == 1
    assert "skipped broken.png" in said
    assert "no column 'sample_id' to count by (they have none): choose --by" in said
    assert "give a table that has it with --metadata" in said


def test_the_command_says_when_the_classifier_was_not_checked(run, folder: Path) -> None:
    code, said = run("p", "--source", "m.parquet", "--config", "config.xml")
    assert code == 0, said
    assert "No blind image was validated" in said
    assert set(pd.read_csv("counts.csv")["method"]) == {UNCHECKED}
    assert pd.read_csv("counts.csv")["group"].nunique() == 4


def test_validated_images_of_unknown_labels_are_not_taken_for_none(run, folder: Path) -> None:
    Path("config.xml").write_text(XML.replace('"Ring"/>', '"Ring"/><Choice value="Star"/>'))
    Path("export.json").write_text(json.dumps([task(n, "Star") for n in range(20)]))
    code, said = run("p", "--source", "m.parquet", "--export", "export.json", "--config",
                     "config.xml")  # fmt: skip
    assert code == 0, said
    assert "No blind image was validated" not in said
    assert "bear only labels that the model cannot tell" in said
    table = pd.read_csv("counts.csv")
    assert not table["method"].str.contains("no blind validated").any()
    star = table[table["label"] == "Star"]
    assert star["corrected_count"].tolist() == [5] * 4
    assert star["count_high95"].isna().all()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--source", "m.parquet", "--by", "station"], "no column 'station'"),
        (["--source", "m.parquet", "--by", "day"], "no column 'captured_at'"),
        (["--source", "m.parquet", "--control", "x"], "choose --control from ['group']"),
        (["--source", "nowhere"], "no folder of images"),
        (["--source", "m.parquet", "--export", "e", "--project", "P"], "not both"),
        (["--source", "m.parquet", "--export", "e.json"], "e.json cannot be read"),
        (["--source", "m.parquet", "--models", "p"], "together with --export"),
        (
            ["--source", "m.parquet", "--export", "e", "--models", "x"],
            "--models x: give the folder",
        ),
    ],
)
def test_errors_of_the_command(run, folder: Path, words, remedy) -> None:
    code, said = run("p", *words, "--config", "config.xml")
    assert code == 1
    assert remedy in said
    assert "Traceback" not in said


# --- a control that is asked only where another has a certain label ---------------------------


def spot_task(number: int, group: str, spot: str | None = None) -> dict[str, Any]:
    """A blind image of which one person said the group and, maybe, whether it has a spot."""
    said = task(number, group)
    if spot is not None:
        said["annotations"][0]["result"].append(item("spot", "choices", [spot]))
    return said


@pytest.fixture
def spots(tmp_path: Path) -> Path:
    """Forty images: the model asks for the spots of the first 30, and not in the third haul."""
    names = [f"image-{n}" for n in range(40)]
    heads = {"group": DISC_ROD_RING, "spot": ("with spot", "no spot")}
    schema = prediction_schema(SCHEMA, heads, 2, {"group": [0.5, 0.25, 0.25], "spot": [0.5, 0.5]})
    columns: dict[str, Any] = {name: [None] * 40 for name in schema.names}
    columns["image_id"] = names
    columns["group"] = ["Disc"] * 30 + ["Rod"] * 10
    columns["spot"] = ["with spot"] * 30 + [None] * 10
    columns["spot__probabilities"] = [[0.9, 0.1]] * 40
    (tmp_path / "p").mkdir()
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "p" / "part-00000.parquet")
    (tmp_path / "config.xml").write_text(XML)
    table = pd.DataFrame({"image_id": names, "path": names})
    table["sample_id"] = ["a"] * 15 + ["b"] * 15 + ["c"] * 10
    Manifest(table, tmp_path).write(tmp_path / "m.parquet")
    return tmp_path


def count_spots(run, tasks: list[dict[str, Any]]) -> tuple[str, pd.DataFrame]:
    Path("e.json").write_text(json.dumps(tasks))
    code, said = run("p", "--source", "m.parquet", "--export", "e.json", "--config", "config.xml",
                     "--control", "spot")  # fmt: skip
    assert code == 0, said
    return said, pd.read_csv("counts.csv").set_index("group")


def test_images_whose_condition_people_denied_are_not_counted(run, spots: Path) -> None:
    rods = [spot_task(n, "Rod") for n in range(10)]
    discs = [spot_task(n, "Disc", "with spot") for n in range(15, 20)]
    said, table = count_spots(run, [*rods, *discs, spot_task(20, "Cannot tell")])
    assert "10 blind images left out: the model asks 'spot' of them, but people" in said
    assert "not predicted" not in said
    assert "no prediction" not in said
    assert table.groupby("group")["n_images"].first().tolist() == [5, 15, 0]
    assert table.groupby("group")["n_not_asked"].first().tolist() == [10, 0, 10]
    assert table.groupby("group")["n_validated"].first().tolist() == [0, 5, 0]
    assert table["method"].str.endswith(CONDITIONAL).all()


def test_groups_of_which_it_is_asked_nowhere_stay_with_zeros(run, spots: Path) -> None:
    said, table = count_spots(run, [])
    assert "no predicted image" not in said
    third = table.loc["c"]
    for column in ("n_images", "raw_count", "corrected_count", "count_low95", "count_high95"):
        assert third[column].tolist() == [0, 0]
    assert third["corrected_frequency"].isna().all()
    assert set(third["n_not_asked"]) == {10}
    assert set(table["n_not_predicted"]) == {0}


def test_answers_where_the_model_does_not_ask_are_told_as_what_they_are(run, spots: Path) -> None:
    said, table = count_spots(run, [spot_task(n, "Disc", "no spot") for n in range(30, 35)])
    assert "5 validated images left out: people answered 'spot', but the model does not" in said
    assert "give the export of the project" not in said
    assert set(table["n_validated"]) == {0}


def test_who_denies_a_condition() -> None:
    """All who judged it; nobody who could not tell, or who answered the question itself."""
    tasks = [
        task(0, "Rod", "Ring"),
        task(1, "Rod", "Disc"),
        task(2, "Cannot tell"),
        task(3),
        spot_task(4, "Rod", "with spot"),
    ]
    tasks[4]["annotations"].append(task(4, "Rod")["annotations"][0] | {"id": 99, "completed_by": 9})
    votes = read_votes(SCHEMA, tasks)
    assert denied_ids(SCHEMA, SCHEMA.control("spot"), votes) == {"image-0"}
    assert denied_ids(SCHEMA, SCHEMA.control("group"), votes) == set()


def test_whether_it_is_asked_of_a_blind_image_changes_no_figure(spots: Path) -> None:
    """Of an image that somebody still judges: neither its group's, nor those beside it."""
    tables = []
    for asked in ("with spot", None):
        rewrite(spots / "p" / "part-00000.parquet", "spot", ["with spot"] * 14 + [asked] * 1
                + ["with spot"] * 15 + [None] * 10)  # fmt: skip
        count_images(spots / "p", Manifest.read(spots / "m.parquet"), SCHEMA, [], spots / "c",
                     control="spot", blind={"image-14"})  # fmt: skip
        tables.append(pd.read_parquet(spots / "c.parquet"))
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.slow
def test_from_images_to_counts_through_the_command_line(run, tmp_path: Path) -> None:
    """Phantoms, an untrained model, its shards, blind annotations of a third of the images."""
    drawn = draw_phantoms(tmp_path / "phantoms", 60, processes=1)
    xml = read_config("functional_groups")
    labels = LabelSchema.from_xml(xml).control("group").labels
    natural = tuple(np.full(len(labels), 1 / len(labels)).tolist())
    head = Head("group", "one of", labels, trained_prior=natural, deployed_prior=natural)
    model = TraitModel(Encoder.create("resnet10t", 32), [head], LabelSchema.from_xml(xml))
    torch.nn.init.normal_(model.classifiers[0].weight, std=0.1)  # type: ignore[arg-type]
    registry = Registry(tmp_path / "models")

    def write(place: Path) -> None:
        model.save(place)

    registry.promote(registry.add(write).name, "for a test")
    said = CliRunner().invoke(app, ["predict", "phantoms", "--models", "models", "--output", "p"])
    assert said.exit_code == 0, said.output
    assert prior_of(pq.read_schema("p/part-00000.parquet").field("group__probabilities"))
    truth = pd.read_csv(drawn.truth_csv).set_index("image_id")["group"]
    ids = pq.read_table("p")["image_id"].to_pylist()
    tasks = []
    for number, image_id in enumerate(ids[::3]):
        group = truth.get(image_id, truth.get(Path(image_id).stem))
        one = task(number, str(group))
        one["data"]["image_id"] = image_id
        tasks.append(one)
    Path("export.json").write_text(json.dumps(tasks))
    code, output = run("p", "--source", "phantoms", "--metadata", drawn.metadata_csv,
                       "--export", "export.json", "--config", "functional_groups")  # fmt: skip
    assert code == 0, output
    table = pd.read_parquet("counts.parquet")
    assert table.groupby("group")["corrected_count"].sum().sum() == pytest.approx(60, abs=0.01)
    assert table.groupby("group")["n_validated"].first().sum() == 20

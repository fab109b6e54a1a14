"""Frequencies where a model serves: given, estimated, and what predictions make of them."""

import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import norm

from label_studio_config.manifest import Manifest
from label_studio_config.schema import LabelSchema
from ml_backend.calibrate import correct_prior
from ml_backend.deploy import deploy, read_priors, with_prior
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.predict import predict, write_predictions
from ml_backend.prior_record import PRIOR_FILES, Deployment, record, recorded
from ml_backend.priors import (
    PriorError,
    check_prior,
    prior_by_bbse,
    prior_by_em,
    published_correction,
)
from simclr.encoder import Encoder
from tests.trait_fixtures import XML, make_tasks

ABC = ("a", "b", "c")
TAUGHT, THERE = np.array([0.4, 0.3, 0.3]), np.array([0.05, 0.15, 0.8])


def drawn(prior: np.ndarray, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn at a prior, and their exact probabilities at `TAUGHT`, from one measurement."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=n, p=prior)
    x = rng.normal(truth * 1.5, 1)
    joint = np.stack([norm.pdf(x, k * 1.5, 1) for k in range(3)], axis=1) * TAUGHT
    return joint / joint.sum(axis=1, keepdims=True), np.eye(3)[truth]


@pytest.mark.parametrize(
    ("prior", "kind", "told"),
    [
        ([0.5, 0.5], "one of", "has 3 labels, its prior 2 frequencies"),
        ([0.5, 0.6, -0.1], "one of", "the frequency of 'c' is -0.1"),
        ([0.5, 0.5, float("nan")], "one of", "the frequency of 'c' is nan"),
        ([0.5, 0.3, 0.1], "one of", "sum to 0.9, not to 1. Divide each by their sum"),
        ([1, 1, 1], "one of", "sum to 3, not to 1"),
        ([0.5, 1.2, 0.1], "any of", "the frequency of 'b' is 1.2"),
    ],
)
def test_a_prior_that_is_none_is_refused(prior: list[float], kind: str, told: str) -> None:
    with pytest.raises(PriorError, match=told) as refused:
        check_prior("group", prior, ABC, kind)
    assert "'group'" in str(refused.value)


def test_rounded_frequencies_are_taken_and_sum_to_one() -> None:
    assert check_prior("group", [0.333, 0.333, 0.3335], ABC).sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(check_prior("f", [0.9, 0.9, 0], ABC, "any of"), [0.9, 0.9, 0])


def test_em_finds_the_frequencies() -> None:
    probabilities, _ = drawn(THERE, 10_000)
    np.testing.assert_allclose(prior_by_em(probabilities, TAUGHT), THERE, atol=0.02)
    same, _ = drawn(TAUGHT, 10_000, seed=1)
    np.testing.assert_allclose(prior_by_em(same, TAUGHT), TAUGHT, atol=0.02)


def test_em_does_not_care_at_which_prior_the_probabilities_are() -> None:
    probabilities, _ = drawn(THERE, 3000)
    elsewhere = np.array([0.2, 0.5, 0.3])
    moved = correct_prior("one of", probabilities, TAUGHT, elsewhere)
    np.testing.assert_allclose(
        prior_by_em(moved, elsewhere, 1e-10),
        prior_by_em(probabilities, TAUGHT, 1e-10),
        atol=1e-5,
    )


def test_em_that_does_not_settle_says_so(caplog: pytest.LogCaptureFixture) -> None:
    prior_by_em(drawn(THERE, 500)[0], TAUGHT, max_iterations=2)
    assert "after 2 iterations" in caplog.text
    with pytest.raises(PriorError, match="give images"):
        prior_by_em(np.zeros((0, 3)), TAUGHT)


@pytest.mark.parametrize("hard", [True, False])
def test_bbse_finds_the_frequencies(hard: bool) -> None:
    """Also from probabilities that are not calibrated."""
    here, truth = drawn(TAUGHT, 10_000)
    there, _ = drawn(THERE, 10_000, seed=1)
    here, there = (p**3 / (p**3).sum(axis=1, keepdims=True) for p in (here, there))
    if hard:
        here, there = (np.eye(3)[p.argmax(axis=1)] for p in (here, there))
    found = prior_by_bbse(truth.T @ here, there.mean(axis=0))
    np.testing.assert_allclose(found, THERE, atol=0.03)
    assert found.sum() == pytest.approx(1)


def test_bbse_takes_a_label_without_images_and_refuses_what_does_not_fit() -> None:
    found = prior_by_bbse(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]]), np.array([0.45, 0.55, 1]))
    np.testing.assert_allclose(found, [0.25, 0.25, 0.5], atol=1e-9)
    with pytest.raises(PriorError, match="does not fit 2 labels"):
        prior_by_bbse(np.eye(3), np.ones(2))
    with pytest.raises(PriorError, match="give images"):
        prior_by_bbse(np.eye(2), np.zeros(2))


def test_the_published_correction_is_not_normalised() -> None:
    p = np.array([[0.5, 0.3, 0.2]])
    published = published_correction(p, TAUGHT, THERE)
    by_hand = p * THERE / TAUGHT / (p * THERE / TAUGHT + (1 - p) * (1 - THERE) / (1 - TAUGHT))
    np.testing.assert_allclose(published, by_hand)
    assert published.sum() != pytest.approx(1, abs=0.05)


# In predictions

SCHEMA = LabelSchema.from_xml(XML)
GROUP = {"Disc": 0.05, "Rod": 0.05, "Ring": 0.9}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    folder = tmp_path_factory.mktemp("images")
    make_tasks(folder, 30)
    names = [str(n) for n in range(30)]
    return Manifest(pd.DataFrame({"image_id": names, "path": [f"{n}.png" for n in names]}), folder)


@pytest.fixture(scope="module")
def model() -> TraitModel:
    torch.manual_seed(0)
    half, third = (0.5, 0.5), (1 / 3, 1 / 3, 1 / 3)
    heads = [
        Head("group", "one of", tuple(GROUP), trained_prior=third, deployed_prior=third),
        Head("spot", "one of", ("with spot", "no spot"), trained_prior=half, deployed_prior=half),
        Head("flags", "any of", ("dark", "noisy"), trained_prior=half, deployed_prior=half),
        Head("diameter", "number", unit="px", offset=40.0, scale=10.0, sd=2.5),
    ]
    made = TraitModel(Encoder.create("resnet10t", 32), heads, SCHEMA)
    for classifier in made.classifiers:
        torch.nn.init.normal_(classifier.weight, std=0.02)  # type: ignore[arg-type]
    return made.eval()


def test_a_model_at_another_prior_is_bayes_rule_and_leaves_the_first_alone(
    model: TraitModel, manifest: Manifest
) -> None:
    other = with_prior(model, {"group": np.array(list(GROUP.values()))})
    before, after = predict(model, manifest), predict(other, manifest)
    third = np.full(3, 1 / 3)
    expected = correct_prior("one of", before.values["group"], third, np.array([0.05, 0.05, 0.9]))
    np.testing.assert_allclose(after.values["group"], expected, atol=1e-6)
    np.testing.assert_array_equal(after.values["flags"], before.values["flags"])
    assert after.confidence.mean() != pytest.approx(before.confidence.mean())
    assert model.head("group").deployed_prior == tuple(third)
    with pytest.raises(PriorError, match="no head with labels for diameter"):
        with_prior(model, {"diameter": np.array([1.0])})


def test_a_file_of_frequencies(model: TraitModel, manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text(json.dumps({"group": GROUP}))
    there, found = deploy(model, manifest, str(path), tmp_path / "out")
    assert there.head("group").deployed_prior == pytest.approx(tuple(GROUP.values()))
    assert there.head("flags") == model.head("flags")
    assert found.facts["prior"] == "prior.json"
    assert found.facts["prior of group"] == "Ring 0.900, Disc 0.050, Rod 0.050"
    for wrong, told in (
        ({"group": GROUP | {"Ring": 0.5}}, "sum to 0.6, not to 1"),
        ({"group": {"Disc": 1}}, "'group' is given no frequency for Ring, Rod"),
        ({"group": GROUP | {"Krill": 0}}, "'group' knows no label Krill"),
        ({"group": GROUP | {"Ring": "much"}}, "'group': could not convert"),
        ({"krill": GROUP}, "no head with labels for 'krill'; it has group, spot, flags"),
        ([1], "write it like"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(PriorError, match=told):
            read_priors(model, path)
    with pytest.raises(PriorError, match="nor a file"):
        deploy(model, manifest, "natrual", tmp_path / "out")


def test_frequencies_are_estimated_once_and_recorded(
    model: TraitModel, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, found = deploy(model, manifest, "em", tmp_path)
    values = predict(model, manifest).values["group"]
    np.testing.assert_allclose(
        there.head("group").deployed_prior, prior_by_em(values, np.full(3, 1 / 3)), atol=1e-6
    )
    assert found.n_images == 30
    (path,), _ = write_predictions(there, manifest, tmp_path)
    assert len(pq.read_table(tmp_path)) == 30  # the record is not taken for a shard
    monkeypatch.setattr("ml_backend.deploy.predict", None)  # a second pass is not needed
    again, same = deploy(model, manifest, "em", tmp_path)
    assert (again.heads, same) == (there.heads, found)
    made = path.stat().st_mtime_ns
    write_predictions(again, manifest, tmp_path)
    assert path.stat().st_mtime_ns == made
    for other in ("natural", "uniform"):
        with pytest.raises(PriorError, match="at other frequencies"):
            deploy(model, manifest, other, tmp_path)
    (noted,) = tmp_path.glob(PRIOR_FILES)
    noted.unlink()  # shards of an older program say nothing of their prior
    with pytest.raises(PriorError, match="at other frequencies"):
        deploy(model, manifest, "uniform", tmp_path)
    assert deploy(model, manifest, "natural", tmp_path)[0] is model


def test_tasks_of_an_array_answer_at_one_prior(
    model: TraitModel, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, estimated = deploy(model, manifest, "em", tmp_path / "another")
    together, shares = threading.Barrier(4), iter((0.2, 0.3, 0.4, 0.5))

    def on_unlike_processors(*_: Any) -> Deployment:
        share = next(shares)
        together.wait(60)
        group = {"Ring": share, "Disc": 0.9 - share, "Rod": 0.1}
        return replace(estimated, frequencies={**estimated.frequencies, "group": group})

    monkeypatch.setattr("ml_backend.deploy._choose", on_unlike_processors)
    out = tmp_path / "out"
    out.mkdir()
    # A record of an earlier run, whose shards were removed, is in nobody's way.
    for name in ("_prior.json", "_prior-01234567.json"):
        (out / name).write_text('{"mark": "of other images", "prior": "em", "frequencies": {}}')
    with ThreadPoolExecutor(4) as pool:
        tasks = list(pool.map(lambda _: deploy(model, manifest, "em", out), range(4)))
    assert [found for _, found in tasks] == [tasks[0][1]] * 4
    # Two of them are queued again: they find the shards of the first two their own.
    for number, (there, _) in enumerate(tasks):
        write_predictions(there, manifest, out, shard_size=10, part=(number % 2, 2))
    assert len(pq.read_table(out)) == 30
    assert sorted(path.name[0] for path in out.iterdir()) == ["_", "p", "p", "p"]


def test_the_first_record_of_many_tasks_is_everybodys(tmp_path: Path) -> None:
    """Each round has a record of an earlier run in its way, which every task removes."""
    for number in range(200):
        (tmp_path / "_prior.json").write_text('{"mark": "of other images"}')
        mark, together = f"of these images {number}", threading.Barrier(4)

        def one(share: float, mark: str = mark, wait: Any = together.wait) -> Deployment:
            wait(60)
            return record(tmp_path, mark, Deployment("em", {"group": {"Ring": share}}))

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(one, (0.2, 0.3, 0.4, 0.5)))
        assert found == [recorded(tmp_path, mark, "em")] * 4
        assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    record(tmp_path, "of these images", Deployment("natural", {}))
    (noted,) = tmp_path.glob(PRIOR_FILES)
    noted.write_text("{")
    with pytest.raises(PriorError, match=f"{noted.name} cannot be read: remove it"):
        record(tmp_path, "of these images", Deployment("natural", {}))


def test_the_first_record_stays_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    first = record(tmp_path, "of these images", Deployment("natural", {}))
    assert record(tmp_path, "of these images", Deployment("em", {})) == first
    assert recorded(tmp_path, "of these images", "natural") == first
    assert len(list(tmp_path.iterdir())) == 1


def test_uniform_and_bbse(model: TraitModel, manifest: Manifest, tmp_path: Path) -> None:
    there, _ = deploy(model, manifest, "uniform", tmp_path / "uniform")
    assert there.head("spot").deployed_prior == (0.5, 0.5)
    confusion = [[8, 1, 1], [2, 7, 1], [0, 1, 9]]
    metrics = {"metrics": {"test": {"group": {"confusion": confusion}, "spot": {}}}}
    there, found = deploy(model, manifest, "bbse", tmp_path / "bbse", metrics)
    chosen = predict(model, manifest).choices["group"].mean(axis=0)
    np.testing.assert_allclose(
        there.head("group").deployed_prior, prior_by_bbse(np.array(confusion), chosen), atol=1e-9
    )
    notes = "\n".join(found.notes)
    assert "'flags' stays at its natural frequencies" in notes
    assert "'spot' stays at its natural frequencies" in notes


def test_labels_that_nobody_voted_for_leave_a_natural_prior_usable(
    model: TraitModel, manifest: Manifest, tmp_path: Path
) -> None:
    rare = with_prior(model, {})
    rare.set_head(replace(model.head("group"), deployed_prior=(1.0, 0.1, 0.1)))
    path = tmp_path / "prior.json"
    path.write_text(json.dumps({"spot": {"with spot": 0.2, "no spot": 0.8}}))
    there, _ = deploy(rare, manifest, str(path), tmp_path / "out")
    np.testing.assert_allclose(
        predict(there, manifest).values["group"], predict(rare, manifest).values["group"]
    )

"""TraitModel: what it learns from votes, saving, and a config that changed after training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from label_studio_config.schema import LabelSchema
from ml_backend.fit import calibrate_heads
from ml_backend.fit_heads import (
    TrainingRefused,
    fit_heads,
    head_loss,
    image_weights,
    make_heads,
    set_priors,
)
from ml_backend.head import Head
from ml_backend.model import ModelError, TraitModel, size_inputs
from ml_backend.schema_change import serve
from ml_backend.targets import ControlTargets, LearningSet
from simclr.encoder import Encoder
from simclr.turned import turned
from tests.trait_fixtures import XML

SCHEMA = LabelSchema.from_xml(XML)


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder.create("resnet10t", image_size_px=32)


def heads() -> list[Head]:
    third = (1 / 3, 1 / 3, 1 / 3)
    return [
        Head(
            "group",
            "one of",
            ("Disc", "Rod", "Ring"),
            temperature=1.5,
            trained_prior=third,
            deployed_prior=(0.6, 0.3, 0.1),
        ),
        Head(
            "flags",
            "any of",
            ("dark", "noisy"),
            trained_prior=(0.5, 0.5),
            deployed_prior=(0.1, 0.2),
        ),
        Head("diameter", "number", unit="px", offset=40.0, scale=12.0, sd=3.0),
    ]


def model(views: int = 1) -> TraitModel:
    made = TraitModel(encoder(), heads(), SCHEMA, views)
    for classifier in made.classifiers:
        torch.nn.init.normal_(classifier.weight, std=0.05)  # type: ignore[arg-type]
    return made.eval()


def batch(n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(n, 1, 32, 32), dtype=np.uint8)
    return pixels, np.log(rng.uniform(20, 60, size=(n, 2))).astype(np.float32)


def test_probabilities_are_probabilities() -> None:
    answers = model().answer(*batch())
    np.testing.assert_allclose(answers.values["group"].sum(axis=1), 1.0)
    assert ((answers.values["flags"] > 0) & (answers.values["flags"] < 1)).all()
    assert answers.values["diameter"].shape == (6, 1)
    assert answers.embedding.shape == (6, 512)


def test_saved_and_loaded_it_answers_the_same(tmp_path) -> None:
    made = model(views=2)
    made.fit_inputs(torch.randn(20, len(made.input_mean)) * 3 + 1)
    made.save(tmp_path / "m")
    loaded = TraitModel.load(tmp_path / "m")
    assert loaded.heads == made.heads
    assert loaded.views == 2
    assert loaded.schema.fingerprint == SCHEMA.fingerprint
    expected, found = made.answer(*batch()), loaded.answer(*batch())
    for name in ("group", "flags", "diameter"):
        np.testing.assert_allclose(found.values[name], expected.values[name], rtol=1e-4, atol=1e-5)


def test_a_damaged_folder_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="no model"):
        TraitModel.load(tmp_path)
    model().save(tmp_path / "m")
    (tmp_path / "m" / "heads.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="can be loaded"):
        TraitModel.load(tmp_path / "m")


def test_a_folder_of_an_older_format_is_refused(tmp_path) -> None:
    """It does not say how suggestions lean: read today it would answer otherwise than it did."""
    model().save(tmp_path)
    record = json.loads((tmp_path / "model.json").read_text())
    record["format"] = 1
    for head in record["heads"]:
        del head["choice_balance"], head["unit"]
    (tmp_path / "model.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="train a new version"):
        TraitModel.load(tmp_path)


def test_the_fingerprint_follows_weights_and_heads() -> None:
    made = model()
    first = made.fingerprint
    assert model().fingerprint == first
    made.set_head(replace(made.head("group"), temperature=2.0))
    second = made.fingerprint
    assert second != first
    with torch.no_grad():
        made.input_mean[0] += 1
    assert made.fingerprint != second


def test_eight_views_do_not_care_how_an_image_is_turned() -> None:
    pixels, extents = batch(2)
    made = model(views=8)
    quarter = np.ascontiguousarray(np.rot90(pixels, axes=(2, 3)))
    first, second = made.answer(pixels, extents), made.answer(quarter, extents)
    np.testing.assert_allclose(first.values["group"], second.values["group"], atol=1e-5)


def test_the_eight_turns_are_all_different() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    turns = {tuple(turned(image, view).flatten().tolist()) for view in range(8)}
    assert len(turns) == 8


def test_size_matters_and_its_order_does_not() -> None:
    extents = torch.tensor([[4.0, 3.0], [3.0, 4.0], [5.0, 3.0]])
    inputs = size_inputs(extents)
    torch.testing.assert_close(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])


def test_views_must_be_a_group_of_turns() -> None:
    with pytest.raises(ModelError, match="choose one of"):
        TraitModel(encoder(), heads(), SCHEMA, views=3)


# Learning from votes


def learning(n: int = 400, seed: int = 0) -> tuple[LearningSet, torch.Tensor]:
    """A set whose inputs tell the group apart, with two annotators who sometimes disagree."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=n, p=[0.8, 0.15, 0.05])
    inputs = torch.from_numpy(rng.normal(size=(n, 517)).astype(np.float32))
    for k in range(3):
        inputs[truth == k, k] += 3
    shares = np.eye(3, dtype=np.float32)[truth]
    disagree = rng.random(n) < 0.1
    shares[disagree] = 0.5 * shares[disagree] + 0.5 * np.eye(3)[(truth[disagree] + 1) % 3]
    n_votes = np.full(n, 2)
    n_votes[rng.random(n) < 0.1] = 0
    side = np.array(["train", "validation", "test", "blind"])[
        rng.choice(4, size=n, p=[0.6, 0.2, 0.1, 0.1])
    ]
    images = pd.DataFrame({"image_id": np.arange(n).astype(str), "side": side})
    number = ControlTargets(
        SCHEMA.control("diameter"),
        (40 + 10 * inputs[:, 5:6].numpy()).astype(np.float32),
        np.ones(n, dtype=int),
    )
    group = ControlTargets(SCHEMA.control("group"), shares, n_votes)
    return LearningSet(SCHEMA, images, {"group": group, "diameter": number}), inputs


def fitted(data: LearningSet, inputs: torch.Tensor, balance: float = 0.5) -> TraitModel:
    made, _ = make_heads(data, 10)
    trait_model = TraitModel(encoder(), made, SCHEMA)
    weights = image_weights(data, data.rows("train"), balance)
    set_priors(trait_model, data, data.rows("train"), weights)
    trait_model.fit_inputs(inputs[data.rows("train")])
    fit_heads(trait_model, data, inputs, weights)
    return trait_model


def test_heads_learn_what_can_be_learned() -> None:
    data, inputs = learning(n=1500)
    trait_model = fitted(data, inputs)
    test = data.rows("test")
    outputs = {name: v.detach().numpy() for name, v in trait_model.classify(inputs[test]).items()}
    group = trait_model.head("group").answer(outputs["group"]).argmax(axis=1)
    truth = data.targets["group"].shares[test].argmax(axis=1)
    assert (group == truth).mean() > 0.75
    diameter = trait_model.head("diameter").answer(outputs["diameter"])
    error = diameter - data.targets["diameter"].shares[test]
    assert np.abs(error).mean() < 5


@pytest.mark.parametrize("side", ["test", "blind"])
def test_test_and_blind_images_never_teach(side: str) -> None:
    """Nonsense on the held-out and blind sides must leave the model as it is, to the last bit."""
    data, inputs = learning()
    clean = fitted(data, inputs).state_dict()
    rows = data.rows(side)  # type: ignore[arg-type]
    data.targets["group"].shares[rows] = data.targets["group"].shares[rows][:, [2, 0, 1]]
    data.targets["diameter"].shares[rows] = 1e6
    inputs = inputs.clone()
    inputs[rows] = 1e6
    spoiled = fitted(data, inputs).state_dict()
    assert all(torch.equal(clean[name], spoiled[name]) for name in clean)


def test_masked_images_never_teach() -> None:
    data, inputs = learning()
    clean = fitted(data, inputs)
    masked = data.targets["group"].n_votes == 0
    data.targets["group"].shares[masked] = [0, 0, 1]
    again = fitted(data, inputs)
    assert torch.equal(clean.classifiers[0].weight, again.classifiers[0].weight)  # type: ignore[arg-type]


def test_balance_gives_rare_labels_their_share() -> None:
    data, _ = learning()
    rows = data.rows("train")
    mine = data.targets["group"].take(rows)
    weights = image_weights(data, rows, 1.0)[mine.known]
    shares = weights @ mine.shares[mine.known]
    # Not quite a third each: some images bear votes for two labels.
    np.testing.assert_allclose(shares / shares.sum(), 1 / 3, atol=0.04)
    assert np.allclose(image_weights(data, rows, 0.0), 1.0)


def test_the_priors_are_those_seen_and_those_natural() -> None:
    data, inputs = learning()
    head = fitted(data, inputs, balance=1.0).head("group")
    np.testing.assert_allclose(head.trained_prior, 1 / 3, atol=0.04)
    assert head.deployed_prior[0] == pytest.approx(0.74, abs=0.06)


def test_loss_is_the_divergence_from_the_votes_up_to_a_constant() -> None:
    shares = torch.tensor([[0.7, 0.2, 0.1]])
    head = heads()[0]
    best = head_loss(head, shares.log(), shares)
    entropy = -(shares * shares.log()).sum()
    torch.testing.assert_close(best[0], entropy)
    assert head_loss(head, torch.zeros(1, 3), shares) > best


def only(labels: list[int], n: int = 60) -> LearningSet:
    truth = np.resize(labels, n)
    group = ControlTargets(
        SCHEMA.control("group"), np.eye(3, dtype=np.float32)[truth], np.ones(n, dtype=int)
    )
    images = pd.DataFrame({"image_id": np.arange(n).astype(str), "side": "train"})
    return LearningSet(SCHEMA, images, {"group": group})


def test_one_label_is_refused_with_its_name() -> None:
    with pytest.raises(TrainingRefused, match=r"group: votes for one label only \(Rod\)"):
        make_heads(only([1]), 10)


def test_a_label_with_one_image_is_learned_and_stays_a_number() -> None:
    rng = np.random.default_rng(0)
    data = only([0, 1])
    data.targets["group"].shares[0] = [0, 0, 1]
    data.images.loc[45:, "side"] = "validation"
    data.images["split_key"] = data.images["image_id"]
    inputs = torch.from_numpy(rng.normal(size=(60, 517)).astype(np.float32))
    made = fitted(data, inputs)
    calibrate_heads(made, data, inputs)
    assert made.head("group").n_per_label == (22.0, 22.0, 1.0)
    answered = made.head("group").answer(made.classify(inputs)["group"].detach().numpy())
    np.testing.assert_allclose(answered.sum(axis=1), 1)
    assert answered[0].argmax() == 2
    assert serve(made.heads, SCHEMA)[0][0].choose(answered).sum() == 60


def test_an_ordinal_control_gets_an_ordinal_head() -> None:
    data = only([0, 1, 2])
    assert not make_heads(data, 10)[0][0].ordinal
    scale = replace(SCHEMA.control("group"), ordinal=True)
    target = data.targets["group"]
    data.targets["group"] = ControlTargets(scale, target.shares, target.n_votes)
    (head,), _ = make_heads(data, 10)
    assert head.ordinal
    outputs = torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    near, far = head_loss(head, outputs, torch.tensor([[1.0, 0, 0]] * 2))
    assert near < far
    assert fitted(data, torch.randn(60, 517)).head("group").trained_prior


def test_no_votes_are_refused() -> None:
    data = only([0, 1])
    data.targets["group"].n_votes[:] = 0
    with pytest.raises(TrainingRefused, match="no votes on training images"):
        make_heads(data, 10)


def test_too_few_images_are_refused_with_both_numbers() -> None:
    with pytest.raises(TrainingRefused, match="6 training images with votes, needs 10"):
        make_heads(only([0, 1], n=6), 10)


def test_labels_on_held_out_images_alone_do_not_count() -> None:
    data = only([0] * 50 + [1] * 10)
    data.images.loc[50:, "side"] = "test"
    with pytest.raises(TrainingRefused, match="one label only"):
        make_heads(data, 10)


def test_the_choice_leans_to_what_is_rare_and_probabilities_do_not() -> None:
    head = replace(heads()[0], deployed_prior=(0.9, 0.09, 0.01))
    values = np.array([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]])
    chosen = {}
    for balance in (0.0, 0.5, 1.0):
        served = serve([replace(head, choice_balance=balance)], SCHEMA)[0][0]
        chosen[balance] = served.choose(values).argmax(axis=1).tolist()
        np.testing.assert_array_equal(served.narrow(values), values)
    assert chosen == {0.0: [0, 0], 0.5: [2, 0], 1.0: [2, 0]}


# A config that changed after training


def changed(old: str, new: str) -> LabelSchema:
    assert old in XML
    return LabelSchema.from_xml(XML.replace(old, new))


def test_all_heads_fit_their_own_schema() -> None:
    served, unfit = serve(heads(), SCHEMA)
    assert [s.head.control for s in served] == ["group", "flags", "diameter"]
    assert unfit == {"spot": "not learned yet"}


def test_a_label_that_is_gone_is_left_out_and_the_rest_sums_to_one() -> None:
    schema = changed('<Choice value="Ring"/>', "")
    served, unfit = serve(heads(), schema)
    group = served[0]
    assert group.labels == ("Disc", "Rod")
    np.testing.assert_allclose(group.narrow(np.array([[0.5, 0.25, 0.25]])), [[2 / 3, 1 / 3]])
    assert "group" not in unfit


def test_a_new_label_is_never_suggested_and_has_its_place() -> None:
    schema = changed('<Choice value="Rod"/>', '<Choice value="Star"/><Choice value="Rod"/>')
    group = serve(heads(), schema)[0][0]
    spread = group.spread(group.narrow(np.array([[0.5, 0.3, 0.2]])), schema.control("group").labels)
    np.testing.assert_allclose(spread, [[0.5, 0.0, 0.3, 0.2]])


def test_heads_that_do_not_fit_are_named() -> None:
    renamed = changed('name="flags"', 'name="marks"')
    served, unfit = serve(heads(), renamed)
    assert [s.head.control for s in served] == ["group", "diameter"]
    assert "no such control" in unfit["flags"]
    assert unfit["marks"] == "not learned yet"
    multiple = changed(
        'name="group" toName="image" choice="single"',
        'name="group" toName="image" choice="multiple"',
    )
    assert "now asks 'any of'" in serve(heads(), multiple)[1]["group"]


def test_a_number_in_another_unit_is_not_suggested() -> None:
    for unit in ("mm", ""):
        schema = changed('unit="px"', f'unit="{unit}"' if unit else "")
        served, unfit = serve(heads(), schema)
        assert "diameter" not in {s.head.control for s in served}
        assert f"now asks for {unit or 'no unit'}, the head learned px" in unfit["diameter"]


def test_a_head_remembers_the_unit_of_its_votes() -> None:
    data, _ = learning()
    made = {head.control: head.unit for head in make_heads(data, 10)[0]}
    assert made == {"group": None, "diameter": "px"}


def test_a_head_with_one_label_left_does_not_serve() -> None:
    one_left = replace(heads()[0], labels=("Disc", "Sphere", "Cone"))
    assert "no longer has the labels" in serve([one_left], SCHEMA)[1]["group"]

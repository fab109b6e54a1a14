"""Counts: their square roots are learned, and their intervals grow as they do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from label_studio_config.schema import LabelSchema
from label_studio_config.votes import read_votes
from ml_backend.calibrate_head import calibrate_head
from ml_backend.fit_heads import make_heads, set_priors, solve_path, standard_targets
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.split import SplitRule
from ml_backend.targets import learning_set, task_images
from simclr.encoder import Encoder

COUNTS = Head(
    "cells", "number", unit="count", root=True, offset=3.0, scale=0.5, lowest=0, highest=30
)


def learned(unit: str, numbers: list[float]) -> Head:
    """The head of a number control, as a training makes it from these votes."""
    xml = (
        f'<View><Image name="i" value="$image"/><Number name="n" toName="i" unit="{unit}"/></View>'
    )
    schema = LabelSchema.from_xml(xml)
    item = {"from_name": "n", "to_name": "i", "type": "number"}
    tasks = [
        {
            "id": row,
            "data": {"image": f"{row}.png", "image_id": str(row)},
            "annotations": [
                {"id": row, "completed_by": 1, "result": [item | {"value": {"number": number}}]}
            ],
        }
        for row, number in enumerate(numbers)
    ]
    rule = SplitRule("image", 1.0, 0.0)
    data = learning_set(schema, task_images(schema, tasks), read_votes(schema, tasks), rule)
    heads, _ = make_heads(data, 2)
    model = TraitModel(Encoder.create("resnet10t", image_size_px=32), heads, schema)
    set_priors(model, data, data.rows("train"), np.ones(len(numbers)))
    return model.head("n")


def test_roots_of_counts_are_learned_and_of_nothing_else() -> None:
    counts = learned("count", [1, 4, 9])
    assert (counts.root, counts.offset, counts.middle) == (True, 2, 4)
    np.testing.assert_allclose(standard_targets(counts, np.array([[4.0]])), 0, atol=1e-6)
    length = learned("um", [1, 4, 9])
    assert (length.root, length.middle) == (False, pytest.approx(14 / 3))
    assert not learned("count", [-1, 4, 9]).root


def test_an_answer_is_the_square_and_never_negative() -> None:
    outputs = np.array([[0.0], [2.0], [-6.0], [-20.0], [1000.0]])
    assert COUNTS.answer(outputs)[:, 0].tolist() == [9, 16, 0, 0, 33]
    numbers = np.array([0.0, 4.0, 25.0])
    np.testing.assert_allclose(COUNTS.answer(COUNTS.wanted_output(numbers)), numbers)
    assert Head.from_dict(COUNTS.as_dict()) == COUNTS
    record = COUNTS.as_dict()
    del record["root"]  # of an older version
    assert Head.from_dict(record).answer(np.zeros((1, 1)))[0, 0] == 3


def test_small_counts_are_told_better_by_their_roots() -> None:
    """Inputs that see a count as its parts do: each part a little uncertain."""
    rng = np.random.default_rng(0)
    truth = rng.geometric(0.13, size=1200).clip(2, 30).astype(float)
    parts = np.sqrt(truth)[:, None] + rng.normal(0, 0.25, size=(1200, 4))
    inputs = torch.from_numpy(parts - parts[:200].mean(axis=0)).float()
    errors = {}
    for root in (True, False):
        values = np.sqrt(truth[:200]) if root else truth[:200]
        head = Head("n", "number", root=root, offset=values.mean(), scale=values.std())
        wanted = standard_targets(head, truth[:200, None])
        solution = solve_path(head, inputs[:200], wanted, torch.ones(200), (1e-3,))[0]
        rows = torch.cat([inputs, torch.ones(1200, 1)], dim=1)
        errors[root] = np.abs(head.answer((rows @ solution).numpy())[:, 0] - truth)[200:]
    assert errors[True].mean() < 0.9 * errors[False].mean()


def test_few_images_are_enough_for_intervals_that_grow() -> None:
    rng = np.random.default_rng(1)
    truth = rng.geometric(0.13, size=4050).clip(1, 30).astype(float)
    outputs = COUNTS.wanted_output((np.sqrt(truth) + rng.normal(0, 0.3, size=4050)) ** 2)[:, None]
    head = calibrate_head(COUNTS, outputs[:50], truth[:50, None])
    assert head.half_widths(np.array([9.0])) == pytest.approx(head.half_width_95)
    assert head.half_widths(np.array([27.0])) == pytest.approx(2 * head.half_width_95)
    predicted = head.answer(outputs)[50:, 0]
    held = np.abs(predicted - truth[50:]) <= head.half_widths(predicted)
    assert 0.9 < held.mean() < 0.99
    assert held[truth[50:] > 14].mean() > 0.8
    alike = replace(head, error_slope=0.0)
    assert (np.abs(predicted - truth[50:]) <= alike.half_widths(predicted))[
        truth[50:] > 14
    ].mean() < held[truth[50:] > 14].mean()


def test_the_spread_of_counts_is_told_in_counts() -> None:
    alone = calibrate_head(COUNTS, np.zeros((1, 1)), np.array([[9.0]]))
    assert alone.sd == pytest.approx(3.0)  # the root's 0.5, where the root is 3
    assert alone.half_width_95 is None


def test_a_negative_vote_on_another_side_stops_nothing() -> None:
    assert np.isfinite(COUNTS.wanted_output(np.array([-1.0, 0.0, 4.0]))).all()


def test_intervals_of_rare_counts_stay_sensible() -> None:
    rare = replace(COUNTS, offset=0.1, half_width_95=2.0)
    rare = replace(rare, error_slope=rare.expected_slope)
    assert rare.half_widths(np.array([10.0])) < 20

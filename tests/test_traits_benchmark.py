"""The benchmark of counts and egg sacs: who is held out, and what its figures say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import traits, traits_images
from benchmarks.ndsb import remainder
from label_studio_config.results import number_range
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import read_votes
from ml_backend.split import SplitRule
from ml_backend.targets import LearningSet, learning_set, task_images

SCHEMA = LabelSchema.from_xml(traits_images.CONFIG)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return traits_images.phantoms(tmp_path_factory.mktemp("phantoms"), 40)


def learned_from(table: pd.DataFrame, values: dict) -> LearningSet:
    tasks = traits_images.tasks_of(table, values, SCHEMA)
    rule = SplitRule("image", 0.85, 0.15)
    return learning_set(SCHEMA, task_images(SCHEMA, tasks), read_votes(SCHEMA, tasks), rule)


def test_each_cell_has_a_name_and_is_found_again() -> None:
    cells = traits.cells()
    assert len({cell.name for cell in cells}) == len(cells)
    assert [traits.Cell.of(asdict(cell) | {"mae": 1.0}) for cell in cells] == cells


def test_the_config_asks_as_the_traits_config_does() -> None:
    whole = LabelSchema.from_xml(
        (Path(__file__).parents[1] / "label_studio_config/configs/traits.xml").read_text()
    )
    for name in (traits_images.COUNT, traits_images.EGG_SAC):
        ours, theirs = SCHEMA.control(name), whole.control(name)
        assert (ours.kind, ours.labels, ours.unit) == (theirs.kind, theirs.labels, theirs.unit)
        assert number_range(ours) == number_range(theirs)


def test_only_the_fourth_cruise_is_held_out(drawn: pd.DataFrame) -> None:
    cruises = drawn["image"].str.split("/").str[0].astype(int)
    assert (drawn["held_out"] == (cruises == traits_images.BLIND_CRUISE)).all()
    assert drawn["held_out"].sum() == 40
    assert drawn["image"].is_unique
    assert len(drawn) == 160


def test_counts_are_those_of_chains_that_can_be_counted(drawn: pd.DataFrame) -> None:
    counted = drawn.dropna(subset="cells")
    assert set(counted["group"]) == {"Diatom chain"}
    assert counted["cells"].between(2, 22).all()
    assert 0 < len(counted) < (drawn["group"] == "Diatom chain").sum()  # some are blurred


def test_what_is_held_out_is_blind_and_nothing_else_is(drawn: pd.DataFrame) -> None:
    counted = drawn.dropna(subset="cells")
    values = {row.image: {traits_images.COUNT: row.cells} for row in counted.itertuples()}
    data = learned_from(counted, values)
    blind = set(data.images["image_id"].iloc[data.rows("blind")])
    assert blind == set(counted["image"][counted["held_out"]])
    assert len(data.rows("test")) == 0
    target = data.targets[traits_images.COUNT].shares[:, 0]
    assert target.tolist() == counted["cells"].tolist()


def test_an_empty_cell_is_no_egg_sac_and_no_absence(tmp_path: Path) -> None:
    images = [f"{number}.jpg" for number in range(60)]
    said = (["present", "absent", ""] * 20)[:60]
    table = pd.DataFrame({"image": images, "egg_sac": said})
    table.assign(functional_group="Copepod", source_class="c").to_csv(
        tmp_path / "labels.csv", index=False
    )
    read = traits_images.egg_sacs(tmp_path).set_index("image")
    assert len(read) == 40
    for image, answer in zip(images, said, strict=True):
        assert (image in read.index) == bool(answer)
    assert read["held_out"].tolist() == [remainder(image) == 0 for image in read.index]
    data = learned_from(
        read.reset_index(), {image: {"egg_sac": row.egg_sac} for image, row in read.iterrows()}
    )
    assert len(data.rows("blind")) == read["held_out"].sum() > 0


def test_the_figures_of_counts() -> None:
    truth = np.array([2.0, 3.0, 8.0, 20.0])
    predicted = np.array([2.4, 3.0, 9.6, 15.6])
    figures = traits.count_figures(predicted, predicted - 2, predicted + 2, truth)
    assert figures["mae"] == pytest.approx((0 + 0 + 2 + 4) / 4)
    assert figures["mae_unrounded"] == pytest.approx((0.4 + 0 + 1.6 + 4.4) / 4)
    assert (figures["coverage"], figures["width"]) == (0.75, 4)
    assert figures["exact"] == 0.5
    longest = {"n": 1, "mae": 4.0, "coverage": 0.0, "width": pytest.approx(4)}
    assert figures["by_range"]["12-22"] == longest

"""The split: a pure function of the id, by sample where samples are known, blind apart."""

import pandas as pd
import pytest

from label_studio_config.schema import LabelSchema
from label_studio_config.votes import read_votes
from ml_backend.split import SplitError, SplitRule, assign_sides, choose_rule, settled_rule
from ml_backend.targets import learning_set, task_images

SAMPLES = [f"haul-{n:03d}" for n in range(60)]


def images(n: int, samples: list[str] | None = None, blind_every: int = 0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"image-{i}" for i in range(n)],
            "image": [f"/data/local-files/?d={i}.png" for i in range(n)],
            "sample_id": [samples[i % len(samples)] if samples else None for i in range(n)],
            "blind": [bool(blind_every) and i % blind_every == 0 for i in range(n)],
        }
    )


def test_an_image_never_changes_side_when_data_is_added() -> None:
    rule = choose_rule(SAMPLES)
    few, many = assign_sides(images(300, SAMPLES), rule), assign_sides(images(3000, SAMPLES), rule)
    assert list(few["side"]) == list(many["side"][:300])


def test_sides_are_known_for_ever() -> None:
    """Literal values: a change of the hash would mix held-out images into training."""
    rule = SplitRule()
    known = {
        "image-0": "train",
        "image-1": "train",
        "haul-001": "train",
        "image-6": "test",
        "image-12": "test",
        "haul-003": "test",
        "image-13": "validation",
        "image-16": "validation",
    }
    assert {key: rule.side(key) for key in known} == known


def test_shares_are_near_what_is_asked() -> None:
    shares = assign_sides(images(20_000), SplitRule(unit="image"))["side"].value_counts() / 20_000
    assert shares["train"] == pytest.approx(0.70, abs=0.02)
    assert shares["validation"] == pytest.approx(0.15, abs=0.02)
    assert shares["test"] == pytest.approx(0.15, abs=0.02)


def test_a_sample_is_on_one_side_only() -> None:
    sides = assign_sides(images(3000, SAMPLES), choose_rule(SAMPLES))
    assert (sides.groupby("sample_id")["side"].nunique() == 1).all()


def test_without_samples_the_image_is_the_unit() -> None:
    rule = choose_rule([None, float("nan"), ""])
    assert rule.unit == "image"
    assert assign_sides(images(500), rule)["side"].nunique() == 3


def test_one_sample_is_split_by_image_and_that_is_said() -> None:
    rule = choose_rule(["only"] * 500)
    assert rule.unit == "image"
    assert "1 sample" in rule.reason


@pytest.mark.parametrize("wanted", [(1, 1, 1), (2, 1, 1), (1, 1, 3), (9, 1, 2), (9, 2, 1)])
def test_a_side_needs_two_samples_and_all_together_five(wanted: tuple[int, int, int]) -> None:
    rule = choose_rule(samples_by_side(*wanted) * 20)
    assert rule.unit == "image"
    assert f"only {sum(wanted)} sample(s)" in rule.reason
    assert f"test would get {wanted[2]}" in rule.reason
    assert choose_rule(samples_by_side(2, 2, 2) * 20).unit == "sample"


def samples_by_side(train: int, validation: int, test: int) -> list[str]:
    """Names of that many samples on each side."""
    rule = SplitRule()
    chosen: list[str] = []
    for side, n in (("train", train), ("validation", validation), ("test", test)):
        chosen += [s for s in (f"tow-{i}" for i in range(500)) if rule.side(s) == side][:n]
    return chosen


def test_an_image_without_sample_is_its_own_unit() -> None:
    rule = SplitRule(unit="sample")
    assert rule.keys(["x", "y"], ["haul-1", None]) == ["haul-1", "y"]  # type: ignore[list-item]


def test_the_rule_is_kept_when_samples_become_known_later(tmp_path) -> None:
    first = settled_rule(tmp_path, ["only"] * 100)
    assert settled_rule(tmp_path, SAMPLES) == first


def test_a_broken_rule_file_is_refused(tmp_path) -> None:
    (tmp_path / "split.json").write_text('{"unit": "planet"}')
    with pytest.raises(SplitError, match="planet"):
        settled_rule(tmp_path, SAMPLES)
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(SplitError, match="Restore"):
        settled_rule(tmp_path, SAMPLES)


def test_blind_images_are_a_side_of_their_own() -> None:
    sides = assign_sides(images(400, SAMPLES, blind_every=4), choose_rule(SAMPLES))
    assert set(sides["side"][sides["blind"]]) == {"blind"}
    assert "blind" not in set(sides["side"][~sides["blind"]])


XML = """<View><Image name="image" value="$image"/>
<Choices name="group" toName="image"><Choice value="A"/><Choice value="B"/></Choices></View>"""


def task(number: int, label: str, **data: str) -> dict:
    chosen = {"from_name": "group", "to_name": "image", "type": "choices"}
    return {
        "id": number,
        "data": {"image": f"/data/local-files/?d={number}.png", "image_id": f"i{number}"} | data,
        "annotations": [
            {"id": number, "completed_by": 1, "result": [chosen | {"value": {"choices": [label]}}]}
        ],
    }


def test_blind_tasks_reach_no_side_that_learns() -> None:
    schema = LabelSchema.from_xml(XML)
    tasks = [task(n, "AB"[n % 2], blind="yes" if n % 5 == 0 else "no") for n in range(200)]
    # The same image once more, not marked blind: it stays blind.
    tasks.append(task(1000, "A", image_id="i0", blind="no"))
    data = learning_set(
        schema, task_images(schema, tasks), read_votes(schema, tasks), SplitRule(unit="image")
    )
    learning = data.images.iloc[data.rows("train", "validation", "test")]
    assert not learning["blind"].any()
    assert set(data.images.iloc[data.rows("blind")]["image_id"]) == {
        f"i{n}" for n in range(0, 200, 5)
    }
    assert len(learning) == 160


def test_the_fingerprint_follows_the_votes() -> None:
    schema = LabelSchema.from_xml(XML)

    def fingerprint(tasks: list[dict]) -> str:
        votes, rule = read_votes(schema, tasks), SplitRule(unit="image")
        return learning_set(schema, task_images(schema, tasks), votes, rule).fingerprint

    same = [task(n, "A") for n in range(10)]
    assert fingerprint(same) == fingerprint([task(n, "A") for n in range(10)])
    assert fingerprint(same) != fingerprint([task(n, "B" if n == 3 else "A") for n in range(10)])

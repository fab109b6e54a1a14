"""The labeling configs that we ship: what they ask, their keys, and whether Label Studio agrees."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest

from label_studio_config.project import CONFIGS_FOLDER
from label_studio_config.results import read_result, write_result
from label_studio_config.schema import LabelSchema

NDSB = Path(__file__).parents[2] / "shared" / "data" / "ndsb" / "labels.csv"
NAMES = ("frames", "functional_groups", "traits")
NEVER_OURS = frozenset("hu")
"""Label Studio: pan the image, unselect the region."""
KEYS_GIVEN_UNASKED = frozenset("1234567890qwetasdfgzxcvbyiopjklnm")
"""Label Studio gives the first free one of these to every choice without a key, hidden or not."""


def config(name: str) -> str:
    return (CONFIGS_FOLDER / f"{name}.xml").read_text(encoding="utf-8")


def keyed(name: str) -> dict[tuple[str, str], str]:
    """By control and label, its key."""
    keys = {}
    for control in ET.fromstring(config(name)).iter():
        for label in control.iter():
            if control.get("name") and label.tag in ("Choice", "Label") and label.get("hotkey"):
                keys[control.get("name", ""), label.get("value", "")] = label.get("hotkey", "")
    return keys


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def schema(name) -> LabelSchema:
    return LabelSchema.from_xml(config(name))


@pytest.fixture
def traits() -> LabelSchema:
    return LabelSchema.from_xml(config("traits"))


@pytest.fixture(scope="session")
def ndsb() -> pd.DataFrame:
    if not NDSB.exists():
        pytest.skip("shared/data/ndsb is not on this machine")
    return pd.read_csv(NDSB, dtype=str, keep_default_na=False)


def test_these_are_all_our_configs():
    assert sorted(path.stem for path in CONFIGS_FOLDER.glob("*.xml")) == sorted(NAMES)


def test_each_begins_with_a_description(name):
    first = re.search(r"<!--(.*?)-->", config(name), flags=re.DOTALL)
    assert first is not None
    assert 20 < len(" ".join(first.group(1).split())) < 200


def test_the_same_groups_in_each(traits):
    groups = traits.control("group").labels
    assert LabelSchema.from_xml(config("functional_groups")).control("group").labels == groups
    assert LabelSchema.from_xml(config("frames")).control("organisms").labels == groups


def test_every_functional_group_of_ndsb_is_there(ndsb, traits):
    assert set(ndsb["functional_group"]) <= set(traits.control("group").labels)


def test_every_trait_that_ndsb_states_can_be_written(ndsb, traits):
    stated = ["egg_sac", "antennae", "life_stage", "view"]
    stated += ["colony_form", "completeness", "snow_type"]
    rows = ndsb[["functional_group", *stated]].drop_duplicates().to_dict("records")
    assert len(rows) > 20
    for row in rows:
        values = {"group": row["functional_group"]} | {k: row[k] for k in stated if row[k]}
        answers = read_result(traits, write_result(traits, values))
        assert {k: answers[k].labels for k in answers} == {k: (v,) for k, v in values.items()}


def test_every_question_can_be_answered_with_not_assessable(schema):
    masked = {control.masks for control in schema.controls}
    for control in schema.controls:
        if control.kind in ("one of", "any of"):
            assert control.not_assessable == {"Not assessable"}, control.name
        if control.kind == "number":
            assert control.name in masked, f"{control.name} has no companion"


def test_present_has_an_absent(schema):
    for control in schema.controls:
        if "present" in control.labels:
            assert control.absent == {"absent"}, control.name


def test_companions_are_asked_together_with_their_number(traits):
    for control in traits.controls:
        if control.masks is not None:
            assert control.conditions == traits.control(control.masks).conditions


def test_conditions_name_labels_that_exist(schema):
    for control in schema.controls:
        for condition in control.conditions:
            assert condition.labels <= set(schema.control(condition.control).labels), control.name


def test_label_studio_does_not_trim_the_labels_of_a_condition(name):
    for view in ET.fromstring(config(name)).iter():
        for label in view.get("whenChoiceValue", "").split(","):
            assert label == label.strip()


def test_traits_appear_only_with_their_group(traits):
    always = [c.name for c in traits.controls if not c.conditions]
    assert always == ["group", "image_quality"]


def test_a_number_left_in_a_hidden_panel_is_no_answer(traits):
    values = {"group": "Copepod", "egg_sac": "present", "egg_count": 12}
    result = write_result(traits, values)
    assert read_result(traits, result)["egg_count"].number == 12
    changed = [item for item in result if item["from_name"] != "egg_sac"]
    changed[0]["value"] = {"choices": ["Medusa"]}
    assert set(read_result(traits, changed)) == {"group"}


def test_counts_have_a_unit_and_ordinals_are_marked(traits):
    assert all(c.unit == "count" for c in traits.controls if c.kind == "number")
    assert [c.name for c in traits.controls if c.ordinal] == ["gut_fullness", "damage"]


def test_vocabulary_ids_are_well_formed(schema):
    for control in schema.controls:
        for label, ids in control.vocabulary.items():
            if "aphia" in ids:
                assert re.fullmatch(r"[1-9]\d*", ids["aphia"]), label
                assert ids["taxon"], label
            assert re.fullmatch(r"SDN:S1[01]::S\d+", ids.get("nerc", "SDN:S11::S1")), label


def test_every_length_has_two_ends(traits):
    points = traits.control("landmarks").vocabulary.values()
    starts = {length for ids in points for length in ids.get("starts", "").split()}
    ends = {length for ids in points for length in ids.get("ends", "").split()}
    assert starts == ends == {"body_length", "prosome_length"}


def test_no_key_twice_and_none_of_label_studio(name):
    keys = list(keyed(name).values())
    assert len(keys) == len(set(keys))
    assert not NEVER_OURS & set(keys)
    selects_boxes = ET.fromstring(config(name)).find(".//Image[@selectionControl='false']") is None
    assert "v" not in keys or not selects_boxes


def test_no_key_answers_a_hidden_question(name):
    labels = [e for e in ET.fromstring(config(name)).iter() if e.tag in ("Choice", "Label")]
    all_have_one = all(label.get("hotkey") for label in labels)
    assert all_have_one or set(keyed(name).values()) >= KEYS_GIVEN_UNASKED


def test_a_group_has_the_same_key_in_each():
    keys = {label: key for (_, label), key in keyed("functional_groups").items()}
    for (control, label), key in [*keyed("traits").items(), *keyed("frames").items()]:
        if control in ("group", "organisms", "region_quality", "image_quality"):
            assert keys[label] == key or label == "Not assessable"


@pytest.mark.slow
def test_label_studio_takes_each_and_keeps_our_attributes(label_studio, name):
    answer = label_studio.request(
        "POST", "/api/projects/validate/", json={"label_config": config(name)}
    )
    assert answer.status_code == 204, answer.text
    made = label_studio.request(
        "POST", "/api/projects/", json={"title": f"Takes {name}", "label_config": config(name)}
    )
    assert made.status_code == 201, made.text
    kept = LabelSchema.from_xml(
        label_studio.get(f"/api/projects/{made.json()['id']}/")["label_config"]
    )
    sent = LabelSchema.from_xml(config(name))
    assert kept.fingerprint == sent.fingerprint
    assert [c.vocabulary for c in kept.controls] == [c.vocabulary for c in sent.controls]
    assert [c.attributes for c in kept.controls] == [c.attributes for c in sent.controls]


@pytest.mark.slow
def test_label_studio_takes_an_annotation_of_every_trait(label_studio, traits):
    made = label_studio.request(
        "POST", "/api/projects/", json={"title": "Every trait", "label_config": config("traits")}
    )
    project_id = made.json()["id"]
    for group in traits.control("group").labels:
        values: dict = {c.name: c.labels[0] for c in traits.trainable if c.kind == "one of"}
        values |= {c.name: 2 for c in traits.trainable if c.kind == "number"}
        values["gut_fullness"] = "2"
        result = write_result(traits, values | {"group": group})
        task = {
            "data": {"image": "/data/local-files/?d=a.png"},
            "annotations": [{"result": result}],
        }
        sent = label_studio.request("POST", f"/api/projects/{project_id}/import", json=[task])
        assert sent.status_code == 201, sent.text
    exported = label_studio.get(f"/api/projects/{project_id}/export?exportType=JSON")
    seen: set[str] = set()
    for task in exported:
        seen |= set(read_result(traits, task["annotations"][0]["result"]))
    assert seen == {control.name for control in traits.trainable}

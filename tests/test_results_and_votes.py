"""Result JSON to values and back, and what the annotators' values say together."""

import numpy as np
import pytest

from label_studio_config.results import (
    ResultError,
    read_novelty,
    read_probabilities,
    read_result,
    write_result,
)
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import WeightError, read_votes, vote_means, vote_shares
from tests.test_schema import TRAITS

SCHEMA = LabelSchema.from_xml(TRAITS)


def annotation(result, who=1, number=1, **more):
    return {"id": number, "completed_by": who, "result": result, "was_cancelled": False} | more


def task(*annotations, image_id="a", **data):
    data = {"image": "/data/local-files/?d=a.png", "image_id": image_id} | data
    return {"id": 7, "data": data, "annotations": list(annotations)}


def test_values_survive_the_round_trip():
    values = {
        "group": "Copepod",
        "egg_sac": "Present",
        "egg_sacs": 2.0,
        "quality": ("Sharp", "Cropped"),
        "taxon": "Crustacea / Copepoda",
    }
    result = write_result(SCHEMA, values)
    assert {item["type"] for item in result} == {"choices", "number", "taxonomy"}
    answers = read_result(SCHEMA, result)
    assert answers["group"].labels == ("Copepod",)
    assert answers["egg_sacs"].number == 2
    assert answers["quality"].labels == ("Sharp", "Cropped")
    assert answers["taxon"].labels == ("Crustacea / Copepoda",)


def test_what_is_not_asked_is_not_written():
    result = write_result(SCHEMA, {"group": "Diatom chain", "egg_sac": "Present", "egg_sacs": 2})
    assert [item["from_name"] for item in result] == ["group"]


def test_probabilities_and_novelty_sit_where_they_are_read():
    shares = {"group": {"Copepod": 0.7, "Diatom chain": 0.3}}
    result = write_result(SCHEMA, {"group": "Copepod"}, probabilities=shares, novelty=0.25)
    assert result[0]["score"] == 0.7
    assert read_probabilities(result) == shares
    assert read_novelty(result) == 0.25


def test_unknown_label_is_refused_both_ways():
    with pytest.raises(ResultError, match=r"'group' has no label 'Krill'.*Copepod"):
        write_result(SCHEMA, {"group": "Krill"})
    stored = write_result(SCHEMA, {"group": "Copepod"})
    stored[0]["value"]["choices"] = ["Krill"]
    with pytest.raises(ResultError, match="no label 'Krill'"):
        read_result(SCHEMA, stored)
    problems: list[str] = []
    assert read_result(SCHEMA, stored, problems)["group"].labels == ()
    assert len(problems) == 1


def test_numbers_keep_to_the_config():
    values = {"group": "Copepod", "egg_sac": "Present", "egg_sacs": 7.6}
    assert write_result(SCHEMA, values)[-1]["value"] == {"number": 4}


def test_geometry_keeps_percent_points():
    item = {
        "id": "k1",
        "from_name": "tips",
        "to_name": "image",
        "type": "keypointlabels",
        "original_width": 200,
        "original_height": 100,
        "value": {"x": 50, "y": 25, "width": 1, "keypointlabels": ["Anterior end"]},
    }
    region = read_result(SCHEMA, [item])["tips"].regions[0]
    assert region.points == ((50.0, 25.0),)
    assert (region.labels, region.original_width) == (("Anterior end",), 200)


def test_votes_keep_every_annotator_and_what_was_shown():
    copepod = write_result(SCHEMA, {"group": "Copepod"})
    diatom = write_result(SCHEMA, {"group": "Diatom chain"})
    shown = {"model_version": "v1", "result": copepod}
    tasks = [
        task(
            annotation(copepod, who=1, prediction=shown),
            annotation(diatom, who={"id": 2, "email": "b@x.org"}, number=2),
            annotation(diatom, who=3, number=3, was_cancelled=True),
            blind="yes",
        )
    ]
    votes = read_votes(SCHEMA, tasks)
    assert votes["annotator"].tolist() == ["1", "b@x.org"]
    assert votes["suggestion_shown"].tolist() == [True, False]
    assert votes["suggestion_version"].tolist() == ["v1", ""]
    assert votes["blind"].all()
    assert not read_votes(SCHEMA, tasks, suggestions_shown=False)["suggestion_shown"].any()
    shares, n_votes = vote_shares(SCHEMA.control("group"), votes, ["a", "elsewhere"])
    np.testing.assert_allclose(shares, [[0.5, 0.5], [0, 0]])
    assert n_votes.tolist() == [2, 0]


def test_the_newest_annotation_of_a_person_counts():
    old = annotation(write_result(SCHEMA, {"group": "Copepod"}), updated_at="2026-01-01")
    new = annotation(write_result(SCHEMA, {"group": "Diatom chain"}), updated_at="2026-01-02")
    votes = read_votes(SCHEMA, [task(new, old)])
    assert votes["labels"].tolist() == [("Diatom chain",)]


def test_not_assessable_masks_and_is_not_absent():
    values = {"group": "Copepod", "egg_sac": "Not assessable"}
    other = {
        "group": "Copepod",
        "egg_sac": "Present",
        "egg_sacs_assessable": "Not assessable",
    }
    votes = read_votes(
        SCHEMA,
        [
            task(annotation(write_result(SCHEMA, values))),
            task(annotation(write_result(SCHEMA, other)), image_id="b"),
        ],
    )
    _, egg_sac = vote_shares(SCHEMA.control("egg_sac"), votes, ["a", "b"])
    assert egg_sac.tolist() == [0, 1]
    means, counted = vote_means(SCHEMA.control("egg_sacs"), votes, ["a", "b"])
    assert counted.tolist() == [0, 0]
    assert means.tolist() == [0, 0]


def test_a_malformed_region_is_named_and_left_out():
    good = {
        "id": "k1",
        "from_name": "tips",
        "type": "keypointlabels",
        "value": {"x": 50, "y": 25, "keypointlabels": ["Anterior end"]},
    }
    bad = good | {"id": "k2", "value": {"x": 50, "keypointlabels": ["Anterior end"]}}
    bad["value"] |= {"height": 3}
    problems: list[str] = []
    assert len(read_result(SCHEMA, [good, bad], problems)["tips"].regions) == 1
    assert "'tips': a region is malformed" in problems[0]
    with pytest.raises(ResultError, match="malformed"):
        read_result(SCHEMA, [bad])


def test_a_number_whose_parent_was_taken_back_is_no_answer():
    values = {"group": "Copepod", "egg_sac": "Present", "egg_sacs": 2}
    result = [r for r in write_result(SCHEMA, values) if r["from_name"] != "egg_sac"]
    assert set(read_result(SCHEMA, result)) == {"group"}


def test_an_annotation_made_of_a_prediction_was_shown_one():
    copepod = write_result(SCHEMA, {"group": "Copepod"})
    made = task(annotation(copepod, parent_prediction=5))
    made["predictions"] = [{"id": 5, "model_version": "v2", "result": copepod}]
    votes = read_votes(SCHEMA, [made])
    assert votes["suggestion_shown"].tolist() == [True]
    assert votes["suggestion_version"].tolist() == ["v2"]


@pytest.mark.parametrize(
    ("control", "kind", "value"),
    [
        ("group", "choices", [["Copepod"]]),
        ("taxon", "taxonomy", [None]),
        ("taxon", "taxonomy", ["Crustacea", 3]),
    ],
)
def test_values_of_the_wrong_shape_are_problems(control, kind, value):
    item = {"from_name": control, "to_name": "image", "type": kind, "value": {kind: value}}
    problems: list[str] = []
    read_result(SCHEMA, [item, "no item"], problems)
    assert len(problems) >= 2
    assert read_result(SCHEMA, "nonsense", problems) == {}


def judged(*said, image_id="a", control="group"):
    """Tasks of one image, one a judgement (who, label)."""
    return [
        task(annotation(write_result(SCHEMA, {control: label}), who, n), image_id=image_id)
        | {"id": n}
        for n, (who, label) in enumerate(said)
    ]


def test_annotators_weigh_as_they_are_told():
    tasks = judged((1, "Copepod"), (2, "Diatom chain"), (3, "Diatom chain"))
    votes, group = read_votes(SCHEMA, tasks), SCHEMA.control("group")
    shares, n_votes = vote_shares(group, votes, ["a"], {"1": 2})
    np.testing.assert_allclose(shares, [[0.5, 0.5]])
    assert n_votes.tolist() == [3]
    shares, n_votes = vote_shares(group, votes, ["a"], {"2": 0, "3": 0.5})
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3]])
    assert n_votes.tolist() == [2]
    shares, n_votes = vote_shares(group, votes, ["a"], {"1": 0, "2": 0, "3": 0})
    np.testing.assert_allclose(shares, 0)
    assert n_votes.tolist() == [0]


def test_numbers_are_weighted_too():
    values = {"group": "Copepod", "egg_sac": "Present"}
    tasks = [
        task(annotation(write_result(SCHEMA, values | {"egg_sacs": n}), who))
        for who, n in ((1, 1), (2, 2), (2, 4))
    ]
    votes, sacs = read_votes(SCHEMA, tasks), SCHEMA.control("egg_sacs")
    means, n_votes = vote_means(sacs, votes, ["a", "b"])
    np.testing.assert_allclose(means, [2, 0])  # 2's own mean is 3
    assert n_votes.tolist() == [2, 0]
    np.testing.assert_allclose(vote_means(sacs, votes, ["a"], {"1": 3})[0], [1.5])
    assert vote_means(sacs, votes, ["a"], {"1": 0})[1].tolist() == [1]


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf"), "much", None])
def test_a_weight_that_is_none_is_refused_by_name(weight):
    votes = read_votes(SCHEMA, judged((1, "Copepod")))
    with pytest.raises(WeightError, match=r"annotator 'ann@x.org' has the weight"):
        vote_shares(SCHEMA.control("group"), votes, ["a"], {"ann@x.org": weight})


def test_who_contradicts_himself_has_one_vote():
    tasks = judged((1, "Copepod"), (1, "Diatom chain"), (1, "Copepod"), (2, "Diatom chain"))
    votes = read_votes(SCHEMA, tasks)
    assert len(votes) == 4
    shares, n_votes = vote_shares(SCHEMA.control("group"), votes, ["a"])
    np.testing.assert_allclose(shares, [[(2 / 3) / 2, (1 / 3 + 1) / 2]])
    assert n_votes.tolist() == [2]


def test_a_number_that_is_none_is_a_problem():
    sacs = {"from_name": "egg_sacs", "to_name": "image", "type": "number"}
    for raw in (float("nan"), float("inf"), "3", True):
        problems: list[str] = []
        assert read_result(SCHEMA, [sacs | {"value": {"number": raw}}], problems) == {}
        assert "'egg_sacs'" in problems[0]
        assert "is not a number" in problems[0]


def test_a_control_that_nobody_answered_has_no_votes():
    for votes in (read_votes(SCHEMA, []), read_votes(SCHEMA, judged((1, "Copepod")))):
        shares, n_votes = vote_shares(SCHEMA.control("quality"), votes, ["a", "b"])
        assert shares.shape == (2, len(SCHEMA.control("quality").labels))
        assert n_votes.tolist() == [0, 0]
        assert vote_means(SCHEMA.control("egg_sacs"), votes, ["a"])[1].tolist() == [0]

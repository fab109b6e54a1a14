"""Agreement of annotators, against published figures and cases whose answer is known."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from label_studio_config.agreement import (
    agreement,
    changed_answers,
    changed_notes,
    self_agreement,
    self_agreement_notes,
)
from label_studio_config.schema import LabelSchema
from tests.trait_fixtures import item

SCHEMA = LabelSchema.from_xml("""
<View>
  <Image name="image" value="$image"/>
  <Choices name="group" toName="image">
    <Choice value="1"/><Choice value="2"/><Choice value="3"/><Choice value="4"/><Choice value="5"/>
    <Choice value="Cannot tell" role="not_assessable"/>
  </Choices>
  <Choices name="step" toName="image" ordinal="true">
    <Choice value="1"/><Choice value="2"/><Choice value="3"/><Choice value="4"/><Choice value="5"/>
  </Choices>
  <Choices name="flags" toName="image" choice="multiple">
    <Choice value="dark"/><Choice value="noisy"/><Choice value="cropped"/>
  </Choices>
  <Number name="size" toName="image" unit="px"/>
</View>
""")

PUBLISHED = """
A 1 2 3 3 2 1 4 1 2 . . .
B 1 2 3 3 2 2 4 1 2 5 . 3
C . 3 3 3 2 3 4 2 2 5 1 .
D 1 2 3 3 2 4 4 1 2 5 1 .
"""
"""Krippendorff 2011, Computing Krippendorff's alpha-reliability, example C: four observers, twelve
units; alpha is .743 nominal, .815 ordinal and .849 interval."""


def vote(control: str, image: int, who: str, said: object = (), assessable: bool = True) -> dict:
    number = float(said) if control == "size" else math.nan  # type: ignore[arg-type]
    labels = () if control == "size" else said if isinstance(said, tuple) else (str(said),)
    return {
        "control": control,
        "image_id": str(image),
        "annotator": who,
        "labels": labels,
        "number": number,
        "assessable": assessable,
        "blind": False,
    }


def table(*votes: dict) -> pd.DataFrame:
    return pd.DataFrame(votes, columns=list(vote("group", 0, "A", "1")))


def published(control: str) -> pd.DataFrame:
    rows = [line.split() for line in PUBLISHED.strip().splitlines()]
    return table(
        *(
            vote(control, image, who, said)
            for who, *values in rows
            for image, said in enumerate(values)
            if said != "."
        )
    )


@pytest.mark.parametrize(
    ("control", "level", "alpha"),
    [("group", "nominal", 0.743), ("step", "ordinal", 0.815), ("size", "interval", 0.849)],
)
def test_alpha_is_the_published_one(control: str, level: str, alpha: float) -> None:
    found = agreement(SCHEMA, published(control))[control]
    assert found["alpha"] == pytest.approx(alpha, abs=5e-4)
    assert found["level"] == level
    # The last unit was seen by one observer only.
    assert (found["n_images"], found["n_annotators"]) == (11, 4)


def test_labels_against_the_rest_by_hand() -> None:
    """Two persons, four images; "1" against the rest: D_o = 2/8, D_e = 2 · 3 · 5 / (8 · 7)."""
    given = zip(range(4), "1123", "1223", strict=True)
    votes = table(*(vote("group", i, w, s) for i, *said in given for w, s in zip("AB", said)))  # noqa: B905
    found = agreement(SCHEMA, votes)["group"]
    assert found["per_label"]["1"] == pytest.approx(1 - (2 / 8) / (2 * 3 * 5 / 56))
    assert found["per_label"]["3"] == pytest.approx(1.0)
    assert found["per_label"]["4"] is None  # nobody ever gave it
    assert found["confused"] == [{"labels": ["1", "2"], "n_images": 1, "share": 0.25}]


def test_any_of_is_the_mean_over_labels_and_confuses_only_what_replaces() -> None:
    votes = table(
        vote("flags", 0, "A", ("dark", "noisy")),
        vote("flags", 0, "B", ("dark",)),  # left one out: no confusion
        vote("flags", 1, "A", ("noisy",)),
        vote("flags", 1, "B", ("cropped",)),
        vote("flags", 2, "A", ("dark",)),
        vote("flags", 2, "B", ("dark",)),
    )
    found = agreement(SCHEMA, votes)["flags"]
    alphas = [found["per_label"][label] for label in ("dark", "noisy", "cropped")]
    assert alphas[0] == pytest.approx(1.0)
    assert found["alpha"] == pytest.approx(np.mean(alphas))
    assert [pair["labels"] for pair in found["confused"]] == [["noisy", "cropped"]]


def test_where_alpha_is_undefined_it_is_none() -> None:
    votes = table(
        vote("group", 0, "A", "1"),
        vote("group", 0, "B", "2"),  # the only image of two persons
        vote("group", 1, "A", "1"),
        vote("step", 0, "A", "1"),
        vote("step", 0, "B", "1"),
        vote("step", 1, "A", "1"),
        vote("step", 1, "B", "1"),  # never anything else
        vote("size", 0, "A", math.nan),
        vote("size", 0, "B", 2),
    )
    found = agreement(SCHEMA, votes)
    assert {name: entry["alpha"] for name, entry in found.items()} == dict.fromkeys(found)
    assert [entry["n_images"] for entry in found.values()] == [1, 2, 0, 0]


def test_no_votes_at_all_and_a_control_that_nobody_answered() -> None:
    for votes in (table(), published("group")):
        found = agreement(SCHEMA, votes)["flags"]
        assert (found["alpha"], found["n_images"], found["confused"]) == (None, 0, [])


def test_who_could_not_assess_it_does_not_count() -> None:
    votes = table(
        vote("group", 0, "A", "1"), vote("group", 0, "B", ("Cannot tell",), assessable=False)
    )
    assert agreement(SCHEMA, votes)["group"]["n_images"] == 0


def test_confused_pairs_are_the_ten_most_frequent() -> None:
    pairs = [(a, b) for a in "12345" for b in "12345" if a < b] * 2 + [("4", "5"), ("2", "5")] * 3
    votes = [
        vote("group", i, w, said)
        for i, p in enumerate(pairs)
        for w, said in zip("AB", p)  # noqa: B905
    ]
    confused = agreement(SCHEMA, table(*votes))["group"]["confused"]
    assert len(confused) == 10
    assert [entry["labels"] for entry in confused[:3]] == [["2", "5"], ["4", "5"], ["1", "2"]]
    assert [entry["n_images"] for entry in confused[:3]] == [5, 5, 2]


def test_many_numbers_need_no_endless_table() -> None:
    truth = np.random.default_rng(0).normal(size=5000) * 10
    votes = [
        vote("size", i, w, x + d) for i, x in enumerate(truth) for w, d in (("A", 0), ("B", 1))
    ]
    found = agreement(SCHEMA, table(*votes))["size"]
    assert found["n_images"] == 5000
    assert found["alpha"] == pytest.approx(1 - 1 / 200, abs=0.004)


def test_who_contradicts_himself_is_counted_and_named() -> None:
    votes = table(
        vote("group", 0, "ann@x.org", "1"),
        vote("group", 0, "ann@x.org", "2"),
        vote("group", 1, "ann@x.org", "1"),
        vote("group", 1, "ann@x.org", "1"),
        vote("size", 1, "bob@x.org", 3),
        vote("size", 1, "bob@x.org", 3),
        vote("group", 1, "bob@x.org", "1"),
    )
    found = self_agreement(votes)
    assert found == {
        "repeated": 3,
        "same": 2,
        "share": pytest.approx(2 / 3),
        "annotators": {
            "ann@x.org": {"repeated": 2, "same": 1},
            "bob@x.org": {"repeated": 1, "same": 1},
        },
    }
    (note,) = self_agreement_notes(found)
    assert "of 3 answers" in note
    assert "1 differ (ann@x.org 1)" in note
    assert self_agreement_notes(self_agreement(table())) == []


def test_who_contradicts_himself_within_a_task_is_counted_and_named() -> None:
    bob = {"completed_by": {"id": 2, "email": "bob@x.org"}}
    tasks = [
        {"annotations": [annotation("1", "dark"), annotation("2")]},
        {"annotations": [annotation("1"), annotation("1", "dark", "noisy")]},
        {"annotations": [annotation("1"), annotation("2", was_cancelled=True)]},
        {"annotations": [annotation("1"), annotation("2", **bob)]},
        {
            "annotations": [
                annotation("1", "dark", "noisy", **bob),
                annotation("Cannot tell", "noisy", "dark", **bob),
            ]
        },
        {"annotations": []},
    ]
    found = changed_answers(SCHEMA, tasks)
    assert found == {"1": 1, "bob@x.org": 1}
    (note,) = changed_notes(found)
    assert "newest annotation counts" in note
    assert "2 answers (1 1, bob@x.org 1)" in note
    assert changed_notes(changed_answers(SCHEMA, tasks[1:4])) == []


def annotation(group: str, *flags: str, **more: Any) -> dict[str, Any]:
    result = [item("group", "choices", [group])]
    if flags:
        result.append(item("flags", "choices", list(flags)))
    return {"id": 1, "completed_by": 1, "result": result} | more

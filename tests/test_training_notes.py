"""What a training tells of votes that taught it little, or that did not count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from label_studio_config.schema import LabelSchema
from ml_backend.record import MOST_NAMED
from ml_backend.registry import Registry
from ml_backend.report import TrainingReport
from ml_backend.split import SplitRule
from ml_backend.train import train
from tests.few_labels import HEADS_ONLY, small_encoder
from tests.trait_fixtures import XML, item, make_tasks, resolver

NONE = '<Choice value="noisy"/><Choice value="neither" role="absent"/>'
WITH_NONE = XML.replace('<Choice value="noisy"/>', NONE)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return small_encoder(tmp_path / "encoder")


@pytest.fixture
def tasks(tmp_path: Path) -> list[dict[str, Any]]:
    """Eighty drawn images in the folder `images`, judged by person 0."""
    (tmp_path / "images").mkdir()
    return make_tasks(tmp_path / "images", 80)


def learn(
    tmp_path: Path, tasks: list[dict[str, Any]], encoder: Path, xml: str = XML
) -> TrainingReport:
    return train(
        tasks,
        LabelSchema.from_xml(xml),
        resolve_image=resolver(tmp_path / "images"),
        registry=Registry(tmp_path / "p"),
        encoder=encoder,
        settings=HEADS_ONLY,
    )


def notes_with(report: TrainingReport, text: str) -> list[str]:
    """Those that say so; the card and the page say them too."""
    found = [note for note in report.record["notes"] if text in note]
    for name in ("README.md", "report.html"):
        said = (report.version.folder / name).read_text(encoding="utf-8")
        assert all(note in said.replace("&#34;", '"') for note in found)
    return found


def taught(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tasks whose images teach."""
    rule = SplitRule(unit="image")
    return [task for task in tasks if rule.side(task["data"]["image_id"]) == "train"]


def result_of(task: dict[str, Any]) -> list[dict[str, Any]]:
    return task["annotations"][0]["result"]


def test_who_contradicts_himself_within_a_task(
    tmp_path: Path, tasks: list[dict[str, Any]], encoder: Path
) -> None:
    for task in tasks[:3]:
        again = json.loads(json.dumps(task["annotations"][0]))
        again["id"] += 1
        task["annotations"].append(again)
    for task in tasks[:2]:
        said = result_of(task)[0]["value"]["choices"]
        task["annotations"][1]["result"][0] = item(
            "group", "choices", ["Rod" if said != ["Rod"] else "Ring"]
        )
    report = learn(tmp_path, tasks, encoder)
    assert report.record["changed_answers"] == {"0": 2}
    (note,) = notes_with(report, "newest annotation counts")
    assert "contradicts an earlier one in 2 answers (0 2)" in note


def test_labels_with_a_single_image(
    tmp_path: Path, tasks: list[dict[str, Any]], encoder: Path
) -> None:
    """Ten labels on an image each, and one on two images."""
    names = [f"species {number}" for number in range(11)]
    choices = "".join(f'<Choice value="{name}"/>' for name in names)
    xml = XML.replace('<Choice value="Ring"/>', f'<Choice value="Ring"/>{choices}')
    for name, task in zip([names[-1], *names], taught(tasks), strict=False):
        result_of(task)[0] = item("group", "choices", [name])
    (note,) = notes_with(learn(tmp_path, tasks, encoder, xml), "a single training image")
    assert note == (
        f"group: a single training image for {', '.join(names[:MOST_NAMED])} and "
        f"{10 - MOST_NAMED} more: annotate more"
    )


@pytest.mark.parametrize(
    ("xml", "answers", "remedy"),
    [
        (XML, (), None),
        (XML, ("dark", "noisy"), 'add a label with role="absent" to the config'),
        (WITH_NONE, ("dark", "noisy"), "choose neither where none of the others is"),
        (WITH_NONE, ("dark", "neither"), None),
    ],
    ids=["never answered", "cannot be said", "nobody said so", "said"],
)
def test_a_question_with_several_labels_that_nobody_answered_with_none(
    tmp_path: Path,
    tasks: list[dict[str, Any]],
    encoder: Path,
    xml: str,
    answers: tuple[str, ...],
    remedy: str | None,
) -> None:
    """What is left open is no vote: only a label of its own says that none is there."""
    for number, task in enumerate(taught(tasks)[:30] if answers else []):
        result_of(task).append(item("flags", "choices", [answers[number % 2]]))
    found = notes_with(learn(tmp_path, tasks, encoder, xml), "none of its labels")
    if remedy is None:
        assert found == []
    else:
        (note,) = found
        assert note.startswith("flags: no training image says that none")
        assert remedy in note

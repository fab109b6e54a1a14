"""The gallery's filters, alone and together, against what a plain loop over all images finds."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from label_studio_config.results import write_result
from tests.gallery_fixtures import VERSION, GalleryForTests, crop_rows, new_gallery

__all__ = ["new_gallery"]

pytestmark = pytest.mark.slow

COUNT, QUERIES = 60, 70
LABELS = ("Copepod", "Detritus", "Not assessable")


@dataclass
class Image:
    """What is known of one image; `answers` by person."""

    row: dict[str, Any]
    task: int = 0
    label: str | None = None
    confidence: float = 0.0
    novelty: float | None = None
    answers: dict[int, str] = field(default_factory=dict)


@dataclass
class Known:
    """A project and all that is true of it, as one person may know it."""

    gallery: GalleryForTests
    images: list[Image]
    me: int
    votes: int

    def told(self, image: Image) -> dict[int, str]:
        """The answers that this person may know."""
        hidden = self.votes > 1 and self.me not in image.answers
        return {} if hidden else image.answers

    def state(self, image: Image) -> str:
        told = self.told(image)
        if not told:
            return "open" if image.label is None else "suggested"
        if len(set(told.values())) > 1:
            return "conflicting"
        if self.me not in told:
            return "others"
        return "accepted" if told[self.me] == image.label else "mine"

    def passes(self, image: Image, asked: dict[str, Any]) -> bool:
        row, suggested = image.row, asked.get("suggested", "1")
        told = self.told(image)
        if "annotator" in asked:
            told = {who: said for who, said in told.items() if who == asked["annotator"]}
        figures = {
            "confidence": None if image.label is None else image.confidence,
            "novelty": None if image.label is None else image.novelty,
            "depth": row["depth_m"],
        }
        return (
            (suggested == "any" or (suggested == "1") == (image.label is not None))
            and asked.get("label", image.label) == image.label
            and all(within(value, asked, name) for name, value in figures.items())
            and ("state" not in asked or self.state(image) in asked["state"])
            and ("annotator" not in asked or bool(told))
            and ("answered" not in asked or asked["answered"] in told.values())
            and asked.get("sample", row["sample_id"]) == row["sample_id"]
            and asked.get("captured_from", "") <= row["captured_at"]
            and row["captured_at"][:10] <= asked.get("captured_to", "9999")
            and any(asked.get("text", "") in str(value).lower() for value in row.values())
        )

    def expected(self, asked: dict[str, Any]) -> list[int]:
        """Positions of the images that pass, in the order that is asked for."""
        found = [i for i, image in enumerate(self.images) if self.passes(image, asked)]
        order = asked["order"]
        if asked.get("suggested") in ("0", "any") or order == "task":
            return found
        unknown = -1.0
        if order == "novel":
            return sorted(found, key=lambda i: (self.images[i].novelty or unknown, i), reverse=True)
        return sorted(
            found, key=lambda i: (self.images[i].confidence, i), reverse=order == "certain"
        )


def within(value: float | None, asked: dict[str, Any], name: str) -> bool:
    least, most = asked.get(f"{name}_from"), asked.get(f"{name}_to")
    if least is None and most is None:
        return True
    if value is None:
        return False
    return (least is None or value >= least) and (most is None or value <= most)


def filled(gallery: GalleryForTests, votes: int) -> Known:
    """Suggestions for most images, answers of three people for some; the last images are blind."""
    chance = random.Random(votes)
    images = [Image(row) for row in crop_rows(gallery.server, COUNT)]
    for i, image in enumerate(images):
        image.row |= {"lat": round(54 + i / 50, 2), "depth_m": round(chance.uniform(0, 60), 1)}
        image.row["blind"] = "yes" if i >= COUNT - 4 else "no"
        if i < COUNT - 4 and chance.random() < 0.8:
            image.label = chance.choice(LABELS[:2])
            image.confidence = round(chance.uniform(0.2, 1), 2)  # some are equally certain
            image.novelty = round(chance.random() + 0.1, 1) if chance.random() < 0.8 else None
    gallery.load([image.row for image in images])
    said = []
    for image, task in zip(images, gallery.tasks, strict=True):
        image.task = task
        if image.label is not None:
            shares = {"group": {image.label: image.confidence}}
            result = write_result(
                gallery.project.schema,
                {"group": image.label},
                probabilities=shares,
                novelty=image.novelty,
            )
            one = {"task": task, "result": result, "score": image.confidence}
            said.append({**one, "model_version": VERSION})
    path = f"/api/planktrait/projects/{gallery.project.id}"
    gallery.api.post(f"{path}/suggestions", said)
    gallery.api.post(f"{path}/model-version", {"model_version": VERSION})
    me = gallery.get("gallery")["user"]["id"]
    for person in (None, gallery.person("anna"), gallery.person("ben")):
        for image in images:
            if chance.random() < 0.3:
                agrees = image.label is not None and chance.random() < 0.6
                label = image.label if agrees else chance.choice(LABELS)
                assert label is not None
                gallery.annotate(image.task, {"group": label}, person)
                image.answers[me if person is None else person.id] = label
    return Known(gallery, images, me, votes)


def query(chance: random.Random, known: Known) -> dict[str, Any]:
    """A few filters at once, each with a value that some images have."""
    image = chance.choice(known.images)
    people = sorted({who for one in known.images for who in one.answers})
    states = ("suggested", "open", "accepted", "mine", "others", "conflicting")
    low, high = sorted(round(chance.uniform(0.2, 1), 2) for _ in range(2))
    few, many = sorted(round(chance.uniform(0, 1.1), 1) for _ in range(2))
    shallow, deep = sorted(round(chance.uniform(0, 60), 1) for _ in range(2))
    first, last = sorted(f"2014-06-{chance.randint(1, 9):02d}" for _ in range(2))
    choices: list[dict[str, Any]] = [
        {"label": chance.choice(LABELS[:2])},
        {"confidence_from": low},
        {"confidence_from": low, "confidence_to": high},
        {"novelty_from": few},
        {"novelty_to": many},
        {"novelty_from": few, "novelty_to": many},
        {"depth_from": shallow},
        {"depth_from": shallow, "depth_to": deep},
        {"captured_from": first},
        {"captured_from": first, "captured_to": last},
        {"captured_to": last},
        {"sample": image.row["sample_id"]},
        {"state": chance.sample(states, chance.randint(1, 3))},
        {"state": [chance.choice(states)]},
        {"annotator": chance.choice(people)},
        {"answered": chance.choice(LABELS)},
        {"text": chance.choice(["crop-00", "haul-1", str(image.row["lat"]), "54.1"])},
        {"text": str(image.row["depth_m"])},
    ]
    asked: dict[str, Any] = {"order": chance.choice(("certain", "uncertain", "novel", "task"))}
    asked |= chance.choice(({}, {}, {"suggested": "0"}, {"suggested": "any"}))
    for one in chance.sample(choices, chance.randint(1, 4)):
        asked |= one
    if "suggested" in asked:
        asked.pop("label", None)
        asked["order"] = "task"
    return asked


@pytest.mark.parametrize("votes", [1, 2])
def test_any_filters_together_find_what_a_plain_loop_finds(new_gallery, votes):
    gallery = new_gallery(0, votes=votes)
    known = filled(gallery, votes)
    chance = random.Random(votes)
    seen: set[str] = set()
    found_any = 0
    for _ in range(QUERIES):
        asked = query(chance, known)
        expected = known.expected(asked)
        assert gallery.on_page(limit=7, **asked) == expected, asked
        counted = gallery.get("gallery/labels", **asked)  # with a suggestion and without
        every = known.expected({**asked, "suggested": "any"} if "label" not in asked else asked)
        labels = [known.images[i].label for i in every]
        if "label" not in asked:
            assert counted["open"] == labels.count(None), asked
        assert {one["label"]: one["count"] for one in counted["labels"]} == {
            label: labels.count(label) for label in labels if label is not None
        }, asked
        found_any += bool(expected)
        seen |= asked.keys()
    assert found_any > QUERIES / 4
    assert seen >= {"novelty_from", "novelty_to", "captured_to", "annotator", "answered", "state"}


def test_few_corrections_are_found_among_many_accepted(new_gallery):
    """At once, not by walking along all that the person has answered; what is found is the same."""
    gallery = new_gallery(24)
    tasks = gallery.tasks
    gallery.suggest({task: ("Copepod", 0.9 - i / 100) for i, task in enumerate(tasks)})
    gallery.accept(tasks[:16])
    gallery.judge([{"task": task, "label": "Detritus"} for task in tasks[16:19]])
    told = gallery.run(
        "import json\n"
        "from projects.models import Project\n"
        "from label_studio_config.plugin import gallery_parts\n"
        "from label_studio_config.plugin.gallery_filters import Filters, PageAsked\n"
        "from label_studio_config.plugin.gallery_query import places\n"
        "from label_studio_config.plugin.shown_tasks import view_for\n"
        f"project = Project.objects.get(id={gallery.project.id})\n"
        "view = view_for(project, project.created_by_id, None)\n"
        "for states in (['mine'], ['accepted'], ['accepted', 'mine']):\n"
        "    for most in (0, 5, 100):\n"
        "        gallery_parts.FEW = most\n"
        "        filters = Filters(states=frozenset(states))\n"
        "        found = [place.task_id for place in places(view, PageAsked(filters))]\n"
        "        few = gallery_parts.few(view, filters)\n"
        "        print(json.dumps([few and sorted(few), found]))\n"
    )
    answers = [json.loads(line) for line in told.splitlines()]
    mine, accepted, both = tasks[16:19], tasks[:16], tasks[:19]
    assert [few for few, _ in answers] == [None, mine, mine, None, None, accepted, None, None, both]
    assert [found for _, found in answers] == [mine] * 3 + [accepted] * 3 + [both] * 3


def test_the_answered_label_gives_no_hidden_answer_away(new_gallery):
    gallery = new_gallery(4, votes=2)
    anna = gallery.person("anna")
    for task in gallery.tasks[:3]:
        gallery.annotate(task, {"group": "Copepod"}, anna)
    where = {"suggested": "any", "answered": "Copepod", "order": "task"}
    assert gallery.on_page(**where) == []
    assert gallery.on_page(anna, **where) == [0, 1, 2]
    gallery.annotate(gallery.tasks[1], {"group": "Detritus"})
    assert gallery.on_page(**where) == [1]
    assert gallery.on_page(**{**where, "answered": "Detritus"}) == [1]
    assert gallery.on_page(**where, annotator=anna.id) == [1]
    assert gallery.on_page(**{**where, "answered": "Detritus"}, annotator=anna.id) == []
    assert gallery.get("gallery/labels", **where) == {"labels": [], "open": 1}


def test_a_project_read_by_an_older_version_is_read_anew(new_gallery):
    gallery = new_gallery(0)
    (row, *_) = rows = crop_rows(gallery.server, 3)
    row |= {"lat": 54.18, "depth_m": 12.5}
    gallery.load(rows)
    gallery.get("gallery")
    assert gallery.on_page(suggested=0, text="54.18") == [0]
    # As they were left by a version that did not read decimals.
    gallery.run(
        "from label_studio_config.plugin.models import CropText, IndexState\n"
        f"state = IndexState.objects.get(project_id={gallery.project.id})\n"
        "state.questions = '[' + state.questions.split(', ', 1)[1]; state.save()\n"
        f"CropText.objects.filter(project_id={gallery.project.id}).update(text='crop')\n"
    )
    assert gallery.on_page(suggested=0, text="54.18") == [0]
    assert gallery.on_page(suggested=0, text="12.5") == [0]

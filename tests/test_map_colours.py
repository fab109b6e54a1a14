"""What the points of the map are coloured by, at its address: labels, confidence, states."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests

from label_studio_config.users import UserInfo
from tests.gallery_fixtures import SCRIPT, GalleryForTests, new_gallery

__all__ = ["new_gallery"]

NewGallery = Callable[..., GalleryForTests]


def colours(
    gallery: GalleryForTests, person: UserInfo | None = None, **query: str
) -> tuple[dict[str, Any], dict[int, tuple[str | None, float | None, str]]]:
    """The header, and by position in `gallery.tasks` the label, confidence and state."""
    answer = gallery.call("GET", "map/colours", person, params=query)
    assert answer.ok, answer.text[:2000]
    content = answer.content
    (length,) = struct.unpack("<I", content[:4])
    assert length % 4 == 0
    header = json.loads(content[4 : 4 + length])
    n, rest = header["n"], content[4 + length :]
    assert len(rest) == 8 * n
    task = np.frombuffer(rest[: 4 * n], "<u4").tolist()
    label = np.frombuffer(rest[4 * n : 6 * n], "<u2").tolist()
    confidence, state = rest[6 * n : 7 * n], rest[7 * n :]
    assert task == sorted(task)
    names = [None, *header["labels"]]
    position = {task_id: i for i, task_id in enumerate(gallery.tasks)}
    return header, {
        position[task[i]]: (
            names[label[i]],
            None if confidence[i] == 255 else confidence[i] / 254,
            header["states"][state[i]],
        )
        for i in range(n)
    }


def test_labels_and_confidence(new_gallery: NewGallery) -> None:
    gallery = new_gallery(6, blind=(1,))
    assert colours(gallery)[1] == {}
    said = {0: ("Copepod", 0.9), 2: ("Detritus", 0.5), 3: (SCRIPT, 1.0), 4: ("Copepod", 0.1)}
    gallery.suggest({gallery.tasks[i]: value for i, value in said.items()})
    header, found = colours(gallery)
    assert header["control"] == "group"
    assert set(header["labels"]) == {"Copepod", "Detritus", SCRIPT}
    assert header["complete"] is True
    assert {i: (label, state) for i, (label, _, state) in found.items()} == {
        i: (label, "suggested") for i, (label, _) in said.items()
    }
    for i, (_, confidence, _) in found.items():
        assert confidence == pytest.approx(said[i][1], abs=0.003)
    # An image that becomes blind loses its colour.
    data = gallery.task(gallery.tasks[3])["data"]
    gallery.api.patch(f"/api/tasks/{gallery.tasks[3]}/", {"data": {**data, "blind": "yes"}})
    assert set(colours(gallery)[1]) == {0, 2, 4}
    header, found = colours(gallery, control="egg_sac")
    assert (header["labels"], found) == ([], {})
    refused = gallery.call("GET", "map/colours", params={"control": "cells"})
    assert refused.status_code == 400


def test_states_are_those_of_the_gallery(new_gallery: NewGallery) -> None:
    gallery = new_gallery(8, blind=(5,))
    anna = gallery.person("anna")
    gallery.suggest(dict.fromkeys(gallery.tasks[:4], ("Copepod", 0.8)))
    gallery.accept([gallery.tasks[0]])
    gallery.judge([{"task": gallery.tasks[1], "label": "Detritus"}])
    gallery.annotate(gallery.tasks[2], {"group": "Copepod"}, anna)
    gallery.annotate(gallery.tasks[1], {"group": "Copepod"}, anna)
    gallery.annotate(gallery.tasks[4], {"group": "Detritus"}, anna)
    gallery.judge([{"task": gallery.tasks[5], "label": "Detritus"}])
    _, found = colours(gallery)
    assert {i: (label, state) for i, (label, _, state) in found.items()} == {
        0: ("Copepod", "accepted"),
        1: ("Copepod", "conflicting"),
        2: ("Copepod", "others"),
        3: ("Copepod", "suggested"),
        4: (None, "others"),
        5: (None, "mine"),
    }
    for person in (None, anna):
        _, found = colours(gallery, person)
        ids = ",".join(map(str, gallery.tasks))
        shown = {crop["task"]: crop["state"] for crop in gallery.page(person, tasks=ids)["crops"]}
        for i, task_id in enumerate(gallery.tasks):
            assert found.get(i, (None, None, "open"))[2] == shown[task_id], (i, person)


def test_answers_of_others_stay_hidden_where_several_are_wanted(new_gallery: NewGallery) -> None:
    gallery = new_gallery(4, votes=2)
    anna = gallery.person("anna")
    gallery.suggest(dict.fromkeys(gallery.tasks[:2], ("Copepod", 0.8)))
    before = colours(gallery)
    for task in gallery.tasks:
        gallery.annotate(task, {"group": "Detritus"}, anna)
    gallery.annotate(gallery.tasks[3], {"egg_sac": "present"}, anna)
    assert colours(gallery) == before
    assert colours(gallery, control="egg_sac")[1] == {}
    assert {state for _, _, state in colours(gallery, anna)[1].values()} == {"mine"}
    gallery.accept([gallery.tasks[0]])
    gallery.annotate(gallery.tasks[2], {"group": "Detritus"})
    assert {i: state for i, (_, _, state) in colours(gallery)[1].items()} == {
        0: "conflicting",
        1: "suggested",
        2: "mine",
    }


def test_hidden_suggestions_colour_nothing(new_gallery: NewGallery) -> None:
    gallery = new_gallery(2, suggestions_shown=False)
    gallery.suggest(dict.fromkeys(gallery.tasks, ("Copepod", 0.8)))
    header, found = colours(gallery)
    assert (header["model_version"], header["labels"], found) == (None, [], {})


def test_who_may_see_it(new_gallery: NewGallery) -> None:
    gallery = new_gallery(1)
    stranger = gallery.stranger()
    url = f"{gallery.server.url}/api/planktrait/projects/{gallery.project.id}"
    for path in ("map/colours", "map/state", "map"):
        assert gallery.call("GET", path, stranger).status_code == 403, path
        assert requests.get(f"{url}/{path}", timeout=30).status_code == 401, path
    assert gallery.call("GET", "map/colours", gallery.person("anna")).ok

"""Judging in bulk: what is saved, what is counted, what is told, what conflicts, and undoing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import requests

from label_studio_config.backend_connection import authorization
from label_studio_config.results import read_result, write_result
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.votes import read_votes
from tests.gallery_fixtures import VERSION, new_gallery
from tests.label_studio_fixtures import backend_for_tests

__all__ = ["new_gallery"]

pytestmark = pytest.mark.slow


def copepods(gallery, count=None, confidence=0.8):
    gallery.suggest(dict.fromkeys(gallery.tasks[:count], ("Copepod", confidence)))


def label_of(gallery, annotation, control="group"):
    return read_result(gallery.project.schema, annotation["result"])[control].labels


def annotations_of(gallery, task):
    """In full: with the suggestion that was on the screen."""
    path = f"/api/planktrait/projects/{gallery.project.id}/tasks"
    (found,) = gallery.api.get(path, after=task - 1, limit=1)["tasks"]
    assert found["id"] == task
    return found["annotations"]


def prediction_of(gallery, task):
    """The id of the suggestion that the gallery shows."""
    (crop,) = gallery.page(tasks=str(task))["crops"]
    return crop["suggestion"]["prediction"]


def summary(gallery):
    """The project's own counts."""
    code = (
        "from projects.models import Project\n"
        f"s = Project.objects.get(id={gallery.project.id}).summary\n"
        "import json; print(json.dumps([s.created_annotations, s.created_labels]))"
    )
    return json.loads(gallery.run(code).splitlines()[-1])


def test_an_accepted_page_is_as_if_made_in_the_editor(new_gallery):
    gallery = new_gallery(6)
    copepods(gallery)
    anna = gallery.person("anna")
    answer = gallery.accept(gallery.tasks[:4], anna, lead_time_s=6.0)
    assert answer["saved"] == 4
    assert answer["conflicts"] == []
    assert [crop["state"] for crop in answer["crops"]] == ["accepted"] * 4
    assert [crop["answer"] for crop in answer["crops"]] == ["Copepod"] * 4
    # The same, in the editor.
    theirs = gallery.annotate(gallery.tasks[4], {"group": "Copepod"}, anna, lead_time=1.5)
    (ours,) = annotations_of(gallery, gallery.tasks[0])
    differ = {"id", "task", "unique_id", "created_at", "updated_at"}
    differ |= {"prediction", "parent_prediction"}
    (editors,) = annotations_of(gallery, gallery.tasks[4])
    assert {k: v for k, v in ours.items() if k not in differ} == {
        k: v for k, v in editors.items() if k not in differ
    }
    assert ours["result"] == theirs["result"]
    for task, annotation in ((gallery.tasks[0], ours), (gallery.tasks[4], editors)):
        said = gallery.task(task)
        assert said["is_labeled"] is True
        assert said["total_annotations"] == 1
        assert said["cancelled_annotations"] == 0
        assert said["updated_by"] == [{"user_id": anna.id}]
        (prediction,) = said["predictions"]
        shown = annotation["prediction"]
        assert shown["model_version"] == VERSION
        assert {k: v for k, v in shown.items() if k != "created_ago"}.keys() == {
            k for k in editors["prediction"] if k != "created_ago"
        }
        assert shown["id"] == prediction["id"]
    assert ours["parent_prediction"] == gallery.task(gallery.tasks[0])["predictions"][0]["id"]
    assert ours["lead_time"] == 1.5
    assert summary(gallery) == [{"group|image|choices": 5}, {"group": {"Copepod": 5}}]
    votes = read_votes(gallery.project.schema, fetch_tasks(gallery.server.home, gallery.project.id))
    assert votes["suggestion_shown"].tolist() == [True] * 5
    assert votes["annotator"].unique().tolist() == [anna.email]
    numbers = gallery.api.get(f"/api/projects/{gallery.project.id}/")
    assert numbers["num_tasks_with_annotations"] == 5
    assert numbers["total_annotations_number"] == 5
    assert numbers["finished_task_number"] == 5


def test_another_label_keeps_the_suggestion_that_was_on_the_screen(new_gallery):
    gallery = new_gallery(3, blind=[2])
    copepods(gallery, 1)
    judgements = [{"task": task, "label": "Detritus"} for task in gallery.tasks]
    judgements[0]["prediction"] = prediction_of(gallery, gallery.tasks[0])
    answer = gallery.judge(judgements)
    assert answer["saved"] == 3
    assert [crop["state"] for crop in answer["crops"]] == ["mine"] * 3
    first, second, blind = (annotations_of(gallery, task)[0] for task in gallery.tasks)
    assert label_of(gallery, first) == ("Detritus",)
    assert first["prediction"]["model_version"] == VERSION
    assert first["parent_prediction"] == first["prediction"]["id"]
    for annotation in (second, blind):
        assert not annotation["prediction"]
        assert annotation["parent_prediction"] is None
    refused = gallery.judge([{"task": gallery.tasks[2], "accept": True, "prediction": 1}])
    assert refused["saved"] == 0
    assert "blind" in refused["conflicts"][0]["why"]


def test_a_suggestion_that_came_later_was_not_on_the_screen(new_gallery):
    gallery = new_gallery(2)
    seen_at = gallery.page(suggested=0)["seen_at"]
    copepods(gallery)
    gallery.judge([{"task": gallery.tasks[0], "label": "Copepod"}], seen_at=seen_at)
    (annotation,) = annotations_of(gallery, gallery.tasks[0])
    assert not annotation["prediction"]
    # One that was replaced by another of the same version is not accepted unseen.
    page = gallery.page(tasks=str(gallery.tasks[1]))
    prediction = page["crops"][0]["suggestion"]["prediction"]
    gallery.suggest({gallery.tasks[1]: ("Detritus", 0.7)})
    assert prediction_of(gallery, gallery.tasks[1]) == prediction
    judgement = {"task": gallery.tasks[1], "accept": True, "prediction": prediction}
    answer = gallery.judge([judgement], seen_at=page["seen_at"])
    assert answer["saved"] == 0
    (conflict,) = answer["conflicts"]
    assert conflict["label"] == "Detritus"
    assert answer["crops"][0]["suggestion"]["label"] == "Detritus"
    # Nor is it said to have been on the screen; neither is one that the gallery had not read yet.
    unseen = {"task": gallery.tasks[1], "label": "Copepod"}
    for judgement, seen_at in (
        ({**unseen, "prediction": prediction}, page["seen_at"]),
        (unseen, None),
    ):
        gallery.judge([judgement], seen_at=seen_at)
        (annotation,) = annotations_of(gallery, gallery.tasks[1])
        assert not annotation["prediction"]
        assert annotation["parent_prediction"] is None


def test_a_batch_that_is_sent_twice_is_saved_once(new_gallery):
    gallery = new_gallery(3)
    copepods(gallery)
    anna = gallery.person("anna")
    seen_at = gallery.page()["seen_at"]
    gallery.judge([{"task": gallery.tasks[2], "label": "Detritus"}], anna)
    judgements = [{"task": task, "label": "Copepod"} for task in gallery.tasks]
    # Another person's key is another key.
    gallery.judge([{"task": gallery.tasks[2], "label": "Detritus"}], anna, key="one")
    first = gallery.judge(judgements, seen_at=seen_at, key="one")
    assert first["saved"] == 2
    again = gallery.judge(judgements, seen_at=seen_at, key="one")
    assert again == first
    assert [gallery.task(task)["total_annotations"] for task in gallery.tasks] == [1, 1, 1]
    assert annotations_of(gallery, gallery.tasks[0])[0]["lead_time"] == 2.0
    # Undone by the key, by whoever never heard the number.
    other = gallery.call("POST", "judgements/undo", gallery.person("bert"), json={"key": "one"})
    assert other.json()["undone"] == 0
    done = gallery.call("POST", "judgements/undo", json={"key": "one"}).json()
    assert done["undone"] == 2
    assert [crop["state"] for crop in done["crops"]] == ["suggested", "suggested"]
    assert [gallery.task(task)["total_annotations"] for task in gallery.tasks] == [0, 0, 1]
    assert gallery.judge(judgements, seen_at=seen_at, key="one")["saved"] == 0


def test_what_was_taken_back_before_it_came_is_not_saved(new_gallery):
    gallery = new_gallery(1)
    judgements = [{"task": gallery.tasks[0], "label": "Copepod"}]
    for _ in range(2):
        done = gallery.call("POST", "judgements/undo", json={"key": "late"})
        assert done.json() == {"undone": 0, "crops": [], "kept": []}
    assert gallery.judge(judgements, key="late")["saved"] == 0
    assert annotations_of(gallery, gallery.tasks[0]) == []
    assert gallery.judge(judgements, key="new")["saved"] == 1
    assert gallery.call("POST", "judgements/undo", json={}).status_code == 400


def test_a_judgement_that_comes_late_does_not_overwrite_ones_own_newer_one(new_gallery):
    gallery = new_gallery(3)
    first, second, third = gallery.tasks
    # This person's clock is an hour slow.
    now = datetime.now(UTC) - timedelta(hours=1)
    sent_at = now.isoformat()
    at = [(now - timedelta(seconds=10 - i)).isoformat() for i in range(3)]

    def judge(task, label, when, **more):
        judgement = {"task": task, "label": label}
        return gallery.judge([judgement], judged_at=when, sent_at=sent_at, **more)

    assert judge(first, "Detritus", at[1])["saved"] == 1
    late = judge(first, "Copepod", at[0])
    assert late["saved"] == 0
    assert [(c["by"], c["why"]) for c in late["conflicts"]] == [(None, "you said Detritus since")]
    # What was judged before, but saved late, is corrected all the same.
    assert judge(first, "Copepod", at[2])["saved"] == 1
    assert judge(first, "present", at[0], control="egg_sac")["saved"] == 1
    assert label_of(gallery, annotations_of(gallery, first)[0]) == ("Copepod",)
    # The same where the newer answer was given in the editor.
    gallery.annotate(second, {"group": "Detritus"})
    assert judge(second, "Copepod", at[2])["saved"] == 0
    assert judge(second, "Copepod", (now + timedelta(seconds=30)).isoformat())["saved"] == 1
    assert judge(third, "Copepod", at[0])["saved"] == 1


def test_an_annotation_of_ones_own_is_changed_for_this_control_only(new_gallery):
    gallery = new_gallery(2)
    copepods(gallery)
    for task in gallery.tasks:
        gallery.annotate(
            task, {"group": "Copepod", "egg_sac": "present", "cells": 3}, lead_time=2.0
        )
    gallery.judge([{"task": gallery.tasks[0], "label": "absent"}], control="egg_sac")
    gallery.judge([{"task": gallery.tasks[1], "label": "Detritus"}], lead_time_s=1.5)
    (first,), (second,) = (annotations_of(gallery, task) for task in gallery.tasks)
    answers = read_result(gallery.project.schema, first["result"])
    assert answers["group"].labels == ("Copepod",)
    assert answers["egg_sac"].labels == ("absent",)
    assert answers["cells"].number == 3
    # What the editor would not ask for any more goes, as it does there.
    assert [item["from_name"] for item in second["result"]] == ["group"]
    assert label_of(gallery, second) == ("Detritus",)
    assert second["lead_time"] == 3.5
    assert [gallery.task(task)["total_annotations"] for task in gallery.tasks] == [1, 1]
    assert summary(gallery)[1] == {
        "group": {"Copepod": 1, "Detritus": 1},
        "egg_sac": {"absent": 1},
    }
    # Not asked while the group is not a copepod.
    refused = gallery.judge([{"task": gallery.tasks[1], "label": "absent"}], control="egg_sac")
    assert refused["saved"] == 0
    assert "not asked" in refused["conflicts"][0]["why"]


def test_a_draft_does_not_cover_the_answer(new_gallery):
    gallery = new_gallery(3)
    copepods(gallery)
    anna, bert = gallery.person("anna"), gallery.person("bert")
    first, second, third = gallery.tasks

    def leave_draft(task, person, annotation=None):
        place = f"annotations/{annotation}/drafts" if annotation else "drafts"
        result = write_result(gallery.project.schema, {"group": "Detritus"})
        answer = requests.post(
            f"{gallery.server.url}/api/tasks/{task}/{place}",
            json={"result": result, "lead_time": 3},
            headers={"Authorization": f"Token {person.token}"},
            timeout=60,
        )
        answer.raise_for_status()

    def in_the_editor(task, person):
        headers = {"Authorization": f"Token {person.token}"}
        answer = requests.get(
            f"{gallery.server.url}/api/tasks/{task}/?project={gallery.project.id}",
            headers=headers,
            timeout=60,
        )
        answer.raise_for_status()
        return answer.json()

    own = gallery.annotate(second, {"group": "Detritus"}, anna)["id"]
    theirs = gallery.annotate(third, {"group": "Detritus"}, bert)["id"]
    leave_draft(first, anna)
    leave_draft(first, bert)
    leave_draft(second, anna, own)
    leave_draft(third, anna)
    leave_draft(third, anna, theirs)
    drafts = "print(json.dumps(Project.objects.get(id=%d).summary.created_labels_drafts))"
    drafts = f"import json\nfrom projects.models import Project\n{drafts % gallery.project.id}"
    assert json.loads(gallery.run(drafts).splitlines()[-1]) == {"group": {"Detritus": 5}}

    judged = [{"task": task, "label": "Copepod"} for task in (first, second)]
    assert gallery.judge(judged, anna)["saved"] == 2
    for task in (first, second):
        shown = in_the_editor(task, anna)
        assert shown["drafts"] == []
        (annotation,) = shown["annotations"]
        assert label_of(gallery, annotation) == ("Copepod",)
    assert len(in_the_editor(first, bert)["drafts"]) == 1
    assert len(in_the_editor(third, anna)["drafts"]) == 2
    assert json.loads(gallery.run(drafts).splitlines()[-1]) == {"group": {"Detritus": 3}}
    # Not the one about somebody else's annotation.
    assert gallery.judge([{"task": third, "label": "Copepod"}], anna)["saved"] == 1
    (left,) = in_the_editor(third, anna)["drafts"]
    assert left["annotation"] == theirs
    gallery.judge([{"task": first, "label": "Copepod"}], bert)
    assert json.loads(gallery.run(drafts).splitlines()[-1]) == {"group": {"Detritus": 1}}


def test_a_skipped_image_is_judged_after_all(new_gallery):
    gallery = new_gallery(1)
    copepods(gallery)
    (task,) = gallery.tasks
    gallery.annotate(task, {"group": "Copepod"}, was_cancelled=True)
    assert gallery.task(task)["cancelled_annotations"] == 1
    answer = gallery.accept([task])
    said = gallery.task(task)
    assert (said["total_annotations"], said["cancelled_annotations"]) == (1, 0)
    assert said["is_labeled"] is True
    gallery.call("POST", f"judgements/{answer['batch']}/undo")
    said = gallery.task(task)
    assert (said["total_annotations"], said["cancelled_annotations"]) == (0, 1)


def test_what_somebody_else_answered_meanwhile_is_a_conflict(new_gallery):
    gallery = new_gallery(3)
    copepods(gallery)
    anna = gallery.person("anna")
    page = gallery.page(order="task")
    gallery.judge([{"task": gallery.tasks[0], "label": "Detritus"}], anna)
    gallery.annotate(gallery.tasks[1], {"group": "Copepod"}, anna)
    judgements = [
        {"task": c["task"], "accept": True, "prediction": c["suggestion"]["prediction"]}
        for c in page["crops"]
    ]
    answer = gallery.judge(judgements, seen_at=page["seen_at"])
    assert answer["saved"] == 1
    assert [(c["task"], c["by"], c["label"]) for c in answer["conflicts"]] == [
        (gallery.tasks[0], anna.email, "Detritus"),
        (gallery.tasks[1], anna.email, "Copepod"),
    ]
    assert [crop["state"] for crop in answer["crops"]] == ["others", "others", "accepted"]
    assert len(annotations_of(gallery, gallery.tasks[0])) == 1
    # Having seen it, another answer is one's right.
    gallery.wait_a_second()
    answer = gallery.judge([{"task": gallery.tasks[0], "label": "Copepod"}])
    assert answer["saved"] == 1
    assert answer["crops"][0]["state"] == "conflicting"


def test_where_several_votes_are_wanted_everybody_answers(new_gallery):
    gallery = new_gallery(2, votes=2)
    copepods(gallery)
    anna = gallery.person("anna")
    seen_at = gallery.page()["seen_at"]
    shown = prediction_of(gallery, gallery.tasks[1])
    gallery.accept(gallery.tasks, anna)
    assert gallery.task(gallery.tasks[0])["is_labeled"] is False
    answer = gallery.judge(
        [
            {"task": gallery.tasks[0], "label": "Detritus"},
            {"task": gallery.tasks[1], "label": "Copepod", "prediction": shown},
        ],
        seen_at=seen_at,
    )
    assert answer["saved"] == 2
    assert [crop["state"] for crop in answer["crops"]] == ["conflicting", "accepted"]
    assert answer["crops"][1]["others"] == [{"email": anna.email, "label": "Copepod"}]
    assert all(gallery.task(task)["is_labeled"] for task in gallery.tasks)


def test_undo_restores_what_was_before(new_gallery):
    gallery = new_gallery(4)
    copepods(gallery)
    gallery.annotate(gallery.tasks[0], {"group": "Detritus"}, lead_time=4.0)
    before = [annotations_of(gallery, task) for task in gallery.tasks]
    counted = summary(gallery)
    answer = gallery.accept(gallery.tasks)
    assert answer["saved"] == 4
    # One is changed in the editor since.
    (third,) = annotations_of(gallery, gallery.tasks[3])
    gallery.api.patch(f"/api/annotations/{third['id']}/", {"result": third["result"]})
    anna = gallery.person("anna")
    path = f"judgements/{answer['batch']}/undo"
    assert gallery.call("POST", path, anna).status_code == 404
    done = gallery.call("POST", path).json()
    assert done["undone"] == 3
    assert [kept["task"] for kept in done["kept"]] == [gallery.tasks[3]]
    assert [crop["state"] for crop in done["crops"]] == [
        *("mine", "suggested", "suggested", "accepted"),
    ]
    after = [annotations_of(gallery, task) for task in gallery.tasks]
    assert after[:3] == before[:3]
    assert [gallery.task(task)["total_annotations"] for task in gallery.tasks] == [1, 0, 0, 1]
    assert [gallery.task(task)["is_labeled"] for task in gallery.tasks] == [
        True,
        False,
        False,
        True,
    ]
    counted[0]["group|image|choices"] += 1
    counted[1]["group"]["Copepod"] = 1
    assert summary(gallery) == counted
    again = gallery.call("POST", path).json()
    assert again["undone"] == 0
    assert len(again["kept"]) == 4


def test_a_batch_is_one_webhook(new_gallery):
    gallery = new_gallery(5)
    copepods(gallery)
    home = gallery.server.home
    gallery.api.post(
        "/api/webhooks/",
        {
            "project": gallery.project.id,
            "url": f"{home.settings.backend_url}/webhook",
            "headers": {"Authorization": authorization(home.secrets)},
            "send_payload": True,
            "send_for_all_actions": True,
        },
    )
    gallery.annotate(gallery.tasks[0], {"group": "Detritus"})
    gallery.annotate(gallery.tasks[1], {"group": "Detritus"})
    with backend_for_tests(home) as backend:
        answer = gallery.accept(gallery.tasks)
        created, updated = backend.sent_to("webhook")
        assert created["action"] == "ANNOTATIONS_CREATED"
        assert [one["task"] for one in created["annotation"]] == gallery.tasks[2:]
        assert [one["id"] for one in created["task"]] == gallery.tasks[2:]
        assert created["project"]["id"] == gallery.project.id
        assert updated["action"] == "ANNOTATION_UPDATED"
        assert [one["task"] for one in updated["annotation"]] == gallery.tasks[:2]
        gallery.call("POST", f"judgements/{answer['batch']}/undo")
        undone = backend.sent_to("webhook")[2:]
        assert [one["action"] for one in undone] == ["ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"]
        gallery.judge([{"task": gallery.tasks[0], "label": "Copepod"}])
        alone = backend.sent_to("webhook")[-1]
        assert alone["annotation"]["task"] == alone["task"]["id"] == gallery.tasks[0]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"judgements": []},
        {"judgements": [{"task": 1}]},
        {"judgements": [{"task": 1, "accept": True}]},
        {"judgements": [{"task": "1", "label": "Copepod"}]},
        {"judgements": [{"task": 1, "label": "Unicorn"}]},
        {"judgements": [{"task": 1, "label": "Copepod", "accept": True}]},
        {"judgements": [{"task": 1, "label": "Copepod"}] * 2},
        {"judgements": [{"task": i + 1, "label": "Copepod"} for i in range(501)]},
        {"judgements": [{"task": 1, "label": "Copepod"}], "lead_time_s": -1},
        {"judgements": [{"task": 1, "label": "Copepod"}], "seen_at": "now"},
        {"judgements": [{"task": 1, "label": "Copepod"}], "key": "k" * 65},
        {"judgements": [{"task": 1, "label": "Copepod"}], "control": "cells"},
        [],
    ],
)
def test_a_malformed_batch_is_refused(new_gallery, body):
    gallery = new_gallery(0)
    assert gallery.call("POST", "judgements", json=body).status_code == 400


def test_a_task_of_another_project_is_not_touched(new_gallery):
    gallery, other = new_gallery(1), new_gallery(1)
    answer = gallery.judge(
        [
            {"task": other.tasks[0], "label": "Copepod"},
            {"task": gallery.tasks[0], "label": "Copepod"},
        ]
    )
    assert answer["saved"] == 1
    assert [conflict["task"] for conflict in answer["conflicts"]] == [other.tasks[0]]
    assert annotations_of(other, other.tasks[0]) == []


def test_a_session_needs_the_csrf_token(new_gallery):
    gallery = new_gallery(1)
    copepods(gallery)
    url = gallery.server.url
    secrets = gallery.server.home.secrets
    with requests.Session() as session:
        session.get(f"{url}/user/login/", timeout=30)
        token = session.cookies["csrftoken"]
        session.post(
            f"{url}/user/login/",
            data={
                "email": secrets.user_email,
                "password": secrets.user_password,
                "csrfmiddlewaretoken": token,
            },
            timeout=30,
        )
        api = f"{url}/api/planktrait/projects/{gallery.project.id}"
        assert session.get(f"{api}/gallery", timeout=30).ok
        body = {"judgements": [{"task": gallery.tasks[0], "label": "Copepod"}]}
        forged = session.post(f"{api}/judgements", json=body, timeout=30)
        assert forged.status_code == 403
        assert "CSRF" in forged.text
        assert annotations_of(gallery, gallery.tasks[0]) == []
        headers = {"X-CSRFToken": session.cookies["csrftoken"]}
        done = session.post(f"{api}/judgements", json=body, headers=headers, timeout=30)
        assert done.json()["saved"] == 1
        undo = f"{api}/judgements/{done.json()['batch']}/undo"
        assert session.post(undo, timeout=30).status_code == 403
        assert session.post(undo, headers=headers, timeout=30).json()["undone"] == 1

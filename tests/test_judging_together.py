"""Ten people judge one project at once: nothing lost, nothing doubled, counters right.

They work for 30 seconds; `benchmarks/judging_together.py` has them work for two minutes.
"""

from __future__ import annotations

import ast
import json
import os
import random
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from label_studio_config.project import create_project
from label_studio_config.server_tasks import fetch_tasks
from tests.figures import FIGURES
from tests.gallery_fixtures import CONFIG, GalleryForTests, crop_rows
from tests.label_studio_fixtures import serve_for_tests
from tests.postgres_fixtures import postgres_cluster

pytestmark = pytest.mark.slow

PEOPLE = 10
SECONDS = float(os.environ.get("PLANKTRAIT_TOGETHER_S", "30"))
RESULTS = os.environ.get("PLANKTRAIT_TOGETHER_RESULTS")
"""Where `benchmarks/judging_together.py` wants the figures, a file a database."""

CROPS = int(160 * SECONDS)
IMAGES = 200
ON_A_PAGE = 30
LOOKS_S = 1.5


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def gallery(request, tmp_path, monkeypatch):
    """A project of its own server with two workers, all crops suggested."""
    if request.param == "SQLite":
        template = request.getfixturevalue("database_template")
        with serve_for_tests(tmp_path, template=template, workers=2) as server:
            yield suggested(server)
    else:
        template = request.getfixturevalue("postgres_template")
        with postgres_cluster(template) as variables:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            with serve_for_tests(tmp_path, workers=2) as server:
                yield suggested(server)


def suggested(server):
    gallery = GalleryForTests(server, create_project(server.home, "Together", CONFIG))
    drawn = crop_rows(server, IMAGES)
    gallery.load([{**drawn[i % IMAGES], "image_id": f"crop-{i:05d}"} for i in range(CROPS)])
    dice = random.Random(1)
    gallery.suggest({task: ("Copepod", round(dice.uniform(0.3, 1), 4)) for task in gallery.tasks})
    return gallery


def judge_for_a_while(gallery, person, seed):
    """Pages of what nobody has answered, from a place of one's own or from the start."""
    end = time.monotonic() + SECONDS
    dice = random.Random(seed)
    saved: list[tuple[int, str]] = []
    conflicts: list[int] = []
    batches: list[tuple[int, list[int]]] = []
    took_s: list[float] = []
    while time.monotonic() < end:
        began = time.monotonic()
        page = gallery.page(
            person,
            state="suggested",
            limit=ON_A_PAGE,
            order=dice.choice(["certain", "uncertain", "task"]),
        )
        took_s.append(time.monotonic() - began)
        if not page["crops"]:
            break
        time.sleep(LOOKS_S)
        judgements = []
        for crop in page["crops"]:
            said = {"label": "Detritus"} if dice.random() < 0.2 else {"accept": True}
            prediction = crop["suggestion"]["prediction"]
            judgements.append({"task": crop["task"], "prediction": prediction, **said})
        began = time.monotonic()
        how = {"seen_at": page["seen_at"], "lead_time_s": 2.0, "key": f"{seed}-{len(batches)}"}
        times = 2 if dice.random() < 0.1 else 1
        answer = send(gallery, judgements, person, how, times)
        if times == 1:
            took_s.append(time.monotonic() - began)
        refused = {conflict["task"] for conflict in answer["conflicts"]}
        assert answer["saved"] + len(refused) == len(judgements)
        mine = [one for one in judgements if one["task"] not in refused]
        saved += [(one["task"], one.get("label", "Copepod")) for one in mine]
        conflicts += refused
        batches.append((answer["batch"], [one["task"] for one in mine]))
    return saved, conflicts, batches, took_s


def send(gallery, judgements, person, how, times):
    """A batch, at once as often as one does who believes that an answer was lost."""
    with ThreadPoolExecutor(times) as pool:
        answers = list(pool.map(lambda _: gallery.judge(judgements, person, **how), range(times)))
    assert len({(answer["batch"], answer["saved"]) for answer in answers}) == 1
    return answers[0]


def test_ten_people_at_once(gallery, request):
    people = [gallery.person(f"judge{i}") for i in range(PEOPLE)]
    for person in people:
        gallery.log_in(person)
    with ThreadPoolExecutor(PEOPLE) as pool:
        done = list(pool.map(lambda i: judge_for_a_while(gallery, people[i], i), range(PEOPLE)))
    said = [
        (task, label, person.email)
        for person, (saved, _, _, _) in zip(people, done, strict=True)
        for task, label in saved
    ]
    # None lost, none doubled: what was answered was answered by exactly one person …
    judged = {task for task, _, _ in said}
    assert len(judged) == len(said) > 20 * PEOPLE
    there = []
    for task in fetch_tasks(gallery.server.home, gallery.project.id):
        if task["id"] not in judged:
            assert (task["annotations"], task["total_annotations"]) == ([], 0)
            continue
        (annotation,) = task["annotations"]
        (item,) = annotation["result"]
        (label,) = item["value"]["choices"]
        there.append((task["id"], label, annotation["completed_by"]["email"]))
        # … and counted once.
        assert (task["total_annotations"], task["is_labeled"]) == (1, True)
        assert annotation["prediction"]["id"] == annotation["parent_prediction"]
    assert sorted(there) == sorted(said)
    labels = Counter(label for _, label, _ in said)
    code = (
        "from projects.models import Project\n"
        f"print(Project.objects.get(id={gallery.project.id}).summary.created_labels)"
    )
    assert ast.literal_eval(gallery.run(code).splitlines()[-1]) == {"group": dict(labels)}
    conflicts = sum(len(refused) for _, refused, _, _ in done)
    took_ms = [1000 * seconds for *_, all_s in done for seconds in all_s]
    database = request.node.callspec.params["gallery"]
    median_ms, p95_ms = statistics.median(took_ms), statistics.quantiles(took_ms, n=20)[-1]
    FIGURES.append(
        f"ten people for {SECONDS:.0f} s on {database}: {len(said)} crops judged once each, "
        f"{conflicts} conflicts shown; a request took {median_ms:.0f} ms (95 %: {p95_ms:.0f} ms)"
    )
    if RESULTS:
        told = {"people": PEOPLE, "seconds": SECONDS, "judged": len(said), "conflicts": conflicts}
        told |= {"requests": len(took_ms), "median_ms": round(median_ms), "p95_ms": round(p95_ms)}
        (Path(RESULTS) / f"{database}.json").write_text(json.dumps(told))
    # Everybody takes the last batch back.
    for person, (_, _, batches, _) in zip(people, done, strict=True):
        for batch, mine in batches[-1:]:
            if batch is None:
                continue
            undone = gallery.call("POST", f"judgements/{batch}/undo", person).json()
            assert (undone["undone"], undone["kept"]) == (len(mine), [])
    left = gallery.get("gallery/labels", state="suggested")["labels"]
    taken_back = sum(len(batches[-1][1]) for _, _, batches, _ in done if batches)
    assert sum(one["count"] for one in left) == CROPS - len(said) + taken_back

"""Manifests, prediction shards and a look into the database, for tests of bulk loading."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from label_studio_config.home import Home
from label_studio_config.hosting import server_environment
from label_studio_config.manifest import Manifest
from label_studio_config.prediction import prediction_schema
from label_studio_config.schema import LabelSchema

LABELS = ("Copepod", "Detritus", "<script>alert(1)</script>")
CONFIG = """<View><Image name="image" value="$image"/>
<Choices name="group" toName="image" choice="single" trait="functional group">
  <Choice value="Copepod"/><Choice value="Detritus"/>
  <Choice value="&lt;script&gt;alert(1)&lt;/script&gt;"/>
</Choices></View>"""
_folders = itertools.count(1)

STATE = """
import json
from projects.models import Project
from tasks.models import Annotation, Prediction, Task
from label_studio_config.plugin.models import Crop, CropText, IndexState, SuggestedLabel
from label_studio_config.plugin.gallery_catch_up import is_current, reindex
from label_studio_config.plugin.gallery_rows import questions_of
from tasks.functions import update_tasks_counters
p = Project.objects.get(id={project})
def rows(query, *names):
    return [[str(v) if hasattr(v, "isoformat") else v for v in row]
            for row in query.values_list(*names)]
def state():
    q = Project.objects.get(id={project})
    tasks = Task.objects.filter(project=q).order_by("id")
    made = Prediction.objects.filter(project=q).order_by("id")
    crops = Crop.objects.filter(project_id=q.id).order_by("task_id")
    labels = SuggestedLabel.objects.filter(project_id=q.id).order_by("task_id", "model_version")
    texts = CropText.objects.filter(project_id=q.id).order_by("task_id")
    return dict(
        tasks=rows(tasks, "id", "inner_id", "data", "total_predictions", "overlap", "is_labeled",
                   "total_annotations"),
        predictions=rows(made, "id", "task_id", "model_version", "score", "result", "updated_at"),
        crops=rows(crops, "task_id", "image", "image_id", "sample_id", "captured_at", "depth_m",
                   "blind", "suggested", "answered"),
        texts=rows(texts, "task_id", "text"),
        labels=rows(labels, "task_id", "model_version", "control", "label", "confidence",
                    "novelty", "second_label", "second_confidence", "prediction_id", "answered"),
        columns=q.summary.all_data_columns, common=q.summary.common_data_columns,
        model_version=q.model_version,
        indexed=is_current(IndexState.objects.get(project_id=q.id), q,
                           questions_of(q.label_config)))
found = [state()]
if {again}:
    update_tasks_counters(Task.objects.filter(project=p))
    summary = p.summary
    summary.all_data_columns, summary.common_data_columns = {{}}, []
    summary.update_data_columns(list(Task.objects.filter(project=p)))
    reindex(p)
    found.append(state())
print("STATE" + json.dumps(found))
"""


SERVE = """
import contextlib, io, json, sys, traceback
import django
django.setup()
from django.db import connections
for line in sys.stdin:
    said, error = io.StringIO(), None
    with contextlib.redirect_stdout(said):
        try:
            exec(json.loads(line), {"__name__": "__main__"})
        except BaseException:
            error = traceback.format_exc()
    connections.close_all()
    print("SAID" + json.dumps([said.getvalue(), error]), flush=True)
"""
KEPT_LOG = "kept-django.log"
_kept: dict[Path, subprocess.Popen[str]] = {}


@contextmanager
def kept_django(home: Home) -> Iterator[None]:
    """Meanwhile `in_django` of a home runs in one process: starting one takes several seconds."""
    with (home.logs_folder / KEPT_LOG).open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=server_environment(home),
            cwd=home.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    _kept[home.folder] = process
    try:
        yield
    finally:
        del _kept[home.folder]
        try:
            process.communicate(timeout=30)
        finally:
            process.kill()


def in_django(home: Home, code: str) -> str:
    """What Python prints in the environment of a home's Label Studio."""
    if home.folder in _kept:
        try:
            return _ask(_kept[home.folder], code)
        except (EOFError, BrokenPipeError):
            raise AssertionError((home.logs_folder / KEPT_LOG).read_text()[-3000:]) from None
    done = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup()\n{code}"],
        env=server_environment(home),
        cwd=home.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _ask(process: subprocess.Popen[str], code: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(code) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        # Label Studio prints a few lines of its own when it starts.
        if line.startswith("SAID"):
            said, error = json.loads(line.removeprefix("SAID"))
            assert error is None, error
            return said
    raise EOFError


def state_of(home: Home, project: int) -> dict[str, Any]:
    """Everything that the database holds of a project."""
    said = in_django(home, STATE.format(project=project, again=False))
    return json.loads(said.split("STATE")[-1])[0]


def state_and_recount(home: Home, project: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state, and the state after Label Studio counted and our index was made anew."""
    said = in_django(home, STATE.format(project=project, again=True))
    before, after = json.loads(said.split("STATE")[-1])
    return before, after


def new_project(home: Home) -> int:
    """A project in a home that is not served."""
    code = (
        "from label_studio_config.plugin.bootstrap import prepare_database\n"
        "from django.conf import settings\n"
        "prepare_database(settings.PLANKTRAIT_HOME)\n"
        "from projects.models import Project; from users.models import User\n"
        "user = User.objects.first()\n"
        f"project = Project.objects.create(title='Pushed', label_config={CONFIG!r},\n"
        "    created_by=user, organization=user.active_organization, maximum_annotations=2,\n"
        "    show_collab_predictions=True)\n"
        "print('PROJECT', project.id)\n"
    )
    return int(in_django(home, code).split("PROJECT")[-1])


def manifest_of(root: Path, count: int, **more: Sequence[Any]) -> Manifest:
    """Images below a folder of their own; the files are empty, since nobody opens them."""
    folder = f"pushed-{next(_folders)}"
    (root / folder).mkdir(parents=True)
    names = [f"crop-{number:04d}.png" for number in range(count)]
    for name in names:
        (root / folder / name).touch()
    table = pd.DataFrame(
        {
            "image_id": [f"{folder}-{name}" for name in names],
            "path": [f"{folder}/{name}" for name in names],
            "sample_id": [f"haul-{number % 3}" for number in range(count)],
            "depth_m": [float(number % 7) for number in range(count)],
            **more,
        }
    )
    return Manifest(table, root)


def shard(
    path: Path,
    image_ids: Sequence[str],
    version: str,
    *,
    shift: int = 0,
    labels: Mapping[int, str] | None = None,
    confidences: Mapping[int, float] | None = None,
) -> Path:
    """A shard as `predict` writes it; `labels` and `confidences` of some rows are as given."""
    values, shares, sure = [], [], []
    for row in range(len(image_ids)):
        best = (row + shift) % len(LABELS)
        confidence = (confidences or {}).get(row, round(0.5 + (row % 40) / 100, 4))
        share = [round((1 - confidence) / 2, 4)] * len(LABELS)
        share[best] = confidence
        values.append((labels or {}).get(row, LABELS[best]))
        shares.append(share)
        sure.append(confidence)
    count = len(image_ids)
    columns = {
        "image_id": list(image_ids),
        "sample_id": [None] * count,
        "path": [None] * count,
        "model_version": [version] * count,
        "confidence": sure,
        "novelty": [0.25] * count,
        "embedding": [[0.0] * 4] * count,
        "group": values,
        "group__confidence": sure,
        "group__probabilities": shares,
    }
    schema = prediction_schema(LabelSchema.from_xml(CONFIG), {"group": LABELS}, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), path)
    return path

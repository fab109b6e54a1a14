"""What is set of a project and what is missing, for the page "Data"."""

from __future__ import annotations

import re
from typing import Any

from data_manager.models import View as Tab
from django.conf import settings
from io_storages.localfiles.models import LocalFilesImportStorage
from ml.models import MLBackend
from projects.models import Project
from tasks.models import Task

from label_studio_config.backend_connection import BACKEND_TITLE
from label_studio_config.controls import Control
from label_studio_config.home import HomeError
from label_studio_config.plugin import backend
from label_studio_config.plugin.bootstrap import STORAGE_TITLE
from label_studio_config.plugin.gallery_catch_up import catch_up
from label_studio_config.plugin.models import Crop
from label_studio_config.plugin.templates import description
from label_studio_config.project import CONFIGS_FOLDER, SAMPLINGS, require_usable
from label_studio_config.schema import LabelSchema, SchemaError

BLIND_TAB = "Blind"
INDEX_BUDGET_S = 2.0
_NOT_TO_COUNT_BY = ("image", "image_id", "blind", "pixel_size_um", "lat", "lon")


def config_of(project: Project) -> dict[str, Any]:
    """The labeling config: its questions, and why it cannot be used, where it cannot."""
    xml = project.label_config or ""
    controls: list[dict[str, Any]] = []
    problem = None
    try:
        controls = [_control(control) for control in LabelSchema.from_xml(xml).controls]
        require_usable(xml)
    except SchemaError as error:
        problem = str(error)
    return {
        "controls": controls,
        "problem": problem,
        "empty": not re.search(r"<(?!/?View\b)\w", xml),
        "is": next((name for name, known in _ours() if known.strip() == xml.strip()), None),
        "least_certain_first": project.sampling == SAMPLINGS["uncertainty"],
    }


def configs() -> list[dict[str, str]]:
    """Our configs, to choose from."""
    return [
        {"name": name, "title": _title(name), "description": description(xml)}
        for name, xml in _ours()
    ]


def backend_of(project: Project) -> dict[str, Any]:
    """Whether the backend answers, is connected, and which version is live."""
    found: dict[str, Any] = {
        "connected": MLBackend.objects.filter(project=project, title=BACKEND_TITLE).exists(),
        "answers": True,
        "live": None,
        "problem": None,
    }
    try:
        found["live"] = backend.ask("GET", "models", params={"project": project.id})["live"]
    except backend.BackendError as error:
        found |= {"answers": False, "problem": str(error)}
    return found


def images_of(project: Project) -> dict[str, Any]:
    """How many images there are, how many of them blind and annotated, and where they may lie."""
    try:
        root, problem = str(settings.PLANKTRAIT_HOME.images_root), None
    except HomeError as error:
        root, problem = None, str(error)
    catch_up(project, INDEX_BUDGET_S)
    blind = Crop.objects.filter(project_id=project.id, blind=True)
    tasks = Task.objects.filter(project=project)
    annotated = tasks.filter(total_annotations__gt=0)
    return {
        "root": root,
        "problem": problem,
        "shown": LocalFilesImportStorage.objects.filter(
            project=project, title=STORAGE_TITLE
        ).exists(),
        "n": tasks.count(),
        "annotated": annotated.count(),
        "blind": blind.count(),
        "blind_annotated": annotated.filter(id__in=blind.values("task_id")).count(),
        "blind_tab": any(
            (data or {}).get("title") == BLIND_TAB
            for data in Tab.objects.filter(project=project).values_list("data", flat=True)
        ),
    }


def counting_of(project: Project) -> dict[str, Any]:
    """What can be counted, and by what: one-of controls, and columns of the images' data."""
    try:
        schema = LabelSchema.from_xml(project.label_config)
    except SchemaError:
        return {"controls": [], "by": []}
    primary = schema.primary
    one_of = [c.name for c in schema.trainable if c.kind == "one of"]
    names = sorted(one_of, key=lambda name: primary is None or name != primary.name)
    columns = list((project.summary.all_data_columns or {}) if hasattr(project, "summary") else {})
    left_out = (*_NOT_TO_COUNT_BY, schema.image_key, "depth_m", "captured_at", "sample_id")
    by = ["sample_id"] if "sample_id" in columns else []
    by += ["depth"] if "depth_m" in columns else []
    by += ["day"] if "captured_at" in columns else []
    return {"controls": names, "by": by + sorted(set(columns) - set(left_out))}


def _control(control: Control) -> dict[str, Any]:
    return {
        "name": control.name,
        "kind": control.kind,
        "labels": len(control.labels),
        "unit": control.unit,
        "why_not_learned": control.why_not_trained,
    }


def _ours() -> list[tuple[str, str]]:
    return [(p.stem, p.read_text(encoding="utf-8")) for p in sorted(CONFIGS_FOLDER.glob("*.xml"))]


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()

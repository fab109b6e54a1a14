"""Make the gallery's index anew; `label_studio_config.reindex` runs it."""

from __future__ import annotations

from argparse import ArgumentParser
from itertools import count
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from projects.models import Project
from tasks.models import Annotation, Prediction, Task

from label_studio_config.django_command import say
from label_studio_config.plugin.gallery_catch_up import CHUNK, reindex
from label_studio_config.plugin.gallery_index import forget_project
from label_studio_config.plugin.models import Crop, IndexState, SuggestedLabel
from label_studio_config.project_choice import ProjectError, choose_project


class Command(BaseCommand):
    """`planktrait reindex`, in Label Studio's environment; safe while the server runs.

    Standard output is one JSON object a line: progress, at the end the report.
    """

    help = "Make the gallery's index anew from Label Studio's tables: of one project, or of all."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", help="number or title of one project; default: all")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = options["project"]
        told = [_reindexed(project) for project in _projects(chosen)]
        if chosen is None:
            _forget_gone()
        say({"report": {"projects": told}})


def _projects(chosen: str | None) -> list[Project]:
    projects = Project.objects.order_by("id")
    if chosen is None:
        return list(projects)
    try:
        number = choose_project(chosen, projects.values_list("id", "title"))
    except ProjectError as error:
        raise CommandError(str(error)) from error
    return [projects.get(id=number)]


def _reindexed(project: Project) -> dict[str, Any]:
    rows = sum(
        table.objects.filter(project_id=project.id).count()
        for table in (Task, Prediction, Annotation)
    )
    stage, chunks = f"index project {project.id}", count(1)
    say({"progress": [stage, 0, rows]})
    reindex(
        project, lambda state: say({"progress": [stage, min(rows, CHUNK * next(chunks)), rows]})
    )
    say({"progress": [stage, rows, rows]})
    return {
        "id": project.id,
        "title": project.title,
        "tasks": Crop.objects.filter(project_id=project.id).count(),
        "suggestions": SuggestedLabel.objects.filter(project_id=project.id).count(),
    }


def _forget_gone() -> None:
    there = set(Project.objects.values_list("id", flat=True))
    for project_id in IndexState.objects.values_list("project_id", flat=True):
        if project_id not in there:
            forget_project(project_id)

"""Make the gallery's index anew from Label Studio's own tables."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from projects.models import Project

from label_studio_config.plugin.gallery_catch_up import reindex
from label_studio_config.plugin.gallery_index import forget_project
from label_studio_config.plugin.models import Crop, IndexState, SuggestedLabel


class Command(BaseCommand):
    """`python -m django planktrait_reindex [--project ID]`; safe while the server runs."""

    help = "Make the gallery's index anew from Label Studio's tables: of one project, or of all."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", type=int, help="the id of one project; default: all")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = options["project"]
        projects = Project.objects.order_by("id")
        if chosen is not None:
            projects = projects.filter(id=chosen)
            if not projects.exists():
                raise CommandError(f"there is no project {chosen}")
        for project in projects:
            reindex(project)
            tasks = Crop.objects.filter(project_id=project.id).count()
            suggestions = SuggestedLabel.objects.filter(project_id=project.id).count()
            self.stdout.write(f"Project {project.id}: {tasks} tasks, {suggestions} suggestions")
        if chosen is None:
            there = set(Project.objects.values_list("id", flat=True))
            for project_id in IndexState.objects.values_list("project_id", flat=True):
                if project_id not in there:
                    forget_project(project_id)

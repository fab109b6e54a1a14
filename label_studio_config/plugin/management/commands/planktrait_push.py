"""Bulk loading, as a process of its own with Label Studio's settings; `ml_backend.push` runs it."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from projects.models import Project

from label_studio_config.django_command import say
from label_studio_config.manifest import Manifest
from label_studio_config.other_process import ProcessKilledError
from label_studio_config.plugin.push import BATCH_SIZE, PushOptions, push, what_is_loaded
from label_studio_config.project_choice import choose_project

CACHE_KB = 256 * 1024


class Command(BaseCommand):
    """`python -m django planktrait_push PROJECT [MANIFEST] --predictions FOLDER`.

    Without a manifest it only says whether project and predictions can be loaded. Safe while the
    server runs. Standard output is one JSON object a line: progress, at the end the report.
    """

    help = "Load tasks and predictions from a manifest and prediction shards into a project."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="title or number")
        parser.add_argument("manifest", nargs="?", type=Path, help="a Parquet file")
        parser.add_argument("--predictions", type=Path, help="folder of `planktrait predict`")
        parser.add_argument("--blind-share", type=float, default=0.0)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="a transaction")
        parser.add_argument("--hide", action="store_true", help="show the version that was shown")
        parser.add_argument("--prune", action="store_true", help="remove earlier versions")

    def handle(self, *args: Any, **given: Any) -> None:
        options = PushOptions(
            blind_share=given["blind_share"],
            seed=given["seed"],
            show=not given["hide"],
            prune=given["prune"],
            batch_size=given["batch_size"],
        )
        _use_memory()
        try:
            known = Project.objects.values_list("id", "title")
            number = choose_project(given["project"], known)
            if given["manifest"] is None:
                what_is_loaded(number, given["predictions"])
                say({"report": {"project": number}})
                return
            told = push(
                settings.PLANKTRAIT_HOME,
                number,
                Manifest.read(given["manifest"]),
                given["predictions"],
                options,
                lambda *progress: say({"progress": progress}),
            )
        except (ValueError, ProcessKilledError) as error:
            raise CommandError(str(error)) from error
        say({"report": told.as_json()})


def _use_memory() -> None:
    """SQLite's own 2 MB would read every index again in each batch."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA cache_size = -{CACHE_KB}")
            cursor.execute("PRAGMA wal_autocheckpoint = 50000")

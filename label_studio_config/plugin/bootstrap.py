"""Make Label Studio's database ready: migrations, the first user, its organisation and token."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

from label_studio_config.backend_connection import BACKEND_TITLE, authorization
from label_studio_config.home import LOCAL_FILES_URL, Home

logger = logging.getLogger(__name__)

STORAGE_TITLE = "Images (nothing to synchronise)"
_BATCH_SIZE = 2000


def prepare_database(home: Home) -> None:
    """Migrate, then create the first user with the home's token; safe to repeat.

    Must run in a process where Django is set up with `label_studio_config.settings`.
    """
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        logger.info("Preparing the database (the first time takes half a minute)")
        call_command("migrate", interactive=False, verbosity=0)
    ensure_first_user(home)
    follow_backend(home)
    follow_images_root(home)
    mend_counters()


def ensure_first_user(home: Home) -> None:
    """The user, organisation and API token of `secrets.json` exist and agree with it."""
    from django.db import transaction
    from organizations.models import Organization
    from rest_framework.authtoken.models import Token
    from users.models import User

    secrets = home.secrets
    with transaction.atomic():
        user = User.objects.filter(email=secrets.user_email).first()
        if user is None:
            user = User.objects.create_user(
                email=secrets.user_email, password=secrets.user_password, username="admin"
            )
        user.is_staff = user.is_superuser = True
        organization = Organization.objects.order_by("id").first()
        if organization is None:
            organization = Organization.create_organization(
                created_by=user, title="Planktrait", legacy_api_tokens_enabled=True
            )
        organization.add_user(user)
        user.active_organization = organization
        user.save()
        if not organization.jwt.legacy_api_tokens_enabled:
            organization.jwt.legacy_api_tokens_enabled = True
            organization.jwt.save()
        if not Token.objects.filter(user=user, key=secrets.api_token).exists():
            Token.objects.filter(user=user).delete()
            Token.objects.create(user=user, key=secrets.api_token)


def follow_backend(home: Home) -> None:
    """Point every project's connection at the backend's address of today: its port may be new."""
    from ml.models import MLBackend
    from webhooks.models import Webhook

    url = home.settings.backend_url
    MLBackend.objects.filter(title=BACKEND_TITLE).exclude(url=url).update(url=url)
    header = authorization(home.secrets)
    for webhook in Webhook.objects.exclude(url=f"{url}/webhook"):
        if webhook.headers.get("Authorization") == header:
            webhook.url = f"{url}/webhook"
            webhook.save(update_fields=["url"])


def follow_images_root(home: Home) -> None:
    """Address the images of every project from the images root of today, if that became wider.

    The storage row and the tasks of a project change in one transaction: a start that is broken
    off leaves the project as it was, and the next start does it.
    """
    from django.db import transaction
    from io_storages.localfiles.models import LocalFilesImportStorage

    from label_studio_config.plugin.gallery_index import forget_project

    if home.settings.images_root is None:
        return
    root = Path(home.settings.images_root)
    for storage in LocalFilesImportStorage.objects.filter(title=STORAGE_TITLE):
        old = Path(storage.path)
        if old == root:
            continue
        if not old.is_relative_to(root):
            logger.warning(
                "Images of project %d lie in %s, outside the images root %s: they are not shown",
                storage.project_id,
                old,
                root,
            )
            continue
        with transaction.atomic():
            count = _move_images(storage.project_id, old.relative_to(root).as_posix())
            # Changed in bulk: nobody else tells the gallery's index of the new addresses.
            forget_project(storage.project_id)
            storage.path = str(root)
            storage.save(update_fields=["path"])
        logger.info("Project %d: %d images found from %s", storage.project_id, count, root)


def mend_counters() -> None:
    """Count again where Label Studio was stopped between saving an annotation and counting it.

    It does so in two transactions: a server that is killed, or a backup, may come between them.
    """
    from django.db.models import Count, F, Q
    from projects.models import Project
    from tasks.models import Task

    n = Count("annotations", filter=Q(annotations__was_cancelled=False))
    wrong = (
        Task.objects.filter(Q(total_annotations__gt=0) | Q(annotations__isnull=False))
        .annotate(n=n)
        .filter(~Q(n=F("total_annotations")) | Q(n__gte=F("overlap"), is_labeled=False))
        .order_by("project_id", "id")
        .values_list("project_id", "id")
    )
    by_project: dict[int, list[int]] = {}
    for project_id, task_id in wrong:
        by_project.setdefault(project_id, []).append(task_id)
    for project in Project.objects.filter(id__in=by_project):
        ids = by_project[project.id]
        project._update_tasks_counters_and_is_labeled(ids)
        logger.info("Project %d: annotations of %d tasks counted again", project.id, len(ids))


def _move_images(project_id: int, folder: str) -> int:
    from tasks.models import Task

    start = f"{LOCAL_FILES_URL}?d="
    moved: list[Task] = []
    count = 0
    for task in Task.objects.filter(project_id=project_id).only("id", "data").iterator():
        data = {
            key: f"{start}{quote(folder)}/{value.removeprefix(start)}"
            if isinstance(value, str) and value.startswith(start)
            else value
            for key, value in task.data.items()
        }
        if data != task.data:
            task.data = data
            moved.append(task)
        if len(moved) == _BATCH_SIZE:
            count += Task.objects.bulk_update(moved, ["data"], batch_size=200)
            moved.clear()
    return count + Task.objects.bulk_update(moved, ["data"], batch_size=200)

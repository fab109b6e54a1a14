"""Whose images a project's members may see."""

from __future__ import annotations

from io_storages.localfiles.models import LocalFilesImportStorage
from projects.models import Project

from label_studio_config.home import Home
from label_studio_config.plugin.bootstrap import STORAGE_TITLE


def show_images(project: Project, home: Home) -> tuple[LocalFilesImportStorage, bool]:
    """Let the members of a project see the images under the images root; whether that is new.

    Label Studio's own API refuses a storage that is the root itself, not only a folder below it.
    Nothing is synchronised: tasks are imported by us, with the images left where they are.

    Raises
    ------
    HomeError
        The home has no images root.
    """
    storage, created = LocalFilesImportStorage.objects.get_or_create(
        project=project,
        path=str(home.images_root),
        defaults={"title": STORAGE_TITLE, "use_blob_urls": True},
    )
    return storage, created

"""A Label Studio project with everything around it: images, backend, webhook, tabs.

Every function can be repeated: what exists is left or updated, nothing is doubled.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from label_studio_config.api import Api
from label_studio_config.backend_connection import connect_backend
from label_studio_config.home import Home
from label_studio_config.project_choice import ProjectError as ProjectError
from label_studio_config.project_choice import choose_project
from label_studio_config.schema import LabelSchema, SchemaError
from label_studio_config.tabs import ensure_tabs

logger = logging.getLogger(__name__)

CONFIGS_FOLDER = Path(__file__).parent / "configs"
IMAGE_KEY = "image"
"""Where an imported task holds the address of its image."""

SAMPLINGS = {
    "sequential": "Sequential sampling",
    "uniform": "Uniform sampling",
    "uncertainty": "Uncertainty sampling",
}


@dataclass(frozen=True)
class ProjectInfo:
    """A project as it stands after the call.

    `backend_id` and `webhook_id` are None while no backend answers; call again once it does.
    """

    id: int
    name: str
    url: str
    created: bool
    schema: LabelSchema
    storage_id: int | None = None
    backend_id: int | None = None
    webhook_id: int | None = None
    tab_ids: tuple[int, ...] = ()


def create_project(
    home: Home,
    name: str,
    config: str | Path | None = None,
    *,
    annotators_per_image: int | None = None,
    sampling: str | None = None,
    show_suggestions: bool | None = None,
) -> ProjectInfo:
    """Create a project, or bring an existing one of that name up to date.

    Parameters
    ----------
    home : Home, being served
    name : 3 to 50 characters
    config : name of one of our configs (`traits`, `functional_groups`, …), a path to an XML file,
        or XML. Default: `traits` for a new project, unchanged for an existing one, whose config
        may have been edited in Label Studio.
    annotators_per_image : how many people judge each image; default 1, else unchanged
    sampling : `sequential`, `uniform` or `uncertainty` (least certain first, the default)
    show_suggestions : whether annotators see suggestions; default True, else unchanged

    Returns
    -------
    ProjectInfo

    Raises
    ------
    ProjectError
        For an option that is not possible.
    SchemaError
        For a config that cannot be read, before anything is created.
    ApiError
        If Label Studio refuses, for instance a new config that does not fit the annotations.
    """
    changes = _options(config, annotators_per_image, sampling, show_suggestions)
    api = Api(home)
    found = _find(api, name)
    project = _create(api, name, changes) if not found else _update(api, found["id"], changes)
    return _with_everything_around(api, home, project, created=found is None)


def set_up_project(
    home: Home,
    project_id: int,
    config: str | Path | None = None,
    *,
    annotators_per_image: int | None = None,
    sampling: str | None = None,
    show_suggestions: bool | None = None,
) -> ProjectInfo:
    """Give a project that was made in Label Studio what `create_project` gives; safe to repeat.

    Raises
    ------
    SchemaError
        The config, or without one that of the project, cannot be used; nothing is changed then.
    ProjectError, ApiError
        As `create_project`.
    """
    changes = _options(config, annotators_per_image, sampling, show_suggestions)
    api = Api(home)
    known = api.get(f"/api/projects/{project_id}/")
    require_usable(changes.get("label_config", known["label_config"]))
    project = _update(api, project_id, changes)
    return _with_everything_around(api, home, project, created=False)


def require_usable(xml: str) -> LabelSchema:
    """The schema of a config that images can be imported for and that asks something of them.

    Raises
    ------
    SchemaError
        It cannot; the message says why.
    """
    schema = LabelSchema.from_xml(xml)
    if not schema.controls:
        raise SchemaError("the config asks nothing: add Choices, a Number or another control")
    if schema.image_key != IMAGE_KEY:
        raise SchemaError(
            f'<Image name="{schema.image_tag}"> shows ${schema.image_key}, but imported images '
            f'stand in ${IMAGE_KEY}: write value="${IMAGE_KEY}"'
        )
    return schema


def projects_of(api: Api, **asked: Any) -> Iterator[dict[str, Any]]:
    """The id, title and label_config of each project; not the counters, which take long."""
    return api.pages("/api/projects/", include="id,title,label_config", **asked)


def find_project(home: Home, name_or_id: str | int) -> ProjectInfo:
    """An existing project, by its name or number: see `choose_project`.

    Raises
    ------
    ProjectError
        There is none, or more than one is meant.
    """
    api = Api(home)
    projects = {project["id"]: project for project in projects_of(api)}
    number = choose_project(name_or_id, ((one["id"], one["title"]) for one in projects.values()))
    return ProjectInfo(
        id=number,
        name=projects[number]["title"],
        url=f"{api.url}/projects/{number}/data",
        created=False,
        schema=LabelSchema.from_xml(projects[number]["label_config"]),
    )


def config_names() -> list[str]:
    """The labeling configs that come with Planktrait."""
    return sorted(path.stem for path in CONFIGS_FOLDER.glob("*.xml"))


def read_config(config: str | Path) -> str:
    """The XML of a config given by name, path or as XML itself.

    A path has a suffix or a separator: `traits` is our config of that name, whatever lies in the
    current folder.

    Raises
    ------
    ProjectError
        If there is no such config.
    """
    if isinstance(config, str) and config.lstrip().startswith("<"):
        return config
    path = Path(config)
    # A bare name is never a file that happens to lie in the current folder.
    is_path = path.suffix != "" or path.name != str(config)
    ours = CONFIGS_FOLDER / f"{path.stem}.xml"
    if path.name == str(config) and ours.is_file() and not (is_path and path.exists()):
        path, is_path = ours, True
    if not is_path or not path.is_file():
        raise ProjectError(
            f"no config {str(config)!r}: give a path to an XML file, or one of "
            f"{', '.join(config_names())}"
        )
    return path.read_text(encoding="utf-8")


def _with_everything_around(
    api: Api, home: Home, project: dict[str, Any], *, created: bool
) -> ProjectInfo:
    project_id = project["id"]
    storage_id = _ensure_images(api, home, project_id)
    backend_id, webhook_id = connect_backend(api, home, project_id)
    return ProjectInfo(
        id=project_id,
        name=project["title"],
        url=f"{api.url}/projects/{project_id}/data",
        created=created,
        schema=LabelSchema.from_xml(project["label_config"]),
        storage_id=storage_id,
        backend_id=backend_id,
        webhook_id=webhook_id,
        tab_ids=ensure_tabs(api, project_id),
    )


def _options(
    config: str | Path | None,
    annotators_per_image: int | None,
    sampling: str | None,
    show_suggestions: bool | None,
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if config is not None:
        changes["label_config"] = read_config(config)
        LabelSchema.from_xml(changes["label_config"])
    if annotators_per_image is not None:
        if annotators_per_image < 1:
            raise ProjectError(f"{annotators_per_image} annotators per image: at least 1")
        changes["maximum_annotations"] = annotators_per_image
    if sampling is not None:
        if sampling not in SAMPLINGS:
            raise ProjectError(f"no sampling {sampling!r}: choose one of {', '.join(SAMPLINGS)}")
        changes["sampling"] = SAMPLINGS[sampling]
    if show_suggestions is not None:
        changes["show_collab_predictions"] = show_suggestions
    return changes


def _find(api: Api, name: str) -> dict[str, Any] | None:
    # Label Studio's own filter looks for a part of the title.
    found = [project for project in projects_of(api, title=name) if project["title"] == name]
    if len(found) > 1:
        numbers = ", ".join(f"#{project['id']}" for project in found)
        raise ProjectError(f"projects {numbers} are all called {name!r}: rename all but one")
    return found[0] if found else None


def _create(api: Api, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    if not 3 <= len(name) <= 50:
        raise ProjectError(f"project name {name!r} must have 3 to 50 characters")
    body = {
        "title": name,
        "label_config": read_config("traits"),
        "maximum_annotations": 1,
        "sampling": SAMPLINGS["uncertainty"],
        "show_collab_predictions": True,
        **changes,
    }
    project: dict[str, Any] = api.post("/api/projects", body)
    logger.info("Created project %r (%d)", name, project["id"])
    return project


def _update(api: Api, project_id: int, changes: dict[str, Any]) -> dict[str, Any]:
    path = f"/api/projects/{project_id}/"
    project: dict[str, Any] = api.get(path)
    needed = {key: value for key, value in changes.items() if project.get(key) != value}
    if needed:
        project = api.patch(path, needed)
        logger.info("Changed %s of project %d", ", ".join(needed), project_id)
    return project


def _ensure_images(api: Api, home: Home, project_id: int) -> int | None:
    if home.settings.images_root is None:
        return None
    return int(api.post(f"/api/planktrait/projects/{project_id}/images-folder")["id"])

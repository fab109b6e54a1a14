"""Home: the folder where a running installation keeps its database, secrets, models and logs."""

from __future__ import annotations

import json
import logging
import os
import secrets as randomness
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

logger = logging.getLogger(__name__)

LOCAL_FILES_URL = "/data/local-files/"
TRACES = ("secrets.json", "settings.json", "jobs")
"""What a home has, or some of it, once it was served or took a job."""
FIND_HOME = "name one with --home or $PLANKTRAIT_HOME, or start one with `planktrait serve`"


class HomeError(ValueError):
    """A home folder, or one of its files, that cannot be used; the message says what to do."""


class OutsideRootError(HomeError):
    """An image address that leads outside the images root, or is not one of our addresses."""


@dataclass(frozen=True)
class Secrets:
    """What only the owner of the home may read (`secrets.json`, mode 0600)."""

    django_secret_key: str
    user_email: str
    user_password: str
    api_token: str
    backend_username: str
    backend_password: str

    @classmethod
    def generate(cls) -> Secrets:
        """New random secrets; the first user is `admin@localhost`."""
        return cls(
            django_secret_key=randomness.token_urlsafe(48),
            user_email="admin@localhost",
            user_password=randomness.token_urlsafe(12),
            # Label Studio's legacy token is a 40-character hexadecimal string.
            api_token=randomness.token_hex(20),
            backend_username="label-studio",
            backend_password=randomness.token_urlsafe(24),
        )

    def __repr__(self) -> str:
        return f"Secrets(user_email={self.user_email!r}, …)"


@dataclass(frozen=True)
class Settings:
    """What anyone may read (`settings.json`): where the images and the two servers are.

    `database` is the kind, "SQLite" or "PostgreSQL", with which the home was served.
    """

    images_root: str | None = None
    label_studio_port: int = 8080
    backend_port: int = 9090
    label_studio_url: str = "http://127.0.0.1:8080"
    backend_url: str = "http://127.0.0.1:9090"
    allowed_hosts: tuple[str, ...] = ()
    database: str | None = None


class Home:
    """One installation's folder; cheap to make, reads its files when they are asked for.

    Parameters
    ----------
    folder : path, optional
        Default: `$PLANKTRAIT_HOME`, else `./planktrait-home`. Created with mode 0700; one that
        exists and is ours is given this mode.

    Raises
    ------
    HomeError
        If it is a file, or others may enter it and it is not ours to close.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = _chosen(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise HomeError(
                f"{self.folder} is not a folder: name another home with PLANKTRAIT_HOME"
            )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _close_to_others(self.folder)

    @classmethod
    def existing(cls, folder: str | os.PathLike[str] | None = None) -> Home:
        """The home that is there: a mistyped name makes none.

        Raises
        ------
        HomeError
            There is none, or it cannot be used.
        """
        chosen = _chosen(folder)
        if chosen.is_dir() and not any((chosen / name).exists() for name in TRACES):
            raise HomeError(f"{chosen} is no home: {FIND_HOME}")
        if not chosen.exists():
            raise HomeError(f"no home in {chosen}: {FIND_HOME}")
        return cls(chosen)

    def __repr__(self) -> str:
        return f"Home({str(self.folder)!r})"

    def _subfolder(self, *names: str) -> Path:
        folder = self.folder.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def label_studio_folder(self) -> Path:
        """Label Studio's base data folder (SQLite database, media)."""
        return self._subfolder("label-studio")

    @property
    def manifests_folder(self) -> Path:
        """Manifests of imported images, one Parquet file an import."""
        return self._subfolder("manifests")

    @property
    def jobs_folder(self) -> Path:
        """Job records, progress and logs."""
        return self._subfolder("jobs")

    @property
    def cache_folder(self) -> Path:
        """What can be computed again: decoded images, embeddings."""
        return self._subfolder("cache")

    @property
    def logs_folder(self) -> Path:
        """Logs of the two servers."""
        return self._subfolder("logs")

    def models_folder(self, project_id: int) -> Path:
        """The model registry of one Label Studio project."""
        return self._subfolder("models", f"project-{int(project_id)}")

    def encoders_folder(self, project_id: int) -> Path:
        """The SimCLR encoders of one Label Studio project."""
        return self._subfolder("encoders", f"project-{int(project_id)}")

    def kept_folder(self, kind: str, project_id: int) -> Path:
        """What jobs made for people of one project: `exports`, `counts`; or their `tables`."""
        return self._subfolder(kind, f"project-{int(project_id)}")

    @property
    def secrets_file(self) -> Path:
        """Path of `secrets.json`."""
        return self.folder / "secrets.json"

    @property
    def settings_file(self) -> Path:
        """Path of `settings.json`."""
        return self.folder / "settings.json"

    @cached_property
    def secrets(self) -> Secrets:
        """The home's secrets, made on first use.

        Raises
        ------
        HomeError
            If the file can be read by others than its owner, or is not ours.
        """
        if not self.secrets_file.exists():
            _create_once(self.secrets_file, asdict(Secrets.generate()))
        mode = self.secrets_file.stat().st_mode & 0o777
        if mode & 0o077:
            raise HomeError(
                f"{self.secrets_file} can be read by others (mode {mode:o}): "
                f"run `chmod 600 {self.secrets_file}`"
            )
        return Secrets(**_read_fields(self.secrets_file, Secrets))

    @property
    def settings(self) -> Settings:
        """The home's settings as they are on disk now (another process may change them)."""
        if not self.settings_file.exists():
            return Settings()
        values = _read_fields(self.settings_file, Settings)
        if "allowed_hosts" in values:
            values["allowed_hosts"] = tuple(values["allowed_hosts"])
        return Settings(**values)

    def change_settings(self, **changes: Any) -> Settings:
        """Write changed settings atomically, e.g. `images_root="/data/plankton"`; return them."""
        if changes.get("images_root") is not None:
            changes["images_root"] = str(Path(changes["images_root"]).expanduser().resolve())
        settings = replace(self.settings, **changes)
        _replace_file(self.settings_file, asdict(settings))
        return settings

    @property
    def images_root(self) -> Path:
        """The one folder under which images may lie.

        Raises
        ------
        HomeError
            If none was set, or it is not a folder any more.
        """
        root = self.settings.images_root
        if root is None:
            raise HomeError(
                f"{self.folder} has no images root: run `planktrait serve --images ROOT`"
            )
        if not Path(root).is_dir():
            raise HomeError(f"images root {root} is no folder: `planktrait serve --images ROOT`")
        return Path(root)

    def image_url(self, path: str | os.PathLike[str]) -> str:
        """The address of an image in a task, from its path relative to the images root."""
        return image_url(path)

    def resolve_image(self, url_or_path: str | os.PathLike[str]) -> Path:
        """As `resolve_image`, under this home's images root."""
        return resolve_image(self.images_root, url_or_path)

    def client(self) -> Any:
        """A `label_studio_sdk.LabelStudio` for this home's server, as its first user."""
        from label_studio_sdk import LabelStudio

        return LabelStudio(base_url=self.settings.label_studio_url, api_key=self.secrets.api_token)


def _chosen(folder: str | os.PathLike[str] | None) -> Path:
    chosen = folder or os.environ.get("PLANKTRAIT_HOME") or "planktrait-home"
    return Path(chosen).expanduser().resolve()


def image_url(path: str | os.PathLike[str]) -> str:
    """The address of an image in a task, from its path relative to an images root."""
    return f"{LOCAL_FILES_URL}?d={quote(Path(path).as_posix())}"


def _close_to_others(folder: Path) -> None:
    """The database, models and logs have the modes of their programs: the folder protects them."""
    mode = folder.stat().st_mode & 0o777
    if not mode & 0o077:
        return
    if folder.stat().st_uid != os.geteuid():
        raise HomeError(
            f"{folder} can be entered by others (mode {mode:o}) and is not yours: have its owner "
            f"run `chmod 700`, or name another home with PLANKTRAIT_HOME"
        )
    logger.warning("%s could be entered by others (mode %o): closed to them", folder, mode)
    folder.chmod(0o700)


def resolve_image(root: Path, url_or_path: str | os.PathLike[str]) -> Path:
    """Where an image lies, from a task's address or a path relative to the images root.

    Returns
    -------
    Path
        Absolute, symbolic links followed, under the root. It may not exist.

    Raises
    ------
    OutsideRootError
        For another host, an absolute path, `..` or a link that leads outside the root.
    """
    return ImageResolver(root)(url_or_path)


class ImageResolver:
    """`resolve_image` for many images: each folder is looked up once, so keep it for a call only.

    Parameters
    ----------
    root : Path
        The images root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = os.path.realpath(root)
        self._folders: dict[str, str] = {}

    def __call__(self, url_or_path: str | os.PathLike[str]) -> Path:
        """As `resolve_image`."""
        text = os.fspath(url_or_path)
        relative = _relative_path(text)
        if not relative or "\0" in relative:
            raise OutsideRootError(f"{text!r} names no image: expected {LOCAL_FILES_URL}?d=PATH")
        remedy = "put it there, or restart `planktrait serve --images ROOT` with a wider root"
        if relative.startswith("/") or ".." in relative.split("/"):
            raise OutsideRootError(
                f"image {text!r} is outside the images root {self.root}: {remedy}"
            )
        folder, name = os.path.split(relative.rstrip("/"))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(os.path.join(self.root, folder))
        path = os.path.join(self._folders[folder], name)
        if name == "." or os.path.islink(path):
            path = os.path.realpath(path)
        if path != self._real_root and not path.startswith(self._real_root.rstrip("/") + "/"):
            raise OutsideRootError(
                f"image {text!r} leads outside the images root {self.root}: {remedy}"
            )
        return Path(path)


def _relative_path(text: str) -> str:
    if LOCAL_FILES_URL in text or "://" in text or text.startswith("data:"):
        parts = urlsplit(text)
        if parts.scheme or parts.netloc or parts.path != LOCAL_FILES_URL:
            raise OutsideRootError(
                f"{text[:200]!r} is not an image under the images root: "
                f"expected {LOCAL_FILES_URL}?d=PATH; import the image with `planktrait import`"
            )
        return parse_qs(parts.query).get("d", [""])[0]
    return text


def _read_fields(path: Path, kind: type) -> dict[str, Any]:
    """Read the known fields of a JSON object; unknown ones are left for a newer version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(kind)}
        return {name: value for name, value in values.items() if name in known}
    except (OSError, json.JSONDecodeError, AttributeError) as error:
        raise HomeError(f"{path} cannot be read ({error}): restore it or move it away") from error


def _write_temporary(path: Path, values: dict[str, Any]) -> str:
    # mkstemp creates the file with mode 0600, so that no other user can read it at any moment.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _create_once(path: Path, values: dict[str, Any]) -> None:
    """Create a 0600 file unless another process was first; readers never see half of it."""
    temporary = _write_temporary(path, values)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


def _replace_file(path: Path, values: dict[str, Any]) -> None:
    os.replace(_write_temporary(path, values), path)

"""A real Label Studio for tests, served by our own hosting code in a temporary home.

Fixtures (session scope): `label_studio` without a backend, `label_studio_with_backend` with it.
`serve_for_tests` is for a test that needs its own images root or home.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import requests

from label_studio_config.home import Home
from label_studio_config.hosting import Servers, server_environment, start_in_background
from label_studio_config.processes import free_port


@dataclass
class LabelStudioForTests:
    """A running Label Studio: its home, servers, and a session logged in with the first token."""

    home: Home
    servers: Servers
    session: requests.Session

    @property
    def url(self) -> str:
        return self.servers.label_studio_url

    @property
    def images_root(self) -> Path:
        return self.home.images_root

    @property
    def client(self) -> Any:
        return self.home.client()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """One API call as the first user; `path` begins with a slash."""
        return self.session.request(method, self.url + path, timeout=60, **options)

    def get(self, path: str, **options: Any) -> Any:
        """The JSON answer of a GET that must succeed."""
        response = self.request("GET", path, **options)
        assert response.ok, response.text[:2000]
        return response.json()

    def log(self) -> str:
        """What Label Studio has logged."""
        return (self.home.logs_folder / "label-studio.log").read_text()


def migrated_database(cache: Path, folder: Path) -> Path:
    """A migrated SQLite database without users, made once a checkout (about 25 s)."""
    template = cache / f"label-studio-{version('label-studio')}.sqlite3"
    if not template.exists():
        home = Home(folder / "template-home")
        subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
            env=server_environment(home),
            cwd=home.folder,
            check=True,
            capture_output=True,
        )
        database = home.label_studio_folder / "label_studio.sqlite3"
        # In WAL mode the newest pages may still lie beside the database.
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("
                "'PRAGMA wal_checkpoint(TRUNCATE)')",
                str(database),
            ],
            check=True,
        )
        cache.mkdir(parents=True, exist_ok=True)
        partial = template.with_suffix(".partial")
        shutil.copy(database, partial)
        partial.replace(template)
    return template


@contextmanager
def serve_for_tests(
    folder: Path,
    *,
    template: Path | None = None,
    images_root: Path | None = None,
    with_backend: bool = False,
    **options: Any,
) -> Iterator[LabelStudioForTests]:
    """Serve a new home under `folder` on free ports; stopped at the end, log shown on failure."""
    home = Home(folder / "home")
    if template is not None:
        shutil.copy(template, home.label_studio_folder / "label_studio.sqlite3")
    if images_root is None:
        images_root = folder / "images"
        images_root.mkdir(exist_ok=True)
    options = {"workers": 1, "port": free_port(), "backend_port": free_port(), **options}
    with start_in_background(
        home, images_root=images_root, with_backend=with_backend, **options
    ) as servers:
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Token {home.secrets.api_token}"
        yield LabelStudioForTests(home, servers, session)


@pytest.fixture(scope="session")
def database_template(request, tmp_path_factory) -> Path:
    """See `migrated_database`."""
    cache = Path(request.config.cache.mkdir("planktrait"))
    return migrated_database(cache, tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory, database_template) -> Iterator[LabelStudioForTests]:
    """Label Studio alone. Shared by all tests: give projects names of your own."""
    folder = tmp_path_factory.mktemp("label-studio")
    with serve_for_tests(folder, template=database_template) as server:
        yield server


@pytest.fixture(scope="session")
def label_studio_with_backend(tmp_path_factory, database_template) -> Iterator[LabelStudioForTests]:
    """Label Studio and our ML backend. Shared by all tests: give projects names of your own."""
    folder = tmp_path_factory.mktemp("label-studio-backend")
    with serve_for_tests(folder, template=database_template, with_backend=True) as server:
        yield server

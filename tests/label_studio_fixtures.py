"""A real Label Studio for tests, served by our own hosting code in a temporary home.

Fixtures (session scope): `label_studio` without a backend, `label_studio_with_backend` with it.
`serve_for_tests` is for a test that needs its own images root or home.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, jsonify, request
from werkzeug.serving import make_server

from hpc_jobs import cancel_all
from label_studio_config.home import Home
from label_studio_config.hosting import Servers, server_environment, start_in_background
from label_studio_config.plugin import migrations
from label_studio_config.processes import KEEP_ALIVE_S, ServerProcess, free_port

BACKEND_APPLICATION = "ml_backend.server:create_app()"


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
    template = cache / f"label-studio-{version('label-studio')}-{our_migrations()}.sqlite3"
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


def our_migrations() -> str:
    """Differs where the plugin's migrations do."""
    digest = hashlib.sha256()
    for path in sorted(Path(migrations.__file__).parent.glob("[0-9]*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


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
        home,
        images_root=images_root,
        backend_application=BACKEND_APPLICATION if with_backend else None,
        **options,
    ) as servers:
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Token {home.secrets.api_token}"
        try:
            yield LabelStudioForTests(home, servers, session)
        finally:
            session.close()  # gunicorn waits two seconds for a connection that is kept
            # Jobs outlive the server that started them: none may outlive the tests.
            cancel_all(home.jobs_folder)


@contextmanager
def without_plugin(home: Home, workers: int = 1) -> Iterator[str]:
    """The address of a Label Studio with its own settings, on the database of a home."""
    spec = find_spec("label_studio")
    assert spec is not None
    assert spec.submodule_search_locations
    environment = server_environment(home) | {
        "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
        "PYTHONPATH": str(spec.submodule_search_locations[0]),
        "SECRET_KEY": home.secrets.django_secret_key,
        "LABEL_STUDIO_BASE_DATA_DIR": str(home.label_studio_folder),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": home.settings.images_root or str(home.folder),
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "core.wsgi:application"]
    command += ["--workers", str(workers), "--timeout", "600"]
    command += ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "8"]
    command += ["--keep-alive", str(KEEP_ALIVE_S), "--preload", "--no-control-socket"]
    log = home.logs_folder / "without-plugin.log"
    url = f"http://127.0.0.1:{port}"
    process = ServerProcess("Label Studio", command, environment, home.folder, log, f"{url}/health")
    process.start()
    try:
        process.await_health(300, print)
        yield url
    finally:
        process.stop()


@pytest.fixture(scope="session")
def database_template(request, tmp_path_factory) -> Path:
    """See `migrated_database`."""
    cache = Path(request.config.cache.mkdir("planktrait"))
    return migrated_database(cache, tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory, database_template) -> Iterator[LabelStudioForTests]:
    """Label Studio alone. Shared by all tests: give projects and people names of your own."""
    folder = tmp_path_factory.mktemp("label-studio")
    with serve_for_tests(folder, template=database_template) as server:
        yield server


@pytest.fixture(scope="session")
def label_studio_with_backend(tmp_path_factory, database_template) -> Iterator[LabelStudioForTests]:
    """Label Studio and our ML backend, shared in the same way."""
    folder = tmp_path_factory.mktemp("label-studio-backend")
    with serve_for_tests(folder, template=database_template, with_backend=True) as server:
        yield server


class BackendForTests:
    """A backend that speaks Label Studio's protocol, answers as told and keeps what it was sent.

    For what a real model cannot be made to do: wrong answers, unknown labels, refusals.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.requests: list[tuple[str, Any]] = []
        self.version = "project-0-v0001"
        self.answer_to: Callable[[dict[str, Any]], Any] = lambda task: []
        self.refuse: dict[str, int] = {}
        self.drop_answers = 0

    def app(self) -> Flask:
        app = Flask("backend-for-tests")
        secrets = self.home.secrets

        @app.before_request
        def _() -> Any:
            given = request.authorization
            pair = (given.username, given.password) if given else None
            if pair != (secrets.backend_username, secrets.backend_password):
                return jsonify(error="wrong password"), 401
            name = request.path.strip("/")
            self.requests.append((name, request.get_json(silent=True)))
            if name in self.refuse:
                return jsonify(error=f"{name} is refused"), self.refuse[name]
            return None

        answers = {
            "health": lambda: {"status": "UP"},
            "setup": lambda: {"model_version": self.version},
            "webhook": dict,
            "versions": lambda: {"versions": [self.version]},
            "pretrain": lambda: {"job": "pretrain-1"},
            "act": lambda: {"job": "act-1"},
            "predict": lambda: {"results": self._results(request.get_json()["tasks"])},
        }

        @app.route("/<name>", methods=["GET", "POST"])
        def _(name: str) -> Any:
            return jsonify(answers[name]())

        return app

    def _results(self, tasks: list[dict[str, Any]]) -> list[Any]:
        return [self.answer_to(task) for task in tasks[self.drop_answers :]]

    def sent_to(self, name: str) -> list[Any]:
        """The bodies that one address was sent."""
        return [body for path, body in self.requests if path == name]


@contextmanager
def backend_for_tests(home: Home) -> Iterator[BackendForTests]:
    """A `BackendForTests` where the home expects its backend."""
    backend = BackendForTests(home)
    server = make_server("127.0.0.1", home.settings.backend_port, backend.app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield backend
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)

"""A PostgreSQL cluster of a test's own, that can be killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from label_studio_config.home import Home
from label_studio_config.hosting import server_environment
from label_studio_config.processes import free_port
from tests.label_studio_fixtures import our_migrations
from tests.small_disk import small_disk

OWNER, OWNERS_PASSWORD = "planktrait", "a$HOME 'quoted' %d &;|#"


def postgres_folder() -> Path:
    """Where PostgreSQL's programs are; skips the test where they are not."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    on_path = shutil.which("initdb")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    for folder in reversed(candidates):
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "pg_dump", "pg_restore")):
            return folder
    pytest.skip("PostgreSQL is not installed: apt-get install postgresql")


@dataclass
class PostgresForTests:
    """A cluster on a free port; `variables` are those that Label Studio reads."""

    folder: Path
    port: int
    user: str
    prefix: list[str]

    @property
    def variables(self) -> dict[str, str]:
        return {
            "DJANGO_DB": "default",
            "POSTGRE_HOST": "127.0.0.1",
            "POSTGRE_PORT": str(self.port),
            "POSTGRE_USER": self.user,
            "POSTGRE_PASSWORD": "",
            "POSTGRE_NAME": "postgres",
        }

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's programs, as its user."""
        command = [*self.prefix, str(postgres_folder() / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")

    def kill(self) -> None:
        """kill -9 of the server and of all its processes."""
        master = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        pids = [master, *_children(master)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids):
            assert time.monotonic() < end, "PostgreSQL outlives kill -9"
            time.sleep(0.05)

    def owned_database(self, name: str, dump: Path | None = None) -> dict[str, str]:
        """The variables of a database as docs/hosting.md makes it: a plain owner with a password.

        Empty, or with what a dump holds.
        """
        server = f"host=127.0.0.1 port={self.port} user={self.user} dbname=postgres"
        role, password = sql.Identifier(OWNER), sql.Literal(OWNERS_PASSWORD)
        create = sql.SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0")
        with psycopg.connect(server, autocommit=True) as connection:
            if not connection.execute(
                "SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,)
            ).rowcount:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password)
                )
            connection.execute(create.format(sql.Identifier(name), role))
        variables = self.variables | {
            "POSTGRE_USER": OWNER,
            "POSTGRE_PASSWORD": OWNERS_PASSWORD,
            "POSTGRE_NAME": name,
        }
        if dump is not None:
            self.fill(dump, variables)
        return variables

    def new_database(self, name: str) -> dict[str, str]:
        """The variables of a further, empty database."""
        self.run("createdb", *self.superuser, name)
        return self.variables | {"POSTGRE_NAME": name}

    @contextmanager
    def database_on_small_disk(
        self, name: str, dump: Path, room_mb: int
    ) -> Iterator[tuple[dict[str, str], Callable[[str], None]]]:
        """The variables of a further database that holds a dump, on a disk with so much room left.

        And what gives the disk more, see `small_disk`.
        """
        folder = self.folder / name
        folder.mkdir()
        psql = ["psql", *self.superuser, "-d", "postgres", "-c"]
        with small_disk(folder, "500m") as grow:
            shutil.chown(folder, self.user)
            self.run(*psql, f"CREATE TABLESPACE {name} LOCATION '{folder}'")
            self.run("createdb", *self.superuser, "--tablespace", name, name)
            try:
                variables = self.variables | {"POSTGRE_NAME": name}
                self.fill(dump, variables)
                # What is still in memory counts, too.
                self.run(*psql, "CHECKPOINT")
                grow(f"{round(shutil.disk_usage(folder).used / 2**20) + room_mb}m")
                yield variables, grow
            finally:
                grow("500m")
                self.run("dropdb", *self.superuser, "--force", name)
                self.run(*psql, f"DROP TABLESPACE {name}")

    def fill(self, dump: Path, variables: dict[str, str] | None = None) -> None:
        """Restore a dump into a database, by default the first."""
        told = variables or self.variables
        where = ["-h", "127.0.0.1", "-p", str(self.port)]
        where += ["-U", told["POSTGRE_USER"], "-d", told["POSTGRE_NAME"]]
        command = [str(postgres_folder() / "pg_restore"), *where, "--no-owner", str(dump)]
        environment = os.environ | {"PGPASSWORD": told["POSTGRE_PASSWORD"]}
        subprocess.run(command, env=environment, check=True, capture_output=True)

    @property
    def superuser(self) -> list[str]:
        """Options with which a program of PostgreSQL logs in as who owns the cluster."""
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", self.user]

    @property
    def data(self) -> Path:
        return self.folder / "data"


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


@contextmanager
def postgres_server(template: Path | None = None) -> Iterator[PostgresForTests]:
    """A running cluster; `template` is the dump of a migrated database, see `postgres_template`."""
    postgres_folder()
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # PostgreSQL refuses to run as root.
    prefix = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
    if prefix and (shutil.which("runuser") is None or not _user_exists(user)):
        pytest.skip("tests run as root and there is no user postgres to run the cluster")
    # Not under pytest's folder, which other users cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="planktrait-postgres-"))
    if prefix:
        shutil.chown(folder, user)
    server = PostgresForTests(folder, free_port(), user, prefix)
    try:
        server.run("initdb", "-D", str(server.data), "-U", user, "--auth", "trust", "-E", "UTF8")
        rules = server.data / "pg_hba.conf"
        asked = f"host all {OWNER} 127.0.0.1/32 scram-sha-256\n"
        rules.write_text(asked + rules.read_text())  # the first that fits is taken
        server.start()
        try:
            if template is not None:
                server.fill(template)
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_cluster(template: Path | None = None) -> Iterator[dict[str, str]]:
    """As `postgres_server`, as the variables that Label Studio reads."""
    with postgres_server(template) as server:
        yield server.variables


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def open_connection(variables: dict[str, str]) -> psycopg.Connection[Any]:
    """For a transaction of somebody else."""
    return psycopg.connect(
        host=variables["POSTGRE_HOST"],
        port=variables["POSTGRE_PORT"],
        user=variables["POSTGRE_USER"],
        password=variables["POSTGRE_PASSWORD"],
        dbname=variables["POSTGRE_NAME"],
    )


def comes_to_wait(answer: Future[Any], other: psycopg.Connection[Any], timeout_s: float) -> bool:
    """Whether a call waits for what somebody else's transaction holds, before it has an answer."""
    end = time.monotonic() + timeout_s
    while not answer.done() and time.monotonic() < end:
        found = other.execute("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)")
        if found.fetchall() == [(True,)]:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="session")
def postgres_template(request, tmp_path_factory) -> Path:
    """A dump of a migrated PostgreSQL database without users, made once a checkout (a minute)."""
    programs = postgres_folder()
    cache = Path(request.config.cache.mkdir("planktrait"))
    name = f"label-studio-{version('label-studio')}-{our_migrations()}-{programs.parent.name}"
    template = cache / f"{name}.pgdump"
    if not template.exists():
        home = Home(tmp_path_factory.mktemp("postgres-template") / "home")
        with postgres_server() as server:
            subprocess.run(
                [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
                env=server_environment(home) | server.variables,
                cwd=home.folder,
                check=True,
                capture_output=True,
            )
            partial = template.with_suffix(f".{os.getpid()}")
            where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", server.user, "postgres"]
            command = [str(programs / "pg_dump"), "--format=custom", "--no-owner", *where]
            with partial.open("wb") as file:
                subprocess.run(command, check=True, stdout=file)
            partial.replace(template)
    return template

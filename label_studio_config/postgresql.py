"""Label Studio's database on a PostgreSQL server, dumped and filled by its own programs."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from label_studio_config.database import Database, DatabaseError, Report, counts_of

_LONGEST_CONNECT_S = 10


@dataclass(frozen=True)
class PostgreSql(Database):
    """As `POSTGRE_*` names it."""

    host: str
    port: str
    user: str
    password: str
    name: str
    kind = "PostgreSQL"
    dump_name = "database.pgdump"

    def __str__(self) -> str:
        return f"PostgreSQL {self.user}@{self.host}:{self.port}/{self.name}"

    def __repr__(self) -> str:
        return f"PostgreSql({self})"

    def require_reachable(self) -> None:
        with self.connected():
            pass

    def is_empty(self) -> bool:
        with self.connected() as connection:
            return self._tables(connection) == 0

    def dump(self, file: Path, report: Report) -> dict[str, int]:
        with self.connected() as connection:
            # What is counted and what is dumped are one moment's.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            ((snapshot,),) = connection.execute("SELECT pg_export_snapshot()").fetchall()
            counts = counts_of(connection, self)
            tables = self._tables(connection)
            command = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--verbose"]
            command += [f"--snapshot={snapshot}", f"--file={file}", *self._where()]
            told = _Told("dumping contents of table", tables, report)
            with self._program(command, stdout=subprocess.DEVNULL) as process:
                told.follow(process)
            told.require(process.wait() == 0, "pg_dump", self)
        file.chmod(0o600)
        report("database", tables, tables)
        return counts

    def fill(self, dump: Path, report: Report) -> None:
        total = _tables_of(dump)
        read = ["pg_restore", "--file=-", "--no-owner", "--no-privileges", "--verbose", str(dump)]
        # The old tables go and the new ones come in one transaction, whose COMMIT is the last that
        # pg_restore says: psql's own would also come where pg_restore dies half way.
        read.append("--single-transaction")
        write = ["psql", "--quiet", "--no-psqlrc", "--output=/dev/null", "--set=ON_ERROR_STOP=1"]
        write += [*self._where(), "--command=BEGIN", f"--command={_DROP_TABLES}", "--file=-"]
        told, written = _Told("processing data for table", total, report), _Told("", 0, report)
        with (
            self._program(read, stdout=subprocess.PIPE) as reader,
            self._program(write, stdin=reader.stdout, stdout=subprocess.DEVNULL) as writer,
        ):
            assert reader.stdout is not None
            reader.stdout.close()  # the reader ends when the writer does
            told.follow(reader)
            written.follow(writer)
        written.require(writer.wait() == 0, "psql", self, ". What was there before stays")
        told.require(reader.wait() == 0, "pg_restore", self, ". What was there before stays")
        report("database", total, total)

    def count(self) -> dict[str, int]:
        with self.connected() as connection:
            return counts_of(connection, self)

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A connection of psycopg; what is done there is kept unless something is raised."""
        import psycopg

        try:
            connection = psycopg.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                dbname=self.name,
                connect_timeout=_LONGEST_CONNECT_S,
            )
        except psycopg.Error as error:
            raise DatabaseError(
                f"{self} does not answer: start it, or correct DJANGO_DB and POSTGRE_* ({error})"
            ) from error
        with connection:
            yield connection

    @staticmethod
    def _tables(connection: Any) -> int:
        sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        return int(connection.execute(sql).fetchall()[0][0])

    def _where(self) -> list[str]:
        where = [f"--host={self.host}", f"--port={self.port}", f"--username={self.user}"]
        return [*where, f"--dbname={self.name}", "--no-password"]

    def _program(self, command: list[str], **streams: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PGPASSWORD": self.password, "LC_MESSAGES": "C"}
        try:
            return subprocess.Popen(
                command, env=environment, stderr=subprocess.PIPE, text=True, **streams
            )
        except FileNotFoundError as error:
            raise DatabaseError(
                f"{command[0]} is not installed: apt-get install postgresql-client, of the "
                "server's version or newer"
            ) from error


_DROP_TABLES = """
SET client_min_messages = error;
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('DROP TABLE IF EXISTS public.%I CASCADE', name);
  END LOOP;
END $$"""


class _Told:
    """What one of PostgreSQL's programs says: progress, and the reason when it fails."""

    def __init__(self, counted: str, total: int, report: Report) -> None:
        self.counted, self.total, self.report = counted, total, report
        self.last: deque[str] = deque(maxlen=5)

    def follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        done = 0
        for line in process.stderr:
            self.last.append(line.strip())
            if self.counted and self.counted in line:
                done += 1
                self.report("database", min(done, self.total), self.total)

    def require(self, succeeded: bool, program: str, database: Database, then: str = "") -> None:
        if not succeeded:
            said = " / ".join(self.last)
            raise DatabaseError(f"{program} of {database} failed: {said}{then}")


def _tables_of(dump: Path) -> int:
    listed = subprocess.run(["pg_restore", "--list", str(dump)], capture_output=True, text=True)
    if listed.returncode:
        raise DatabaseError(f"{dump} cannot be read: {listed.stderr.strip()}")
    return listed.stdout.count(" TABLE DATA ")

"""A command of the plugin, run in Label Studio's environment as a process of its own.

It needs no server. Its standard output is one JSON object a line: progress, at the end the report.

>>> from label_studio_config.home import Home
>>> run_django(Home("home"), ["planktrait_reindex"], print)  # doctest: +SKIP
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from label_studio_config.database_choice import require_database
from label_studio_config.home import Home
from label_studio_config.hosting import server_environment

# PostgreSQL's own names do not tell that they are errors: `psycopg.errors.DiskFull`.
_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b|psycopg\.errors\.\w+")
_FULL = re.compile("No space left on device|disk is full")
_UNREACHABLE = re.compile(
    r"[\w.]*(Operational|Interface)Error\b.*(connect|server|terminat)"
    r"|psycopg\.errors\.(AdminShutdown|CrashShutdown|CannotConnectNow|Connection\w+)"
)


class DjangoCommandError(RuntimeError):
    """The command did not reach its end; the message is the last line of what it said.

    Attributes
    ----------
    refused : whether it said itself what is wrong
    """

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


def run_django(
    home: Home, arguments: Sequence[str], report: Callable[[str, int, int], object]
) -> dict[str, Any]:
    """Run one command to its end, and end it with us.

    Parameters
    ----------
    arguments : name of the command, then what it takes
    report : called as `report(stage, done, total)`

    Returns
    -------
    dict
        What the command reports at the end.

    Raises
    ------
    DatabaseError
        The environment names another database than the home was served with, or there is none yet.
    DjangoCommandError
    """
    require_database(home)
    with tempfile.TemporaryDirectory(dir=home.cache_folder) as folder:
        log = Path(folder) / "log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "django", *arguments],
                env=server_environment(home),
                cwd=home.folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            try:
                told = _listen(process, report)
            finally:
                process.kill()
                process.wait()
        if told is None:
            raise error_of(log.read_text())
    return told


def say(what: dict[str, Any]) -> None:
    """What a command says to whoever runs it: `{"progress": …}`, or `{"report": …}`."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _listen(
    process: subprocess.Popen[str], report: Callable[[str, int, int], object]
) -> dict[str, Any] | None:
    told = None
    assert process.stdout is not None
    for line in process.stdout:
        # Label Studio prints a few lines of its own when it starts.
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        if "progress" in said:
            report(*said["progress"])
        told = said.get("report", told)
    return told if process.wait() == 0 else None


def error_of(log: str) -> DjangoCommandError:
    """What a command says of its end in what it has logged, with the remedy where one is known."""
    lines = [line for line in log.splitlines() if line.strip()]
    # An error of PostgreSQL's client takes several lines, the first of which names it; others may
    # hold what was to be written.
    named = [k for k, line in enumerate(lines) if _ERROR.match(line)]
    told = " ".join(line.strip() for line in lines[named[-1] :]) if named else ""
    last = told or (lines[-1] if lines else "it was killed")
    refused = last.startswith("CommandError: ")
    said = last.removeprefix("CommandError: ")
    first = lines[named[-1]] if named else last
    if _UNREACHABLE.match(first):
        said += " Is the database running?"
    if _FULL.search(first):
        whose = "the disk" if first.startswith("OSError") else "the disk of the database"
        said = f"{whose} is full: make room, and start it again ({said})"
    return DjangoCommandError(said, refused=refused)

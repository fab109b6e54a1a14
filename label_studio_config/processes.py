"""Server processes: start, await health, stop with all their workers, say why one died."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""How long a server keeps an idle connection. With gunicorn's two seconds many a call came just
when it was closed, and failed."""

_TAIL_LINES = 25
_STOP_SECONDS = 15.0


class HostingError(ValueError):
    """A server that cannot start or has stopped; the message names it and the remedy."""


def require_free_port(port: int, host: str, option: str) -> None:
    """Refuse a port that another program listens on.

    Raises
    ------
    HostingError
        Naming the port and the option that chooses another one.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As gunicorn does: a port that is only in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise HostingError(
                f"port {port} on {host} is taken or not allowed ({error}): "
                f"choose another with {option}"
            ) from error


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@dataclass
class ServerProcess:
    """One server and its workers, in a process group of their own, logging to a file.

    Parameters
    ----------
    name : what people call it
    command, env, folder : as for `subprocess.Popen`
    log_file : its output is appended there
    health_url, auth : answers 2xx once the server is up
    """

    name: str
    command: Sequence[str]
    env: dict[str, str]
    folder: Path
    log_file: Path
    health_url: str
    auth: tuple[str, str] | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _log_start: int = 0

    def start(self) -> None:
        """Start it; returns at once."""
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            # Its own session: Ctrl-C reaches only us, and we stop the group in order.
            self._process = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """Process id of the master, None before the start."""
        return self._process.pid if self._process else None

    def is_running(self) -> bool:
        """Whether it was started and has not stopped."""
        return self._process is not None and self._process.poll() is None

    def check_alive(self) -> None:
        """Raise if it has stopped.

        Raises
        ------
        HostingError
            With the end of its log.
        """
        code = self._process.poll() if self._process else None
        if code is not None:
            raise HostingError(
                f"{self.name} stopped (exit status {code}). "
                f"The end of {self.log_file}:\n{self.tail()}"
            )

    def is_healthy(self) -> bool:
        """Whether its health address answers."""
        with requests.Session() as session:
            # A proxy named in the environment must not see loopback requests.
            session.trust_env = False
            try:
                return session.get(self.health_url, auth=self.auth, timeout=2).ok
            except requests.RequestException:
                return False

    def await_health(self, timeout_s: float, report: Callable[[str], None]) -> None:
        """Wait until it answers, reporting now and then.

        Raises
        ------
        HostingError
            If it stops, or does not answer in time.
        """
        started = time.monotonic()
        next_report_s = 10.0
        while not self.is_healthy():
            self.check_alive()
            waited_s = time.monotonic() - started
            if waited_s > timeout_s:
                raise HostingError(
                    f"{self.name} did not answer at {self.health_url} within {timeout_s:.0f} s. "
                    f"The end of {self.log_file}:\n{self.tail()}"
                )
            if waited_s > next_report_s:
                report(f"Waiting for {self.name}: {waited_s:.0f} s")
                next_report_s += 10.0
            time.sleep(0.3)
        self.check_alive()

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """The end of what it has logged since its start."""
        try:
            with self.log_file.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode("utf-8", errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:]) or "(nothing was logged)"

    def ask_to_stop(self) -> None:
        """Ask the master to stop its workers; returns at once."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = _STOP_SECONDS) -> None:
        """Stop it and every worker; those that do not obey are killed."""
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not stop: killing it", self.name)
        # The group's number is the master's pid; workers may outlive a master that was killed.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

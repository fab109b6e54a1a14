"""Serve one home: Label Studio and the ML backend, each under gunicorn, started and stopped as one.

`serve` blocks until Ctrl-C or SIGTERM; `start_in_background` returns `Servers` to stop later.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType

from label_studio_config.database_choice import database_of, require_same_kind
from label_studio_config.home import Home
from label_studio_config.processes import (
    KEEP_ALIVE_S,
    HostingError,
    ServerProcess,
    require_free_port,
)
from label_studio_config.serve_lock import ServeLock
from label_studio_config.serve_settings import planned_settings

logger = logging.getLogger(__name__)

_START_SECONDS = 300.0
_MOST_RESTARTS = 3
_RESTARTS_WITHIN_S = 600.0


class Servers:
    """The running servers of a home; a context manager that stops them.

    Attributes
    ----------
    label_studio_url, backend_url : str
    processes : the `ServerProcess` of each, Label Studio first
    """

    def __init__(self, home: Home, processes: list[ServerProcess], lock: ServeLock) -> None:
        self.home = home
        self.processes = processes
        self._lock = lock
        self._restarts: dict[str, list[float]] = {}
        settings = home.settings
        self.label_studio_url = settings.label_studio_url
        self.backend_url = settings.backend_url

    def check(self) -> None:
        """Start a server that has stopped again; jobs go on meanwhile.

        Annotating goes on without a backend: one that keeps stopping is left off.

        Raises
        ------
        HostingError
            Label Studio keeps stopping.
        """
        for process in list(self.processes):
            try:
                process.check_alive()
            except HostingError as error:
                self._start_again(process, error)

    def _start_again(self, process: ServerProcess, error: HostingError) -> None:
        process.stop()
        now = time.monotonic()
        before = self._restarts.get(process.name, [])
        recent = [then for then in before if now - then < _RESTARTS_WITHIN_S]
        if len(recent) >= _MOST_RESTARTS:
            if process is self.processes[0]:
                raise HostingError(
                    f"{error}\n{process.name} was started again {len(recent)} times within "
                    f"{_RESTARTS_WITHIN_S / 60:.0f} minutes: mend what its log tells, then run "
                    "`planktrait serve` again"
                ) from error
            logger.error("%s\nIt stays off; annotating goes on without suggestions", error)
            self.processes.remove(process)
            return
        self._restarts[process.name] = [*recent, now]
        logger.warning("%s\nStarting it again", error)
        process.start()
        self._lock.write([process.pid for process in self.processes if process.pid])

    def stop(self) -> None:
        """Stop all servers and their workers; safe to repeat."""
        for process in self.processes:
            process.ask_to_stop()
        for process in self.processes:
            process.stop()
        self._lock.release()

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start_in_background(
    home: Home,
    *,
    images_root: str | os.PathLike[str] | None = None,
    port: int | None = None,
    backend_port: int | None = None,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
    backend_application: str | None = None,
    workers: int = 2,
    threads: int = 8,
    timeout_s: float = _START_SECONDS,
    report: Callable[[str], None] = logger.info,
) -> Servers:
    """Start Label Studio and the backend and wait until both answer.

    Parameters
    ----------
    home : Home
    images_root : the one folder under which images may lie; default: as before. A wider one than
        before is followed by the tasks; without any, no images are served.
    port, backend_port : default: as before
    host : address to listen on for Label Studio, 0.0.0.0 for all; the backend listens on loopback
        only
    allowed_hosts : names and addresses under which people open Label Studio, besides loopback and
        `host`; default: as before
    backend_application : the ML backend as gunicorn is given it, "module:application"; None for
        Label Studio alone
    workers, threads : of Label Studio; the backend has its own
    timeout_s : how long each server may take to answer
    report : called with a line of progress

    Raises
    ------
    HostingError
        If this home is being served already or lies inside the images root, a port is taken, or a
        server stops or is too slow. Settings are kept only of a start that passed these checks.
    DatabaseError
        The environment names another kind of database than before, or it does not answer.
    """
    lock = ServeLock(home)
    processes: list[ServerProcess] = []
    try:
        database = database_of(home)
        require_same_kind(home, database)
        database.require_reachable()
        settings = planned_settings(
            home,
            images_root=images_root,
            port=port,
            backend_port=backend_port,
            host=host,
            allowed_hosts=allowed_hosts,
        )
        require_free_port(settings.label_studio_port, host, "--port")
        if backend_application is not None:
            require_free_port(settings.backend_port, "127.0.0.1", "--backend-port")
        home.change_settings(**asdict(settings) | {"database": database.kind})
        processes.append(_label_studio_process(home, host, workers, threads))
        if backend_application is not None:
            processes.append(_backend_process(home, backend_application))
        for process in processes:
            report(f"Starting {process.name} (log: {process.log_file})")
            process.start()
            lock.write([process.pid for process in processes if process.pid])
        for process in processes:
            process.await_health(timeout_s, report)
            report(f"{process.name} answers at {process.health_url.removesuffix('/health')}")
        return Servers(home, processes, lock)
    except BaseException:
        for process in processes:
            process.stop()
        lock.release()
        raise


def serve(home: Home, *, started: Callable[[], None] | None = None, **options: object) -> None:
    """Serve until Ctrl-C or SIGTERM; options as for `start_in_background`.

    Parameters
    ----------
    started : called once, when both servers answer

    Raises
    ------
    HostingError, DatabaseError
        As `start_in_background`, and when Label Studio keeps stopping.
    """
    # SIGHUP: the terminal was closed, which must not leave the servers behind.
    previous = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with start_in_background(home, **options) as servers:  # type: ignore[arg-type]
            if started is not None:
                started()
            while True:
                servers.check()
                time.sleep(0.5)
    except KeyboardInterrupt:
        logger.info("Stopped")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def server_environment(home: Home) -> dict[str, str]:
    """The environment in which a server of this home runs."""
    packages = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PLANKTRAIT_HOME": str(home.folder),
        "DJANGO_SETTINGS_MODULE": "label_studio_config.settings",
        "PYTHONPATH": os.pathsep.join(filter(None, [packages, inherited])),
        "PYTHONUNBUFFERED": "1",
        # Threads that wait for each other must not spin while a job needs the processors.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }


def _label_studio_process(home: Home, host: str, workers: int, threads: int) -> ServerProcess:
    settings = home.settings
    command = [sys.executable, "-m", "label_studio_config.label_studio_server"]
    command += ["--bind", f"{host}:{settings.label_studio_port}"]
    command += ["--workers", str(workers), "--threads", str(threads)]
    return ServerProcess(
        name="Label Studio",
        command=command,
        env=server_environment(home),
        folder=home.folder,
        log_file=home.logs_folder / "label-studio.log",
        health_url=f"{settings.label_studio_url}/health",
    )


def _backend_process(home: Home, application: str) -> ServerProcess:
    settings = home.settings
    command = [sys.executable, "-m", "gunicorn", application]
    command += ["--bind", f"127.0.0.1:{settings.backend_port}", "--worker-class", "gthread"]
    command += ["--workers", "2", "--threads", "4", "--timeout", "600", "--graceful-timeout", "5"]
    command += ["--keep-alive", str(KEEP_ALIVE_S)]
    # Loading torch once for all workers halves the start and the memory. Gunicorn's control socket
    # would lie outside the home, one for all servers of this user.
    command += ["--preload", "--no-control-socket"]
    return ServerProcess(
        name="ML backend",
        command=command,
        env=server_environment(home),
        folder=home.folder,
        log_file=home.logs_folder / "ml-backend.log",
        health_url=f"{settings.backend_url}/health",
        auth=(home.secrets.backend_username, home.secrets.backend_password),
    )

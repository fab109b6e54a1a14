"""The process that serves Label Studio: prepares the database, then becomes gunicorn.

Run as `python -m label_studio_config.label_studio_server --bind HOST:PORT --workers N --threads N`
with `$PLANKTRAIT_HOME` set; `hosting.py` does.
"""

from __future__ import annotations

import argparse
import gc
import os
from typing import Any

from gunicorn.app.base import BaseApplication

from label_studio_config.processes import KEEP_ALIVE_S


class _Server(BaseApplication):
    """Gunicorn around an application that is already loaded, so that workers share its memory."""

    def __init__(self, application: Any, options: dict[str, Any]) -> None:
        self.application = application
        self.options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self.application


def main(arguments: list[str] | None = None) -> None:
    """Prepare the database and serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bind", default="127.0.0.1:8080")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args(arguments)

    os.environ["DJANGO_SETTINGS_MODULE"] = "label_studio_config.settings"
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()

    from django.conf import settings
    from django.db import connections

    from label_studio_config.plugin.bootstrap import prepare_database

    prepare_database(settings.PLANKTRAIT_HOME)
    # A worker must not inherit an open connection.
    connections.close_all()
    # Label Studio's own 300,000 objects stay: looking through them again and again takes 0.2 s each
    # time, in the middle of a request.
    gc.collect()
    gc.freeze()
    _Server(
        application,
        {
            "bind": options.bind,
            "workers": options.workers,
            "threads": options.threads,
            "worker_class": "gthread",
            "preload_app": True,
            "graceful_timeout": 5,
            "timeout": 120,
            "keepalive": KEEP_ALIVE_S,
            "loglevel": "warning",
        },
    ).run()


if __name__ == "__main__":
    main()

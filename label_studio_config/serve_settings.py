"""What a start of the servers would change in a home's settings, checked before it is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from label_studio_config.home import Home, Settings
from label_studio_config.processes import HostingError

_ALL_ADDRESSES = ("0.0.0.0", "")
_LOOPBACK = ("127.0.0.1", "localhost")


def planned_settings(
    home: Home,
    *,
    images_root: str | os.PathLike[str] | None,
    port: int | None,
    backend_port: int | None,
    host: str,
    allowed_hosts: Sequence[str],
) -> Settings:
    """The settings to serve with; nothing is written.

    Raises
    ------
    HostingError
        For an images root that is no folder, holds the home, or loses imported images, and for an
        allowed host that is not a name or an address.
    """
    for name in allowed_hosts:
        if "/" in name or (":" in name and not name.startswith("[")):
            raise HostingError(f"allowed host {name!r}: give the name alone, no http:// or port")
    before = home.settings
    changes: dict[str, Any] = {}
    if images_root is not None:
        root = Path(images_root).expanduser().resolve()
        if not root.is_dir():
            raise HostingError(f"images root {images_root} is not a folder: create it first")
        _require_root_holds_imported(home, root)
        changes["images_root"] = str(root)
    if port is not None:
        changes["label_studio_port"] = port
    if backend_port is not None:
        changes |= {"backend_port": backend_port, "backend_url": f"http://127.0.0.1:{backend_port}"}
    port = changes.get("label_studio_port", before.label_studio_port)
    changes["label_studio_url"] = f"http://{_reached_at(host)}:{port}"
    hosts = list(allowed_hosts) or list(before.allowed_hosts)
    if host not in (*_ALL_ADDRESSES, *_LOOPBACK):
        hosts.append(host)
    changes["allowed_hosts"] = tuple(dict.fromkeys(hosts))
    settings = replace(before, **changes)
    _require_home_outside(home, settings.images_root)
    return settings


def _reached_at(host: str) -> str:
    """Where our own programs find a server that listens on `host`."""
    return "127.0.0.1" if host in _ALL_ADDRESSES else host


def _require_home_outside(home: Home, root: str | None) -> None:
    # Images inside the home are fine: the root is then a folder that holds only those.
    if root is not None and home.folder.is_relative_to(Path(root).resolve()):
        raise HostingError(
            f"home {home.folder} lies inside the images root {root}, whose files are served to "
            f"everyone who is logged in: choose a folder that holds only the images, or move the "
            f"home out of it and name it with --home or PLANKTRAIT_HOME"
        )


def _require_root_holds_imported(home: Home, root: Path) -> None:
    """A wider root is fine, tasks follow it (`plugin/bootstrap.py`); another one loses images."""
    old = home.settings.images_root
    imported = any(home.manifests_folder.glob("project-*.parquet"))
    if imported and old is not None and not Path(old).is_relative_to(root):
        raise HostingError(
            f"images root {root} does not hold {old}, where imported images are: "
            f"choose a folder that holds both, or name another home with PLANKTRAIT_HOME"
        )

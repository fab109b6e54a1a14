"""Where a home's heavy jobs run: as its site profile says, here or on Slurm."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hpc_jobs import Site, find_site, read_site
from hpc_jobs.site import SITE_FILE
from label_studio_config.home import Home

KINDS = ("pretrain", "train", "predict", "embed", "clusters", "push")
"""The sections that a profile may have: the commands that `planktrait submit` takes."""


OF_PROCESSES = ("pretrain",)
"""Whose work the processes of one job share."""


def site_of(home: Home, path: Path | None = None) -> Site:
    """The site profile: a file, else `$PLANKTRAIT_SITE`, else `planktrait-site.toml` in the home.

    Raises
    ------
    SiteError
        It is not there, or something in it is wrong.
    """
    return read_site(path or find_site(home.folder / SITE_FILE), KINDS, OF_PROCESSES)


def site_options(home: Home, kind: str) -> dict[str, Any]:
    """`executor` and `parameters` for `hpc_jobs.submit` or `submit_once`; read anew each time."""
    return site_of(home).options(kind)


def out_of_reach(home: Home) -> str | None:
    """For an operator whose Slurm jobs would ask Label Studio in vain; None if all is well.

    Raises
    ------
    SiteError
    """
    site = site_of(home)
    # `push` writes into the database; all others may belong to a project.
    kinds = [kind for kind in KINDS if kind != "push" and site.settings(kind).cluster == "slurm"]
    url = home.settings.label_studio_url
    if not kinds or not _is_loopback(urlsplit(url).hostname or ""):
        return None
    return (
        f"Slurm jobs ({', '.join(kinds)}) are told that Label Studio is at {url}, which other "
        "machines do not reach: serve with --host ADDRESS, one of this machine that the nodes reach"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

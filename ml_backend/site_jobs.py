"""Where a home's heavy jobs run: as its site profile says, here or on Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

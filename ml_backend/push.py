"""Bulk loading: tasks and predictions of many images into Label Studio, as a process or a job.

>>> from ml_backend.push import push_project
>>> push_project("home", 7, "cruise.parquet", "predictions")  # doctest: +SKIP
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hpc_jobs import progress
from label_studio_config.database_choice import require_database
from label_studio_config.django_command import DjangoCommandError, run_django
from label_studio_config.home import Home
from label_studio_config.manifest import Skipped
from label_studio_config.sources import has_images_to_read, read_source, showable
from label_studio_config.task_import import require_near


class PushError(ValueError):
    """Nothing more could be loaded; the message is Label Studio's or the database's own."""


def push_project(
    home_folder: str | os.PathLike[str],
    project: str | int,
    source: str | os.PathLike[str],
    predictions: str | os.PathLike[str] | None = None,
    *,
    metadata: str | os.PathLike[str] | None = None,
    blind_share: float = 0.0,
    show: bool = True,
    prune: bool = False,
    url: str | None = None,
    token: str | None = None,
    images_address: str | None = None,
) -> dict[str, Any]:
    """Load a source's images and their predictions into a project; repeating changes nothing.

    Without `url` it writes to the database of the home, whether its server runs or not, with the
    database variables of the environment (`DJANGO_DB`, `POSTGRE_HOST`, …). With `url` it calls
    that Label Studio, ours or not.

    Parameters
    ----------
    project : its title or number, with `url` there
    source : a manifest (.parquet), or what `read_source` takes
    predictions : folder of the shards of `planktrait predict`; None for tasks alone
    metadata : as `read_source` takes it
    blind_share : share of the new images that are blind, 0 to 1
    show : whether the pushed version becomes the one that people see
    prune : whether predictions of earlier versions of the same model go, where the task has one
        of this version; not those that annotations refer to, nor of the newest earlier version,
        nor of the one that people see or saw when the push began
    token : of an account at `url`
    images_address : with `url`, what stands before an image's path in the manifest in its address
        there; see `push_over_http`

    Returns
    -------
    dict
        project (its number), images, present, added, blind, suggested, replaced, unchanged,
        pruned, model_version; predictions of earlier versions that stay: kept (annotations refer
        to them), unreplaced (their task has none of this version), shown (people may have a task
        of that version open);
        `bad`: `Skipped` for each row that was left out.

    Raises
    ------
    PushError
        There is no such project, or a batch could not be written. What was written before stays;
        a repeat goes on from there.
    ManifestError, OutsideRootError, ShardError, SchemaError
        Before anything is written.
    DatabaseError
        The environment names another database than the home's; before anything is written.
    """
    from ml_backend.push_http import find_over_http, push_over_http

    # Images take long to read: what can be told before is told before.
    source = Path(source).expanduser()
    if url is not None:
        api, number = find_over_http(url, token, project, predictions)
    elif has_images_to_read(source):
        _through_database(Home(home_folder), _command(project, predictions))
        require_near(Home(home_folder).images_root, source)
    else:
        require_database(Home(home_folder))
    everything, skipped = read_source(
        source, None if metadata is None else Path(metadata), report=progress.report
    )
    manifest, not_shown = showable(everything)
    if url is not None:
        told = push_over_http(
            api,
            number,
            manifest,
            None if predictions is None else Path(predictions),
            blind_share=blind_share,
            show=show,
            prune=prune,
            images_address=images_address,
        )
    else:
        home = Home(home_folder)
        options = [
            "--blind-share",
            str(blind_share),
            *["--hide"] * (not show),
            *["--prune"] * prune,
        ]
        with tempfile.TemporaryDirectory(dir=home.cache_folder) as folder:
            path = manifest.write(Path(folder) / "manifest.parquet")
            told = _through_database(
                home,
                _command(project, predictions, *options, manifest=path),
                ": what was loaded stays, and a repeat goes on from there",
            )
        told["bad"] = [Skipped(*one) for one in told["bad"]]
    # Shards hold also what browsers cannot show.
    left_out = set(everything.image_ids) - set(manifest.image_ids) if not_shown else set()
    bad = [one for one in told["bad"] if one.path not in left_out]
    told["bad"] = [*skipped, *not_shown, *bad]
    return told


def _command(
    project: str | int,
    predictions: str | os.PathLike[str] | None,
    *options: str,
    manifest: Path | None = None,
) -> list[str]:
    """Of the plugin; without a manifest it only says whether the rest is right."""
    command = ["planktrait_push", *options]
    if predictions is not None:
        command += ["--predictions", str(Path(predictions).resolve())]
    # A title may begin with a dash.
    command += ["--", f"#{project}" if isinstance(project, int) else project]
    return command if manifest is None else [*command, str(manifest)]


def _through_database(home: Home, command: list[str], rest: str = "") -> dict[str, Any]:
    """Run a command in Label Studio's environment and pass its progress on.

    Parameters
    ----------
    rest : what else is told where it does not reach its end and has not said itself what is wrong
    """
    try:
        return run_django(home, command, progress.report)
    except DjangoCommandError as error:
        raise PushError(str(error) if error.refused else f"{error}{rest}") from error

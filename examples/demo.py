"""The whole loop on one machine: images, annotators, features, training, suggestions, exports.

Without `--images`, phantom plankton is drawn. With it, the folder's own images are used; if it has
a `labels.csv` (or images in folders named by class), simulated annotators answer from that.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

import hpc_jobs
from examples.simulated_annotators import Annotator, annotate
from examples.steps import run_action, wait_for_job
from examples.truth import Truth, config_of_labels, read_groups, read_truth
from export_tools import export_tasks, sizes_from_files
from label_studio_config.api import Api
from label_studio_config.home import Home
from label_studio_config.hosting import Servers, start_in_background
from label_studio_config.manifest import Manifest, ManifestError, Skipped
from label_studio_config.phantoms import draw_phantoms
from label_studio_config.processes import HostingError
from label_studio_config.project import ProjectInfo, create_project, read_config
from label_studio_config.results import read_result
from label_studio_config.schema import LabelSchema
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.sources import read_folder
from label_studio_config.task_import import import_manifest
from label_studio_config.users import add_user
from ml_backend.registry import Registry

console = Console()
PROJECT = "Demo"
MOST_IMAGES = 1500
# How many images each of the two judges, at most and of all: half of the second's are also judged
# by the first, and more than half of all images stay without an answer.
MOST_ANSWERS, SHARES = (400, 250), (0.4, 0.25)
ERROR_RATES = (0.03, 0.10)
BLIND_SHARE = 0.1


class Stages:
    """The figures of each stage, for the closing table."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, str]] = []
        self._began = time.monotonic()

    def start(self, title: str) -> None:
        console.rule(f"[bold]{title}", align="left")
        self._title, self._began = title, time.monotonic()

    def done(self, figure: str) -> None:
        seconds = time.monotonic() - self._began
        self.rows.append((self._title, seconds, figure))
        console.print(f"{figure}  [dim]({seconds:.0f} s)[/]")

    def table(self) -> Table:
        table = Table("stage", "seconds", "figure", title="The loop")
        for title, seconds, figure in self.rows:
            table.add_row(title, f"{seconds:.0f}", figure)
        table.add_row("all", f"{sum(row[1] for row in self.rows):.0f}", "")
        return table


def main() -> int:
    """Run the loop; returns the exit code."""
    options = _options()
    # As Ctrl-C: the servers are stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING)
    # The demo calls "Start training" itself; otherwise every 50th annotation would.
    os.environ.setdefault("PLANKTRAIT_TRAIN_EVERY", "1000000")
    stages = Stages()
    home = Home(options.home or _home_name(options.images))

    stages.start("Images")
    manifest, skipped, config, truth, root = _images(options, home)
    stages.done(f"{len(manifest)} images in {_samples(manifest)}, {len(skipped)} skipped")

    stages.start("Serve")
    with start_in_background(
        home,
        images_root=root,
        port=options.port,
        backend_port=options.backend_port,
        backend_application="ml_backend.server:create_app()",
        report=console.print,
    ) as servers:
        stages.done(f"Label Studio at {servers.label_studio_url}, backend at {servers.backend_url}")
        try:
            _loop(home, servers, manifest, config, truth, options, stages)
            console.print(stages.table())
            console.print(
                f"\n[bold]{servers.label_studio_url}[/] is up. Log in as "
                f"[bold]{home.secrets.user_email}[/], "
                f"password [bold]{home.secrets.user_password}[/]."
            )
            if options.exit:
                return 0
            console.print("Ctrl-C stops it.")
            _until_stopped(servers)
        finally:
            hpc_jobs.cancel_all(home.jobs_folder)
    return 0


def _loop(
    home: Home,
    servers: Servers,
    manifest: Manifest,
    config: str,
    truth: Truth | None,
    options: argparse.Namespace,
    stages: Stages,
) -> None:
    stages.start("Project")
    project = create_project(home, PROJECT, config, annotators_per_image=2)
    users = [add_user(home, f"{name}@example.org") for name in ("ada", "rachel")]
    stages.done(f"project {project.id}, {len(project.schema.controls)} controls, 2 annotators")

    stages.start("Import")
    report = import_manifest(home, project.id, manifest, blind_share=BLIND_SHARE)
    stages.done(f"{report.added} tasks added, {report.present} there before, {report.blind} blind")

    stages.start("Learn features from all images (SimCLR)")
    run_action(home, project.id, "learn_features")
    stages.done(_features_figure(_wait_for_job(home, project.id, "pretrain")))
    if truth is None:
        console.print("No labels were found beside the images: annotate some in the browser, then")
        console.print(f"`planktrait train --project {project.id} --home {home.folder}`.")
        return

    stages.start("Annotate")
    given = _annotate(servers, home, project, users, truth)
    stages.done(given)

    stages.start("Start training")
    api = Api(home)
    api.post(f"/api/ml/{project.backend_id}/train", {})
    _wait_for_job(home, project.id, "train")
    stages.done(_training_figure(home, project))

    stages.start("Suggestions")
    stages.done(_suggestions_figure(home, project, truth))

    stages.start("Export")
    stages.done(_export(home, project))


def _home_name(images: str | None) -> str:
    # One images root a home: another folder gets a home of its own.
    return "demo-home" if images is None else f"demo-home-{Path(images).resolve().name}"


def _images(
    options: argparse.Namespace, home: Home
) -> tuple[Manifest, list[Skipped], str, Truth | None, Path]:
    if options.images is None:
        drawn = draw_phantoms(home.folder / "phantoms", options.n)
        manifest, skipped = read_folder(drawn.folder, drawn.metadata_csv)
        config = read_config("traits")
        return manifest, skipped, config, _truth_of(drawn.folder, manifest, config), drawn.folder
    folder = Path(options.images).expanduser().resolve()
    metadata = folder / "metadata.csv"
    manifest, skipped = read_folder(folder, metadata if metadata.is_file() else None)
    if len(manifest) > options.n:
        chosen = random.Random(0).sample(range(len(manifest)), options.n)
        manifest = manifest.select([manifest.image_ids[row] for row in sorted(chosen)])
    config = read_config("traits")
    truth = _truth_of(folder, manifest, config)
    if truth is None:
        groups = read_groups(folder, manifest)
        if groups is not None:
            config = config_of_labels(sorted(set(groups.values())))
            truth = {image_id: {"group": group} for image_id, group in groups.items()}
    return manifest, skipped, config, truth, folder


def _truth_of(folder: Path, manifest: Manifest, config: str) -> Truth | None:
    truth = read_truth(folder, LabelSchema.from_xml(config))
    known = {image_id: truth[image_id] for image_id in manifest.image_ids if image_id in truth}
    # A table whose groups are mostly not ours gets a config of its own labels.
    return known if len(known) > len(manifest) / 2 else None


def _annotate(
    servers: Servers, home: Home, project: ProjectInfo, users: list[Any], truth: Truth
) -> str:
    tasks = [t for t in fetch_tasks(home, project.id, full=False) if t["total_annotations"] == 0]
    random.Random(1).shuffle(tasks)
    annotators = [
        Annotator(user.email, user.token, error_rate, seed)
        for seed, (user, error_rate) in enumerate(zip(users, ERROR_RATES, strict=True))
    ]
    first, second = (
        min(most, int(share * len(tasks))) for most, share in zip(MOST_ANSWERS, SHARES, strict=True)
    )
    shares = (tasks[:first], tasks[first - second // 2 :][:second])
    with Progress(console=console) as bars:
        for annotator, share in zip(annotators, shares, strict=True):
            bar = bars.add_task(annotator.email, total=len(share))
            show = partial(_show_done, bars, bar)
            annotate(
                servers.label_studio_url,
                annotator,
                project.schema,
                share,
                truth,
                on_answer=show,
            )
    done = Counter(
        len(task["annotations"]) for task in fetch_tasks(home, project.id, annotated_only=True)
    )
    both = sum(count for n, count in done.items() if n > 1)
    return f"{sum(n * c for n, c in done.items())} annotations, {both} images judged by both"


def _show_done(bars: Progress, bar: TaskID, done: int) -> None:
    bars.update(bar, completed=done)


def _wait_for_job(home: Home, project_id: int, kind: str) -> dict[str, Any]:
    """Show the newest job of that kind until it has ended."""
    with Progress(console=console) as bars:
        bar = bars.add_task(kind, total=None)

        def on_progress(job: dict[str, Any]) -> None:
            progress = job.get("progress") or {}
            bars.update(
                bar,
                description=progress.get("stage") or job["state"],
                completed=progress.get("done") or 0,
                total=progress.get("total") or None,
            )

        return wait_for_job(home, project_id, kind, on_progress=on_progress)


def _features_figure(job: dict[str, Any]) -> str:
    result, progress = job.get("result") or {}, job.get("progress") or {}
    epochs, images = result.get("epochs"), result.get("images")
    return f"{epochs} epochs over {images} images; {progress.get('message', '')}"


def _training_figure(home: Home, project: ProjectInfo) -> str:
    live = Registry(home.models_folder(project.id)).live
    if live is None:
        raise SystemExit("training ended, but no version is live")
    test = live.metrics["metrics"]["test"]
    primary = project.schema.primary
    assert primary is not None
    mine = test[primary.name]
    return (
        f"{live.name} is live: {primary.name} macro recall {mine['macro_recall']:.2f} on "
        f"{mine['n_images']} held-out images, ECE {mine['ece']:.2f}; {len(test)} controls learned"
    )


def _suggestions_figure(home: Home, project: ProjectInfo, truth: Truth) -> str:
    primary = project.schema.primary
    assert primary is not None
    right: dict[str, list[bool]] = {}
    suggested = blind = 0
    for task in fetch_tasks(home, project.id):
        predictions = task["predictions"]
        blind += str(task["data"].get("blind")) == "yes" and bool(predictions)
        if not predictions:
            continue
        suggested += 1
        known = truth.get(task["data"]["image_id"])
        if task["annotations"] or known is None:
            continue
        answer = read_result(project.schema, predictions[-1]["result"])[primary.name]
        label = str(known[primary.name])
        right.setdefault(label, []).append(answer.labels == (label,))
    images = sum(map(len, right.values()))
    macro = sum(sum(hits) / len(hits) for hits in right.values()) / max(1, len(right))
    micro = sum(map(sum, right.values())) / max(1, images)
    figure = f"{suggested} images with suggestions, {blind} of them blind"
    if not images:
        return figure
    return (
        f"{figure}; on the {images} that nobody labelled, {primary.name}: "
        f"macro recall {macro:.2f}, accuracy {micro:.2f}"
    )


def _export(home: Home, project: ProjectInfo) -> str:
    tasks = list(fetch_tasks(home, project.id))
    folder = home.folder / "exports"
    names = {"json": "traits.json", "csv": "traits.csv", "parquet": "traits.parquet"}
    names["coco"] = "coco.json"
    rows = 0
    for kind, name in names.items():
        report = export_tasks(
            tasks,
            project.schema,
            kind,
            folder / name,
            image_size=sizes_from_files(home.resolve_image),
        )
        rows = max(rows, report.rows)
    return f"{rows} rows as JSON, CSV and Parquet, and COCO, in {folder}"


def _samples(manifest: Manifest) -> str:
    if "sample_id" not in manifest.table:
        return "no named samples"
    return f"{manifest.table['sample_id'].nunique()} samples"


def _until_stopped(servers: Servers) -> None:
    try:
        while True:
            servers.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("Stopping …")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", help="folder for everything the demo makes")
    parser.add_argument("--images", help="folder with images of your own")
    parser.add_argument("--port", type=int, default=8080, help="port of Label Studio")
    parser.add_argument("--backend-port", type=int, default=9090, help="port of the ML backend")
    parser.add_argument("-n", type=int, default=MOST_IMAGES, help="how many images at most")
    parser.add_argument("--exit", action="store_true", help="stop the servers at the end")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (HostingError, ManifestError, RuntimeError) as error:
        console.print("[red]Error:[/]", Text(str(error)))
        sys.exit(1)

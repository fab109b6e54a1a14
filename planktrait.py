"""Functional groups, traits and honest uncertainty from plankton images, in Label Studio.

A first loop: `planktrait serve --images FOLDER`, then in another terminal
`planktrait project create "My cruise"`, `planktrait import FOLDER --project "My cruise"`,
annotate in the browser, `planktrait train --project "My cruise"`,
`planktrait export --project "My cruise" --format csv`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Column, Table
from rich.text import Text

from hpc_jobs.command_line import SubmittedCommand, in_job, run_command

ROOMS = ("label_studio_config", "ml_backend", "simclr", "export_tools", "hpc_jobs", __name__)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=__doc__,
    pretty_exceptions_show_locals=False,
)
user_app = typer.Typer(no_args_is_help=True, help="Annotators and their accounts.")
project_app = typer.Typer(no_args_is_help=True, help="Label Studio projects.")
models_app = typer.Typer(no_args_is_help=True, help="Model versions of a project.")
submit_app = typer.Typer(no_args_is_help=True)
app.add_typer(user_app, name="user")
app.add_typer(project_app, name="project")
app.add_typer(models_app, name="models")
app.add_typer(submit_app, name="submit")

out = Console()
errors = Console(stderr=True)

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Home folder; default $PLANKTRAIT_HOME, else ./planktrait-home."),
]
ProjectOption = Annotated[
    str | None, typer.Option("--project", help="Project: name, number or '#number'.")
]
NeededProject = Annotated[
    str, typer.Option("--project", help="Project: name, number or '#number'.")
]
ExportOption = Annotated[
    Path | None, typer.Option("--export", help="A saved Label Studio export (JSON).")
]
ConfigOption = Annotated[
    str, typer.Option("--config", help="functional_groups, traits, frames, or an XML file.")
]
RootOption = Annotated[
    Path | None,
    typer.Option("--images", help="Folder that image paths are below; default: the home's."),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        "--part", help="K/N: only every Nth shard, from the Kth (0 first) on; N calls share."
    ),
]
ShardOption = Annotated[int, typer.Option("--shard-size", min=1, help="Images a shard.")]


class UsageError(ValueError):
    """Options that do not go together."""


class Cluster(StrEnum):
    """Where `planktrait submit` runs a command."""

    local = "local"
    slurm = "slurm"


class Format(StrEnum):
    """What `planktrait export` writes."""

    json = "json"
    csv = "csv"
    parquet = "parquet"
    coco = "coco"


class Method(StrEnum):
    """How `planktrait pretrain` learns: `simclr.settings.METHODS`."""

    simclr = "simclr"
    dcl = "dcl"
    vicreg = "vicreg"
    dino = "dino"
    byol = "byol"


class Rare(StrEnum):
    """How rare labels count in `planktrait train`: `ml_backend.ways.RARE_WAYS`."""

    square_root = "square-root"
    as_they_come = "as-they-come"
    even = "even"
    logit_adjustment = "logit-adjustment"
    retrain_heads = "retrain-heads"


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Set up logging: messages go to stderr, results to stdout."""
    # Threads of a training must not spin while the servers beside it need the processors.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    level = logging.DEBUG if verbose else logging.INFO
    handler = RichHandler(console=errors, show_path=False, log_time_format="%H:%M:%S")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    for package in ROOMS:
        logging.getLogger(package).setLevel(level)


@app.command()
def serve(
    images: Annotated[
        Path | None,
        typer.Option(help="The folder that holds the images; needed once, then remembered."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of Label Studio [8080].")] = None,
    backend_port: Annotated[int | None, typer.Option(help="Port of the ML backend [9090].")] = None,
    host: Annotated[str, typer.Option(help="Address that Label Studio listens on.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A host name under which others reach it; may be given several times."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes of Label Studio, of 8 threads each.")
    ] = 2,
    home: HomeOption = None,
) -> None:
    """Run Label Studio with our plugin and the ML backend, until Ctrl-C.

    SQLite in the home folder by default; PostgreSQL with DJANGO_DB=default and POSTGRE_HOST,
    POSTGRE_PORT, POSTGRE_USER, POSTGRE_PASSWORD, POSTGRE_NAME.
    """
    import hpc_jobs
    from label_studio_config import hosting

    with told_plainly():
        place = home_of(home, may_make=True)
        tell(f"Home: {place.folder}")
        tell(
            "Log in as ",
            (place.secrets.user_email, "bold"),
            f" with the password in {place.secrets_file} (user_password).",
        )
        hosting.serve(
            place,
            images_root=images,
            port=port,
            backend_port=backend_port,
            host=host,
            allowed_hosts=allow_host or (),
            backend_application="ml_backend.server:create_app()",
            workers=workers,
            report=tell,
            started=partial(go_on_with_interrupted, place),
        )
        for job in hpc_jobs.end_with_servers(place.jobs_folder):
            tell(f"Ended {job.name}: the next start goes on with it, or tells of it.")


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder, such as one with the date.")],
    home: HomeOption = None,
) -> None:
    """Back up a home and its database, also while people annotate and jobs run.

    The folder then holds the database, models, secrets, uploads and exports, not the images: it
    says where they lie. Keep it as safe as the home. PostgreSQL with the variables of `serve`.
    """
    from hpc_jobs import progress
    from label_studio_config.backup import back_up

    with told_plainly():
        show(back_up(home_of(home), folder, progress.report).facts)


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `planktrait backup` wrote.")],
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Home or database may hold something: files are moved aside, tables dropped.",
        ),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Make a new home, and its empty database, what they were when a backup was made.

    The images must lie where they lay (`images_root` in backup.json; a symbolic link will do).
    PostgreSQL with the variables of `serve`. Then run `planktrait serve`.
    """
    from hpc_jobs import progress
    from label_studio_config.backup import restore as restore_home

    with told_plainly():
        place = home_of(home, may_make=True)
        show(restore_home(folder, place, progress.report, replace=replace).facts)


@user_app.command("add")
def user_add(
    email: str,
    password: Annotated[str | None, typer.Option(help="Generated if not given.")] = None,
    home: HomeOption = None,
) -> None:
    """Add an annotator; each annotation bears its author."""
    from label_studio_config.users import add_user

    with told_plainly():
        user = add_user(home_of(home), email, password)
        show({"email": user.email, "password": user.password or "unchanged", "token": user.token})


@project_app.command("create")
def project_create(
    name: str,
    config: Annotated[
        str | None,
        typer.Option(help="functional_groups, traits (default), frames, or an XML file."),
    ] = None,
    annotators_per_image: Annotated[
        int | None, typer.Option(min=1, help="How many people judge each image [1].")
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(help="Order of the label stream: uncertainty (default), sequential, uniform."),
    ] = None,
    show_suggestions: Annotated[
        bool | None, typer.Option(help="Whether annotators see suggestions [yes].")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Create a project, or bring an existing one up to date; safe to repeat."""
    from label_studio_config.project import create_project

    with told_plainly():
        project = create_project(
            home_of(home),
            name,
            config,
            annotators_per_image=annotators_per_image,
            sampling=sampling,
            show_suggestions=show_suggestions,
        )
        show({"project": f"{project.id}: {project.name}", "address": project.url})


@app.command()
def phantoms(
    folder: Path,
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 1500,
    seed: int = 0,
) -> None:
    """Draw phantom plankton with known truth, to try everything out."""
    from label_studio_config.phantoms import draw_phantoms

    with told_plainly():
        drawn = draw_phantoms(folder, n, seed)
        show({"images": drawn.folder, "metadata": drawn.metadata_csv, "truth": drawn.truth_csv})


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder of images, or an EcoTaxa export.")],
    project: NeededProject,
    metadata: Annotated[
        Path | None,
        typer.Option(help="CSV with a file name column and sample_id, depth_m, lat, lon, …"),
    ] = None,
    pixel_size_um: Annotated[
        float | None, typer.Option(help="Size of a pixel in µm, where the source does not say.")
    ] = None,
    blind_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of images marked blind: never suggested or learned."
        ),
    ] = 0.0,
    home: HomeOption = None,
) -> None:
    """Put images into a project; they stay where they are, and repeating adds nothing twice."""
    from label_studio_config.project import find_project
    from label_studio_config.source_import import import_source

    with told_plainly():
        place = home_of(home)
        found = import_source(
            place,
            find_project(place, project).id,
            source,
            metadata,
            pixel_size_um=pixel_size_um,
            blind_share=blind_share,
        )
        list_skipped(found.skipped)
        show(
            {
                "added": found.report.added,
                "already there": found.report.present,
                "blind among the added": found.report.blind,
                "skipped": len(found.skipped),
                "manifest in": place.manifests_folder,
            }
        )


@app.command()
def pretrain(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A folder (also of `pack`), manifest (.parquet) or EcoTaxa table (.tsv)."
        ),
    ] = None,
    project: ProjectOption = None,
    export: ExportOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the encoder; default: ./encoder.")
    ] = None,
    method: Annotated[Method, typer.Option(help="How to learn.")] = Method.simclr,
    backbone: Annotated[
        str | None, typer.Option(help="A timm backbone with random weights [resnet10t].")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Instead of a backbone, weights to go on from: a folder, a timm name, or "
            "hf-hub:owner/model."
        ),
    ] = None,
    image_size_px: Annotated[
        int | None, typer.Option(help="Side of the network's input [64, or the encoder's].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=4)] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of simclr and dcl: views (two an image) in memory at once, for large batches in "
            "little memory; up to a third slower [all].",
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of simclr, dcl and dino; lower looks at harder images.")
    ] = None,
    view_share: Annotated[
        float | None, typer.Option(help="Side of a view as a share of the image size [0.5].")
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of the source with labels: only to report kNN accuracy."),
    ] = None,
    images: RootOption = None,
    home: HomeOption = None,
) -> None:
    """Learn features from images without labels (SimCLR by default); a repeated call resumes.

    With --project, every image of the project is used (but the blind ones) and the next training
    of that project starts from the result.

    Several processes learn as one: with `torchrun --nproc-per-node 4 --no-python` or `srun -n 4`
    in front, each takes a GPU, or a share of the processors. The batch size is that of all
    together. Give a manifest or a packed folder, which they need not check image by image.
    Images that cannot be read are listed in _skipped.csv in the folder.
    """
    from ml_backend.feature_learning import learn_features
    from ml_backend.image_sources import (
        column_labels,
        images_of_export,
        labels_of_export,
    )
    from ml_backend.training_jobs import images_scratch, pretrain_project
    from simclr.run_folder import count_images

    settings = given(
        method=method.value,
        backbone=backbone,
        encoder=encoder,
        image_size_px=image_size_px,
        epochs=epochs,
        batch_size=batch_size,
        chunk_size=chunk_size,
        temperature=temperature,
        view_share=view_share,
    )
    with told_plainly():
        exactly_one(SOURCE=source, project=project, export=export)
        if backbone is not None and encoder is not None:
            raise UsageError("give --backbone (random weights) or --encoder (learned ones)")
        if project is not None:
            from label_studio_config.project import find_project

            place = home_of(home)
            show(pretrain_project(place.folder, find_project(place, project).id, **settings))
            return
        if export is not None:
            from export_tools import read_export

            tasks = read_export(export)
            manifest, skipped = images_of_export(tasks, root_of(home, images))
            labels = labels_of_export(tasks)
        else:
            from label_studio_config.sources import read_source

            manifest, skipped = read_source(source)  # type: ignore[arg-type]
            labels = column_labels(manifest, label_column)
        list_skipped(skipped)
        folder = learn_features(
            manifest,
            output or Path("encoder"),
            labels=labels,
            cache_folder=images_scratch(),
            **settings,
        )
        show({"images": count_images(folder), "encoder": folder})


@app.command("manifest")
def manifest_(
    source: Annotated[Path, typer.Argument(help="A folder of images, or an EcoTaxa table (.tsv).")],
    output: Annotated[Path, typer.Argument(help="The manifest to write: a .parquet file.")],
    metadata: Annotated[
        Path | None,
        typer.Option(help="CSV with a file name column and sample_id, depth_m, lat, lon, …"),
    ] = None,
    pixel_size_um: Annotated[
        float | None, typer.Option(help="Size of a pixel in µm, where the source does not say.")
    ] = None,
) -> None:
    """Write the table of a source's images, for `predict`, `push`, `pretrain`, `embed`, `pack`.

    A first try: `planktrait manifest FOLDER cruise.parquet --metadata METADATA.csv`, then
    `planktrait predict cruise.parquet --project P`. Each image is decoded, once: those that cannot
    be are left out, and listed beside the manifest. Other commands then begin at once, and many
    tasks of an array see the same images. The images stay where they are.
    """
    from hpc_jobs import progress
    from label_studio_config.sources import read_source

    with told_plainly():
        if output.suffix != ".parquet":
            raise UsageError(f"a manifest is a .parquet file, not {output}")
        manifest, skipped = read_source(
            source, metadata, pixel_size_um=pixel_size_um, report=progress.report
        )
        list_skipped(skipped, output.with_suffix(".skipped.csv"))
        show({"images": len(manifest), "manifest": manifest.write(output)})


@app.command()
def pack(
    source: Annotated[
        Path, typer.Argument(help="A folder, manifest (.parquet) or EcoTaxa table (.tsv).")
    ],
    folder: Annotated[Path, typer.Argument(help="A new folder, for the shards.")],
    metadata: Annotated[
        Path | None,
        typer.Option(help="With a folder: CSV with a file name column and sample_id, depth_m, …"),
    ] = None,
    shard_mb: Annotated[int, typer.Option(min=1, help="Megabytes of a shard.")] = 256,
) -> None:
    """Pack many small images into a few tar files, for parallel file systems.

    `pretrain`, `embed`, `predict` and `quantify` take the folder as their source, also where it is
    copied to, and read each image where it lies. WebDataset reads the shards too. The single
    images stay where they are: Label Studio shows those. A killed run goes on with the same call.
    """
    from hpc_jobs import progress
    from label_studio_config.pack import pack as pack_images
    from label_studio_config.sources import read_source

    with told_plainly():
        # Bad images are found when they are packed: no need to decode each one twice.
        manifest, skipped = read_source(source, metadata, decode=False, report=progress.report)
        packed = pack_images(
            manifest, folder, shard_bytes=shard_mb * 1_000_000, report=progress.report
        )
        list_skipped([*skipped, *packed.skipped])
        show({"images": packed.images, "shards": packed.shards, "folder": packed.folder})


@app.command()
def embed(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder (also of `pack`), manifest (.parquet) or EcoTaxa table (.tsv)."
        ),
    ],
    encoder: Annotated[Path, typer.Option(help="Folder of an encoder from `pretrain`.")],
    output: Annotated[
        Path,
        typer.Option(
            help="Parquet file to write; or a folder of shards, where a killed run goes on."
        ),
    ] = Path("embeddings.parquet"),
    part: PartOption = None,
    shard_size: ShardOption = 20_000,
    home: HomeOption = None,
) -> None:
    """Write the features of images, one row an image.

    Images that cannot be read are listed in _skipped.csv beside the shards, or in a .skipped.csv
    beside the file.
    """
    from hpc_jobs.command_line import read_part
    from label_studio_config.sources import read_source
    from simclr.embed import write_embedding_file, write_embedding_shards
    from simclr.encoder import Encoder
    from simclr.marked_shards import count_rows

    with told_plainly():
        one_file = output.suffix == ".parquet"
        if one_file and part is not None:
            raise UsageError(f"--part writes shards: give a folder as --output, not {output}")
        share = read_part(part)
        manifest, skipped = read_source(source)
        model, name = Encoder.load(encoder), str(encoder)
        if one_file:
            files, unreadable = write_embedding_file(model, manifest, output, source=name)
            facts: dict[str, Any] = {"embeddings": output}
            list_skipped([*skipped, *unreadable], output.with_suffix(".skipped.csv"), manifest.root)
        else:
            files, unreadable = write_embedding_shards(
                model, manifest, output, source=name, shard_size=shard_size, part=share
            )
            facts = {"shards": len(files), "folder": output}
            list_part_skipped(skipped, unreadable, output, share, manifest.root)
        show({"images": count_rows(files, unreadable, manifest, share), **facts})


@app.command()
def train(
    project: ProjectOption = None,
    export: ExportOption = None,
    config: ConfigOption = "traits",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="An encoder folder, or a timm name or hf-hub:owner/model whose weights are "
            "fetched, or taken from the Hugging Face cache."
        ),
    ] = None,
    models: Annotated[
        Path, typer.Option(help="With --export: folder of the model versions.")
    ] = Path("models"),
    annotator_weight: Annotated[
        list[str] | None,
        typer.Option(
            help="EMAIL=WEIGHT: how much a person's votes count, 0 leaves them out, 1 is normal; "
            "kept for later trainings. May be given several times."
        ),
    ] = None,
    rare: Annotated[
        Rare,
        typer.Option(
            help="How rare labels count: square-root draws them more often, by the root of how "
            "rare they are; as-they-come does not, even draws all labels equally often; "
            "logit-adjustment has them in the loss instead; retrain-heads fits heads anew on the "
            "trained network, and keeps what is better. Measured (docs/benchmarks.md, Rare "
            "labels), as-they-come found rare labels no worse than the default, retrain-heads was "
            "most accurate, even was worst."
        ),
    ] = Rare.square_root,
    self_train: Annotated[
        int,
        typer.Option(
            min=0,
            help="Learn also from up to so many images without votes, of which heads on frozen "
            "features first say what they show; about five times the time.",
        ),
    ] = 0,
    calibrate_by_all: Annotated[
        bool,
        typer.Option(
            "--calibrate-by-all",
            help="Calibrate by all images to learn from, each fifth judged by a model of the "
            "other four: six trainings instead of one. Below 1,000 images it is done anyway.",
        ),
    ] = False,
    images: RootOption = None,
    home: HomeOption = None,
) -> None:
    """Learn from annotations: of a project on the server, or of a saved export.

    A new version becomes live only if it is not worse than the live one on today's held-out
    images; with --project, suggestions are refreshed. --rare, --self-train and --calibrate-by-all
    are of this training alone.
    """
    from ml_backend.annotators import parse_weights, update_weights

    with told_plainly():
        exactly_one(project=project, export=export)
        from ml_backend.ways import Ways

        ways = Ways(rare.value, self_train, calibrate_by_all)
        if project is None:
            root = root_of(home, images)  # said before anything is written
        if annotator_weight:
            folder = models if project is None else registry_of(home, None, project).folder
            update_weights(folder, parse_weights(annotator_weight))
        if project is not None:
            from label_studio_config.project import find_project
            from ml_backend.training_jobs import train_project

            place = home_of(home)
            show(train_project(place.folder, find_project(place, project).id, encoder, ways))
            return
        from export_tools import read_export
        from label_studio_config.home import resolve_image
        from label_studio_config.project import read_config
        from label_studio_config.schema import LabelSchema
        from ml_backend.registry import Registry
        from ml_backend.train import train as train_tasks
        from ml_backend.training_jobs import images_scratch

        settings = ways.settings(encoder)
        report = train_tasks(
            read_export(export),  # type: ignore[arg-type]
            LabelSchema.from_xml(read_config(config)),
            resolve_image=partial(resolve_image, root),
            registry=Registry(models),
            encoder=encoder,
            cache_folder=images_scratch(),
            settings=settings,
        )
        list_skipped(report.skipped)
        show_metrics(report.metrics)
        show({"version": report.version.folder, "promoted": report.promotion.reason})


@app.command()
def predict(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder (also of `pack`), `planktrait manifest`'s table (.parquet) or an "
            "EcoTaxa table (.tsv)."
        ),
    ],
    models: Annotated[
        Path | None, typer.Option(help="Folder of model versions; or give --project.")
    ] = None,
    project: ProjectOption = None,
    version: Annotated[str | None, typer.Option(help="Default: the live version.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the Parquet shards.")] = Path(
        "predictions"
    ),
    prior: Annotated[
        str,
        typer.Option(
            help="Frequencies of the labels where the images are from: natural (of the training "
            "votes), uniform, em or bbse (estimated from the images), or a JSON file "
            "{control: {label: frequency}}."
        ),
    ] = "natural",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="The network in 8-bit integers: on processors faster than bf16, more so the "
            "larger it is, at macro recall within .01 (docs/benchmarks.md). Made first, from the "
            "pixels of 300 of the images.",
        ),
    ] = False,
    part: PartOption = None,
    shard_size: ShardOption = 20_000,
    home: HomeOption = None,
) -> None:
    """Predict images into Parquet shards; a killed run goes on where it stopped.

    Images that cannot be read are listed in _skipped.csv beside the shards.
    """
    from hpc_jobs import progress
    from hpc_jobs.command_line import read_part
    from label_studio_config.sources import read_source
    from ml_backend.deploy import deploy
    from ml_backend.model import TraitModel
    from ml_backend.predict import write_predictions
    from simclr.marked_shards import count_rows

    with told_plainly():
        exactly_one(models=models, project=project)
        chosen = registry_of(home, models, project).chosen(version)
        share = read_part(part)
        # Bad images are found when they are predicted: no need to decode each one twice.
        manifest, skipped = read_source(source, decode=False, report=progress.report)
        model = TraitModel.load(chosen.folder)
        model, deployment = deploy(model, manifest, prior, output, chosen.metrics)
        shards, unreadable = write_predictions(
            model,
            manifest,
            output,
            model_version=chosen.name,
            shard_size=shard_size,
            part=share,
            int8=int8,
        )
        list_part_skipped(skipped, unreadable, output, share, manifest.root)
        count = count_rows(shards, unreadable, manifest, share)
        show({"images": count, "shards": len(shards), "folder": output} | deployment.facts)


@app.command()
def push(
    source: Annotated[
        Path,
        typer.Argument(help="The images: a manifest (.parquet), a folder or an EcoTaxa table."),
    ],
    project: NeededProject,
    predictions: Annotated[
        Path | None, typer.Option(help="Folder of shards from `predict`; without it, tasks alone.")
    ] = None,
    metadata: Annotated[
        Path | None,
        typer.Option(help="With a folder: CSV with a file name column and sample_id, depth_m, …"),
    ] = None,
    blind_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the new images that are marked blind.")
    ] = 0.0,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Remove suggestions of earlier versions that the pushed one replaces. Those that "
            "annotations refer to stay, and the newest earlier version, and the one that people "
            "see, or saw when this began: a task that somebody has open refers to it (a later "
            "version's --prune takes it). With --url and a Label Studio that is not ours an "
            "annotation saved within the same moment may lose its reference.",
        ),
    ] = False,
    show_version: Annotated[
        bool, typer.Option(help="Let people see the pushed version from now on.")
    ] = True,
    url: Annotated[
        str | None,
        typer.Option(help="Another Label Studio, over HTTP; --project is a project there."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="LABEL_STUDIO_API_KEY", help="With --url: a token of an account."),
    ] = None,
    images_address: Annotated[
        str | None,
        typer.Option(
            help="With --url: what stands before an image's path in the manifest in its address "
            "there. A Label Studio of ours needs none where it sees the images in the same "
            "folder as this machine: it knows their addresses. Of another, Local Files "
            "(/data/local-files/?d=) are taken, whose document root is to be the manifest's."
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Load images and their predictions into a project in bulk; repeating changes nothing.

    A first try: `planktrait predict cruise.parquet --project P`, then
    `planktrait push cruise.parquet --predictions predictions --project P`. It writes into Label
    Studio's database, also while the server is stopped. Only what is new or has changed is
    written, and a run that was killed goes on where it stopped. Blind images get no suggestion.
    """
    from ml_backend.push import push_project

    with told_plainly():
        place = home_of(home, may_make=url is not None)  # else the server's, which is there
        told = push_project(
            place.folder,
            project,
            source,
            predictions,
            metadata=metadata,
            blind_share=blind_share,
            show=show_version,
            prune=prune,
            url=url,
            token=token,
            images_address=images_address,
        )
        bad = told.pop("bad")
        file = place.logs_folder / f"push-project-{told['project']}-skipped.csv"
        list_skipped(bad, file)
        show({**spelt_out(told, EARLIER), "left out": len(bad)})


@app.command()
def reindex(project: ProjectOption = None, home: HomeOption = None) -> None:
    """Make the gallery's index anew from Label Studio's tables: of one project, or of all.

    For a gallery that shows something else than Label Studio does, and after an upgrade that says
    so. Nothing but the index is touched; safe while the server runs, and while it is stopped.
    """
    from hpc_jobs import progress
    from label_studio_config.reindex import reindex as make_anew

    with told_plainly():
        table = Table("project", "title", "tasks", "suggestions")
        for one in make_anew(home_of(home), project, progress.report)["projects"]:
            table.add_row(*map(plain, one.values()))
        out.print(table)


@app.command()
def suggest(project: NeededProject, home: HomeOption = None) -> None:
    """Give the images of a project that have none the live version's suggestions."""
    from label_studio_config.project import find_project
    from ml_backend.training_jobs import suggest_project

    with told_plainly():
        place = home_of(home)
        show(suggest_project(place.folder, find_project(place, project).id))


@app.command()
def clusters(
    project: NeededProject,
    count: Annotated[int | None, typer.Option(min=1, help="About how many clusters.")] = None,
    home: HomeOption = None,
) -> None:
    """Put the images of a project that are left to annotate into clusters that look alike."""
    from label_studio_config.project import find_project
    from ml_backend.project_features import cluster_project

    with told_plainly():
        place = home_of(home)
        show(cluster_project(place.folder, find_project(place, project).id, count))


@app.command("map")
def feature_map(project: NeededProject, home: HomeOption = None) -> None:
    """Lay out the images of a project on a map where those that look alike are near each other."""
    from label_studio_config.project import find_project
    from ml_backend.project_features import map_project

    with told_plainly():
        place = home_of(home)
        show(map_project(place.folder, find_project(place, project).id))


@models_app.command("list")
def models_list(
    models: Annotated[Path | None, typer.Option(help="Folder of model versions.")] = None,
    project: ProjectOption = None,
    home: HomeOption = None,
) -> None:
    """The versions of a project, the live one marked: give exactly one of --models, --project."""
    with told_plainly():
        exactly_one(models=models, project=project)
        registry = registry_of(home, models, project)
        live = registry.live
        readable = registry.readable()
        table = Table("version", "made", "macro recall on held-out images", "live")
        for version in registry.list():
            made, recall = None, None
            if version in readable:
                made, recall = version.metrics.get("made_at"), version.macro_recall()
            mark = "live" if live is not None and version.name == live.name else ""
            table.add_row(plain(version.name), plain(made or ""), number(recall), mark)
        out.print(table)


@models_app.command("promote")
def models_promote(
    version: str,
    models: Annotated[Path | None, typer.Option(help="Folder of model versions.")] = None,
    project: ProjectOption = None,
    home: HomeOption = None,
) -> None:
    """Make a version live by hand, also an older one (a roll-back)."""
    with told_plainly():
        exactly_one(models=models, project=project)
        show({"live": registry_of(home, models, project).promote(version).name})
        if project is not None:
            # Scores sort and sample by the live version: bring its suggestions back.
            from label_studio_config.project import find_project
            from ml_backend.training_jobs import suggest_project

            place = home_of(home)
            show(suggest_project(place.folder, find_project(place, project).id))


@app.command()
def report(
    version: Annotated[str | None, typer.Argument(help="Default: the live version.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of model versions.")] = None,
    project: ProjectOption = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: report.html beside the weights.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    home: HomeOption = None,
) -> None:
    """Write the page of a version: how good it is, where it errs, with today's learning curve.

    A first try: `planktrait report --project "My cruise" --open` for the live version. Give exactly
    one of --models and --project.
    """
    from ml_backend.report_page import write_report

    with told_plainly():
        exactly_one(models=models, project=project)
        registry = registry_of(home, models, project)
        chosen = registry.chosen(version)
        page = write_report(registry, chosen, output)
        show({"version": chosen.name, "page": page})
        if open_:
            typer.launch(page.resolve().as_uri())


@app.command()
def jobs(
    cancel: Annotated[str | None, typer.Option(help="End the job of this id.")] = None,
    log: Annotated[str | None, typer.Option(help="Show the log of the job of this id.")] = None,
    home: HomeOption = None,
) -> None:
    """Trainings and other long work, here and on Slurm: state, progress, log, cancel."""
    import hpc_jobs

    with told_plainly():
        records = hpc_jobs.list_jobs(home_of(home).jobs_folder)
        if cancel is not None:
            show({"state": hpc_jobs.cancel(named(records, cancel)).state})
        elif log is not None:
            job = named(records, log)
            for one in job.parts or (job,):
                if one is not job:
                    out.rule(plain(f"{one.folder.name}: {one.state}"))
                out.print(plain(hpc_jobs.read_log(one)), soft_wrap=True)
        else:
            # The id whole, also where the terminal is narrow: it is what --log and --cancel take.
            names = (Column("job", no_wrap=True), "what", "where", Column("state", no_wrap=True))
            table = Table(*names, Column("progress, or error", overflow="fold"))
            for job in records:
                done = job.progress
                how_far = f"{done.stage} {done.done}/{done.total} {done.message}" if done else ""
                waits = f"waits for {job.waits_for}. " if job.waits_for else ""
                cells = (job.id, job.name, job.where, job.state, job.error or waits + how_far)
                table.add_row(*map(plain, cells))
            out.print(table)


@submit_app.callback()
def submit(
    context: typer.Context,
    cluster: Annotated[
        Cluster | None, typer.Option(help="Where it runs; default: as the site profile says.")
    ] = None,
    tasks: Annotated[
        int,
        typer.Option(
            min=1,
            help="An array of so many tasks that share the shards (predict, embed); no more than "
            "there are shards, where a manifest or a packed folder tells.",
        ),
    ] = 1,
    site: Annotated[
        Path | None,
        typer.Option(
            help="Site profile; default: $PLANKTRAIT_SITE, else planktrait-site.toml in the home."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end.")] = False,
) -> None:
    """Run a command as a job, here or on Slurm; its options are those of the command itself.

    `planktrait submit predict cruise.parquet --project P --output predictions`, and with
    `submit --cluster slurm --tasks 8 predict …` as an array of eight tasks. `planktrait jobs` shows
    how far it is. What a job asks Slurm for stands in the site profile (docs/slurm.md).
    """
    context.obj = partial(submit_command, cluster=cluster, tasks=tasks, site=site, wait=wait)


SUBMITTED: dict[str, Callable[..., None]] = {
    "pretrain": pretrain,
    "train": train,
    "predict": predict,
    "embed": embed,
    "cluster": clusters,
    "push": push,
}
for kind, command in SUBMITTED.items():
    submit_app.command(kind, cls=SubmittedCommand)(command)


@app.command("export")
def export_(
    project: ProjectOption = None,
    export: ExportOption = None,
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.csv,
    output: Annotated[Path | None, typer.Option(help="File to write.")] = None,
    config: ConfigOption = "traits",
    home: HomeOption = None,
) -> None:
    """Annotations and predictions as a data set: one row an image and annotator, or COCO."""
    with told_plainly():
        exactly_one(project=project, export=export)
        from export_tools import export_project, export_tasks, read_export, sizes_from_files
        from label_studio_config.project import find_project, read_config
        from label_studio_config.schema import LabelSchema

        extension = "coco.json" if format is Format.coco else format.value
        out = output or Path(f"traits.{extension}")
        if project is not None:
            place = home_of(home)
            report = export_project(place, find_project(place, project).id, format.value, out)
        else:
            report = export_tasks(
                read_export(export),  # type: ignore[arg-type]
                LabelSchema.from_xml(read_config(config)),
                format.value,
                out,
                image_size=None if home is None else sizes_from_files(home_of(home).resolve_image),
            )
        show(report.facts)


@app.command()
def quantify(
    predictions: Annotated[Path, typer.Argument(help="Folder of shards from `predict`.")],
    source: Annotated[
        Path,
        typer.Option(
            help="The images that were predicted: a folder (also of `pack`), manifest (.parquet) "
            "or EcoTaxa table (.tsv)."
        ),
    ],
    metadata: Annotated[
        Path | None,
        typer.Option(help="With a folder: CSV with a file name column and sample_id, depth_m, …"),
    ] = None,
    export: ExportOption = None,
    project: ProjectOption = None,
    models: Annotated[
        Path | None,
        typer.Option(
            help="With --export: folder of the model versions, where `train` keeps people's "
            "weights [models]."
        ),
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="A one-of control [the config's primary one].")
    ] = None,
    by: Annotated[
        str, typer.Option(help="Count by depth, by day, or by any column of the source.")
    ] = "sample_id",
    depth_bin_m: Annotated[float, typer.Option(help="With --by depth: height of a bin.")] = 10.0,
    config: ConfigOption = "traits",
    output: Annotated[Path, typer.Option(help="Name of the files, without ending.")] = Path(
        "counts"
    ),
    home: HomeOption = None,
) -> None:
    """Count labels by sample, depth, day or station, corrected for confusion, with 95 % intervals.

    A first try: `planktrait predict FOLDER --project P`, then
    `planktrait quantify predictions --source FOLDER --metadata METADATA.csv --project P`.

    Writes counts.csv and counts.parquet (a row a group and label: as suggested, corrected, low,
    high; as counts and as shares), counts.dictionary.csv (what each column holds; also in
    docs/counts.md) and a plot (PNG, SVG). Blind images that people annotated, taken
    from --project or --export, keep their label and tell how wrong the model may be; without them
    the intervals leave that out, and are too narrow. A few hundred, spread over many samples, do.
    People's votes weigh as `train --annotator-weight` recorded. Groups may differ in how often a
    label occurs; how a label looks is assumed to be the same.

    Of a control that is asked only where another has a certain label, the images of which the model
    asks it are counted, less those where people denied that label. A label that the model does not
    know is counted as people saw it, without an interval.
    """
    from label_studio_config.project import find_project, read_config
    from label_studio_config.schema import LabelSchema
    from label_studio_config.server_tasks import fetch_project, fetch_tasks
    from label_studio_config.sources import read_source
    from ml_backend.annotators import read_weights
    from ml_backend.counting import NOT_VALIDATED, count_images

    with told_plainly():
        if export is not None and project is not None:
            raise UsageError("give --export or --project, not both")
        if models is not None and (export is None or not models.is_dir()):
            raise UsageError(
                f"--models {models}: give the folder of `train --models` together with --export; a "
                "project's weights are in the home"
            )
        tasks: Iterable[dict[str, Any]] | None = None
        weights: dict[str, float] = {}
        xml = read_config(config)
        if project is not None:
            place = home_of(home)
            found = fetch_project(place, find_project(place, project).id)
            xml, tasks = found["label_config"], fetch_tasks(place, found["id"], annotated_only=True)
            weights = read_weights(place.models_folder(found["id"]))
        elif export is not None:
            from export_tools import read_export

            tasks = read_export(export)
            weights = read_weights(models or Path("models"))
        manifest, skipped = read_source(source, metadata)
        list_skipped(skipped)
        counted = count_images(
            predictions,
            manifest,
            LabelSchema.from_xml(xml),
            tasks,
            output,
            control=control,
            by=by,
            depth_bin_m=depth_bin_m,
            weights=weights,
        )
        for note in counted.notes:
            tell((note, "yellow"))
        if not counted.validated:
            tell(
                (NOT_VALIDATED, "yellow"),
                " Import with --blind-share, annotate those images, and give --project or "
                "--export.",
            )
        show(
            {
                "control": counted.control,
                "model version": counted.model_version or "not told by the predictions",
                "images": counted.images,
                "groups": f"{counted.groups}, by {by}",
                "validated": counted.validated,
                "method": counted.method,
                "files": ", ".join(map(str, counted.files)),
            }
        )


def submit_command(
    kind: str,
    arguments: list[str],
    options: dict[str, Any],
    *,
    cluster: Cluster | None,
    tasks: int,
    site: Path | None,
    wait: bool,
) -> None:
    """Hand a command line to a job of its kind."""
    import hpc_jobs
    from ml_backend.site_jobs import site_of

    name = "clusters" if kind == "cluster" else kind
    with told_plainly():
        if tasks > 1 and "part" not in options:
            raise UsageError("--tasks is for predict and embed, whose shards can be shared")
        if tasks > 1 and Path(options["output"]).suffix == ".parquet":
            raise UsageError("--tasks writes shards: give a folder as --output, no file")
        if tasks > 1:
            tasks = no_idle_tasks(tasks, options["source"], options["shard_size"])
        place = home_of(options["home"], may_make=True)  # a job without a project needs none
        job = hpc_jobs.submit(
            run_command,
            "planktrait:app",
            [name, *arguments],
            str(Path.cwd()),
            # Not all that was typed: a token may be in it.
            name=f"{name} {options.get('source') or options.get('project') or ''}".strip(),
            folder=place.jobs_folder,
            parts=tasks,
            **site_of(place, site).options(name, cluster and cluster.value),
        )
        show({"job": job.id, "where": job.record().where, "log": f"planktrait jobs --log {job.id}"})
        if wait:
            record = job.wait()
            if record.state != "finished":
                raise hpc_jobs.JobError(f"{job.id} {record.state}: {record.error or ''}")


def no_idle_tasks(tasks: int, source: Path, shard_size: int) -> int:
    """No more tasks than there are shards, where that is known before the images are read."""
    from label_studio_config.manifest import known_count

    count = known_count(source)
    shards = max(1, -(-(count or 1) // shard_size))
    if count is None or tasks <= shards:
        return tasks
    tell(f"{count} images are {shards} shard(s) of {shard_size}: {shards} task(s), not {tasks}")
    return shards


def go_on_with_interrupted(place: Any) -> None:
    """At the start of the servers: take up jobs that were cut off, and tell of them."""
    import hpc_jobs
    from ml_backend.job_keys import goes_on
    from ml_backend.site_jobs import out_of_reach

    try:
        warning = out_of_reach(place)
    except hpc_jobs.SiteError as error:
        warning = f"No job starts: {error}"
    if warning is not None:
        tell(warning)
    for one in hpc_jobs.take_up_interrupted(place.jobs_folder, goes_on):
        how = "start it again, and it goes on where it was."
        if one.again is not None:
            how = f"begun again, it goes on where it was ({one.again.id})."
        tell(f"Interrupted: {one.job.name}: {how}")


def home_of(folder: Path | None, may_make: bool = False) -> Any:
    """The home of an option; a command that makes none says so where there is none."""
    from label_studio_config.home import Home

    return Home(folder) if may_make else Home.existing(folder)


def root_of(home: Path | None, images: Path | None) -> Path:
    """The images root of an option, else the home's; where that is missing, what to give."""
    from label_studio_config.home import HomeError

    if images is not None:
        return images.expanduser().resolve()
    try:
        return home_of(home).images_root
    except HomeError as error:
        raise UsageError(
            f"give --images, the folder that image paths are below: {error}"
        ) from error


def registry_of(home: Path | None, models: Path | None, project: str | None) -> Any:
    """The registry of a folder that is there, or of a project."""
    from label_studio_config.project import find_project
    from ml_backend.registry import Registry

    if models is not None:
        return Registry.existing(models)
    place = home_of(home)
    return Registry(place.models_folder(find_project(place, str(project)).id))


def named(records: list[Any], job_id: str) -> Any:
    """The job of that id, or of the only one that begins or ends so."""
    found = [job for job in records if job_id in job.id]
    if len(found) != 1:
        raise UsageError(f"{len(found)} jobs match {job_id!r}: see `planktrait jobs`")
    return found[0]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def exactly_one(**options: Any) -> None:
    """Refuse none or several of some options."""
    names = [name if name.isupper() else f"--{name}" for name in options]
    if len(given(**options)) != 1:
        raise UsageError(f"give exactly one of {', '.join(names)}")


EARLIER = {
    "pruned": "earlier suggestions removed",
    "kept": "earlier ones kept: annotations refer to them",
    "unreplaced": "earlier ones kept: the image has none of this version",
    "shown": "earlier ones kept: people may have an image of that version open",
}


def spelt_out(facts: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Facts under longer names, those that are 0 left out."""
    return {
        names.get(name, name): value for name, value in facts.items() if value or name not in names
    }


def plain(value: Any) -> Text:
    """What people wrote, as they wrote it: a [bracket] in a path or title is no markup."""
    return Text(str(value))


def tell(*parts: str | tuple[str, str]) -> None:
    """One line beside the results: of text, as it stands, and of pairs of text and style."""
    errors.print(Text.assemble(*parts), soft_wrap=True)


def show(facts: dict[str, Any]) -> None:
    """A small table of facts."""
    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(plain(name), plain(value))
    out.print(table)


def show_metrics(metrics: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Per control: how good it is on held-out images."""
    table = Table("images", "control", "macro recall", "accuracy", "ECE", "n")
    for side, controls in metrics.items():
        for control, values in controls.items():
            cells = (
                values.get(key) for key in ("macro_recall", "micro_accuracy", "ece", "n_images")
            )
            table.add_row(side, plain(control), *(number(cell) for cell in cells))
    out.print(table)


def number(value: Any) -> str:
    """A number for people."""
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def list_skipped(
    skipped: list[Any], file: Path | None = None, root: Path | None = None, most: int = 10
) -> None:
    """Say which images were left out, and why; all of them in a file, where one is named."""
    from label_studio_config.skipped_file import write_skipped

    for skip in skipped[:most]:
        tell(("skipped", "yellow"), f" {skip.path}: {skip.reason}")
    if len(skipped) > most:
        tell((f"… and {len(skipped) - most} more", "yellow"))
    if file is not None:
        write_skipped(file, skipped, root)
        if skipped:
            tell(f"All {len(skipped)} are listed in {file}")


def list_part_skipped(
    of_all: list[Any], of_part: list[Any], folder: Path, part: tuple[int, int], root: Path
) -> None:
    """Say and list what a call left out that may share a folder; what all leave out, once."""
    from label_studio_config.skipped_file import remove_other_lists, skipped_file

    remove_other_lists(folder, part)
    skipped = [*(of_all if part[0] == 0 else []), *of_part]
    list_skipped(skipped, skipped_file(folder, part), root)


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn our own errors, and a full disk, into one line and exit code 1; Ctrl-C into 130."""
    from hpc_jobs.errors import full_disk

    if in_job():
        yield  # its record tells them
        return
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:
        ours = isinstance(error, (ValueError, RuntimeError))
        ours &= type(error).__module__.split(".")[0] in ROOMS
        full = full_disk(error)
        if not ours and full is None:
            raise  # a fault of the program, whose traceback is needed
        tell(("Error:", "red"), f" {error if ours else full}")
        logging.getLogger(__name__).debug("where it happened", exc_info=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()

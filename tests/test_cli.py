"""The command line, as a user types it, without a server."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from hpc_jobs import submit
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest
from label_studio_config.phantoms import draw_phantoms
from planktrait import app
from tests.small_disk import small_disk

COMMANDS = (
    ["serve"],
    ["backup"],
    ["restore"],
    ["user", "add"],
    ["project", "create"],
    ["import"],
    ["phantoms"],
    ["manifest"],
    ["pretrain"],
    ["embed"],
    ["train"],
    ["predict"],
    ["quantify"],
    ["suggest"],
    ["reindex"],
    ["clusters"],
    ["map"],
    ["models", "list"],
    ["models", "promote"],
    ["jobs"],
    ["export"],
)


NO_HOME = "mistyped: name one with --home or $PLANKTRAIT_HOME, or start one with `planktrait serve`"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    return draw_phantoms(tmp_path_factory.mktemp("phantoms"), 60, processes=1).folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object):
        return CliRunner().invoke(app, [str(word) for word in words])

    return call


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_that_teaches(run, command):
    answer = run(*command, "--help")
    assert answer.exit_code == 0
    assert len(answer.output.splitlines()) > 5


def test_without_a_command_the_help_is_shown(run):
    assert "pretrain" in run().output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "give exactly one of --project, --export"),
        (["pretrain", "here", "--project", "P"], "give exactly one of SOURCE"),
        (["pretrain", "nowhere"], "no folder of images, manifest"),
        (
            ["pretrain", ".", "--backbone", "a", "--encoder", "b"],
            "give --backbone (random weights)",
        ),
        (["embed", "nowhere", "--encoder", "e"], "no folder of images, manifest"),
        (["predict", ".", "--models", "m"], "there is no folder m: name the one that holds"),
        (["report", "--models", "m"], "there is no folder m: name the one that holds"),
        (["models", "list", "--models", "a file"], "a file is no folder"),
        (["report"], "give exactly one of --models, --project"),
        (["report", "--project", "P", "--home", "mistyped"], NO_HOME),
        (["models", "list", "--project", "P", "--home", "mistyped"], NO_HOME),
        (["quantify", "p", "--source", ".", "--project", "P", "--home", "mistyped"], NO_HOME),
        (["backup", "b", "--home", "mistyped"], NO_HOME),
        (["jobs", "--home", "."], "is no home: name one with --home or $PLANKTRAIT_HOME"),
        (["train", "--export", "nowhere.json", "--images", "."], "nowhere.json"),
        (["import", ".", "--project", "P"], "planktrait serve"),
        (["export", "--project", "P"], "planktrait serve"),
        (["jobs"], "/planktrait-home: name one with --home or $PLANKTRAIT_HOME, or start one"),
    ],
)
def test_errors_are_one_line_with_the_remedy(run, words, said, tmp_path):
    (tmp_path / "a file").write_text("")
    answer = run(*words)
    assert answer.exit_code == 1
    assert said in " ".join(answer.output.split())
    assert "Traceback" not in answer.output
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]  # a mistyped name makes none


def test_a_home_that_did_little_yet_is_told_what_it_lacks(run):
    Home().change_settings(images_root=".")
    assert "0 jobs match 'x'" in run("jobs", "--log", "x").output
    said = " ".join(run("reindex").output.split())
    assert "has no database yet: start it once with `planktrait serve" in said


def test_what_people_wrote_is_shown_as_it_stands(run, tmp_path):
    """A [bracket] is markup, and a :word: a picture, to what draws the tables."""
    folder = tmp_path / "cruise [2024]" / "[/nets]"
    folder.mkdir(parents=True)
    Image.new("L", (8, 8), 80).save(folder / "a.png")
    (folder / "[").mkdir()
    (folder / "[" / "b] :fish:.png").write_bytes(b"no image")
    answer = run("manifest", folder, folder / "[bold]m.parquet")
    assert answer.exit_code == 0, answer.output
    said = "".join(answer.output.split())
    assert "skipped[/b]:fish:.png:unreadable" in said
    assert "/cruise[2024]/[/nets]/[bold]m.skipped.csv" in said
    assert said.count("[bold]m.parquet") == 1
    answer = run("manifest", tmp_path / "[/away]:fish:", "m.parquet")
    assert f"Error:{tmp_path}/[/away]:fish:isnofolder" in "".join(answer.output.split())
    job = submit(os.listdir, "/nowhere/[/x] [2024]", name="push [2024]", folder=Home().jobs_folder)
    assert job.wait().state == "failed"
    said = " ".join(run("jobs").output.split())
    assert "│ push [2024] │" in said
    assert "/nowhere/[/x] [2024]" in said


def test_a_manifest_is_written_once_for_all_that_follows(run, tmp_path):
    folder = tmp_path / "cruise"
    folder.mkdir()
    for number in range(3):
        Image.new("L", (8, 8), 80).save(folder / f"{number}.png")
    for number in range(12):
        (folder / f"broken-{number}.png").write_bytes(b"no image")
    (tmp_path / "cruise.csv").write_text("filename,sample_id\n0.png,haul-1\n1.png,haul-2\n")
    answer = run("manifest", folder, "cruise.txt")
    assert "a manifest is a .parquet file" in answer.output
    answer = run("manifest", folder, "cruise.parquet", "--metadata", "cruise.csv")
    assert answer.exit_code == 0, answer.output
    assert "and 2 more" in answer.output
    assert "All 12 are listed in cruise.skipped.csv" in answer.output
    listed = pd.read_csv("cruise.skipped.csv")
    assert sorted(listed["path"]) == sorted(f"broken-{number}.png" for number in range(12))
    assert listed["reason"].str.contains("not an image").all()
    manifest = Manifest.read("cruise.parquet")
    assert manifest.root == folder
    assert manifest.table["sample_id"].tolist() == ["haul-1", "haul-2", None]
    packed = run("pack", "cruise.parquet", "packed")
    assert packed.exit_code == 0, packed.output


@pytest.mark.parametrize("kind", ["predict", "embed"])
def test_no_task_is_submitted_that_has_no_shard(run, tmp_path, monkeypatch, phantoms, kind):
    import hpc_jobs

    asked = []

    def submitted(*call, parts, **options):
        asked.append(parts)
        raise hpc_jobs.JobError("kept back")

    monkeypatch.setattr("hpc_jobs.submit", submitted)
    assert run("manifest", phantoms, "m.parquet").exit_code == 0
    assert run("pack", "m.parquet", "packed").exit_code == 0
    words = {"predict": ["--project", "P"], "embed": ["--encoder", "e", "--output", "out"]}[kind]
    for source in ("m.parquet", "packed", phantoms, "nowhere.parquet"):
        for tasks, size in ((2, 20), (8, 25), (8, 600)):
            call = ("submit", "--tasks", tasks, kind, source, "--shard-size", size, *words)
            answer = run(*call)
            assert "kept back" in answer.output
            # Phantoms are one folder with 60 images.
            is_limited = tasks == 8 and source in ("m.parquet", "packed")
            said = f"60 images are {-(-60 // size)} shard(s) of {size}: {-(-60 // size)} task(s)"
            assert (said in answer.output) == is_limited
    assert asked == [2, 3, 1] * 2 + [2, 8, 8] * 2


def test_a_saved_export_needs_no_home(run, tmp_path):
    export = tmp_path / "export.json"
    data = {"image": "/data/local-files/?d=a.png", "image_id": "a"}
    result = [
        {
            "from_name": "group",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": ["Copepod"]},
        }
    ]
    annotation = {"id": 1, "completed_by": 1, "result": result, "was_cancelled": False}
    task = {"id": 1, "data": data, "annotations": [annotation], "predictions": []}
    export.write_text(json.dumps([task]))
    answer = run("export", "--export", export, "--format", "csv", "--output", "traits.csv")
    assert answer.exit_code == 0, answer.output
    assert pd.read_csv("traits.csv")["group"].tolist() == ["Copepod"]
    assert not (tmp_path / "planktrait-home").exists()


def test_methods_are_those_that_there_are(run):
    from planktrait import Method
    from simclr.settings import METHODS

    assert tuple(Method) == METHODS
    answer = run("pretrain", ".", "--method", "moco")
    assert answer.exit_code == 2
    assert "moco" in answer.output
    assert all(name in answer.output for name in METHODS)


@pytest.mark.slow
def test_pretrain_goes_on_from_an_encoder_by_another_method(run, phantoms, tmp_path, monkeypatch):
    options = ("--epochs", 1, "--image-size-px", 32)
    assert run("pretrain", phantoms, "--backbone", "test_resnet", *options).exit_code == 0
    monkeypatch.setenv("PLANKTRAIT_SCRATCH", str(tmp_path / "fast"))
    answer = run(
        "pretrain", phantoms, "--encoder", "encoder/encoder", "--method", "dcl",
        "--temperature", 0.15, "--view-share", 1.0, "--epochs", 1, "--output", "second",
        "--chunk-size", 8,
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    record = json.loads(Path("second/run.json").read_text())
    assert (record["method"], record["backbone"]) == ("dcl", "test_resnet")
    assert record["preprocessing"]["image_size_px"] == 32
    assert (record["settings"]["temperature"], record["settings"]["view_share"]) == (0.15, 1.0)
    assert record["settings"]["chunk_size"] == 8
    assert "initial_weights" in record
    # Decoded images: where a node has a fast folder, there.
    assert [Path(folder).is_dir() for folder in ("fast/images", "second/cache")] == [True, False]
    refused = run("pretrain", phantoms, "--method", "byol", "--temperature", 0.1)
    assert refused.exit_code == 1
    assert "byol has no temperature" in refused.output
    refused = run("pretrain", phantoms, "--method", "dino", "--chunk-size", 8)
    assert refused.exit_code == 1
    assert "dino cannot run in chunks: give a smaller batch_size" in refused.output


@pytest.mark.slow
def test_learn_predict_and_embed_from_files(run, phantoms, tmp_path, monkeypatch):
    truth = pd.read_csv(phantoms / "truth.csv").set_index("image_id")["group"]
    tasks = []
    for number, path in enumerate(sorted(phantoms.glob("images/*/*.png")), start=1):
        name = path.relative_to(phantoms).as_posix()
        group = truth.get(name, truth.get(path.stem))
        result = [
            {
                "from_name": "group",
                "to_name": "image",
                "type": "choices",
                "value": {"choices": [group]},
            }
        ]
        tasks.append(
            {
                "id": number,
                "data": {"image": f"/data/local-files/?d={name}", "image_id": name},
                "annotations": [{"id": number, "completed_by": 1, "result": result}],
            }
        )
    Path("export.json").write_text(json.dumps(tasks))

    pretrained = run(
        "pretrain", "--export", "export.json", "--images", phantoms, "--epochs", 1,
        "--backbone", "test_resnet", "--image-size-px", 32, "--output", "e",
    )  # fmt: skip
    assert pretrained.exit_code == 0, pretrained.output
    encoder = next(Path("e").rglob("config.json")).parent
    embedded = run("embed", phantoms, "--encoder", encoder)
    assert embedded.exit_code == 0, embedded.output
    assert len(pd.read_parquet("embeddings.parquet")) == 60

    monkeypatch.setenv("PLANKTRAIT_SCRATCH", str(tmp_path / "fast"))
    trained = run(
        "train", "--export", "export.json", "--images", phantoms, "--config", "functional_groups",
        "--encoder", encoder,
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    assert [Path(folder).is_dir() for folder in ("fast/images", "models/.cache")] == [True, False]
    assert "models-v0001" in run("models", "list", "--models", "models").output
    (phantoms / "broken.png").write_bytes(b"no image")
    (phantoms / "empty.png").touch()
    predicted = run("predict", phantoms, "--models", "models", "--output", "p")
    assert predicted.exit_code == 0, predicted.output
    table = pd.read_parquet("p")
    assert len(table) == 60
    assert "60" in next(line for line in predicted.stdout.splitlines() if "images" in line)
    assert f"All 2 are listed in {Path('p/_skipped.csv')}" in predicted.output
    listed = pd.read_csv("p/_skipped.csv").set_index("path")["reason"]
    assert sorted(listed.index) == ["broken.png", "empty.png"]
    # Only the one that can be told without decoding was left out before.
    assert table["group__confidence"].between(0, 1).all()

    in_integers = run("predict", phantoms, "--models", "models", "--output", "q", "--int8")
    assert in_integers.exit_code == 0, in_integers.output
    assert len(pd.read_parquet("q")) == 60
    mixed = run("predict", phantoms, "--models", "models", "--output", "q")
    assert mixed.exit_code == 1
    assert "another version or precision" in " ".join(mixed.output.split())

    Path("broken").mkdir()
    (phantoms / "broken.png").rename("broken/a.png")
    nothing = run("predict", "broken", "--models", "models", "--output", "none")
    assert nothing.exit_code == 1
    assert "none of 1 images can be read" in " ".join(nothing.output.split())
    assert "a.png" in Path("none/_skipped.csv").read_text()
    assert not list(Path("none").glob("part-*"))


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path, "20k"):
        answer = CliRunner().invoke(app, ["phantoms", str(tmp_path / "images"), "-n", "200"])
        assert answer.exit_code == 1
        said = " ".join(answer.stderr.split())
        assert said.endswith("No space left on device)"), said
        assert "Error: the disk is full: make room, and start it again (OSError: [Errno 28]" in said

"""The demo: the whole loop from one command, and what its simulated annotators know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from pycocotools.coco import COCO

from examples.truth import config_of_labels, read_groups, read_truth
from label_studio_config.processes import free_port
from label_studio_config.project import read_config
from label_studio_config.schema import LabelSchema
from label_studio_config.sources import read_folder
from tests.figures import FIGURES

ROOT = Path(__file__).parents[1]
IMAGES = 240
TRAITS = LabelSchema.from_xml(read_config("traits"))


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 200).save(folder / name)
    return folder


def test_truth_of_a_table_keeps_what_the_config_asks(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "image,functional_group,egg_sac,chain_cell_count,not_assessable\n"
        "a.png,Copepod,present,7,sex\n"
        "b.png,Diatom chain,,5,\n"
        "c.png,Krill,,,\n"
    )
    truth = read_truth(tmp_path, TRAITS)
    assert truth["a.png"] == {"group": "Copepod", "egg_sac": "present", "sex": "Not assessable"}
    assert truth["b.png"] == {"group": "Diatom chain", "chain_cell_count": 5.0}
    assert "c.png" not in truth


def test_groups_of_a_table_or_of_folders(tmp_path):
    folder = images(tmp_path, "krill/a.png", "krill/b.png", "salp/c.png", "d.png")
    manifest, _ = read_folder(folder)
    groups = read_groups(folder, manifest)
    assert groups == {"krill/a.png": "krill", "krill/b.png": "krill", "salp/c.png": "salp"}
    schema = LabelSchema.from_xml(config_of_labels(sorted(set(groups.values()))))
    assert schema.control("group").labels == ("krill", "salp")
    (folder / "labels.csv").write_text("image,label\nd.png,moss\nkrill/a.png,fern\n")
    assert read_groups(folder, manifest) == {"d.png": "moss", "krill/a.png": "fern"}


def test_an_error_is_told_as_it_stands(tmp_path):
    folder = tmp_path / "haul [/b]"
    command = [sys.executable, "-m", "examples.demo", "--home", str(tmp_path), "--images", folder]
    wide = os.environ | {"COLUMNS": "1000"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=wide)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "haul [/b]" in done.stdout


@pytest.mark.slow
def test_the_whole_loop_in_one_command(tmp_path):
    home = tmp_path / "home"
    command = [sys.executable, "-m", "examples.demo", "--home", str(home), "-n", str(IMAGES)]
    command += ["--port", str(free_port()), "--backend-port", str(free_port()), "--exit"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"COLUMNS": "160"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for stage in ("Images", "Serve", "Import", "SimCLR", "Annotate", "Start training", "Export"):
        assert stage in done.stdout
    assert "macro recall" in done.stdout
    assert ", 0 of them blind; on the" in done.stdout
    FIGURES.append(f"demo on {IMAGES} phantoms: {_line(done.stdout, 'that nobody labelled')}")

    table = pd.read_csv(home / "exports" / "traits.csv")
    assert table["image_id"].nunique() == IMAGES
    assert set(table["annotator"].dropna()) == {"ada@example.org", "rachel@example.org"}
    blind = table[table["blind"].astype(str).str.lower().isin(["true", "yes"])]
    assert len(blind)
    assert not blind["status"].isin(["predicted", "both"]).any()
    assert len(pd.read_parquet(home / "exports" / "traits.parquet")) == len(table)
    assert len(json.loads((home / "exports" / "traits.json").read_text())) == len(table)
    assert len(COCO(str(home / "exports" / "coco.json")).getImgIds()) == IMAGES


def _line(text: str, word: str) -> str:
    return next((" ".join(line.split()) for line in text.splitlines() if word in line), "")

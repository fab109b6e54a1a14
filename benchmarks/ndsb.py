"""The images of `ndsb` as the benchmarks use them: what is held out, and subsets of the labels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from examples.truth import config_of_labels
from label_studio_config.manifest import Manifest
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema

ENCODER = Path(__file__).parent / "encoders" / "ndsb-resnet10t" / "encoder"
"""SimCLR on the images that are not held out, made by `benchmarks.pretrain_ndsb`."""
LABEL_SETS = {"groups": "functional_group", "classes": "source_class"}
CONTROL = "group"


def read_table(folder: Path) -> pd.DataFrame:
    """One row an image: image, functional_group, source_class, and held_out (bool).

    Held out are the images whose SHA-256 of the file name is 0 modulo 5.
    """
    path = folder / "labels.csv"
    if not path.is_file():
        raise SystemExit(f"{path} does not exist: give the folder of ndsb with its labels.csv")
    table = pd.read_csv(path, usecols=["image", *LABEL_SETS.values()])
    table = table.sort_values("image").reset_index(drop=True)
    return table.assign(held_out=[remainder(name) == 0 for name in table["image"]])


def remainder(name: str) -> int:
    """The SHA-256 of a file name modulo 5."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 5


def manifest_of(table: pd.DataFrame, folder: Path) -> Manifest:
    """The images of a table."""
    return Manifest(pd.DataFrame({"image_id": table["image"], "path": table["image"]}), folder)


def subset(table: pd.DataFrame, labels: str, share: float, seed: int) -> pd.DataFrame:
    """A share of the images that are not held out, stratified, one at least of each label."""
    generator = np.random.default_rng(seed)
    rest = table[~table["held_out"]]
    rows: list[int] = []
    for _, of_label in rest.groupby(LABEL_SETS[labels]):
        count = max(1, round(share * len(of_label)))
        rows += generator.permutation(of_label.index.to_numpy())[:count].tolist()
    return table.loc[sorted(rows)]


def schema_of(table: pd.DataFrame, labels: str) -> LabelSchema:
    """A config that asks for one of the groups, or of the classes."""
    return LabelSchema.from_xml(config_of_labels(sorted(table[LABEL_SETS[labels]].unique())))


def tasks_of(table: pd.DataFrame, labels: str, schema: LabelSchema) -> list[dict[str, Any]]:
    """Tasks as Label Studio exports them; held-out images are blind.

    Each has one annotation; none where a column `labelled` says so.
    """
    return [
        {
            "id": number,
            "data": {
                "image": row["image"],
                "image_id": row["image"],
                "blind": "yes" if row["held_out"] else "no",
            },
            "annotations": [
                {
                    "id": number,
                    "completed_by": 1,
                    "result": write_result(schema, {CONTROL: row[LABEL_SETS[labels]]}),
                }
            ]
            if row.get("labelled", True)
            else [],
            "predictions": [],
        }
        for number, row in enumerate(table.to_dict("records"), start=1)
    ]

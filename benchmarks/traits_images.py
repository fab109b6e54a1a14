"""The images of the benchmark of traits: phantoms with known counts, and copepods of `ndsb`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.ndsb import read_table
from label_studio_config.manifest import Manifest
from label_studio_config.phantoms import draw_phantoms
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema

# The controls as they are in label_studio_config/configs/traits.xml, without their conditions:
# every image here is of the group that is asked for them.
COUNT, EGG_SAC = "chain_cell_count", "egg_sac"
CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <Number name="chain_cell_count" toName="image" min="0" step="1" unit="count"/>
  <Choices name="egg_sac" toName="image" choice="single">
    <Choice value="present"/>
    <Choice value="absent" role="absent"/>
    <Choice value="Not assessable" role="not_assessable"/>
  </Choices>
</View>
"""
CRUISES, BLIND_CRUISE, PHANTOMS_A_CRUISE = (100, 101, 102), 103, 10_000


def phantoms(folder: Path, n: int = PHANTOMS_A_CRUISE) -> pd.DataFrame:
    """All phantoms, one row an image: image, group, cells, pixel_size_um, held_out.

    `cells` is NaN where the picture does not show how many there are (blurred, or cut off).
    """
    tables = []
    for cruise in (*CRUISES, BLIND_CRUISE):
        drawn = draw_phantoms(folder / str(cruise), n, cruise)
        truth = pd.read_csv(drawn.truth_csv, usecols=["image_id", "group", COUNT, "not_assessable"])
        metadata = pd.read_csv(drawn.metadata_csv)
        hidden = truth["not_assessable"].fillna("").str.split().map(lambda names: COUNT in names)
        tables.append(
            pd.DataFrame(
                {
                    "image": f"{cruise}/" + truth["image_id"],
                    "group": truth["group"],
                    "cells": truth[COUNT].mask(hidden),
                    "pixel_size_um": metadata["pixel_size_um"],
                    "held_out": cruise == BLIND_CRUISE,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def egg_sacs(folder: Path) -> pd.DataFrame:
    """The images of `ndsb` whose egg sac is stated: image, egg_sac, source_class, held_out."""
    stated = pd.read_csv(folder / "labels.csv", usecols=["image", EGG_SAC]).dropna()
    return read_table(folder).merge(stated, on="image")


def manifest_of(table: pd.DataFrame, root: Path) -> Manifest:
    """The images of a table, with their pixel sizes where it has them."""
    known = table.reindex(columns=["image", "pixel_size_um"]).dropna(axis=1)
    return Manifest(known.assign(image_id=known["image"]).rename(columns={"image": "path"}), root)


def answers(table: pd.DataFrame, column: str, control: str) -> dict[str, dict[str, Any]]:
    """What an annotator says of each image, by control: what stands in a column."""
    pairs = zip(table["image"], table[column], strict=True)
    return {image: {control: value} for image, value in pairs}


def tasks_of(table: pd.DataFrame, values: dict[str, Any], schema: LabelSchema) -> list[dict]:
    """Tasks as Label Studio exports them, one annotation each; `values` holds answers by image."""
    return [
        {
            "id": number,
            "data": {
                **{k: row[k] for k in ("image", "pixel_size_um") if k in row},
                "image_id": row["image"],
                "blind": "yes" if row["held_out"] else "no",
            },
            "annotations": [
                {
                    "id": number,
                    "completed_by": 1,
                    "result": write_result(schema, values[row["image"]]),
                }
            ],
            "predictions": [],
        }
        for number, row in enumerate(table.to_dict("records"), start=1)
    ]

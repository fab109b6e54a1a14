"""The columns of a prediction table: one row an image, written as Parquet shards.

| column | type | meaning |
|---|---|---|
| `image_id`, `sample_id`, `path` | text | as in the manifest |
| `model_version` | text | the version that predicted |
| `confidence` | float | calibrated probability of the primary control's suggested label |
| `novelty` | float | how unlike the training images it is; null where it is not computed |
| `embedding` | list of float16 | features of the encoder |
| `<control>` | text, list of text, or float | the suggested label, labels, or number |
| `<control>__confidence` | float | calibrated probability of it (for a number: null) |
| `<control>__probabilities` | list of float32 | one a label; metadata: labels, deployment prior |
| `<control>__sd` | float | for a number: standard deviation of the prediction |
| `<control>__low95`, `<control>__high95` | float | for a number: its 95 % interval, or null |
"""

from __future__ import annotations

import json

import pyarrow as pa

from label_studio_config.controls import Control
from label_studio_config.schema import LabelSchema

IMAGE_COLUMNS = ("image_id", "sample_id", "path", "model_version")


def confidence_column(control: str) -> str:
    """The column with the calibrated confidence in a control's suggestion."""
    return f"{control}__confidence"


def probabilities_column(control: str) -> str:
    """The column with the calibrated probabilities of a control's labels."""
    return f"{control}__probabilities"


def sd_column(control: str) -> str:
    """The column with the standard deviation of a predicted number."""
    return f"{control}__sd"


def interval_columns(control: str) -> tuple[str, str]:
    """The columns with the ends of the 95 % interval of a predicted number."""
    return f"{control}__low95", f"{control}__high95"


def prediction_schema(
    schema: LabelSchema,
    heads: dict[str, tuple[str, ...]],
    feature_count: int,
    priors: dict[str, list[float]] | None = None,
) -> pa.Schema:
    """The Arrow schema of a prediction table.

    Parameters
    ----------
    heads
        Per control that the model predicts, the labels in the order of its probabilities
        (empty for a number).
    feature_count
        Length of an embedding.
    priors
        Per control the frequencies of its labels that the probabilities assume.
    """
    fields = [pa.field(name, pa.string()) for name in IMAGE_COLUMNS]
    fields += [
        pa.field("confidence", pa.float32()),
        pa.field("novelty", pa.float32()),
        pa.field("embedding", pa.list_(pa.float16(), feature_count)),
    ]
    for name, labels in heads.items():
        fields += _control_fields(schema.control(name), labels, (priors or {}).get(name))
    return pa.schema(fields)


def labels_of(field: pa.Field) -> tuple[str, ...]:
    """The labels of a probabilities column, in the order of its lists."""
    return tuple(json.loads((field.metadata or {})[b"labels"]))


def prior_of(field: pa.Field) -> list[float] | None:
    """The deployment prior of a probabilities column; None where it was not recorded."""
    prior = (field.metadata or {}).get(b"prior")
    return None if prior is None else list(json.loads(prior))


def _control_fields(
    control: Control, labels: tuple[str, ...], prior: list[float] | None
) -> list[pa.Field]:
    if control.kind == "number":
        return [
            pa.field(control.name, pa.float32()),
            pa.field(sd_column(control.name), pa.float32()),
            *(pa.field(name, pa.float32()) for name in interval_columns(control.name)),
        ]
    value = pa.list_(pa.string()) if control.kind == "any of" else pa.string()
    metadata = {"labels": json.dumps(labels)}
    if prior is not None:
        metadata["prior"] = json.dumps(prior)
    return [
        pa.field(control.name, value),
        pa.field(confidence_column(control.name), pa.float32()),
        pa.field(
            probabilities_column(control.name),
            pa.list_(pa.float32()),
            metadata=metadata,
        ),
    ]

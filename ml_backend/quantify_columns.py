"""What each column of a table of counts holds; written beside it, and in docs/counts.md."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

COLUMNS: dict[str, tuple[str, str]] = {
    "control": ("", "the question whose labels are counted"),
    "by": ("", "what makes a group: depth, day, or a column of the images"),
    "group": ("", "the sample, depth bin, day, …; 'unknown' where the images do not say"),
    "label": ("", "the label that is counted"),
    "n_images": (
        "images",
        "images that are counted: predicted and, of a control that is asked only where another has "
        "a certain label, those of which the model asks it, less those where people denied that",
    ),
    "n_validated": ("images", "of them, blind ones that people annotated: their label is certain"),
    "n_shared_out": (
        "images",
        "of them, blind ones that nobody annotated yet, where predictions of blind images are not "
        "to be read (the page Data): shared out as the others of the group are",
    ),
    "n_not_asked": (
        "images",
        "further images of the group, predicted but not counted: the control is not asked of them, "
        "or people denied what it is asked for; on the page Data also blind ones that nobody "
        "annotated yet, of a control that is not asked of every image",
    ),
    "n_not_predicted": (
        "images",
        "further images of the group, without a prediction and not counted: 0 for a whole group",
    ),
    "raw_count": (
        "images",
        "images for which the model suggests the label; on the page Data without blind ones",
    ),
    "raw_frequency": ("share", "share of the label among suggestions; empty without any"),
    "corrected_count": (
        "images",
        "posterior mean of how many of n_images bear the label; of a label that the model cannot "
        "tell, how many people saw",
    ),
    "count_low95": (
        "images",
        "lower end of the 95 % interval; never above corrected_count; empty where the label's "
        "number among the other images cannot be told",
    ),
    "count_high95": ("images", "upper end; never below corrected_count; empty likewise"),
    "corrected_frequency": ("share", "corrected_count / n_images; empty without images"),
    "frequency_low95": ("share", "count_low95 / n_images"),
    "frequency_high95": ("share", "count_high95 / n_images"),
    "method": ("", "what the interval rests on"),
    "model_version": ("", "the version that predicted; empty where predictions do not say"),
}
"""By column: unit and meaning, in the order of the table."""


def data_dictionary(table: pd.DataFrame) -> pd.DataFrame:
    """Type, unit and meaning of each column, as beside an export."""
    schema = pa.Schema.from_pandas(table, preserve_index=False)
    return pd.DataFrame(
        [
            {"column": name, "type": str(schema.field(name).type), "unit": unit, "meaning": meaning}
            for name, (unit, meaning) in COLUMNS.items()
        ]
    )

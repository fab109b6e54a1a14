"""Counts with their plot, from predictions and what people said of blind images, in one call."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from label_studio_config.manifest import Manifest
from label_studio_config.schema import LabelSchema
from ml_backend.quantify_blind import hide_blind
from ml_backend.quantify_groups import group_images
from ml_backend.quantify_plot import plot_counts
from ml_backend.quantify_predicted import read_predictions
from ml_backend.quantify_read import read_validated, without_denied
from ml_backend.quantify_table import count_labels, is_checked, method_of, write_counts

NOT_VALIDATED = "No blind image was validated: the intervals leave the model's own errors out."
NOT_CHECKED = (
    "The blind images that people validated bear only labels that the model cannot tell: the "
    "intervals leave the model's own errors out. Validate more of them."
)


@dataclass(frozen=True)
class Counted:
    """What was counted.

    Attributes
    ----------
    model_version : str
        As the predictions say; may be empty.
    images, groups, validated : int
        `validated`: of the images, those whose labels people gave.
    checked : bool
        Whether the intervals know of the model's own errors.
    method : str
        What they rest on.
    notes : list of str
        What was left out, or is missing.
    """

    control: str
    model_version: str
    images: int
    groups: int
    validated: int
    checked: bool
    method: str
    notes: list[str]
    files: list[Path]


def count_images(
    predictions: Path | str,
    manifest: Manifest,
    schema: LabelSchema,
    tasks: Iterable[dict[str, Any]] | None,
    output: Path,
    *,
    control: str | None = None,
    by: str = "sample_id",
    depth_bin_m: float = 10.0,
    blind: Collection[str] = (),
    weights: Mapping[str, float] | None = None,
) -> Counted:
    """Count labels a group, corrected; write the table, its data dictionary, and the plot.

    Parameters
    ----------
    predictions : folder of shards from `planktrait predict`
    manifest : the images that were predicted
    tasks : annotated tasks, of which the blind ones are the yardstick; None where there are none
    output : name of the files, without ending
    control : a one-of control; by default the schema's primary one
    by, depth_bin_m : as `group_images` takes them
    blind : ids of images whose predictions nobody may read from the counts (see `quantify_blind`)
    weights : of annotators, as `read_validated` takes them

    Raises
    ------
    QuantifyError
        As `read_predictions`, `group_images`, `read_validated` and `hide_blind`.
    """
    primary = schema.primary.name if schema.primary is not None else ""
    predicted = read_predictions(predictions, control or primary)
    always_asked = not (
        predicted.control in schema and schema.control(predicted.control).conditions
    )
    if blind and not always_asked:
        # Some of their annotators are still to come, who must not read that it is asked.
        tasks = (task for task in tasks or () if task.get("is_labeled", True))
    validated = None if tasks is None else read_validated(schema, tasks, predicted, weights)
    predicted, validated = without_denied(predicted, validated)
    hidden = hide_blind(predicted, validated, blind, always_asked)
    predicted, validated = hidden.predicted, hidden.validated
    groups = group_images(manifest, predicted.image_ids, by, depth_bin_m, predicted.not_asked)
    notes = [*groups.notes, *hidden.notes, *([] if validated is None else validated.notes)]
    n_validated = 0 if validated is None else len(validated.rows)
    table = count_labels(
        predicted, groups, validated, blind=hidden.blind, conditional=not always_asked
    )
    return Counted(
        control=predicted.control,
        model_version=predicted.model_version,
        images=len(predicted.image_ids),
        groups=len(groups.names),
        validated=n_validated,
        checked=is_checked(table),
        method=method_of(table),
        notes=[*notes, NOT_CHECKED] if n_validated and not is_checked(table) else notes,
        files=[*write_counts(table, output), *plot_counts(table, output, by)],
    )

"""Images of which people said that a question does not arise.

A control that is asked only where another has a certain label is answered nowhere else. Who said
"Rod" of an image was never asked whether the disc has a spot: not that nobody looked, nor that
somebody was unsure, but that there is nothing to count.
"""

from __future__ import annotations

import pandas as pd

from label_studio_config.controls import Control
from label_studio_config.results import conditions_of
from label_studio_config.schema import LabelSchema


def denied_ids(schema: LabelSchema, control: Control, votes: pd.DataFrame) -> set[str]:
    """The ids of images whose annotators all denied the condition under which it is asked.

    Not among them: images of which somebody answered the control, said that it cannot be judged,
    or gave only answers that allow it.

    Parameters
    ----------
    votes
        As from `read_votes`, of all controls.
    """
    conditions = conditions_of(schema, control)
    above = {condition.control for condition in conditions}
    mine = votes[votes["control"].isin(above) & votes["labels"].map(bool)]
    chosen: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
    for image_id, who, name, labels in zip(
        mine["image_id"], mine["annotator"], mine["control"], mine["labels"], strict=True
    ):
        chosen.setdefault((image_id, who), {})[name] = labels
    denied: set[str] = set()
    allowed = set(votes.loc[votes["control"] == control.name, "image_id"])
    for (image_id, _), said in chosen.items():
        denies = any(c.control in said and not c.holds(said) for c in conditions)
        (denied if denies else allowed).add(image_id)
    return denied - allowed

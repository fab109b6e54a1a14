"""What a model learns: per image its side, and per control what the annotators said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from label_studio_config.controls import Control
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import (
    image_id_of,
    is_blind,
    vote_means,
    vote_shares,
    weights_of,
)
from ml_backend.split import Side, SplitRule, assign_sides, clean_ids


@dataclass(frozen=True)
class ControlTargets:
    """What annotators said about one control, on n images.

    Attributes
    ----------
    shares : float32 (n, k)
        Share of annotators per label; for a number control (n, 1), their mean. Weighted, where
        annotators have weights.
    n_votes : int (n,)
        How many persons could assess it; 0 masks the image for this control.
    """

    control: Control
    shares: np.ndarray
    n_votes: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Whether each image has a vote, bool (n,)."""
        return self.n_votes > 0

    def take(self, rows: np.ndarray) -> ControlTargets:
        """The same control on some of the images."""
        return ControlTargets(self.control, self.shares[rows], self.n_votes[rows])


@dataclass(frozen=True)
class LearningSet:
    """Annotated images with their sides and targets.

    Attributes
    ----------
    images : DataFrame
        image_id, image (URL), sample_id, blind, split_key, side; one row an image.
    targets : dict
        ControlTargets by control name, rows as in `images`.
    """

    schema: LabelSchema
    images: pd.DataFrame
    targets: dict[str, ControlTargets]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, *sides: Side) -> np.ndarray:
        """Row numbers of the images on some sides. Blind images come only when asked for."""
        return np.flatnonzero(self.images["side"].isin(sides).to_numpy())

    def select(self, rows: np.ndarray) -> LearningSet:
        """Some of the images, in the order of `rows`."""
        targets = {name: target.take(rows) for name, target in self.targets.items()}
        return LearningSet(self.schema, self.images.iloc[rows].reset_index(drop=True), targets)

    def all_teach(self) -> LearningSet:
        """The same images, those of the validation side on the training side."""
        sides = self.images["side"].replace("validation", "train")
        return replace(self, images=self.images.assign(side=sides))

    def hold_out(self, rows: np.ndarray) -> LearningSet:
        """The same images, some of them moved to the validation side."""
        sides = self.images["side"].to_numpy(dtype=object, copy=True)
        sides[rows] = "validation"
        return replace(self, images=self.images.assign(side=sides))

    @property
    def counts(self) -> dict[str, int]:
        """Images per side."""
        return {str(k): int(v) for k, v in self.images["side"].value_counts().items()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over images, sides and targets: the same data give the same one."""
        digest = hashlib.sha256()
        for row in self.images[["image_id", "side"]].itertuples(index=False):
            digest.update(f"{row.image_id}\0{row.side}\n".encode())
        for name in sorted(self.targets):
            target = self.targets[name]
            digest.update(name.encode())
            digest.update(repr(target.control.labels).encode())
            digest.update(np.ascontiguousarray(target.shares).tobytes())
            digest.update(np.ascontiguousarray(target.n_votes).tobytes())
        return digest.hexdigest()


def task_images(schema: LabelSchema, tasks: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row an image of the tasks: image_id, image (URL), sample_id, blind.

    An image that is in several tasks is blind when one of them is.
    """
    columns = ["image_id", "image", "sample_id", "blind"]
    rows = [
        {
            "image_id": image_id_of(schema, dict(task)),
            "image": (task.get("data") or {}).get(schema.image_key),
            "sample_id": (task.get("data") or {}).get("sample_id"),
            "blind": is_blind(dict(task)),
        }
        for task in tasks
    ]
    images = pd.DataFrame(rows, columns=columns)
    blind = images.groupby("image_id")["blind"].any() if len(images) else None
    images = images.drop_duplicates("image_id").reset_index(drop=True)
    if blind is not None:
        images["blind"] = images["image_id"].map(blind).astype(bool)
    return images


def learning_set(
    schema: LabelSchema,
    images: pd.DataFrame,
    votes: pd.DataFrame,
    rule: SplitRule,
    weights: Mapping[str, float] | None = None,
    most_unlabelled: int = 0,
) -> LearningSet:
    """Put votes and sides together, for the images that have any vote, and some that have none.

    Weights of annotators hold on every side: who is left out neither teaches nor judges. Images
    without votes come from what the rule calls the training side, so that no held-out sample is
    seen in training; blind ones never do.

    Parameters
    ----------
    images : DataFrame
        As from `task_images`.
    votes : DataFrame
        As from `read_votes`.
    weights : mapping, optional
        By annotator, 1 for those not named; 0 leaves a person out.
    most_unlabelled : int
        So many images without votes at most, drawn at random, the same ones every time.

    Raises
    ------
    WeightError
        A weight is negative or no number.
    """
    votes = votes[weights_of(votes["annotator"], weights) > 0]
    has_votes = images["image_id"].isin(set(votes["image_id"]))
    some = assign_sides(images[has_votes].reset_index(drop=True), rule)
    if most_unlabelled:
        others = assign_sides(images[~has_votes], rule).query("side == 'train'")
        others = others.sample(min(most_unlabelled, len(others)), random_state=0).sort_index()
        some = pd.concat([some, others.assign(side="unlabelled")], ignore_index=True)
    image_ids = list(some["image_id"])
    targets = {
        control.name: control_targets(control, votes, image_ids, weights)
        for control in schema.trainable
    }
    return LearningSet(schema, some, targets)


def share_sample(data: LearningSet, some: LearningSet) -> np.ndarray:
    """Which of some images are from a sample with images in `data` that teach, bool (n,).

    An image of an unknown sample is not.
    """
    samples = np.array(clean_ids(list(data.images["sample_id"])), dtype=object)
    taught = set(samples[data.rows("train", "unlabelled")]) - {""}
    return np.array([s in taught for s in clean_ids(list(some.images["sample_id"]))], dtype=bool)


def control_targets(
    control: Control,
    votes: pd.DataFrame,
    image_ids: Sequence[str],
    weights: Mapping[str, float] | None = None,
) -> ControlTargets:
    """The targets of one trainable control on the given images."""
    if control.kind == "number":
        means, n_votes = vote_means(control, votes, image_ids, weights)
        return ControlTargets(control, means[:, None], n_votes)
    return ControlTargets(control, *vote_shares(control, votes, image_ids, weights))

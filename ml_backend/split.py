"""Which side an image is on: train, validation, test, or blind.

The side is a pure function of the split key (the sample id, or the image id where samples are not
known), so an image never changes side when data is added. Blind images are a side of their own:
this module is the one place that keeps them out of everything that learns or chooses.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from hpc_jobs.whole_files import write_text

logger = logging.getLogger(__name__)

Side = Literal["train", "validation", "test", "blind", "unlabelled"]
SIDES: tuple[Side, ...] = get_args(Side)
LEARNING_SIDES: tuple[Side, ...] = ("train", "validation", "test")
Unit = Literal["sample", "image"]

SPLIT_FILE = "split.json"
MIN_SHARE_PER_SIDE = 0.05
MIN_SAMPLES, MIN_SAMPLES_PER_SIDE = 5, 2


class SplitError(ValueError):
    """The recorded split rule cannot be read."""


@dataclass(frozen=True)
class SplitRule:
    """How a split key becomes a side.

    Attributes
    ----------
    unit : "sample" or "image"
        What is kept together. Neighbouring frames of a sample show the same animal, so "sample" is
        the rule wherever samples are known.
    train_share, validation_share : float
        Shares of the keys; the rest is held out for testing.
    reason : str
        Why this unit was chosen, for the model card.
    """

    unit: Unit = "sample"
    train_share: float = 0.70
    validation_share: float = 0.15
    reason: str = ""

    def side(self, key: str) -> Side:
        """Return "train", "validation" or "test" for one split key."""
        position = key_position(key)
        if position < self.train_share:
            return "train"
        return "validation" if position < self.train_share + self.validation_share else "test"

    def keys(self, image_ids: Sequence[str], sample_ids: Sequence[str]) -> list[str]:
        """Return the split key of each image: its sample where known, else the image itself."""
        if self.unit == "image":
            return [str(image_id) for image_id in image_ids]
        return [
            sample_id or str(image_id)
            for image_id, sample_id in zip(image_ids, clean_ids(sample_ids), strict=True)
        ]

    def write(self, folder: Path) -> None:
        """Record the rule in `folder`, so that later trainings split the same way."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / SPLIT_FILE, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "SplitRule | None":
        """Return the rule recorded in `folder`, or None when there is none yet.

        Raises
        ------
        SplitError
            The file is there but does not hold a rule.
        """
        path = folder / SPLIT_FILE
        if not path.exists():
            return None
        try:
            rule = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise SplitError(
                f"{path} does not hold a split rule ({error}). Restore it from a backup: a new "
                "rule would mix held-out images into training."
            ) from error
        if rule.unit not in get_args(Unit):
            raise SplitError(f"{path}: unit is {rule.unit!r}, expected 'sample' or 'image'.")
        return rule


def key_position(key: str) -> float:
    """Map a split key to [0, 1), evenly and for ever the same."""
    digest = hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def clean_ids(ids: Sequence[object]) -> list[str]:
    """Return ids as text, with "" for None, NaN and blanks."""
    return ["" if value is None or value != value else str(value).strip() for value in ids]


def choose_rule(sample_ids: Sequence[object]) -> SplitRule:
    """Choose the split unit from the sample ids of all images known today.

    By sample, unless there are fewer than 5 samples, or a side would get fewer than 2 of them or
    hardly any image: then by image, with the reason, since held-out figures can then be too good.
    (From a single held-out sample no interval can be told: every draw of it is the same.)
    """
    rule = SplitRule(unit="sample")
    known = [sample_id for sample_id in clean_ids(sample_ids) if sample_id]
    if not known:
        return SplitRule(unit="image", reason="no sample ids are known")
    shares = pd.Series([rule.side(sample_id) for sample_id in known]).value_counts(normalize=True)
    n_samples = len(set(known))
    per_side = Counter(rule.side(sample_id) for sample_id in set(known))
    enough = n_samples >= MIN_SAMPLES and all(
        per_side[side] >= MIN_SAMPLES_PER_SIDE and shares.get(side, 0.0) >= MIN_SHARE_PER_SIDE
        for side in LEARNING_SIDES
    )
    if enough:
        return SplitRule(unit="sample", reason=f"{n_samples} samples are known")
    return SplitRule(
        unit="image",
        reason=(
            f"only {n_samples} sample(s) known, too few to hold some out ("
            + ", ".join(f"{side} would get {per_side[side]}" for side in LEARNING_SIDES)
            + "): images of one sample are on several sides, so held-out figures can be too good"
        ),
    )


def settled_rule(folder: Path, sample_ids: Sequence[object]) -> SplitRule:
    """Return the rule recorded in `folder`; choose and record one when it is the first time.

    Recording matters: a rule chosen anew from more data could move images between sides.
    """
    rule = SplitRule.read(folder)
    if rule is None:
        rule = choose_rule(sample_ids)
        rule.write(folder)
        logger.info("split by %s: %s", rule.unit, rule.reason)
    return rule


def assign_sides(images: pd.DataFrame, rule: SplitRule) -> pd.DataFrame:
    """Return `images` with columns `split_key` and `side`.

    Parameters
    ----------
    images : DataFrame
        One row per image: image_id, sample_id, blind.

    Notes
    -----
    Blind wins over everything: a blind image is only ever evaluated.
    """
    blind = images["blind"].to_numpy(dtype=bool)
    keys = rule.keys(list(images["image_id"]), list(images["sample_id"]))
    sides = np.array([rule.side(key) for key in keys], dtype=object)
    sides[blind] = "blind"
    return images.assign(split_key=keys, side=sides)

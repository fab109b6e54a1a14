"""The frequencies that a folder of predictions is at: one record, whoever writes it first."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from hpc_jobs.files import read_json
from hpc_jobs.whole_files import write_once
from ml_backend.priors import PriorError

logger = logging.getLogger(__name__)

PRIOR_FILES = "_prior*.json"
"""Readers of a folder of Parquet files leave out what begins with an underscore."""
MOST_LABELS = 5


@dataclass(frozen=True)
class Deployment:
    """The frequencies that a model answers at, and where they are from.

    Attributes
    ----------
    prior : str
        "natural" (of the training votes), "uniform", "em", "bbse", or the name of a file.
    frequencies : dict
        By control and label.
    n_images : int
        Images that frequencies were estimated from; 0 where they were not.
    notes : list of str
        Controls that stay at their natural frequencies, with the reason.
    """

    prior: str
    frequencies: dict[str, dict[str, float]]
    n_images: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, str]:
        """The prior and by control its most frequent labels, for people."""
        source = f"{self.prior}, from {self.n_images} images" if self.n_images else self.prior
        facts = {"prior": source}
        for name, frequencies in self.frequencies.items():
            most = sorted(frequencies, key=lambda label: -frequencies[label])[:MOST_LABELS]
            more = len(frequencies) - len(most)
            facts[f"prior of {name}"] = ", ".join(
                [f"{label} {frequencies[label]:.3f}" for label in most]
                + ([f"{more} more"] if more else [])
            )
        return facts


def recorded(folder: Path, mark: str, prior: str) -> Deployment | None:
    """What an earlier call found for the same model, images and prior (together: the mark).

    Raises
    ------
    PriorError
        The folder holds predictions at other frequencies.
    """
    # Looked at first: a task of the same array may write the record and a shard meanwhile.
    there = any(folder.glob("part-*.parquet"))
    records = [_read(path) for path in folder.glob(PRIOR_FILES)]
    found = [deployment for whose, deployment in records if whose == mark]
    if there and (len(records) > len(found) or (not found and prior != "natural")):
        raise PriorError(
            f"{folder} holds predictions at other frequencies, of other images or of another "
            "version: choose an empty folder, or remove the old shards"
        )
    return found[0] if found else None


def _read(path: Path) -> tuple[str | None, Deployment]:
    """The mark in a file and what it records; None for the mark of a file that is no record."""
    content = read_json(path)
    facts = dict(content) if isinstance(content, dict) else {}
    try:
        return facts.pop("mark"), Deployment(**facts)
    except (KeyError, TypeError):
        logger.warning("%s cannot be read", path)
        return None, Deployment("natural", {})


def record(folder: Path, mark: str, found: Deployment) -> Deployment:
    """Record it, unless another task of the same array was first; what is recorded then.

    Tasks on unlike processors estimate a little differently, and all shards must be at one prior.
    So a mark has a file of its own, which is written once and never changed. Records of earlier
    runs, whose shards are gone, are removed before: where there is one of this mark, no other is.

    Raises
    ------
    PriorError
        The record of this mark is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"_prior-{sha256(mark.encode()).hexdigest()[:8]}.json"
    for other in folder.glob(PRIOR_FILES):
        if other != path:
            other.unlink(missing_ok=True)
    text = json.dumps({"mark": mark, **asdict(found)}, indent=2, ensure_ascii=False)
    if write_once(path, text + "\n"):
        return found
    whose, first = _read(path)
    if whose != mark:
        raise PriorError(f"{path} cannot be read: remove it, and start again")
    return first

"""The frequencies that a folder of predictions is at: one record, whoever writes it first."""

from __future__ import annotations

import json
import logging
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hpc_jobs.files import read_json
from hpc_jobs.whole_files import write_once
from ml_backend.priors import PriorError

logger = logging.getLogger(__name__)

PRIOR_FILE = "_prior.json"
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
    found = _read(folder / PRIOR_FILE, mark)
    if found is not None:
        return found
    if there and (prior != "natural" or _is_record(folder / PRIOR_FILE)):
        raise PriorError(
            f"{folder} holds predictions at other frequencies, of other images or of another "
            "version: choose an empty folder, or remove the old shards"
        )
    return None


def _is_record(path: Path) -> bool:
    return isinstance(read_json(path), dict)


def _read(path: Path, mark: str) -> Deployment | None:
    """What a file records, if it is about the same model, images and prior."""
    record = read_json(path)
    if not isinstance(record, dict):
        if path.exists():
            logger.warning("%s cannot be read", path)
        return None
    try:
        return Deployment(**record) if record.pop("mark") == mark else None
    except (KeyError, TypeError):
        return None


def record(folder: Path, mark: str, found: Deployment) -> Deployment:
    """Record it, unless another task of the same array was first; what is recorded then.

    Tasks on unlike processors estimate a little differently, and all shards must be at one prior.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PRIOR_FILE
    text = json.dumps({"mark": mark, **asdict(found)}, indent=2, ensure_ascii=False)
    while not write_once(path, text + "\n"):
        first = _read(path, mark)
        if first is not None:
            return first
        _remove_stale(path, mark)
    return found


def _remove_stale(path: Path, mark: str) -> None:
    """Remove the record of an earlier run, whose shards are gone."""
    aside = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside, mark) is not None:  # written since it was looked at
            write_once(path, aside.read_text(encoding="utf-8"))
        aside.unlink()

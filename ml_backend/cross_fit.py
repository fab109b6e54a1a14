"""What a model would say of images that taught it, had they not: a model of the rest judges each.

With few labels the validation side is a few dozen images, too few to tell how sure a model may be.
So the images that teach are divided into folds, as many models as folds are taught in the same way
by all folds but one, and each judges the fold that it never saw (Stone 1974,
doi 10.1111/j.2517-6161.1974.tb00994.x). A temperature, or a number's interval, then rests on all of
them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hpc_jobs import progress
from ml_backend.checkpoint import read_checkpoint, write_checkpoint
from ml_backend.folds import FOLDS, folds_of
from ml_backend.targets import ControlTargets, LearningSet

logger = logging.getLogger(__name__)

Outputs = dict[str, np.ndarray]
LARGEST_FOLD = 0.4
"""Of all images: what is left to teach would be another model than the one that serves."""


def cross_fitted_outputs(
    data: LearningSet,
    judge: Callable[[LearningSet, Path, str], Outputs],
    folder: Path,
    mark: str,
) -> Outputs:
    """Return outputs by control for all rows of the training side, float32 (n, k).

    Images that are kept together are in one fold. NaN where the image has no vote, or the other
    folds have none for a label that it has votes for: nothing could teach that there, while it
    will teach the model that serves. Controls of which nothing can be told are left out, and
    those with most of their votes in one fold: all, where fewer units than folds are known.

    Parameters
    ----------
    data : LearningSet
        Its training side is divided; nothing is on the validation side.
    judge : callable
        Teaches a model by the training side of what it is given, and returns the outputs (m, k) by
        control for its validation side. It may keep a checkpoint in the folder, with the mark.
    folder : Path
        What a fold gave is kept there: a training that was killed goes on from it.
    mark : str
        Says what it must have been made from, beside the images and their votes.

    Raises
    ------
    FloatingPointError
        The loss of a fold is no number any more.
    """
    rows = data.rows("train")
    fold = folds_of(data.images["split_key"].to_numpy(dtype=str)[rows])
    found: Outputs = {}
    if len(np.unique(fold)) < FOLDS or not _are_spread(fold):
        logger.info("too few samples to judge images by the others")
        return found
    for held_out in range(FOLDS):
        progress.report("judge each fifth by the rest", held_out, FOLDS)
        judged = fold == held_out
        rest = data.hold_out(rows[judged])
        run = folder / f"fold-{held_out}"
        own_mark = f"{mark} {rest.fingerprint}"
        outputs = _read(run, own_mark)
        if outputs is None:
            with progress.quiet():
                outputs = judge(rest, run, own_mark)
            _write(run, own_mark, outputs)
        for name, values in outputs.items():
            told = _could_be_told(rest.targets[name], rest.rows("train"), rows[judged])
            found.setdefault(name, np.full((len(rows), values.shape[1]), np.nan, np.float32))
            found[name][judged] = np.where(told[:, None], values, np.nan)
    progress.report("judge each fifth by the rest", FOLDS, FOLDS)
    return {
        name: values
        for name, values in found.items()
        if _are_spread(fold[np.isfinite(values).all(axis=1)])
    }


def _are_spread(fold: np.ndarray) -> bool:
    """Whether no fold has most of the images."""
    return len(fold) > 0 and np.bincount(fold).max() <= LARGEST_FOLD * len(fold)


def _could_be_told(target: ControlTargets, teach: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Which images have votes, and only such as images that teach have too, bool (m,)."""
    taught = target.shares[teach[target.known[teach]]]
    told = target.known[judged] & (len(taught) > 0)
    if target.control.kind == "number":
        return told
    unseen = ~(taught > 0).any(axis=0)
    return told & ~(target.shares[judged][:, unseen] > 0).any(axis=1)


def _read(folder: Path, mark: str) -> Outputs | None:
    state = read_checkpoint(folder)
    if state.get("mark") != mark or "outputs" not in state:
        return None
    return {name: values.numpy() for name, values in state["outputs"].items()}


def _write(folder: Path, mark: str, outputs: Outputs) -> None:
    """In place of the checkpoint of the training that gave them."""
    tensors = {name: torch.from_numpy(values) for name, values in outputs.items()}
    write_checkpoint(folder, {"mark": mark, "outputs": tensors})

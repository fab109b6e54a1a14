"""At which frequencies of the labels a model answers, and a record of them beside predictions."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from label_studio_config.manifest import Manifest
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.predict import predict
from ml_backend.predict_pieces import extractor_of
from ml_backend.predictions import Predictions
from ml_backend.prior_record import Deployment, record, recorded
from ml_backend.priors import PriorError, check_prior, prior_by_bbse, prior_by_em

logger = logging.getLogger(__name__)

PRIORS = ("natural", "uniform", "em", "bbse")
MOST_IMAGES = 20_000
FEWEST_IMAGES = 20


def with_prior(model: TraitModel, priors: Mapping[str, np.ndarray]) -> TraitModel:
    """The same model at other frequencies of some controls' labels; weights are shared.

    Probabilities, confidence and suggestions are then those at these frequencies.

    Raises
    ------
    PriorError
        A prior does not fit its control.
    """
    heads = _labelled(model)
    unknown = sorted(set(priors) - set(heads))
    if unknown:
        raise PriorError(
            f"the model has no head with labels for {', '.join(unknown)}; it has "
            f"{', '.join(heads) or 'none'}"
        )
    other = copy.copy(model)
    for name, prior in priors.items():
        head = heads[name]
        checked = check_prior(name, prior, head.labels, head.kind)
        other.set_head(replace(head, deployed_prior=tuple(checked.tolist())))
    return other


def deploy(
    model: TraitModel,
    manifest: Manifest,
    prior: str,
    folder: str | Path,
    metrics: Mapping[str, Any] | None = None,
) -> tuple[TraitModel, Deployment]:
    """The model at the frequencies asked for, recorded in the folder that predictions go to.

    Parameters
    ----------
    manifest : Manifest
        What will be predicted; "em" and "bbse" estimate from at most 20,000 of its images, spread
        evenly. A repeated call reads what the first one found.
    prior : str
        One of `PRIORS`, or a JSON file: {control: {label: frequency}}; other controls stay natural.
    metrics : mapping, optional
        The version's record: "bbse" needs its confusion on held-out images.

    Raises
    ------
    PriorError
        There is no such prior, the file does not fit the model, or the folder holds predictions
        at other frequencies.
    """
    folder = Path(folder)
    given = {} if prior in PRIORS else read_priors(model, Path(prior))
    marks = (model.fingerprint, manifest.fingerprint, prior in PRIORS and prior, str(given))
    mark = hashlib.sha256(repr(marks).encode()).hexdigest()
    found = recorded(folder, mark, prior)
    if found is None:
        found = record(folder, mark, _choose(model, manifest, prior, given, metrics or {}))
    for note in found.notes:
        logger.warning("%s", note)
    priors = {
        name: np.array([found.frequencies[name][label] for label in head.labels])
        for name, head in _labelled(model).items()
    }
    return (model if prior == "natural" else with_prior(model, priors)), found


def read_priors(model: TraitModel, path: Path) -> dict[str, np.ndarray]:
    """Frequencies by control, in the order of the labels, from a JSON file.

    Raises
    ------
    PriorError
        It cannot be read, or does not fit the model; names the control and the label.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PriorError(f"{path} is neither one of {', '.join(PRIORS)} nor a file") from error
    except (OSError, ValueError) as error:
        raise PriorError(f"{path} cannot be read: {error}") from error
    heads = _labelled(model)
    if not isinstance(record, dict) or not all(isinstance(v, dict) for v in record.values()):
        raise PriorError(f'{path}: write it like {{"group": {{"Copepod": 0.7, "Other": 0.3}}}}')
    priors = {}
    for name, frequencies in record.items():
        if name not in heads:
            raise PriorError(
                f"{path}: the model has no head with labels for {name!r}; it has "
                f"{', '.join(heads) or 'none'}"
            )
        labels = heads[name].labels
        for wrong, told in (
            (set(frequencies) - set(labels), "knows no label"),
            (set(labels) - set(frequencies), "is given no frequency for"),
        ):
            if wrong:
                raise PriorError(
                    f"{path}: control {name!r} {told} {', '.join(sorted(wrong))}; give one for "
                    f"each of {', '.join(labels)}"
                )
        try:
            values = [float(frequencies[label]) for label in labels]
        except (TypeError, ValueError) as error:
            raise PriorError(f"{path}: control {name!r}: {error}") from error
        priors[name] = check_prior(name, values, labels, heads[name].kind)
    return priors


def _choose(
    model: TraitModel,
    manifest: Manifest,
    prior: str,
    given: Mapping[str, np.ndarray],
    metrics: Mapping[str, Any],
) -> Deployment:
    heads = list(_labelled(model).values())
    chosen = {head.control: _natural(head) for head in heads} | dict(given)
    notes: list[str] = []
    n_images = 0
    if prior == "uniform":
        chosen = {
            head.control: np.full(len(head.labels), 1 / len(head.labels))
            if head.kind == "one of"
            else np.full(len(head.labels), 0.5)
            for head in heads
        }
    elif prior in ("em", "bbse"):
        some = manifest.spread(MOST_IMAGES)
        predictions = predict(model, some, extractor=partial(extractor_of, model))
        n_images = len(predictions)
        for head in heads:
            try:
                rows = _rows(predictions, head.control)
                if prior == "em":
                    chosen[head.control] = _by_em(head, predictions, rows)
                else:
                    chosen[head.control] = _by_bbse(head, predictions, rows, metrics)
            except PriorError as error:
                notes.append(f"control {head.control!r} stays at its natural frequencies: {error}")
    frequencies = {
        head.control: dict(zip(head.labels, chosen[head.control].tolist(), strict=True))
        for head in heads
    }
    return Deployment(Path(prior).name, frequencies, n_images, notes)


def _labelled(model: TraitModel) -> dict[str, Head]:
    """The heads with labels, by control."""
    return {head.control: head for head in model.heads if head.kind != "number"}


def _natural(head: Head) -> np.ndarray:
    """Labels nobody voted for have half a vote, so those of "one of" may sum to more than 1."""
    prior = np.array(head.deployed_prior)
    return prior / prior.sum() if head.kind == "one of" else prior


def _rows(predictions: Predictions, control: str) -> np.ndarray:
    """Rows of the images whose suggestions let the control be asked."""
    rows = np.flatnonzero(predictions.asked.get(control, False))
    if len(rows) < FEWEST_IMAGES:
        raise PriorError(f"{len(rows)} of the images ask for it, needs {FEWEST_IMAGES}")
    return rows


def _by_em(head: Head, predictions: Predictions, rows: np.ndarray) -> np.ndarray:
    values, prior = predictions.values[head.control][rows], np.array(head.deployed_prior)
    if head.kind == "one of":
        return prior_by_em(values, prior)
    pairs = zip(values.T, prior, strict=True)
    return np.array(
        [prior_by_em(np.stack([1 - p, p], axis=1), np.array([1 - f, f]))[1] for p, f in pairs]
    )


def _by_bbse(
    head: Head, predictions: Predictions, rows: np.ndarray, metrics: Mapping[str, Any]
) -> np.ndarray:
    if head.kind != "one of":
        raise PriorError("bbse is for controls with one label an image; em takes both")
    measured = metrics.get("metrics", {}).get("test", {}).get(head.control, {})
    if "confusion" not in measured:
        raise PriorError("its version has no confusion of held-out images: train a new one")
    predicted = predictions.choices[head.control][rows].mean(axis=0)
    return prior_by_bbse(np.array(measured["confusion"]), predicted)

"""How far annotators agree, with each other and each with himself.

Krippendorff's alpha (Krippendorff 2004, Content Analysis, ch. 11): 1 is full agreement, 0 is what
chance would give. It takes any number of annotators an image, and annotators who saw few images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import Any, Literal

import krippendorff
import numpy as np
import pandas as pd

from label_studio_config.controls import Control
from label_studio_config.results import read_result
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import by_annotator, is_vote
from label_studio_config.words import counted

MOST_CONFUSED = 10
MAX_CELLS = 20_000_000
"""Of the table that the library makes for numbers, images x values x values: beyond it, alpha is
that of every second image, and so on."""

Level = Literal["nominal", "ordinal", "interval"]


def agreement(schema: LabelSchema, votes: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Agreement of the annotators on each trainable control, over images that two persons judged.

    Blind images count too. Of a person who judged an image several times, the last judgement
    counts; who could not assess it is left out.

    Parameters
    ----------
    votes : DataFrame
        As from `read_votes`.

    Returns
    -------
    dict
        By control: alpha (None where there are fewer than two such images, or everybody always
        said the same one thing; for any-of controls the mean over labels), its level of
        measurement, n_images, n_annotators, per_label (alpha of the label against the rest), and
        `confused`: pairs of labels that different persons gave one image, at most 10, with their
        share of the n_images.
    """
    return {control.name: agreement_on(control, votes) for control in schema.trainable}


def self_agreement(votes: pd.DataFrame) -> dict[str, Any]:
    """How often a person who judged the same control of an image again said the same.

    Returns
    -------
    dict
        `repeated` (person, image and control with several votes), `same`, their share (None where
        nothing was repeated), and the same two counts by annotator.
    """
    said: dict[tuple[str, str, str], set[Any]] = {}
    times: Counter[tuple[str, str, str]] = Counter()
    columns = ["annotator", "image_id", "control", "labels", "number", "assessable"]
    for who, image_id, control, labels, number, assessable in votes[columns].itertuples(
        index=False, name=None
    ):
        key = (str(who), image_id, control)
        number = None if pd.isna(number) else float(number)
        said.setdefault(key, set()).add((frozenset(labels), number, bool(assessable)))
        times[key] += 1
    again = [key for key, n in times.items() if n > 1]
    repeated = Counter(who for who, _, _ in again)
    same = Counter(key[0] for key in again if len(said[key]) == 1)
    n_repeated, n_same = sum(repeated.values()), sum(same.values())
    return {
        "repeated": n_repeated,
        "same": n_same,
        "share": n_same / n_repeated if n_repeated else None,
        "annotators": {
            who: {"repeated": repeated[who], "same": same[who]} for who in sorted(repeated)
        },
    }


def self_agreement_notes(found: dict[str, Any]) -> list[str]:
    """A note on annotators who contradicted themselves, if any did."""
    differ = {
        who: counts["repeated"] - counts["same"] for who, counts in found["annotators"].items()
    }
    named = ", ".join(f"{who} {n}" for who, n in differ.items() if n)
    if not named:
        return []
    return [
        f"of {found['repeated']} answers that a person gave again on the same image, "
        f"{found['repeated'] - found['same']} differ ({named}): such answers together weigh as one "
        "vote"
    ]


def changed_answers(schema: LabelSchema, tasks: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many answers each person gave differently in several annotations of one task.

    Only the newest annotation votes (see `read_votes`). A control that one of them left open makes
    no difference.
    """
    changed: Counter[str] = Counter()
    for task in tasks:
        for who, given in by_annotator(task).items():
            if len(given) > 1:
                changed[who] += _contradicted(schema, given)
    return {who: n for who, n in sorted(changed.items()) if n}


def _contradicted(schema: LabelSchema, given: list[dict[str, Any]]) -> int:
    """How many controls these annotations answer differently."""
    said: dict[str, set[Any]] = {}
    for annotation in given:
        for answer in read_result(schema, annotation.get("result") or [], []).values():
            if is_vote(answer):
                value = (frozenset(answer.labels), answer.number, answer.assessable)
                said.setdefault(answer.control, set()).add(value)
    return sum(len(values) > 1 for values in said.values())


def changed_notes(changed: dict[str, int]) -> list[str]:
    """A note on annotators who contradicted themselves within a task, if any did."""
    if not changed:
        return []
    named = ", ".join(f"{who} {n}" for who, n in changed.items())
    return [
        "where a person annotated one task several times, only the newest annotation counts: it "
        f"contradicts an earlier one in {counted(sum(changed.values()), 'answer')} ({named})"
    ]


def agreement_on(control: Control, votes: pd.DataFrame) -> dict[str, Any]:
    """As `agreement`, on one control."""
    mine = votes[(votes["control"] == control.name) & votes["assessable"].astype(bool)]
    said, people = _said(control, mine)
    level = _level(control)
    found: dict[str, Any] = {
        "alpha": _number_alpha(said) if control.kind == "number" else None,
        "level": level,
        "n_images": len(said),
        "n_annotators": len(people),
        "per_label": {},
        "confused": [],
    }
    if control.kind == "number":
        return found
    for k, label in enumerate(control.labels):
        found["per_label"][label] = _alpha(_counts([[k in v for v in vs] for vs in said], 2))
    if control.kind == "any of":
        known = [alpha for alpha in found["per_label"].values() if alpha is not None]
        found["alpha"] = float(np.mean(known)) if known else None
    elif level == "nominal":
        found["alpha"] = _nominal_alpha(list(found["per_label"].values()), said)
    else:
        steps = [[next(iter(value)) for value in values] for values in said]
        found["alpha"] = _alpha(_counts(steps, len(control.labels)), level=level)
    found["confused"] = _confused(control, said)
    return found


def _level(control: Control) -> Level:
    if control.kind == "number":
        return "interval"
    return "ordinal" if control.ordinal and control.kind == "one of" else "nominal"


def _said(control: Control, votes: pd.DataFrame) -> tuple[list[list[Any]], set[str]]:
    """What was said of each image that at least two persons judged, and by whom.

    Labels as a frozenset of their positions (of exactly one, for "one of"), numbers as they are.
    """
    position = {label: k for k, label in enumerate(control.labels)}
    by_image: dict[str, dict[str, Any]] = {}
    columns = ["image_id", "annotator", "labels", "number"]
    for image_id, who, labels, number in votes[columns].itertuples(index=False, name=None):
        value: Any = frozenset(position[label] for label in labels if label in position)
        if control.kind == "number":
            value = float(number)
        usable = np.isfinite(value) if control.kind == "number" else True
        if usable and (control.kind != "one of" or len(value) == 1):
            by_image.setdefault(image_id, {})[str(who)] = value
    several = [given for given in by_image.values() if len(given) > 1]
    return [list(given.values()) for given in several], {who for given in several for who in given}


def _counts(values: list[list[int]], n_values: int) -> np.ndarray:
    """How often each value was given, (images, n_values)."""
    return np.array([np.bincount(v, minlength=n_values) for v in values]).reshape(-1, n_values)


def _alpha(
    counts: np.ndarray, domain: np.ndarray | None = None, level: Level = "nominal"
) -> float | None:
    """Alpha from how often each value was given, (images, values); None where it is undefined."""
    if len(counts) < 2 or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    domain = np.arange(counts.shape[1]) if domain is None else domain
    return float(
        krippendorff.alpha(value_counts=counts, value_domain=domain, level_of_measurement=level)
    )


def _nominal_alpha(per_label: list[float | None], said: list[list[frozenset[int]]]) -> float | None:
    """Alpha over all labels, from that of each against the rest.

    A disagreement on two labels is one on each against the rest, and so is an expected one: alpha
    is the mean of theirs, weighted by the disagreement expected of each. (The library's own sum
    over many labels needs images x labels x labels cells.)
    """
    labels = np.array([k for values in said for value in values for k in value], dtype=int)
    given = np.bincount(labels, minlength=len(per_label))
    expected = given * (given.sum() - given)
    known = [(a, e) for a, e in zip(per_label, expected, strict=True) if a is not None and e]
    if not known:
        return None
    alphas, weights = zip(*known, strict=True)
    return float(np.average(alphas, weights=weights))


def _number_alpha(said: list[list[float]]) -> float | None:
    if not said:
        return None
    domain, position = np.unique(np.concatenate(said), return_inverse=True)
    values = np.split(position, np.cumsum([len(v) for v in said])[:-1])
    if len(said) * len(domain) ** 2 > MAX_CELLS:
        return _number_alpha(said[::2])
    return _alpha(_counts([list(v) for v in values], len(domain)), domain, "interval")


def _confused(control: Control, said: list[list[frozenset[int]]]) -> list[dict[str, Any]]:
    """Pairs of labels where one person gave the one without the other, and another the other."""
    images: Counter[tuple[int, int]] = Counter()
    for values in said:
        pairs = set()
        for mine, yours in combinations(set(values), 2):
            for a in mine - yours:
                pairs |= {(min(a, b), max(a, b)) for b in yours - mine}
        images.update(pairs)
    ordered = sorted(images.items(), key=lambda item: (-item[1], item[0]))[:MOST_CONFUSED]
    return [
        {"labels": [control.labels[a], control.labels[b]], "n_images": n, "share": n / len(said)}
        for (a, b), n in ordered
    ]

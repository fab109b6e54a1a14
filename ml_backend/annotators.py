"""How much each annotator's votes weigh: a small file beside a project's model versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from hpc_jobs.whole_files import write_text
from label_studio_config.votes import check_weights

WEIGHTS_FILE = "annotators.json"


class AnnotatorError(ValueError):
    """Weights of annotators that cannot be read; the message says the remedy."""


def read_weights(folder: str | Path) -> dict[str, float]:
    """The weights recorded in a models folder, by annotator; {} where there are none.

    Raises
    ------
    AnnotatorError
        The file does not hold an object of numbers.
    WeightError
        A weight is negative or no number.
    """
    path = Path(folder) / WEIGHTS_FILE
    try:
        weights = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise AnnotatorError(f"{path} cannot be read ({error}): mend or remove it") from error
    if not isinstance(weights, dict):
        raise AnnotatorError(f'{path} holds no object: write it like {{"ann@example.org": 0.5}}')
    return check_weights(weights)


def update_weights(folder: str | Path, weights: Mapping[str, float]) -> dict[str, float]:
    """Record weights beside those already there; 1 forgets a person's. Returns all of them.

    Raises
    ------
    AnnotatorError
        The file that is there cannot be read.
    WeightError
        A weight is negative or no number.
    """
    folder = Path(folder)
    merged = read_weights(folder) | check_weights(weights)
    merged = {who: weight for who, weight in sorted(merged.items()) if weight != 1}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(merged, indent=2, ensure_ascii=False) + "\n"
    write_text(folder / WEIGHTS_FILE, text)
    return merged


def parse_weights(options: Iterable[str]) -> dict[str, float]:
    """Weights from texts like `ann@example.org=0.5`.

    Raises
    ------
    AnnotatorError
        A text is not of that form.
    WeightError
        A weight is negative or no number.
    """
    weights: dict[str, float] = {}
    for option in options:
        who, separator, weight = option.rpartition("=")
        try:
            weights[who.strip()] = float(weight)
        except ValueError:
            separator = ""
        if not separator or not who.strip():
            raise AnnotatorError(
                f"{option!r} gives no annotator a weight: write it like ann@example.org=0.5"
            )
    return check_weights(weights)


def weight_notes(weights: Mapping[str, float], voters: Iterable[str]) -> list[str]:
    """What to tell of the weights: who has one, and who of them never voted."""
    voted = set(voters)
    used = [f"{who} ({weight:g})" for who, weight in weights.items() if who in voted]
    notes = [f"votes are weighted: {', '.join(used)}; everybody else 1"] if used else []
    unknown = sorted(set(weights) - voted)
    if unknown:
        notes.append(
            f"{WEIGHTS_FILE} gives a weight to {', '.join(unknown)}, but nobody of that name "
            f"voted. Voters are {', '.join(sorted(voted)) or 'none yet'}; "
            f"--annotator-weight {unknown[0]}=1 forgets the weight"
        )
    return notes

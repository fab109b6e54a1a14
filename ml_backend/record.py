"""What a version says of itself: its record, and the files that go with its weights."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from label_studio_config.manifest import Manifest, Skipped
from ml_backend.fit import Fitted
from ml_backend.measure import Answered, measure
from ml_backend.mistakes import most_confident_mistakes
from ml_backend.model import TraitModel
from ml_backend.model_card import model_card
from ml_backend.registry import CARD_FILE, METRICS_FILE, REPORT_FILE, Registry
from ml_backend.rejection import choose_rejection
from ml_backend.report import plain
from ml_backend.report_page import report_html
from ml_backend.start import Start
from ml_backend.targets import LearningSet, share_sample
from ml_backend.taught import REFITTED

logger = logging.getLogger(__name__)

PROMOTION_FILE = "promotion.json"
MIN_BLIND_APART = 20
MOST_NAMED = 5


def make_record(
    data: LearningSet,
    answered: Answered,
    fitted: Fitted,
    start: Start,
    facts: dict[str, Any],
    skipped: list[Skipped],
    manifest: Manifest,
) -> dict[str, Any]:
    """What metrics.json will hold, but for the promotion and the seconds it took.

    Parameters
    ----------
    answered : Answered
        On the validation side, the held-out images and the blind ones.
    manifest : Manifest
        Says where the images are.
    """
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "encoder": start.name,
        "trained": fitted.trained,
        "refitted": fitted.refitted,
        "images": data.counts,
        **facts,
        **_measured(data, answered),
        "rejection": _rejection(data, answered, fitted),
        "mistakes": most_confident_mistakes(answered, answered.data.rows("test"), manifest),
        "left_out": fitted.left_out,
        "notes": _notes(data, fitted, facts, skipped),
        "heads": [asdict(head) for head in fitted.model.heads],
        "penalties": fitted.penalties,
        "settings": asdict(start.settings),
        "data_fingerprint": data.fingerprint,
        "schema_fingerprint": data.schema.fingerprint,
        "skipped_images": len(skipped),
    }


def _measured(data: LearningSet, answered: Answered) -> dict[str, Any]:
    """Metrics by side; those of blind images also without images of samples that teach."""
    blind = answered.data.rows("blind")
    shared = share_sample(data, answered.data.select(blind))
    metrics = {
        "test": measure(answered, answered.data.rows("test")),
        "blind": measure(answered, blind),
    }
    apart = blind[~shared]
    if shared.any() and len(apart) >= MIN_BLIND_APART:
        metrics["blind_apart"] = measure(answered, apart)
    share = float(shared.mean()) if len(blind) else None
    return {
        "metrics": metrics,
        "blind": {"share_in_training_samples": share, "images_apart": len(apart)},
    }


def _rejection(data: LearningSet, answered: Answered, fitted: Fitted) -> dict[str, Any]:
    if fitted.refitted:
        reason = "there are so few images that the validation images taught it too: annotate more"
        return {"control": None, "reason": reason}
    return choose_rejection(answered, data.schema)


def _notes(
    data: LearningSet, fitted: Fitted, facts: dict[str, Any], skipped: list[Skipped]
) -> list[str]:
    notes = [*facts.get("vote_notes", ()), *facts.get("size_notes", ())]
    if facts["split"]["unit"] == "image" and "only" in facts["split"]["reason"]:
        notes.append(f"split by image: {facts['split']['reason']}")
    if skipped:
        notes.append(f"{len(skipped)} image(s) could not be read, e.g. {skipped[0].reason}")
    for head in fitted.model.heads:
        unseen = [label for label, n in zip(head.labels, head.n_per_label, strict=True) if n == 0]
        if unseen:
            notes.append(f"{head.control}: no training votes yet for {', '.join(unseen)}")
    learned = data.all_teach() if fitted.refitted else data
    taught = learned.select(learned.rows("train"))
    notes += [*_seen_once(taught, fitted), *_never_none(taught)]
    if fitted.refitted:
        notes.append(REFITTED)
    return notes


def _seen_once(taught: LearningSet, fitted: Fitted) -> list[str]:
    """A note a head on labels that a single one of these images bears."""
    notes = []
    for head in fitted.model.heads:
        n_images = (taught.targets[head.control].shares > 0).sum(axis=0)
        once = [label for label, n in zip(head.labels, n_images, strict=False) if n == 1]
        if once:
            more = f" and {len(once) - MOST_NAMED} more" if len(once) > MOST_NAMED else ""
            named = ", ".join(once[:MOST_NAMED]) + more
            notes.append(f"{head.control}: a single training image for {named}: annotate more")
    return notes


def _never_none(taught: LearningSet) -> list[str]:
    """A note an any-of control of which no image says that none of its labels is there."""
    notes = []
    for name, target in taught.targets.items():
        control, said = target.control, target.shares[target.known] > 0
        absent = [label for label in control.labels if label in control.absent]
        says_none = said[:, [control.labels.index(label) for label in absent]].any()
        if control.kind != "any of" or not len(said) or says_none:
            continue
        remedy = (
            f"choose {absent[0]} where none of the others is"
            if absent
            else 'add a label with role="absent" to the config, and choose it where none is'
        )
        notes.append(
            f"{name}: no training image says that none of its labels is there, and a question left "
            f"open says nothing: {remedy}"
        )
    return notes


def write_version(folder: Path, model: TraitModel, record: dict[str, Any]) -> None:
    """Fill the folder of a version: the model, its record, promotion.json, model card and page.

    The folder is one of the registry's, before it takes its name.
    """
    model.save(folder)
    text = json.dumps(plain(record), indent=2, ensure_ascii=False)
    (folder / METRICS_FILE).write_text(text + "\n", encoding="utf-8")
    text = json.dumps(plain(record["promotion"]), indent=2, ensure_ascii=False)
    (folder / PROMOTION_FILE).write_text(text + "\n", encoding="utf-8")
    registry = Registry(folder.parent)
    name = registry.next_name
    card = model_card(name, record)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    try:
        page = report_html(name, record, card, registry.readable())
    except Exception:  # a training of hours is not lost for a page, which can be written anew
        logger.exception("no page could be made: planktrait report makes it again")
    else:
        (folder / REPORT_FILE).write_text(page, encoding="utf-8")

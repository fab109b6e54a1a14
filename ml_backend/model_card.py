"""The model card of a version: what it is, what it learned from, how good it is, what to beware."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_backend.calibrate import MIN_IMAGES_FOR_TEMPERATURE
from ml_backend.fit import FROZEN, HEADS_ANEW, STUDENT
from ml_backend.taught import who_taught

WORST_LABELS = 5
SIDES = (
    ("test", "On held-out images"),
    ("blind", "On blind images"),
    ("blind_apart", "On blind images of samples that taught it nothing"),
)

CROSS_FITTED = "all images to learn from, each fifth judged by a model that the other four taught"


def model_card(name: str, record: Mapping[str, Any]) -> str:
    """Return the card as Markdown.

    Parameters
    ----------
    name : str
        The version's.
    record : mapping
        As in metrics.json: see `TrainingReport.as_dict`.
    """
    counts = record["images"]
    lines = [
        f"# {name}",
        "",
        "Suggests labels for plankton images; learned from the votes of annotators.",
        "",
        f"- Made {record['made_at']} in {record['seconds']:.0f} s, starting from "
        f"{record['encoder']}; trained: {record['trained']}.",
        f"- Images with votes: {who_taught(record)}, {counts.get('test', 0):,} were held out, "
        f"{counts.get('blind', 0):,} are blind (annotated without suggestions, only evaluated).",
        *_unlabelled(counts.get("unlabelled", 0), record["trained"]),
        f"- Split by {record['split']['unit']}: {record['split']['reason']}.",
        f"- Data fingerprint `{record['data_fingerprint'][:16]}`, config fingerprint "
        f"`{record['schema_fingerprint'][:16]}`.",
    ]
    for side, title in SIDES:
        lines += _figures(title, record["metrics"].get(side, {}))
        if side == "blind":
            lines += _blind(record["blind"])
    lines += _list("Controls without a head", record["left_out"])
    decision = record["promotion"]
    verdict = "Promoted" if decision["promoted"] else "Not promoted"
    lines += ["", "## Promotion", "", f"{verdict} when it was made: {decision['reason']}."]
    notes = [*record["notes"], *decision["notes"]]
    if notes:
        lines += ["", "## Beware", ""] + [f"- {note}" for note in notes]
    lines += [
        "",
        "## How to read its answers",
        "",
        *_sampling(record),
        "",
        *_calibration(record["heads"]),
        "",
        "Probabilities are at the natural frequencies of the training votes (the deployment "
        "prior); where frequencies differ (another sea, another season), they are off. Those of a "
        "control that is asked only under a condition hold given that condition. The expected "
        "calibration error (ECE) above says how far they are off on average, in brackets what it "
        "was before the prior correction.",
        "",
        *_leaning(record["settings"]["choice_balance"]),
        "",
    ]
    return "\n".join(lines)


def _unlabelled(count: int, trained: str) -> list[str]:
    if not count:
        return []
    if not trained.startswith(STUDENT):
        return [
            f"- Images without votes: {count} were to help, but what serves is taught by votes "
            "alone, which was better on the validation side or is all that can teach numbers."
        ]
    return [
        f"- Images without votes: {count} helped to train the whole network, once heads on frozen "
        "features had said what may be on them; none of them is held out or blind."
    ]


def _sampling(record: Mapping[str, Any]) -> list[str]:
    """How rare labels counted."""
    settings, trained = record["settings"], record["trained"]
    said = [_drawn(settings["balance"])]
    if settings["fine_tune"]["logit_adjustment"] and trained != FROZEN:
        said.append(
            "The loss of the whole network was adjusted by how often a label is drawn (logit "
            "adjustment, Menon et al. 2021), which gives rare labels more room."
        )
    elif settings["fine_tune"]["logit_adjustment"]:
        said.append("A loss adjusted to rare labels (logit adjustment) was tried, and not kept.")
    if settings["retrain_heads"]:
        kept = "and kept" if trained.endswith(HEADS_ANEW) else "and not kept"
        said.append(
            "Heads were fitted anew on the features of the whole network (decoupled training, Kang "
            f"et al. 2020), {kept}, as the validation side chose."
        )
    return [" ".join(said)]


def _drawn(balance: float) -> str:
    if not balance:
        return "Training images were drawn as they come."
    named = {0.5: "square-root balanced", 1.0: "fully balanced, every label equally often"}
    return (
        f"Training images were drawn with weights: a label's frequency to the power -{balance:g} "
        f"({named.get(balance, '1 is fully balanced')}), so rare labels were seen more often than "
        "they occur."
    )


def _calibration(heads: Sequence[Mapping[str, Any]]) -> list[str]:
    labelled = [head for head in heads if head["kind"] != "number"]
    if not labelled:
        return ["It answers numbers only, and so gives no probabilities.", *_intervals(heads)]
    untempered = [head["control"] for head in labelled if not head["tempered"]]
    fitted_on = _fitted_on(head for head in labelled if head["tempered"])
    text = (
        "Probabilities are calibrated in two steps: a temperature is fitted at the frequencies "
        f"that training saw, on {fitted_on}; then Bayes' rule moves them to the natural ones."
    )
    offset = [head["control"] for head in labelled if head.get("bias")]
    if offset:
        text += (
            f" Labels of {', '.join(offset)} also got an offset each, since that helped in "
            "cross-validation."
        )
    if untempered:
        text += (
            f" **Not calibrated: {', '.join(untempered)}** (fewer than "
            f"{MIN_IMAGES_FOR_TEMPERATURE} images with votes to fit it on, so the temperature "
            "stayed 1; only Bayes' rule was applied): such probabilities are often too sure."
        )
    return [text, *_intervals(heads)]


def _fitted_on(heads: Iterable[Mapping[str, Any]]) -> str:
    """Which images calibrated; those of a few controls alone are named."""
    heads = list(heads)
    alone = [head["control"] for head in heads if not head.get("cross_fitted")]
    if len(alone) == len(heads):
        return "the validation side"
    return CROSS_FITTED + (f" ({', '.join(alone)}: on the validation side)" if alone else "")


def _intervals(heads: Sequence[Mapping[str, Any]]) -> list[str]:
    known = [h for h in heads if h["kind"] == "number" and h.get("half_width_95")]
    if not known:
        return []
    names = ", ".join(head["control"] for head in known)
    text = f"The 95 % intervals of {names} are as wide as errors were on {_fitted_on(known)}"
    crosswise = any(head.get("cross_fitted") for head in known)
    promise = (
        "no guarantee; how often they hold is above" if crosswise else "conformal, Lei et al. 2018"
    )
    return ["", f"{text} ({promise})."]


def _leaning(choice_balance: float) -> list[str]:
    if not choice_balance:
        return ["The suggested label is the most probable one."]
    return [
        "The suggested label is not always the most probable one: it is the one with the highest "
        f"probability times its frequency to the power -{choice_balance:g}, which leans towards "
        "rare labels. The probability shown with it is not changed by that."
    ]


def _blind(blind: Mapping[str, Any]) -> list[str]:
    share = blind["share_in_training_samples"]
    if not share:
        return []
    return [
        "",
        f"{share:.0%} of the blind images are from samples that also have training images "
        f"({blind['images_apart']} are not): neighbouring images can show the same animal, so "
        "these figures can be too good.",
    ]


def _figures(title: str, metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    labelled = {name: m for name, m in metrics.items() if m["kind"] != "number"}
    numbers = {name: m for name, m in metrics.items() if m["kind"] == "number"}
    lines: list[str] = []
    if labelled:
        lines += [
            "",
            f"## {title}",
            "",
            "| control | images | macro recall [95 %] | macro precision | macro F1 | micro | ECE "
            "| NLL |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for name, m in labelled.items():
        low, high = m["macro_recall_interval"]
        few = " (few)" if m["few_images"] else ""
        lines.append(
            f"| {name} | {m['n_images']}{few} | {m['macro_recall']:.3f} [{low:.3f}, {high:.3f}] | "
            f"{m['macro_precision']:.3f} | {m['macro_f1']:.3f} | {m['micro_accuracy']:.3f} | "
            f"{m['ece']:.3f} ({m['ece_before_correction']:.3f}) | {m['nll']:.3f} |"
        )
    for name, m in labelled.items():
        lines += _worst(name, m["per_label"])
    if numbers:
        lines += [
            "",
            f"## {title}: numbers",
            "",
            "| control | unit | images | MAE | RMSE | R² | 90 % interval holds "
            "| 95 % interval holds | its width |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
    lines += [
        f"| {name} | {m['unit'] or ''} | {m['n_images']} | {m['mae']:.3g} | {m['rmse']:.3g} | "
        f"{m['r2']:.3f} | {m['interval_90_coverage']:.0%} | {_interval_95(m)} |"
        for name, m in numbers.items()
    ]
    return lines


def _interval_95(measured: Mapping[str, Any]) -> str:
    """Two cells: how often the 95 % interval holds, and how wide it is."""
    if measured["interval_95_coverage"] is None:
        return "not fitted |"
    return f"{measured['interval_95_coverage']:.0%} | {measured['interval_95_width']:.3g}"


def _worst(name: str, per_label: Mapping[str, Mapping[str, float]]) -> list[str]:
    occurring = {label: m for label, m in per_label.items() if m["support"]}
    if len(occurring) <= 2:
        return []
    worst = sorted(occurring, key=lambda label: occurring[label]["recall"])[:WORST_LABELS]
    named = ", ".join(
        f"{label} {occurring[label]['recall']:.2f} (of {occurring[label]['support']:.0f})"
        for label in worst
    )
    return ["", f"Lowest recall in {name}: {named}."]


def _list(title: str, reasons: Mapping[str, str]) -> list[str]:
    if not reasons:
        return []
    return ["", f"## {title}", ""] + [f"- {name}: {reason}" for name, reason in reasons.items()]

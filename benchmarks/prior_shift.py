"""Do corrected counts beat raw ones when the composition shifts, and do the intervals cover?

    python -m benchmarks.prior_shift path/to/ndsb --model models/ndsb-v0001

Held-out images (those that `benchmarks/ndsb.py` holds out; the model must not have seen them) are
predicted once. 500 of them at natural frequencies play the blind, validated images; from the others
200 samples of 300 images are drawn, whose compositions are drawn from Dirichlet(1) over the labels:
within a label without repetition, unless it has fewer images than the sample asks for. 200 samples
of Dirichlet(0.1) follow, most of which two or three labels rule as in a bloom; and, as a check that
the correction does no harm where nothing shifts, 200 at natural frequencies. All with 3 seeds.

Raw are the counts of the most probable label, and of the label that the product suggests, which
leans to rare ones. Each image's probabilities moved to the frequencies that the EM finds in its
sample are counted too, by Bayes' rule and in the published one-against-rest form; beside them the
calibration error (ECE) of the most probable label. Coverage is told of all pairs of label and
sample, of labels that occur in the sample, and of its most frequent label.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.ndsb import CONTROL, LABEL_SETS, manifest_of, read_table
from hpc_jobs import progress
from ml_backend.calibrate import correct_prior, expected_calibration_error
from ml_backend.model import TraitModel
from ml_backend.predict import predict
from ml_backend.priors import published_correction
from ml_backend.quantify import Counts, checked_prior, draw_counts, em_counts, log_likelihoods
from ml_backend.quantify_classifier import Correction

SAMPLES, SAMPLE_SIZE, VALIDATED = 200, 300, 500
SEEDS = (0, 1, 2)
COMPOSITIONS: dict[str, float | None] = {
    "Dirichlet(1)": 1.0,
    "Dirichlet(0.1)": 0.1,
    "natural frequencies": None,
}
"""Evenness of the samples' compositions; None where nothing shifts."""
MOVED: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "Bayes": partial(correct_prior, "one of"),
    "published": published_correction,
}


def predictions_of(model_folder: Path, data: Path, labels: str) -> dict[str, np.ndarray]:
    """What the model says of the held-out images, and their true labels by number."""
    table = read_table(data)
    table = table[table["held_out"]].reset_index(drop=True)
    predictions = predict(TraitModel.load(model_folder), manifest_of(table, data))
    served = next(s for s in predictions.served if s.head.control == CONTROL)
    truth = table.set_index("image")[LABEL_SETS[labels]]
    truth = truth.loc[predictions.images["image_id"]]
    known = truth.isin(served.labels).to_numpy()
    place = {label: number for number, label in enumerate(served.labels)}
    return {
        "probabilities": predictions.values[CONTROL][known],
        "suggested": predictions.choices[CONTROL].argmax(axis=1)[known],
        "truth": truth[known].map(place).to_numpy(dtype=int),
        "prior": np.array(served.deployed_prior),
        "labels": np.array(served.labels),
    }


def draw_samples(
    truth: np.ndarray, pool: np.ndarray, k: int, evenness: float | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the images of all samples, one after the other, and their true counts (200, k)."""
    of_label = [pool[truth[pool] == label] for label in range(k)]
    present = np.array([len(rows) > 0 for rows in of_label])
    natural = np.array([len(rows) for rows in of_label]) / len(pool)
    counts = np.zeros((SAMPLES, k), dtype=int)
    rows = []
    for sample in range(SAMPLES):
        composition = natural
        if evenness is not None:
            composition = np.zeros(k)
            composition[present] = rng.dirichlet(np.full(present.sum(), evenness))
        counts[sample] = rng.multinomial(SAMPLE_SIZE, composition)
        for label, count in enumerate(counts[sample]):
            images = of_label[label]
            if count:
                rows.append(rng.choice(images, count, replace=count > len(images)))
    return np.concatenate(rows), counts


def bray_curtis(counts: np.ndarray, truth: np.ndarray) -> float:
    """Mean over samples of the Bray-Curtis dissimilarity of counts to the true ones."""
    difference = np.abs(counts - truth).sum(axis=1)
    return float((difference / (counts + truth).sum(axis=1)).mean())


def counts_of(labels: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """How often each label stands in each sample, (200, k)."""
    return np.bincount(groups * k + labels, minlength=SAMPLES * k).reshape(SAMPLES, k)


def moved(
    data: dict[str, np.ndarray], rows: np.ndarray, groups: np.ndarray, true_counts: np.ndarray
) -> dict[str, float]:
    """Counts and calibration of probabilities at the prior of the model, and at each sample's."""
    probabilities, truth, k = data["probabilities"][rows], data["truth"][rows], len(data["labels"])
    prior = checked_prior(data["prior"], k)
    frequencies = em_counts(log_likelihoods(probabilities, prior), groups, SAMPLES) / SAMPLE_SIZE
    ways = {"raw, most probable": probabilities}
    for name, move in MOVED.items():
        ways[name] = np.concatenate(
            [move(probabilities[groups == g], prior, frequencies[g]) for g in range(SAMPLES)]
        )
    figures = {}
    for name, values in ways.items():
        chosen = values.argmax(axis=1)
        right, confidence = chosen == truth, values.max(axis=1)
        figures[name] = bray_curtis(counts_of(chosen, groups, k), true_counts)
        figures[f"{name}: accuracy"] = float(right.mean())
        figures[f"{name}: ECE"] = expected_calibration_error(confidence, right)
    return figures


def run(
    data: dict[str, np.ndarray], evenness: float | None, seed: int, validated: int
) -> dict[str, float]:
    """One seed: which images are validated, and which samples are drawn."""
    rng = np.random.default_rng(seed)
    probabilities, truth = data["probabilities"], data["truth"]
    k = len(data["labels"])
    order = rng.permutation(len(truth))
    blind, pool = order[:validated], order[validated:]
    rows, true_counts = draw_samples(truth, pool, k, evenness, rng)
    groups = np.repeat(np.arange(SAMPLES), SAMPLE_SIZE)
    prior = checked_prior(data["prior"], k)
    logs = log_likelihoods(probabilities, prior)
    correction = Correction(logs[blind], np.eye(k)[truth[blind]], prior, np.arange(len(blind)))
    figures = {
        **moved(data, rows, groups, true_counts),
        "raw, suggested": bray_curtis(counts_of(data["suggested"][rows], groups, k), true_counts),
        "EM": bray_curtis(em_counts(logs[rows], groups, SAMPLES), true_counts),
    }
    ruling = np.arange(SAMPLES), true_counts.argmax(axis=1)
    for name, checked in (("unchecked", None), ("corrected", correction)):
        draws = draw_counts(logs[rows], groups, SAMPLES, prior=prior, correction=checked, seed=seed)
        counts = Counts.of(draws)
        covered = (counts.low <= true_counts) & (true_counts <= counts.high)
        figures[name] = bray_curtis(counts.mean, true_counts)
        figures[f"{name}: coverage"] = float(covered.mean())
        figures[f"{name}: coverage of labels that occur"] = float(covered[true_counts > 0].mean())
        figures[f"{name}: coverage of the most frequent"] = float(covered[ruling].mean())
        figures[f"{name}: width"] = float((counts.high - counts.low).mean())
    figures["least coverage of a label"] = float(covered.mean(axis=0).min())
    for raw in ("most probable", "suggested"):
        figures[f"gain over {raw}"] = 1 - figures["corrected"] / figures[f"raw, {raw}"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of ndsb with labels.csv")
    parser.add_argument("--model", type=Path, help="folder of a version, trained on the rest")
    parser.add_argument("--labels", choices=LABEL_SETS, default="groups")
    parser.add_argument(
        "--predictions", type=Path, default=Path("prior_shift.npz"),
        help="where predictions are kept; used instead of --model when it is not given",
    )  # fmt: skip
    parser.add_argument("--validated", type=int, default=VALIDATED)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)

    if arguments.model is not None:
        with progress.quiet():
            predicted = predictions_of(arguments.model, arguments.data, arguments.labels)
        np.savez_compressed(arguments.predictions, **predicted)  # type: ignore[arg-type]
    data = dict(np.load(arguments.predictions))
    right = (data["probabilities"].argmax(axis=1) == data["truth"]).mean()
    print(f"{len(data['truth'])} held-out images, {right:.3f} of them right")
    results = {}
    for name, evenness in COMPOSITIONS.items():
        started_s = time.monotonic()
        with progress.quiet():
            seeds = [run(data, evenness, seed, arguments.validated) for seed in SEEDS]
        table = pd.DataFrame(seeds, index=[f"seed {seed}" for seed in SEEDS]).T
        table["mean"] = table.mean(axis=1)
        print(f"\n{SAMPLES} samples of {SAMPLE_SIZE}, {name}, {arguments.validated} validated")
        print(table.round(3).to_string())
        print(f"{time.monotonic() - started_s:.0f} s")
        results[name] = {
            figure: {"mean": row["mean"], "low": row.min(), "high": row.max()}
            for figure, row in table.round(4).iterrows()
        }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
